//! Each resolver at work: a pump on a thread of its own, over a fault file in memory.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod drivers;
mod forward;
mod post_copy;
mod world;
