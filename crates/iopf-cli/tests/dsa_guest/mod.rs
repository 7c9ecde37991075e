//! A guest with work queues of our DSA, set up with Debian's tool.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

pub(crate) mod scenarios;

use crate::served::Served;
use std::time::Duration;
use testkit::guest::{Guest, accel_config};
use testkit::kernel::{Stock, stock};

/// Where the device is.
pub(crate) const SLOT: &str = "dsa@07.0";

/// What a work queue is, as users set it up.
pub(crate) const QUEUE: &str = "--group-id=0 --mode=dedicated --wq-size=16 --priority=10 --type=user --name=iopf \
     --driver-name=user --block-on-fault=1 --max-transfer-size=16777216 --max-batch-size=32";

/// A guest with a work queue for processes.
pub(crate) fn guest(served: &mut Served) -> Guest {
    guest_with(served, 1, 1)
}

/// A guest with so many processors and work queues, each with an engine.
pub(crate) fn guest_with(served: &mut Served, processors: u8, queues: usize) -> Guest {
    let words = served.sva_words();
    guest_told(served, words, processors, queues)
}

/// The same, with these words on its command line.
pub(crate) fn guest_told(served: &mut Served, words: &str, processors: u8, queues: usize) -> Guest {
    let kernel = stock(Stock::Newest).expect("Debian's kernel");
    let guest = served.boot(
        Guest::builder(kernel)
            .append(&format!("{words} setcpuid=movdir64b"))
            .cpus(processors)
            .module("idxd")
            .program(accel_config().expect("Debian's tool")),
    );
    let step = |step: String| {
        let command = format!("exec /usr/bin/accel-config {step}");
        guest.must(&command).expect("the tool does this");
    };
    for queue in 0..queues {
        step(format!("config-wq dsa0/wq0.{queue} {QUEUE}"));
        step(format!("config-engine dsa0/engine0.{queue} --group-id=0"));
    }
    step("enable-device dsa0".to_owned());
    for queue in 0..queues {
        step(format!("enable-wq dsa0/wq0.{queue}"));
    }
    // Linux leaves huge pages off where memory is small.
    guest
        .must("write /sys/kernel/mm/transparent_hugepage/enabled madvise")
        .expect("a file of the kernel");
    guest
}

/// Lines of the kernel's log that no kernel should write.
pub(crate) fn complaints(guest: &Guest) -> Vec<String> {
    let words = [
        "BUG:",
        "WARNING:",
        "Oops",
        "Call Trace",
        "hung task",
        "soft lockup",
    ];
    let log = guest.log();
    let complains = |line: &&str| words.iter().any(|word| line.contains(word));
    log.lines().filter(complains).map(str::to_owned).collect()
}

/// Has a process and the device work on memory that comes, goes and changes hands, for so many seconds
/// with numbers from `seed`; the process knows what every byte has to be.
pub(crate) fn mix(guest: &Guest, seconds: u64, seed: u64) {
    let command = format!("exec /init run dsa-mix /dev/dsa/wq0.0 {seconds} {seed}");
    let patience = Duration::from_secs(seconds + 60);
    let output = guest
        .run_within(&command, patience)
        .expect("the guest answers");
    println!("seed {seed}: {:?}", output.lines);
    assert_eq!(output.status, 0, "seed {seed}: {:#?}", output.lines);
    let line = &output.lines[0];
    assert!(line.ends_with(" wrong=0"), "{line}");
    for none in ["descriptors=0 ", "refused=0 ", "forks=0 ", "maps=0 "] {
        assert!(!line.contains(none), "{line}");
    }
}
