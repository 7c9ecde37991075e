//! What a run asks of an architecture beside the device itself: a guest, and names.

mod amdvi;
mod smmuv3;
mod vtd;

use std::error::Error;
use std::sync::Arc;
use testkit::{Driver, GuestError, Interrupts, Ram};
use viommu::arch::Arch;
use viommu_api::Registers;
use vm_memory::GuestMemoryMmap;

/// A unit in front of memory of this process.
pub(crate) type Unit<X> = viommu::Unit<X, Arc<GuestMemoryMmap<()>>>;

/// A fault record as the guest reads it.
pub(crate) type Seen<X> = <<X as Scripted>::Guest as Driver>::Seen;

/// An architecture that has a scripted guest.
pub(crate) trait Scripted: Arch<Refused: Error + Send + Sync> {
    /// As `--arch` has it.
    const NAME: &'static str;
    /// What it is called when a fault finds no room.
    const LOST: &'static str;
    /// What it is called when the guest's own tables keep a fault from it.
    const HIDDEN: &'static str;

    /// The guest.
    type Guest: Driver;
    /// How the guest is set up.
    type Setup: Copy + Default;

    /// A unit that shared virtual addressing works on.
    fn config() -> Self::Config;

    /// The smallest queues there are, and a unit that answers what finds them full.
    fn small_queues() -> Self::Setup;

    /// Where the unit's interrupts go.
    fn sink(irqs: Arc<Interrupts>) -> Arc<Self::Sink>;

    /// Boots the guest.
    ///
    /// # Errors
    /// Where the unit lacks what the guest needs, or does not come up.
    fn guest(
        regs: Arc<dyn Registers>,
        ram: Arc<Ram>,
        irqs: Arc<Interrupts>,
        setup: Self::Setup,
    ) -> Result<Self::Guest, GuestError>;

    /// The specification's name of the code of a record; empty where it has none.
    fn name(code: u8) -> &'static str;
}
