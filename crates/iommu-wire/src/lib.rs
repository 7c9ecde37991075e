//! Records, registers and tables of IOMMUs, as bytes and as meaning.
//!
//! A *raw* type is the layout: little-endian, without padding, its size asserted beside it, the
//! specification's bit numbers on every field. A *meaning* is what a record says, with the
//! encoding gone. Decoding is total: it cannot fail on content, only on length. Codes that come
//! from the other side are open values: any number is one, and those we act on have names.
//!
//! There are no algorithms here, no allocation and no I/O.
#![no_std]
#![forbid(unsafe_code)]

pub mod amdvi;
pub mod pcie;
pub mod smmuv3;
pub mod vtd;
