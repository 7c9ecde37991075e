//! Ten minutes of processes and the DSA on memory that changes under the device.

mod dsa_guest;
mod process;
mod races;
mod served;

use dsa_guest::{SLOT, guest_with};
use process::Usage;
use races::{QUEUES, Totals, conclude, round};
use served::Served;

/// Rounds, each with processes of its own, and seconds of each.
const ROUNDS: u64 = 30;
const SECONDS: u64 = 20;

/// The server's own memory may grow by so many KiB after the first rounds.
const GROWTH: u64 = 4096;

#[test]
fn ten_minutes_of_races_use_no_stale_translation_and_lose_no_answer() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest_with(&mut served, 2, QUEUES);
    let mut totals = Totals::default();
    let mut early = None;
    for number in 0..ROUNDS {
        round(&guest, SECONDS, number, &mut totals);
        let usage = Usage::of(served.pid());
        println!("after round {number}: {usage}");
        if number == 2 {
            early = Some(usage);
        }
    }
    let (early, late) = (early.expect("it was taken"), Usage::of(served.pid()));
    assert_eq!(late.held(), early.held(), "threads and descriptors");
    assert!(late.own <= early.own + GROWTH, "{early}; later {late}");
    assert_eq!(totals.killed, ROUNDS / 3);
    conclude(served, &guest, &totals);
}
