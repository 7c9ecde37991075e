//! Register writes, commands and DMA against the SMMUv3 model over hostile guest memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| viommu::fuzz::smmuv3_model(data));
