//! VT-d walks over hostile tables.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iommu_walk::fuzz::vtd_walk(data));
