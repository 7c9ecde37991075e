//! Half a minute of the soak, and that the soak would notice.

mod dsa_guest;
mod races;
mod served;

use dsa_guest::{SLOT, guest, guest_with};
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
