//! A guest that drives VT-d as Linux does, by a script.

pub mod numbers;
pub mod tables;

mod faults;
mod guest;
mod prq;
mod queue;

pub use faults::Seen;
pub use guest::{Guest, Setup};
