//! Kernel logs as people paste them.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iopf_scene::fuzz::log(data));
