//! Intel VT-d, driven by a scripted guest.

use super::Scripted;
use iommu_walk::vtd::Cause;
use iopf::Reason;
use std::sync::Arc;
use testkit::vtd::{Guest, Setup};
use testkit::{GuestError, Interrupts, Ram};
use viommu::vtd::{Config, Vtd};
use viommu_api::{MsiSink, Registers};

impl Scripted for Vtd {
    const NAME: &'static str = "vtd";
    const LOST: &'static str = "faults the guest never saw: no recording register was free";
    const HIDDEN: &'static str = "faults kept from the guest by FPD";
    type Guest = Guest;
    type Setup = Setup;

    /// The default, with a few more recording registers.
    fn config() -> Config {
        Config {
            fault_records: 8,
            ..Config::default()
        }
    }

    /// A page request queue of 128 entries. A unit answers what finds it full.
    fn small_queues() -> Setup {
        Setup {
            prq_order: 0,
            ..Setup::default()
        }
    }

    fn sink(irqs: Arc<Interrupts>) -> Arc<dyn MsiSink> {
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
