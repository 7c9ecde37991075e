//! Scripted guests, table builders and literal vectors for tests.

mod clock;
mod fake;
mod irq;
pub mod qemu;
mod ram;
pub mod vtd;

pub use clock::FakeClock;
pub use fake::FakeIommu;
pub use irq::Interrupts;
pub use ram::{FRAME, OutOfMemory, Ram};
