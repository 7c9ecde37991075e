//! A hostile client of a vfio-user connection, without the socket.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vfio_user_server::fuzz::vfio_user_session(data));
