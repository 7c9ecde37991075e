//! Fault to answer on a real iommufd: the pump against the smallest loop, counted.
//!
//! Time under TCG is noise, so nothing here is time. Instructions of kernel and program together are
//! counted by the guest's time stamp counter, which is first held against loops of known length;
//! those of the program alone, and its system calls, by single-stepping.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::collections::BTreeMap;
use testkit::guest::{Builder, agent};
use testkit::rig::Rig;

/// Rounds of 256 faults for each answerer, in turns.
const ROUNDS: &str = "8";

/// One line of the program's.
#[derive(Debug)]
struct Line(BTreeMap<String, String>);

impl Line {
    fn parse(line: &str) -> Self {
        let pairs = line.split(' ').filter_map(|word| word.split_once('='));
        Self(pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    fn number(&self, name: &str) -> u64 {
        self.0[name].parse().unwrap()
    }

    fn ratio(&self, name: &str, of: u64) -> f64 {
        f64::from(u32::try_from(self.number(name)).unwrap()) / f64::from(u32::try_from(of).unwrap())
    }

    /// So much for each fault that was stepped.
    fn each(&self, name: &str) -> f64 {
        self.ratio(name, self.number("stepped"))
    }

    /// Instructions a fault, of kernel and program: the median of all turns.
    fn instructions(&self) -> f64 {
        self.ratio("median", self.number("waiting"))
    }

    /// The same with the timer's interrupts: the mean.
    fn mean(&self) -> f64 {
        self.ratio("all", self.number("turns") * self.number("waiting"))
    }
}

#[test]
fn the_pump_costs_no_more_calls_than_the_smallest_loop_and_about_a_tenth_more_instructions() {
    let program = agent::build("iopf-rig", "iopf-rig", "guest").unwrap();
    let rig = Rig::new(&program).unwrap();
    let rig = rig.argument("speed").argument(ROUNDS);
    let mut said = Vec::new();
    let ended = rig
        .guest(Builder::counted)
        .run(|_, _| (), &mut |_, line| said.push(line.to_owned()))
        .unwrap();
    let said = said.join("\n");
    assert_eq!(ended.code, 0, "{said}");
    let lines = |name: &str| -> Vec<Line> {
        let ours = said.lines().filter(|line| line.starts_with(name));
        ours.map(Line::parse).collect()
    };

    let calibration = &lines("calibration ")[0];
    let counted = calibration.number("counted") - calibration.number("empty");
    println!("a loop of 2000000 instructions counts as {counted}");
    // A few more set it up.
    assert!((2_000_000..2_000_100).contains(&counted), "{said}");

    println!(
        "{:>8} {:>9} {:>12} {:>8} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6} {:>12}",
        "waiting",
        "who",
        "instructions",
        "mean",
        "user",
        "calls",
        "poll",
        "read",
        "write",
        "other",
        "allocations"
    );
    let speed = lines("speed ");
    for line in &speed {
        println!(
            "{:>8} {:>9} {:>12.1} {:>8.1} {:>8.1} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>6.3} {:>12}",
            line.0["waiting"],
            line.0["who"],
            line.instructions(),
            line.mean(),
            line.each("user"),
            line.each("calls"),
            line.each("poll"),
            line.each("read"),
            line.each("write"),
            line.each("other"),
            line.0["allocations"],
        );
    }
    let of = |who: &str, waiting: &str| {
        let same = |line: &&Line| line.0["who"] == who && line.0["waiting"] == waiting;
        speed.iter().find(same).unwrap()
    };
    let mut ratios = Vec::new();
    for waiting in ["1", "64"] {
        let (smallest, pump) = (of("smallest", waiting), of("pump", waiting));
        let ratio = pump.instructions() / smallest.instructions();
        println!("with {waiting} waiting: {ratio:.3} times its instructions");
        ratios.push((waiting, ratio));
        assert_eq!(pump.number("allocations"), 0, "with {waiting} waiting");
        let (fewest, calls) = (smallest.each("calls"), pump.each("calls"));
        if waiting == "1" {
            assert!(calls <= fewest, "{calls} system calls a fault");
        } else {
            assert!(calls < fewest, "{calls} system calls a fault of many");
        }
    }
    for (waiting, ratio) in ratios {
        // The target is 1.1. Where the compiler puts things moves one group waiting by a hundredth: 1.091,
        // 1.094 and 1.101 were measured of nearly the same source.
        assert!(ratio <= 1.12, "with {waiting} waiting: {ratio:.3}");
    }
}
