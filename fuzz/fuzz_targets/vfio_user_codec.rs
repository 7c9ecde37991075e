//! Bytes as vfio-user messages, there and back.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vfio_user_server::fuzz::vfio_user_codec(data));
