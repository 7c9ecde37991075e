//! The kernel as oracle: scripts of steps that a model plays here and iommufd plays in a guest.
//!
//! [`Episode::random`] makes a script; [`World`] says what each step should come to, one line a step;
//! the guest's agent plays the same lines on the kernel (`guests/agent/src/commands/oracle.rs`).
//! [`Hits`] counts what was hit. `docs/oracle.md` says what is compared and how to run it.

mod generate;
mod hits;
mod shrink;
mod step;
mod world;

pub use generate::Episode;
pub use hits::{Branch, Hits, OUT_OF_REACH};
pub use shrink::shrink;
pub use step::{KINDS, NEST_PARENT, Name, Object, PASID, Page, Step, Table, Wrong};
pub use world::World;
