//! Capture files.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iopf_scene::fuzz::capture(data));
