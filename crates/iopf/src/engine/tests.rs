//! The engine, played from scripts.

mod default;
mod linux;
mod promises;
mod whole;
