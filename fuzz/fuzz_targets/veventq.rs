//! Reads of a queue of a virtual IOMMU's events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iopf_host::fuzz::veventq(data));
