//! Ten minutes of processes and the DSA on memory that changes under the device.

mod dsa_guest;
mod process;
mod races;
mod served;

use dsa_guest::{SLOT, guest_with};
use process::Usage;
use races::{QUEUES, Totals, conclude, round};
use served::Served;
use std::time::{Duration, Instant};

/// How long it goes on, and seconds of one round, which has processes of its own.
const TIME: Duration = Duration::from_secs(600);
const SECONDS: u64 = 20;

/// The server's own memory may grow by so many KiB after the first rounds.
const GROWTH: u64 = 4096;

#[test]
fn ten_minutes_of_races_use_no_stale_translation_and_lose_no_answer() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest_with(&mut served, 2, QUEUES);
    let mut totals = Totals::default();
    let (mut early, mut rounds, start) = (None, 0, Instant::now());
    while start.elapsed() < TIME {
        round(&guest, SECONDS, rounds, &mut totals);
        rounds += 1;
        let usage = Usage::of(served.pid());
        println!("after {rounds} rounds: {usage}");
        if rounds == 3 {
            early = Some(usage);
        }
    }
    let (early, late) = (early.expect("it was taken"), Usage::of(served.pid()));
    assert_eq!(late.held(), early.held(), "threads and descriptors");
    assert!(late.own <= early.own + GROWTH, "{early}; later {late}");
    assert_eq!(totals.killed, rounds / 3);
    conclude(served, &guest, &totals);
}
