//! QEMU's VT-d unit, and our walk beside it.

use super::generate::{self, Mode};
use super::{Vtd, deviations};
use crate::harness::{
    Arch, Board, Bus, Case, Deviation, Device, End, FIXED, Q35, RAM_SIZE, Walking,
};
use fastrand::Rng;
use iommu_walk::vtd::{Failure, Outcome, Unit, translate};
use std::fmt;
use testkit::qemu::qtest::{QtestError, Read};

/// Registers of the unit; offsets as Intel VT-d, "Register Descriptions".
const UNIT: u64 = 0xfed9_0000;
const CAP: u64 = 0x08;
const ECAP: u64 = 0x10;
const GCMD: u64 = 0x18;
const RTADDR: u64 = 0x20;
const FSTS: u64 = 0x34;
/// Where QEMU has its one fault recording register, `CAP_REG.FRO`.
const FRCD: u64 = 0x220;
const TRANSLATE: u32 = 1 << 31;
const SET_ROOT: u32 = 1 << 30;

/// `RTADDR_REG` of a case.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rtaddr(pub(crate) u64);

impl fmt::Debug for Rtaddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RTADDR {:#x}", self.0)
    }
}

impl Arch for Vtd {
    const BOARD: Board = Q35;

    type Mode = Mode;
    type Setup = Rtaddr;
    type Unit = Unit;
    type Failure = Failure;
    type Record = Record;

    fn start(bus: &mut Bus, mode: Mode) -> Result<Self, QtestError> {
        let (fixed, words) = fixed_tables(mode);
        for (at, word) in words {
            bus.put(at, word);
        }
        let registers = [Read::Quad(UNIT + CAP), Read::Quad(UNIT + ECAP)];
        let registers = bus.qtest.reads(&registers)?;
        Ok(Self {
            cap: registers[0],
            ecap: registers[1],
            width: match mode {
                Mode::Legacy { width } => width,
                Mode::Second | Mode::First => 48,
            },
            fixed,
        })
    }

    fn capabilities(&self) -> String {
        format!("CAP {:#x} ECAP {:#x}", self.cap, self.ecap)
    }

    fn unit(&self) -> Unit {
        Unit::new(self.cap, self.ecap, self.width)
    }

    fn enter(&self, bus: &mut Bus, case: Option<&Case<Self>>) -> Result<(), QtestError> {
        let rtaddr = case.map_or(self.fixed, |case| case.setup.0);
        bus.qtest.writeq(UNIT + RTADDR, rtaddr)?;
        bus.qtest.writel(UNIT + GCMD, TRANSLATE | SET_ROOT)
    }

    fn status(&self) -> Vec<Read> {
        vec![Read::Quad(UNIT + FRCD), Read::Quad(UNIT + FRCD + 8)]
    }

    fn take(&self, bus: &mut Bus, status: &[u64]) -> Result<Option<Record>, QtestError> {
        bus.qtest.writel(UNIT + FRCD + 12, 1 << 31)?;
        bus.qtest.writel(UNIT + FSTS, 1)?;
        let (lo, hi) = (status[0], status[1]);
        Ok((hi >> 63 != 0).then(|| Record::from_register(lo, hi)))
    }

    fn case(rng: &mut Rng, mode: Mode) -> Case<Self> {
        generate::case(rng, mode)
    }

    fn walk(walking: Walking<'_, Self>) -> (End<Self>, Option<Failure>) {
        let Walking { case, unit, .. } = walking;
        let (unit, dma) = (unit.with_rtaddr(case.setup.0), case.dma());
        let result = translate(&unit, &case.memory, &dma, walking.updates, walking.trail);
        let end = match &result {
            Ok(Outcome::Memory(to)) if to.pa.0 < RAM_SIZE => End::Memory(to.pa.0),
            Ok(_) => End::Nothing,
            Err(failure) if !failure.recorded(dma.kind) => End::Nothing,
            Err(failure) => record(case, failure.cause.reason().0),
        };
        (end, result.err())
    }

    fn deviations(mode: Mode) -> Vec<&'static Deviation<Self>> {
        deviations::of(mode)
    }

    fn kind(record: &Record) -> String {
        format!("recorded reason {:#04x}", record.reason)
    }
}

/// A fault record, as far as both sides have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) reason: u8,
    pub(crate) sid: u16,
    /// The page that was asked for.
    pub(crate) page: u64,
    pub(crate) read: bool,
    /// PP, PASID, EXE, PRIV and AT, where they are in the register.
    pub(crate) rest: u64,
}

/// Masks of the high half of a fault recording register. Linux `drivers/iommu/intel/iommu.h`,
/// `dma_frcd_*`.
const SID: u64 = 0xffff;
const TYPE_READ: u64 = 1 << 62;

impl Record {
    fn from_register(lo: u64, hi: u64) -> Self {
        Self {
            reason: hi.to_le_bytes()[4],
            sid: (hi & SID) as u16,
            page: lo & !0xfff,
            read: hi & TYPE_READ != 0,
            rest: hi & !(1 << 63 | TYPE_READ | 0xff << 32 | SID),
        }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.read { "read" } else { "write" };
        write!(
            f,
            "reason {:#04x}, {what} of {:#x} by {:#06x}, rest {:#x}",
            self.reason, self.page, self.sid, self.rest
        )
    }
}

/// The end of a case that leaves a record with this reason.
pub(crate) fn record(case: &Case<Vtd>, reason: u32) -> End<Vtd> {
    End::Fault(Record {
        reason: reason.to_le_bytes()[0],
        sid: case.device.rid(),
        page: case.iova & !0xfff,
        read: !case.device.writes(),
        rest: 0,
    })
}

/// Tables that map the first GiB to itself for the readers, with the `RTADDR_REG` that leads there.
fn fixed_tables(mode: Mode) -> (u64, Vec<(u64, u64)>) {
    let page = |number: u64| FIXED + number * 4096;
    let (root, context, top) = (page(0), page(1), page(2));
    let (directory, pasids, upper) = (page(3), page(4), page(5));
    let readers = [false, true].map(|upper| u64::from(Device::Reader { upper }.rid() & 0xff));
    let mut words = vec![(root, context | 1)];
    if let Mode::Legacy { .. } = mode {
        for devfn in readers {
            // Second stage, three levels.
            words.extend([
                (context + devfn * 16, top | 1),
                (context + devfn * 16 + 8, 1),
            ]);
        }
        words.push((top, 0x83));
        return (root, words);
    }
    words.push((root + 8, context | 1));
    for devfn in readers {
        words.push((context + (devfn & 0x7f) * 32, directory | 1));
    }
    words.push((directory, pasids | 1));
    if mode == Mode::First {
        words.extend([(pasids, 1 << 6 | 1), (pasids + 16, upper)]);
        words.extend([(upper, top | 0x27), (top, 0xe7)]);
    } else {
        words.extend([(pasids, top | 2 << 6 | 1 << 2 | 1), (top, 0x83)]);
    }
    (root | 1 << 10, words)
}
