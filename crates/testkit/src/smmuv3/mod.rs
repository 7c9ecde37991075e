//! A guest that drives an SMMUv3 as Linux does, by a script.

pub mod numbers;
pub mod tables;

mod commands;
mod events;
mod guest;
mod hardware;
mod pages;
mod queue;

pub use events::Seen;
pub use guest::{Guest, Setup};
