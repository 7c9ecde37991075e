//! What every comparison with QEMU shares: a machine, cases, chains of deviations, and the report.

mod board;
mod case;
mod generate;
mod machine;
mod run;

pub(crate) use board::{Board, Q35, VIRT};
pub(crate) use case::{
    Arch, BUSY, Case, DATA, Deviation, End, FIXED, NOWHERE, RAM_SIZE, Walked, Walking,
};
pub(crate) use generate::{Bits, Builder, address, device, pick};
pub(crate) use machine::{Bus, Device};
pub(crate) use run::differential;
