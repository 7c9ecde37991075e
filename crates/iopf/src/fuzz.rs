//! Plain functions over bytes, for a fuzzer and for the tests over its corpus.

use crate::engine::Policy;
use crate::script::{Play, Step};
use core::time::Duration;

/// Plays the engine from `data`, four bytes a step, under both policies; panics where a promise
/// is broken. Steps beyond the 512th are ignored, so that time is bounded.
pub fn engine_steps(data: &[u8]) {
    let strict = Policy::default().with_timeout(Some(Duration::from_nanos(1000)));
    for policy in [strict, Policy::linux()] {
        let mut play = Play::new(policy);
        let steps = data.as_chunks::<4>().0.iter().take(512);
        for (token, bytes) in (0u64..).zip(steps) {
            play.step(token, Step::from_bytes(*bytes));
        }
        play.finish();
    }
}

#[cfg(test)]
mod tests;
