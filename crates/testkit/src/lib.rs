//! Scripted guests, table builders and literal vectors for tests.

pub mod amdvi;
mod clock;
mod cross;
mod debian;
pub mod demo;
mod driver;
mod fake;
mod fault_log;
pub mod guest;
mod irq;
pub mod kernel;
mod mm;
mod mmio;
pub mod oracle;
mod page_groups;
pub mod paging;
pub mod qemu;
mod ram;
pub mod rig;
pub mod smmuv3;
mod tools;
pub mod vtd;

pub use clock::FakeClock;
pub use driver::{Driver, GuestError, Kernel, QueueError, StallStats};
pub use fake::FakeIommu;
pub use fault_log::{FaultLog, Tally};
pub use irq::Interrupts;
pub use mm::{Backing, Mm, Prot, SegmentationFault};
pub use page_groups::{Bindings, PageGroup, PageRequestStats};
pub use ram::{FRAME, OutOfMemory, Ram};
