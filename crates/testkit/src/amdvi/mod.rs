//! A guest that drives AMD-Vi as Linux does, by a script.

pub mod numbers;
pub mod tables;

mod commands;
mod events;
mod guest;
mod hardware;
mod log;
mod ppr;

pub use events::Seen;
pub use guest::{Guest, Setup};
