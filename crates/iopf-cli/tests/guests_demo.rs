//! The demonstration of `cargo xtask demo`, with the program as tests build it.

use std::path::Path;
use std::time::Duration;
use testkit::demo::{run, text};

#[test]
fn one_fault_is_told_by_the_guest_and_by_the_server_alike() {
    let mut told = Vec::new();
    let iopf = Path::new(assert_cmd::cargo::cargo_bin!("iopf"));
    let report = run(iopf, &mut told).unwrap_or_else(|error| panic!("{error}"));
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("accel-config has set up"), "{told}");
    let process = &report.process;
    assert_eq!((process.before, process.bytes), (0, 4096));
    assert_ne!(process.after, 0);
    // Question, request, interrupt, answer in the queue, answer, page; Linux may do more meanwhile.
    assert!(report.steps.len() >= 6, "{report:?}");
    assert!(report.steps.is_sorted_by_key(|step| step.at), "{report:?}");
    assert_eq!(report.steps.last().unwrap().at, report.total());
    assert!(report.guests > Duration::ZERO, "{report:?}");
    assert!(process.next > Duration::ZERO, "{report:?}");
    let mut story = String::new();
    text(&report, &mut story).unwrap();
    println!("{told}\n{story}");
}
