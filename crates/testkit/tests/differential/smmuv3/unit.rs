//! QEMU's SMMU, and our walk beside it.

use super::generate::{self, TWO_LEVELS};
use super::record::Event;
use super::view::{self, View};
use super::{Mode, Smmuv3, deviations};
use crate::harness::{Arch, BUSY, Board, Bus, Case, Deviation, End, FIXED, VIRT, Walking};
use fastrand::Rng;
use iommu_walk::smmuv3::{self, Failure, Features, Outcome, translate};
use std::fmt;
use testkit::qemu::qtest::{QtestError, Read};

/// Where QEMU has the registers: `hw/arm/virt.c`, `base_memmap`.
const UNIT: u64 = 0x0905_0000;
/// Offsets as Arm IHI 0070, "Memory map and registers"; Linux `arm-smmu-v3.h`, `ARM_SMMU_*`.
const CR0: u64 = 0x20;
const CR2: u64 = 0x2c;
const GBPA: u64 = 0x44;
const STRTAB_BASE: u64 = 0x80;
const STRTAB_BASE_CFG: u64 = 0x88;
const CMDQ_BASE: u64 = 0x90;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;
const EVENTQ_BASE: u64 = 0xa0;
const EVENTQ_PROD: u64 = 0x1_00a8;
const EVENTQ_CONS: u64 = 0x1_00ac;
/// CR0: SMMUEN; EVENTQEN and CMDQEN.
const ENABLED: u32 = 1 << 0;
const QUEUES: u32 = 1 << 2 | 1 << 3;
/// GBPA: Update, ABORT.
const UPDATE: u32 = 1 << 31;
const ABORT: u32 = 1 << 20;
/// Of either queue: 16 entries.
const LOG2_ENTRIES: u64 = 4;
const COMMANDS: u64 = VIRT.ram + FIXED;
const EVENTS: u64 = COMMANDS + 0x1000;
/// What forgets the case before: CMD_CFGI_ALL and CMD_TLBI_NSNH_ALL, and how many commands that is.
const FORGET: [[u64; 2]; 2] = [[0x04, 31], [0x30, 0]];
const FORGET_COUNT: u32 = 2;

/// The registers of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    /// STRTAB_BASE and STRTAB_BASE_CFG.
    pub(crate) base: u64,
    pub(crate) config: u32,
    pub(crate) cr2: u32,
    /// CR0.SMMUEN.
    pub(crate) enabled: bool,
    /// GBPA.ABORT.
    pub(crate) abort: bool,
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "STRTAB_BASE {:#x}, STRTAB_BASE_CFG {:#x}, CR2 {:#x}, SMMUEN {}, GBPA.ABORT {}",
            self.base, self.config, self.cr2, self.enabled, self.abort
        )
    }
}

impl Setup {
    /// Every request passes.
    const OPEN: Self = Self {
        base: 0,
        config: 0,
        cr2: 0,
        enabled: false,
        abort: false,
    };

    fn gbpa(self) -> u32 {
        if self.abort { ABORT } else { 0 }
    }

    fn cr0(self) -> u32 {
        if self.enabled {
            QUEUES | ENABLED
        } else {
            QUEUES
        }
    }
}

/// What our walk knows of the registers, and what it is to walk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Unit {
    /// Without those of a case.
    pub(crate) walk: smmuv3::Unit,
    /// QEMU has been told of a table of two levels.
    pub(crate) sticky: bool,
    /// A part of the case's walk, in place of all of it.
    pub(crate) view: Option<View>,
}

impl Unit {
    /// The unit with the registers of a case.
    pub(crate) fn of(self, setup: Setup) -> smmuv3::Unit {
        self.walk
            .with_control(setup.cr0(), setup.cr2)
            .with_global_bypass(setup.gbpa())
            .with_stream_table(setup.base, setup.config)
    }
}

/// How a case ends that fails so.
pub(crate) fn failed(case: &Case<Smmuv3>, failure: &Failure) -> End<Smmuv3> {
    let dma = case.dma();
    if failure.recorded(dma.kind) {
        End::Fault(vec![Event::of(&dma, failure)])
    } else {
        End::Nothing
    }
}

impl Arch for Smmuv3 {
    const BOARD: Board = VIRT;

    type Mode = Mode;
    type Setup = Setup;
    type Unit = Unit;
    type Failure = Failure;
    type Record = Vec<Event>;

    fn start(bus: &mut Bus, mode: Mode) -> Result<Self, QtestError> {
        for (at, command) in (COMMANDS..).step_by(16).zip(FORGET) {
            bus.put(at, command[0]);
            bus.put(at + 8, command[1]);
        }
        bus.qtest
            .writeq(UNIT + CMDQ_BASE, COMMANDS | LOG2_ENTRIES)?;
        bus.qtest
            .writeq(UNIT + EVENTQ_BASE, EVENTS | LOG2_ENTRIES)?;
        let registers = [0, 1, 2, 3, 4, 5].map(|number| Read::Long(UNIT + number * 4));
        let registers = bus.qtest.reads(&registers)?;
        let mut idr = [0; 6];
        for (idr, register) in idr.iter_mut().zip(registers) {
            *idr = (register & 0xffff_ffff) as u32;
        }
        Ok(Self {
            idr,
            two_levels: mode.two_levels,
        })
    }

    fn capabilities(&self) -> String {
        let [idr0, idr1, _, idr3, _, idr5] = self.idr;
        format!("IDR0 {idr0:#x} IDR1 {idr1:#x} IDR3 {idr3:#x} IDR5 {idr5:#x}")
    }

    fn unit(&self) -> Unit {
        let [idr0, idr1, _, idr3, _, idr5] = self.idr;
        let features = Features {
            idr0,
            idr1,
            idr3,
            idr5,
        };
        Unit {
            walk: smmuv3::Unit::new(features),
            sticky: self.two_levels,
            view: None,
        }
    }

    fn enter(&self, bus: &mut Bus, case: Option<&Case<Self>>) -> Result<(), QtestError> {
        let setup = case.map_or(Setup::OPEN, |case| case.setup);
        bus.qtest.writeq(UNIT + STRTAB_BASE, setup.base)?;
        if self.two_levels {
            bus.qtest.writel(UNIT + STRTAB_BASE_CFG, STICKY)?;
        }
        for (register, value) in [
            (STRTAB_BASE_CFG, setup.config),
            (CR2, setup.cr2),
            (GBPA, UPDATE | setup.gbpa()),
            (CR0, setup.cr0()),
            (CMDQ_CONS, 0),
            (CMDQ_PROD, FORGET_COUNT),
            (EVENTQ_PROD, 0),
            (EVENTQ_CONS, 0),
        ] {
            bus.qtest.writel(UNIT + register, value)?;
        }
        Ok(())
    }

    fn status(&self) -> Vec<Read> {
        vec![Read::Long(UNIT + EVENTQ_PROD)]
    }

    fn take(&self, bus: &mut Bus, status: &[u64]) -> Result<Option<Vec<Event>>, QtestError> {
        let places = (EVENTS..EVENTS + status[0] * 32).step_by(32);
        let words = |at| [0, 8, 16, 24].map(|offset| bus.get(at + offset));
        let events: Vec<_> = places.map(|at| Event(words(at))).collect();
        Ok((!events.is_empty()).then_some(events))
    }

    fn case(rng: &mut Rng, mode: Mode) -> Case<Self> {
        generate::case(rng, mode)
    }

    fn walk(walking: Walking<'_, Self>) -> (End<Self>, Option<Failure>) {
        let Walking { case, unit, .. } = walking;
        if let Some(view) = unit.view {
            return view::walk(view, walking);
        }
        let dma = case.dma();
        let unit = unit.of(case.setup);
        let result = translate(&unit, &case.memory, &dma, walking.updates, walking.trail);
        let end = match &result {
            // Where a device might answer, the case cannot be watched.
            Ok(Outcome::Memory(to)) if to.pa.0 < BUSY => End::Memory(to.pa.0),
            Ok(_) => End::Nothing,
            Err(failure) => failed(case, failure),
        };
        (end, result.err())
    }

    fn deviations(mode: Mode) -> Vec<&'static Deviation<Self>> {
        deviations::of(mode)
    }

    fn kind(record: &Vec<Event>) -> String {
        let names = record.iter().map(Event::name);
        format!("recorded {}", names.collect::<Vec<_>>().join(" and "))
    }
}

/// The table of two levels that the unit is told of before each case, if its mode has any.
pub(crate) const STICKY: u32 = TWO_LEVELS | 6 << 6 | 8;
