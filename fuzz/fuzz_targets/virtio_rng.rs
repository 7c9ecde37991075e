//! Registers, configuration space and rings of the virtio entropy device.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| endpoint::fuzz::virtio_rng(data));
