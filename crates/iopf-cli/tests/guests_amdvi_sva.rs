//! Page requests all the way round on AMD-Vi: our device misses a page, the unit logs a request, the
//! unmodified kernel resolves it and answers through its command buffer, the device goes on.

mod dsa_guest;
mod served;

use dsa_guest::scenarios::{all_pass, run};
use dsa_guest::{SLOT, complaints, guest, guest_told, mix};
use served::Served;

/// Debian's newest kernel with its own `idxd`, and nothing on its command line that is about AMD-Vi.
fn serve(more: &[&str]) -> Served {
    Served::start(&[&["--arch", "amdvi", "--endpoint", SLOT], more].concat())
}

#[test]
fn processes_share_every_kind_of_memory_with_the_device() {
    let mut served = serve(&["--trace"]);
    let guest = guest(&mut served);
    // `pdev_enable_cap_pri` of Linux allows 32.
    all_pass(&guest, &mut served, 32);
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
    assert_eq!(last["counts"]["page_requests_lost"], 0, "{last}");
}

/// The device's own tables stay what they were: with PASIDs, Linux gives it none.
#[test]
fn a_kernel_that_prefers_guest_tables_does_the_same() {
    let mut served = serve(&["--trace"]);
    let guest = guest_told(&mut served, "amd_iommu=pgtbl_v2", 1, 1);
    let log = guest.must("dmesg").expect("a log").join("\n");
    assert!(log.contains("AMD-Vi: V2 page table enabled"), "{log}");
    for scenario in ["operations", "anonymous", "read-only"] {
        let (lines, status) = run(&guest, scenario);
        assert_eq!(status, 0, "{scenario}: {lines:#?}");
    }
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
    assert!(last["counts"]["responses"].as_u64() >= Some(3), "{last}");
}

#[test]
fn a_process_that_dies_under_the_device_takes_nothing_with_it() {
    let mut served = serve(&["--trace"]);
    let guest = guest(&mut served);
    for round in 0..5 {
        let (lines, status) = run(&guest, "kill");
        assert_eq!(lines[0], "the device is at work", "{round}");
        assert_eq!(status, 128 + 9, "{round}: {lines:?}");
        let (lines, status) = run(&guest, "anonymous");
        assert_eq!(status, 0, "{round}: {lines:?}");
    }
    assert_eq!(complaints(&guest), [""; 0]);
    served.stop();
}

#[test]
fn mixed_traffic_uses_no_stale_translation() {
    let mut served = serve(&[]);
    let guest = guest(&mut served);
    mix(&guest, 8, 1);
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    assert_eq!(last["counts"]["faults"], 0, "{last}");
}
