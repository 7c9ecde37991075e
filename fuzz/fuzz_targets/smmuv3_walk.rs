//! SMMUv3 walks over hostile tables.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iommu_walk::fuzz::smmuv3_walk(data));
