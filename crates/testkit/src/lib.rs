//! Scripted guests, table builders and literal vectors for tests.

pub mod qemu;
