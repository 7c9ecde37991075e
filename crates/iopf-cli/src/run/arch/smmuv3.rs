//! Arm SMMUv3, driven by a scripted guest.

use super::Scripted;
use iommu_walk::smmuv3::Cause;
use iopf::Reason;
use std::sync::Arc;
use testkit::smmuv3::{Guest, Setup};
use testkit::{GuestError, Interrupts, Ram};
use viommu::smmuv3::{Config, Smmuv3};
use viommu_api::{Registers, WiredSink};

impl Scripted for Smmuv3 {
    const NAME: &'static str = "smmuv3";
    const LOST: &'static str = "faults the guest never saw: the Event queue was full";
    const HIDDEN: &'static str = "faults kept from the guest by R, S2R or RECINVSID";
    type Guest = Guest;
    type Setup = Setup;

    fn config() -> Config {
        Config::default()
    }

    /// Queues of 128 entries. An SMMU answers page requests that find the queue full.
    fn small_queues() -> Setup {
        Setup {
            event_bits: 7,
            page_bits: 7,
            ..Setup::default()
        }
    }

    fn sink(irqs: Arc<Interrupts>) -> Arc<dyn WiredSink> {
        irqs
    }

    fn guest(
        regs: Arc<dyn Registers>,
        ram: Arc<Ram>,
        irqs: Arc<Interrupts>,
        setup: Setup,
    ) -> Result<Guest, GuestError> {
        Guest::boot(regs, ram, irqs, setup)
    }

    fn name(code: u8) -> &'static str {
        let reason = Reason(u32::from(code));
        Cause::ALL
            .iter()
            .find(|cause| cause.reason() == reason)
            .map_or("", |cause| cause.code())
    }
}
