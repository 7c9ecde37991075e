//! Register writes, queues and DMA against the VT-d model over hostile guest memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viommu::fuzz::vtd_model(data));
