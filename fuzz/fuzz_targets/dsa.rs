//! Registers, portals, descriptors and page responses of the DSA.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzz::dsa(data));
