//! Half a minute of the soak, the same without ATS, and that the soak would notice.

mod dsa_guest;
mod races;
mod served;

use dsa_guest::{QUEUE, SLOT, complaints, guest, guest_with};
use races::{QUEUES, Totals, conclude, round};
use served::Served;

#[test]
fn half_a_minute_of_races_uses_no_stale_translation_and_loses_no_answer() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest_with(&mut served, 2, QUEUES);
    let mut totals = Totals::default();
    for number in 0..3 {
        round(&guest, 10, number, &mut totals);
    }
    assert_eq!(totals.killed, 1);
    conclude(served, &guest, &totals);
}

#[test]
fn a_device_that_ignores_invalidations_is_found_out() {
    // Reads only: a stale write would hit a page of the guest's kernel.
    let command = "exec /init run dsa-soak /dev/dsa/wq0.0 5000 7 reads";
    for (function, stale) in [(SLOT, false), ("deaf-dsa@07.0", true)] {
        let mut served = Served::start(&["--endpoint", function]);
        let guest = guest(&mut served);
        let output = guest.run(command).unwrap();
        println!("{function}: {:#?}", output.lines);
        let text = output.lines.join("\n");
        assert_eq!(output.status != 0, stale, "{function}: {text}");
        assert_eq!(text.contains("stale: "), stale, "{function}: {text}");
        served.stop();
    }
}

#[test]
fn requests_without_ats_use_no_stale_translation_of_the_units_own_tlb() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest(&mut served);
    // Once disabled, they forget what they were.
    for step in [
        "exec /usr/bin/accel-config disable-device dsa0",
        &format!("exec /usr/bin/accel-config config-wq dsa0/wq0.0 {QUEUE}"),
        "exec /usr/bin/accel-config config-engine dsa0/engine0.0 --group-id=0",
        "write /sys/bus/dsa/devices/wq0.0/ats_disable 1",
        "exec /usr/bin/accel-config enable-device dsa0",
        "exec /usr/bin/accel-config enable-wq dsa0/wq0.0",
    ] {
        guest.must(step).expect("the driver does this");
    }
    let command = "exec /init run dsa-soak /dev/dsa/wq0.0 5000 7 present";
    let output = guest.run(command).expect("an answer");
    println!("{:#?}", output.lines);
    assert_eq!(output.status, 0, "{:#?}", output.lines);
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    let counts = &last["counts"];
    assert_eq!(counts["faults"], 0, "{counts}");
    // The completion of a descriptor is all that can be lost here, and the agent waits for each.
    assert_eq!(counts["groups"], 0, "no page was asked for: {counts}");
    assert!(counts["bytes"].as_u64() > Some(1 << 20), "{counts}");
}
