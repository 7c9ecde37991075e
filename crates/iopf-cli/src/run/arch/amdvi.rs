//! AMD-Vi, driven by a scripted guest.

use super::Scripted;
use std::sync::Arc;
use testkit::amdvi::{Guest, Setup};
use testkit::{GuestError, Interrupts, Ram};
use viommu::amdvi::{Amdvi, Config};
use viommu_api::{IrqSink, Registers};

impl Scripted for Amdvi {
    const NAME: &'static str = "amdvi";
    const LOST: &'static str = "faults the guest never saw: the event log was full";
    const HIDDEN: &'static str = "faults kept from the guest by SA or SE";
    type Guest = Guest;
    type Setup = Setup;

    fn config() -> Config {
        Config::default()
    }

    /// Logs of 256 entries. Without automatic responses, a page request that finds the log full is never
    /// answered.
    fn small_queues() -> Setup {
        Setup {
            event_length: 8,
            ppr_length: 8,
            auto_response: true,
        }
    }

    fn sink(irqs: Arc<Interrupts>) -> Arc<dyn IrqSink> {
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

    /// Events of commands have names too, which no walk ends with.
    fn name(code: u8) -> &'static str {
        match code {
            1 => "ILLEGAL_DEV_TABLE_ENTRY",
            2 => "IO_PAGE_FAULT",
            3 => "DEV_TAB_HARDWARE_ERROR",
            4 => "PAGE_TAB_HARDWARE_ERROR",
            5 => "ILLEGAL_COMMAND_ERROR",
            6 => "COMMAND_HARDWARE_ERROR",
            7 => "IOTLB_INV_TIMEOUT",
            8 => "INVALID_DEVICE_REQUEST",
            9 => "INVALID_PPR_REQUEST",
            _ => "",
        }
    }
}
