//! A kernel without memory or descriptors, put in on purpose: the host half says so, leaves nothing
//! behind, loses nothing, and goes on. The checks themselves are in `guests/rig/src/faults.rs`; here
//! it is seen that each of them had something to check.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use testkit::guest::agent;
use testkit::rig::Rig;

/// The number behind `name=` in the line of `part`.
fn number(said: &str, part: &str, name: &str) -> u64 {
    let line = said.lines().find(|line| line.starts_with(part));
    let mut words = line.unwrap().split(' ');
    let word = words.find_map(|word| word.strip_prefix(&format!("{name}=")));
    word.unwrap().parse().unwrap()
}

#[test]
fn a_kernel_without_memory_or_descriptors_loses_nothing_of_ours() {
    let program = agent::build("iopf-rig", "iopf-rig", "guest").unwrap();
    let rig = Rig::new(&program).unwrap().argument("faults");
    let mut said = Vec::new();
    let ended = rig.run(|_, _| (), &mut |_, line| said.push(line.to_owned()));
    let said = said.join("\n");
    println!("{said}");
    assert_eq!(ended.unwrap().code, 0, "{said}");
    let number = |part, name| number(&said, part, name);

    // Each allocation on the way to one of each object.
    assert!(number("objects", "failures") >= 50);
    // Reads without memory.
    for part in ["reads", "pump"] {
        assert_eq!(number(part, "failures"), 20);
        assert_eq!(number(part, "asked"), number(part, "answered"));
    }
    assert_eq!(number("reads", "stale"), 0);
    assert_eq!(number("pump", "told"), number("pump", "failures"));
    // Each allocation of a report: every page is in one of the counts, and each count was hit.
    let fates = ["read", "failed", "refused", "dropped"].map(|fate| number("reports", fate));
    assert_eq!(fates.iter().sum::<u64>(), number("reports", "asked"));
    assert!(!fates.contains(&0));
    // EMFILE is 24 in Linux's include/uapi/asm-generic/errno-base.h.
    for what in ["FaultQueueObject", "Veventq", "Iommufd", "Pump"] {
        assert_eq!(number("limits", what), 24);
    }
}
