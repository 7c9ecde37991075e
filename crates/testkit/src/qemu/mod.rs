//! QEMU as a second author: a private copy of it, and a client for its test protocol.
//!
//! [`root::ensure_for`] finds or fetches a QEMU that is new enough, without touching the system;
//! [`qtest::Qtest`] starts it without a guest and drives its memory, registers and clock.

pub mod qtest;
pub mod root;
