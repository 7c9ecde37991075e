//! Scripts of engine steps, checked against the promises of the default policy.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iopf::fuzz::engine_steps(data));
