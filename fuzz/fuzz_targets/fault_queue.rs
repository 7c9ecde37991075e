//! Reads of a fault queue, and how its file takes the answers.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iopf_host::fuzz::fault_queue(data));
