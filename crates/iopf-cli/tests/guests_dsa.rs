//! Shared virtual addressing on an unmodified Debian kernel: its `idxd` driver binds our DSA, Debian's
//! `accel-config` sets a work queue up, and processes hand their own memory to the device.

mod dsa_guest;
mod served;

use dsa_guest::scenarios::{all_pass, run};
use dsa_guest::{SLOT, complaints, guest, mix};
use served::Served;

#[test]
fn processes_share_every_kind_of_memory_with_the_device() {
    let mut served = Served::start(&["--endpoint", SLOT, "--trace"]);
    let guest = guest(&mut served);
    all_pass(&guest, &mut served, 64);
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
    assert_eq!(last["counts"]["page_requests_lost"], 0, "{last}");
}

#[test]
fn a_process_that_dies_under_the_device_takes_nothing_with_it() {
    let mut served = Served::start(&["--endpoint", SLOT, "--trace"]);
    let guest = guest(&mut served);
    for round in 0..5 {
        let (lines, status) = run(&guest, "kill");
        assert_eq!(lines[0], "the device is at work", "{round}");
        assert_eq!(status, 128 + 9, "{round}: {lines:?}");
        let (lines, status) = run(&guest, "anonymous");
        assert_eq!(status, 0, "{round}: {lines:?}");
    }
    let log = guest.must("dmesg").unwrap();
    let faults: Vec<_> = log.iter().filter(|l| l.contains("DMAR: [DMA")).collect();
    assert!(!faults.is_empty(), "{log:#?}");
    for line in faults {
        // SPT.2: the kernel takes a dead process's entry out of the PASID table.
        for part in [
            "DMA Write PASID 0x",
            "[0000:00:07.0]",
            "[fault reason 0x59]",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
    // The driver shows the software error register of each descriptor it could not be told of.
    let errors = log.iter().filter_map(|l| l.split_once("err[0]: 0x"));
    let errors: Vec<_> = errors
        .map(|(_, word)| u64::from_str_radix(word, 16).unwrap())
        .collect();
    assert!(!errors.is_empty(), "{log:#?}");
    for word in errors {
        // A fill of work queue 0 whose completion record could not be written: error 0x1a.
        let known = word & !(0xf_ffff << 40) & !2;
        assert_eq!(known, 0x4_0000_1a2d, "apart from PASID and overflow");
    }
    assert_eq!(complaints(&guest), [""; 0]);
    served.stop();
}

#[test]
fn half_a_minute_of_mixed_traffic_uses_no_stale_translation() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest(&mut served);
    mix(&guest, 30, 1);
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
}
