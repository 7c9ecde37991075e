//! Captures, parsed and explained.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iopf_scene::fuzz::explain(data));
