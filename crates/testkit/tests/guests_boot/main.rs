//! Each kernel boots to our agent, the agent does what it is told, and a guest that goes wrong is
//! reported with its log and ended.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod arm64;
mod bed;
mod x86_64;
