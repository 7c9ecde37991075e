//! Walks of IOMMU configuration and page tables, with the whole trail of a failure.
//!
//! A walk reads a guest's own tables through [`TableMem`] and changes nothing: accessed and dirty
//! updates come back as [`Updates`] for the caller to apply. It ends with a translation, or with a
//! failure that names the condition, the table and the bits; which record that becomes is for the
//! device model to say. A [`Recorder`] sees every step: `()` records nothing and costs nothing, a
//! [`Trail`] keeps everything.
//!
//! The loop over page tables is written once; formats are data ([`Format`]).
#![no_std]
#![forbid(unsafe_code)]

#[cfg(any(test, feature = "fuzzing"))]
extern crate std;

pub mod amdvi;
mod failure;
mod format;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
mod mem;
mod outcome;
pub mod smmuv3;
mod stage;
mod trail;
pub mod vtd;

pub use failure::{Applied, Completion, Failure};
pub use format::{Format, Granules, Pages4K};
pub use mem::{TableMem, TableMemMut, Unreachable, Words};
pub use outcome::{Outcome, PageTable, Rights, Translation};
pub use trail::{Raw, Recorder, Stage, Step, Table, Trail, Update, Updates, Verdict};
