//! The engine, played from scripts.

mod promises;
