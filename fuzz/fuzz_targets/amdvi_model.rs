//! Register writes, commands and DMA against the AMD-Vi model over hostile guest memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viommu::fuzz::amdvi_model(data));
