//! QEMU's AMD-Vi unit, and our walk beside it.

use super::{Amdvi, deviations, generate};
use crate::harness::{Arch, BUSY, Board, Bus, Case, Deviation, Device, End, FIXED, Q35, Walking};
use fastrand::Rng;
use iommu_walk::amdvi::{Failure, Outcome, Unit, translate};
use iommu_wire::amdvi::event::EventCode;
use std::fmt;
use testkit::qemu::qtest::{QtestError, Read};
use viommu::amdvi::fault_event;

/// Where QEMU has the registers: `hw/i386/amd_iommu.h`, `AMDVI_BASE_ADDR`.
const UNIT: u64 = 0xfed8_0000;
/// Offsets as AMD 48882, "MMIO Registers"; Linux `drivers/iommu/amd/amd_iommu_types.h`,
/// `MMIO_*_OFFSET`.
const DEVICE_TABLE: u64 = 0x00;
const COMMAND_BASE: u64 = 0x08;
const EVENT_BASE: u64 = 0x10;
const CONTROL: u64 = 0x18;
const EXCLUSION_BASE: u64 = 0x20;
const EXCLUSION_LIMIT: u64 = 0x28;
const FEATURES: u64 = 0x30;
const COMMAND_TAIL: u64 = 0x2008;
const EVENT_TAIL: u64 = 0x2018;
/// `IommuEn`, `EventLogEn` and `CmdBufEn`.
const ENABLED: u64 = 1 << 0 | 1 << 2 | 1 << 12;
/// Of the command buffer and the event log: 256 entries, the fewest.
const SMALLEST: u64 = 8 << 56;
/// Of a command, and of an event.
const ENTRY: u64 = 16;
const INVALIDATE_DEVTAB_ENTRY: u64 = 2 << 60;
const INVALIDATE_IOMMU_ALL: u64 = 8 << 60;

/// Tables of the harness: a device table of two pages without a valid entry, which lets every request
/// pass; commands; the event log.
const OPEN_TABLE: u64 = FIXED | 1;
const COMMANDS: u64 = FIXED + 0x2000;
const EVENTS: u64 = FIXED + 0x3000;
/// As many commands as forget all of the case before.
const COMMAND_COUNT: u64 = Device::ALL.len() as u64 + 1;

/// The registers of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// The Device Table Base Address Register.
    pub(crate) table: u64,
    /// The Exclusion Base and Exclusion Range Limit Registers.
    pub(crate) exclusion: [u64; 2],
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [base, limit] = self.exclusion;
        write!(
            f,
            "device table {:#x}, exclusion {base:#x} {limit:#x}",
            self.table
        )
    }
}

impl Arch for Amdvi {
    const BOARD: Board = Q35;

    type Mode = ();
    type Setup = Setup;
    type Unit = Unit;
    type Failure = Failure;
    type Record = Vec<Event>;

    fn start(bus: &mut Bus, (): ()) -> Result<Self, QtestError> {
        let devices = Device::ALL.map(|device| INVALIDATE_DEVTAB_ENTRY | u64::from(device.rid()));
        let commands = devices.into_iter().chain([INVALIDATE_IOMMU_ALL]);
        for (at, command) in (COMMANDS..).step_by(16).zip(commands) {
            bus.put(at, command);
        }
        bus.qtest.writeq(UNIT + EVENT_BASE, EVENTS | SMALLEST)?;
        bus.qtest.writeq(UNIT + COMMAND_BASE, COMMANDS | SMALLEST)?;
        bus.qtest.writeq(UNIT + CONTROL, ENABLED)?;
        let efr = bus.qtest.readq(UNIT + FEATURES)?;
        Ok(Self { efr })
    }

    fn capabilities(&self) -> String {
        format!("EFR {:#x}", self.efr)
    }

    fn unit(&self) -> Unit {
        Unit::new(self.efr, 0)
    }

    fn enter(&self, bus: &mut Bus, case: Option<&Case<Self>>) -> Result<(), QtestError> {
        let open = Setup {
            table: OPEN_TABLE,
            exclusion: [0; 2],
        };
        let setup = case.map_or(open, |case| case.setup);
        bus.qtest.writeq(UNIT + DEVICE_TABLE, setup.table)?;
        bus.qtest
            .writeq(UNIT + EXCLUSION_BASE, setup.exclusion[0])?;
        bus.qtest
            .writeq(UNIT + EXCLUSION_LIMIT, setup.exclusion[1])?;
        // Writing a base address empties the buffer, or the log.
        bus.qtest.writeq(UNIT + COMMAND_BASE, COMMANDS | SMALLEST)?;
        bus.qtest
            .writeq(UNIT + COMMAND_TAIL, COMMAND_COUNT * ENTRY)?;
        // QEMU reads a device table entry, and reports it, when it is told to forget it.
        bus.qtest.writeq(UNIT + EVENT_BASE, EVENTS | SMALLEST)
    }

    fn status(&self) -> Vec<Read> {
        vec![Read::Quad(UNIT + EVENT_TAIL)]
    }

    fn take(&self, bus: &mut Bus, status: &[u64]) -> Result<Option<Vec<Event>>, QtestError> {
        let places = (EVENTS..EVENTS + status[0]).step_by(16);
        let events: Vec<_> = places
            .map(|at| Event::from_words([bus.get(at), bus.get(at + 8)]))
            .collect();
        Ok((!events.is_empty()).then_some(events))
    }

    fn case(rng: &mut Rng, (): ()) -> Case<Self> {
        generate::case(rng)
    }

    fn walk(walking: Walking<'_, Self>) -> (End<Self>, Option<Failure>) {
        let Walking { case, unit, .. } = walking;
        let [base, limit] = case.setup.exclusion;
        let unit = unit
            .with_control(ENABLED)
            .with_device_table(case.setup.table)
            .with_exclusion(base, limit);
        let dma = case.dma();
        let result = translate(&unit, &case.memory, &dma, walking.updates, walking.trail);
        let end = match &result {
            // Where a device might answer, the case cannot be watched.
            Ok(Outcome::Memory(to)) if to.pa.0 < BUSY => End::Memory(to.pa.0),
            Ok(_) => End::Nothing,
            Err(failure) if !failure.recorded(dma.kind) => End::Nothing,
            Err(failure) => {
                let event = fault_event(&dma, failure, None);
                End::Fault(vec![Event::from_words(event.words())])
            }
        };
        (end, result.err())
    }

    fn deviations((): ()) -> Vec<&'static Deviation<Self>> {
        deviations::ALL.iter().collect()
    }

    fn kind(record: &Vec<Event>) -> String {
        let names = record.iter().map(|event| event.code.name().unwrap_or("?"));
        format!("recorded {}", names.collect::<Vec<_>>().join(" and "))
    }
}

/// An entry of the event log, as Linux takes it apart: `drivers/iommu/amd/amd_iommu_types.h`,
/// `EVENT_*_MASK` and `EVENT_*_SHIFT`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) code: EventCode,
    pub(crate) flags: u16,
    pub(crate) device: u16,
    pub(crate) domain: u16,
    /// Bits 31:16: the highest bits of a PASID.
    pub(crate) pasid: u16,
    pub(crate) address: u64,
}

impl Event {
    fn from_words([low, address]: [u64; 2]) -> Self {
        Self {
            code: EventCode((low >> 60 & 0xf) as u8),
            flags: (low >> 48 & 0xfff) as u16,
            device: (low & 0xffff) as u16,
            domain: (low >> 32 & 0xffff) as u16,
            pasid: (low >> 16 & 0xffff) as u16,
            address,
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} with flags {:#05x} of {:#06x}, domain {:#x}, PASID {:#x}, address {:#x}",
            self.code.name().unwrap_or("?"),
            self.flags,
            self.device,
            self.domain,
            self.pasid,
            self.address
        )
    }
}
