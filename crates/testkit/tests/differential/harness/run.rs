//! Runs the cases of one mode and says how they compare.

use super::case::{Arch, Case, Deviation, End, Walked};
use super::generate;
use super::machine::{Machine, Observed};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::time::Instant;
use testkit::qemu::root;

/// The seed of a run that names none.
const SEED: u64 = 0x1237;

/// As many disagreements are printed in full.
const SHOWN: usize = 5;

/// As many end the run.
const ENOUGH: usize = 25;

/// What became of a case.
enum Verdict {
    Agreed,
    /// These departures of QEMU, in this order, turn our result into QEMU's.
    Known(Vec<&'static str>),
    Disagreed,
}

/// Plays `count` cases of `mode` against QEMU with this unit.
///
/// # Panics
/// On an unexplained disagreement, and on a deviation of this mode that no case met.
pub(crate) fn differential<A: Arch>(device: &str, mode: A::Mode, count: u64) {
    let root = root::ensure_for(A::BOARD.target).unwrap_or_else(|error| panic!("{error}"));
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>());
    let seed = number("IOPF_SEED").map_or(SEED, |n| n.expect("IOPF_SEED is a number"));
    let only = number("IOPF_CASE").map(|n| n.expect("IOPF_CASE is a number"));
    let mut machine =
        Machine::<A>::start(root, device, mode).unwrap_or_else(|error| panic!("{error}"));
    let unit = machine.iommu.unit();
    println!("{device}: {}, seed {seed}", root.version());
    println!("  {}", machine.iommu.capabilities());

    let known = A::deviations(mode);
    let mut hits: BTreeMap<&str, u64> = known.iter().map(|d| (d.name, 0)).collect();
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let (mut played, mut agreed, mut explained, mut wrong) = (0_u32, 0, 0, Vec::new());
    let started = Instant::now();
    let numbers = only.map_or(0..count, |one| one..one + 1);
    for number in numbers {
        let (walked, likely) = watchable_case(seed, number, mode, unit, &known);
        let observed = machine
            .run(&walked.case, &likely)
            .unwrap_or_else(|error| panic!("case {number} of seed {seed}: {error}"));
        *ends.entry(kind(&observed.end)).or_default() += 1;
        match judge(&walked, &observed, &known) {
            Verdict::Agreed => agreed += 1,
            Verdict::Known(names) => {
                explained += 1;
                for name in names {
                    *hits.entry(name).or_default() += 1;
                }
            }
            Verdict::Disagreed => wrong.push((number, walked, observed)),
        }
        played += 1;
        if wrong.len() == ENOUGH {
            break;
        }
    }
    let taken = started.elapsed().as_secs_f64();
    let rate = f64::from(played) / taken;
    println!("  {played} cases in {taken:.1} s, {rate:.0} a second");
    println!("  {agreed} agree, {explained} after known deviations of QEMU:");
    for (name, count) in &hits {
        println!("  {count:>6}  {name}");
    }
    println!("  what QEMU did:");
    for (end, count) in &ends {
        println!("  {count:>6}  {end}");
    }
    for (number, walked, observed) in wrong.iter().take(SHOWN) {
        show(*number, seed, walked, observed);
    }
    assert!(
        wrong.is_empty(),
        "{} of {played} cases disagree; the first: IOPF_SEED={seed} IOPF_CASE={}",
        wrong.len(),
        wrong[0].0
    );
    if only.is_none() {
        let unused: Vec<_> = hits.iter().filter(|(_, n)| **n == 0).collect();
        assert!(unused.is_empty(), "deviations that no case met: {unused:?}");
    }
}

/// The case of this number, walked: the first of its stream that the harness can watch, whichever
/// way QEMU goes. With it, where its DMA may land.
fn watchable_case<A: Arch>(
    seed: u64,
    number: u64,
    mode: A::Mode,
    unit: A::Unit,
    known: &[&'static Deviation<A>],
) -> (Walked<A>, Vec<u64>) {
    let mut rng = Rng::with_seed(seed << 32 | number);
    loop {
        let walked = Walked::new(A::case(&mut rng, mode), unit);
        let states = reachable(&walked, known);
        let ends = states.iter().filter_map(|state| match state.end {
            End::Memory(at) => Some(at),
            _ => None,
        });
        let likely: Vec<u64> = ends.collect();
        let steps = states.iter().flat_map(|state| state.trail.steps());
        let steps = steps.map(|step| step.addr.0);
        if generate::watchable(&walked.case.memory, &likely, steps) {
            return (walked, likely);
        }
    }
}

fn same<A: Arch>(walked: &Walked<A>, original: &Case<A>, observed: &Observed<A>) -> bool {
    walked.end == observed.end && walked.words(original) == observed.words
}

/// The longest chain of deviations that one case may need.
const CHAIN: usize = 7;

/// Compares; where the sides differ, looks for the shortest chain of known deviations.
fn judge<A: Arch>(
    walked: &Walked<A>,
    observed: &Observed<A>,
    known: &[&'static Deviation<A>],
) -> Verdict {
    let original = &walked.case;
    if same(walked, original, observed) {
        return Verdict::Agreed;
    }
    let mut chains = vec![(Vec::new(), walked.clone())];
    for _ in 0..CHAIN {
        let mut longer = Vec::new();
        for (names, state) in &chains {
            for deviation in known {
                if names.last() == Some(&deviation.name) {
                    continue;
                }
                let Some(next) = (deviation.as_qemu)(state) else {
                    continue;
                };
                let mut names: Vec<&'static str> = names.clone();
                names.push(deviation.name);
                if same(&next, original, observed) {
                    return Verdict::Known(names);
                }
                // Another order of the same departures.
                if !longer.iter().any(|(_, known)| next.alike(known)) {
                    longer.push((names, next));
                }
            }
        }
        chains = longer;
    }
    Verdict::Disagreed
}

/// What may become of a case: what our walk makes of it, and what any chain of deviations does.
fn reachable<A: Arch>(walked: &Walked<A>, known: &[&'static Deviation<A>]) -> Vec<Walked<A>> {
    let mut states = vec![walked.clone()];
    let mut from = 0;
    for _ in 0..CHAIN {
        let newest = &states[from..];
        let next = |state| known.iter().filter_map(move |d| (d.as_qemu)(state));
        let next: Vec<_> = newest.iter().flat_map(next).collect();
        from = states.len();
        for state in next {
            if !states.iter().any(|known| state.alike(known)) {
                states.push(state);
            }
        }
    }
    states
}

fn kind<A: Arch>(end: &End<A>) -> String {
    match end {
        End::Memory(_) => "reached memory".to_owned(),
        End::Nothing => "reached nothing, no record".to_owned(),
        End::Fault(record) => A::kind(record),
    }
}

fn show<A: Arch>(number: u64, seed: u64, walked: &Walked<A>, observed: &Observed<A>) {
    println!("\ncase {number} of seed {seed}: {:?}", walked.case);
    println!("  ours: {:?}; {:?}", walked.end, walked.failure);
    println!("  QEMU: {:?}", observed.end);
    for (at, ours) in walked.words(&walked.case) {
        let theirs = observed.words.get(&at).copied().unwrap_or_default();
        if ours != theirs {
            println!("  [{at:#x}] ours {ours:#018x}, QEMU {theirs:#018x}");
        }
    }
    for step in walked.trail.steps() {
        println!("  {step:?}");
    }
}
