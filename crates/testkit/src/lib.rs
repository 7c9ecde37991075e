//! Scripted guests, table builders and literal vectors for tests.

mod clock;
mod debian;
pub mod demo;
mod fake;
pub mod guest;
mod irq;
pub mod kernel;
pub mod oracle;
pub mod qemu;
mod ram;
pub mod rig;
pub mod vtd;

pub use clock::FakeClock;
pub use fake::FakeIommu;
pub use irq::Interrupts;
pub use ram::{FRAME, OutOfMemory, Ram};
