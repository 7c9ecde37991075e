//! Ten minutes of shared memory between processes and the DSA on Debian's kernel.

mod dsa_guest;
mod served;

use dsa_guest::{SLOT, complaints, guest, mix};
use served::Served;

/// Processes, one after the other, and seconds of each: an address space ends with its process.
const ROUNDS: u64 = 10;
const SECONDS: u64 = 60;

#[test]
fn ten_minutes_of_mixed_traffic_use_no_stale_translation_and_lose_no_answer() {
    let mut served = Served::start(&["--endpoint", SLOT]);
    let guest = guest(&mut served);
    for seed in 1..=ROUNDS {
        mix(&guest, SECONDS, seed);
    }
    assert_eq!(complaints(&guest), [""; 0]);
    let last = served.stop();
    let counts = &last["counts"];
    println!("{counts}");
    for none in [
        "faults",
        "page_requests_lost",
        "responses_lost",
        "queue_errors",
    ] {
        assert_eq!(counts[none], 0, "{none}: {last}");
    }
}
