//! Writes of any length and place into a configuration space.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzz::config_space(data));
