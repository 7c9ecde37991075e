//! One case, what our walk makes of it, and how the two sides are compared.

use crate::machine::Device;
use iommu_walk::vtd::{Failure, Outcome, Unit, translate};
use iommu_walk::{TableMem, Trail, Unreachable, Updates};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Rid};
use std::collections::BTreeMap;
use std::fmt;

/// Guest memory: 64 MiB from 0, and nothing above.
pub(crate) const RAM_SIZE: u64 = 64 << 20;
/// Below lie firmware and video memory.
pub(crate) const LOW: u64 = 1 << 20;
/// Tables are built here.
pub(crate) const TABLES: std::ops::Range<u64> = 0x110_0000..0x200_0000;
/// Pages for DMA; every 32-bit word holds its own address.
pub(crate) const DATA: std::ops::Range<u64> = 0x200_0000..0x3ff_0000;
/// A word of the harness itself.
pub(crate) const SCRATCH: u64 = 0x3ff_8000;
/// Tables of the harness itself.
pub(crate) const FIXED: u64 = 0x3ff_9000;
/// Where there is no memory, and no device either; inside 39 bits.
pub(crate) const NOWHERE: u64 = 0x40_0000_0000;

/// The words of a case; everything else is as it always is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) words: BTreeMap<u64, u64>,
}

impl Memory {
    /// What lies at `at` when no case has written there.
    pub(crate) fn default_word(at: u64) -> u64 {
        if DATA.contains(&at) {
            (at + 4) << 32 | at
        } else {
            0
        }
    }

    /// The pages that are not zero at the start.
    pub(crate) fn default_pages() -> impl Iterator<Item = (u64, Vec<u8>)> {
        DATA.step_by(4096).map(|page| {
            let words = (page..page + 4096).step_by(8);
            let bytes = words.flat_map(|at| Self::default_word(at).to_le_bytes());
            (page, bytes.collect())
        })
    }

    pub(crate) fn get(&self, at: u64) -> u64 {
        let word = self.words.get(&at).copied();
        word.unwrap_or_else(|| Self::default_word(at))
    }
}

impl TableMem for Memory {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        if at.0 < RAM_SIZE {
            Ok(self.get(at.0))
        } else {
            Err(Unreachable(at))
        }
    }
}

/// One DMA with the tables it meets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Case {
    pub(crate) rtaddr: u64,
    pub(crate) device: Device,
    pub(crate) iova: u64,
    pub(crate) memory: Memory,
    /// What the generator did to a valid case.
    pub(crate) changes: Vec<String>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?} at {:#x}, RTADDR {:#x}, changed: {}",
            self.device,
            self.iova,
            self.rtaddr,
            self.changes.join(", ")
        )?;
        for (at, word) in &self.memory.words {
            writeln!(f, "  [{at:#x}] = {word:#018x}")?;
        }
        Ok(())
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
    pub(crate) fn from_register(lo: u64, hi: u64) -> Self {
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

/// How a DMA ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It reached memory at this address.
    Memory(u64),
    /// It reached nothing, and nothing was recorded: a hidden fault, or no memory there.
    Nothing,
    /// It was blocked, and recorded.
    Fault(Record),
}

impl fmt::Debug for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(at) => write!(f, "memory at {at:#x}"),
            Self::Nothing => write!(f, "nothing"),
            Self::Fault(record) => write!(f, "{record:?}"),
        }
    }
}

/// A case with what our walk says of it.
#[derive(Clone, Debug)]
pub(crate) struct Walked {
    pub(crate) case: Case,
    pub(crate) unit: Unit,
    pub(crate) end: End,
    pub(crate) failure: Option<Failure>,
    /// Accessed and dirty bits to add, by address.
    pub(crate) marks: BTreeMap<u64, u64>,
    pub(crate) trail: Trail,
}

impl Walked {
    pub(crate) fn new(case: Case, unit: Unit) -> Self {
        let unit = unit.with_rtaddr(case.rtaddr);
        let access = if case.device.writes() {
            Access::WRITE
        } else {
            Access::READ
        };
        let dma = Dma {
            requester: Rid(case.device.rid()),
            pasid: None,
            kind: DmaKind::Untranslated,
            addr: Iova(case.iova),
            access,
        };
        let (mut updates, mut trail) = (Updates::new(), Trail::new());
        let result = translate(&unit, &case.memory, &dma, &mut updates, &mut trail);
        let end = match &result {
            Ok(Outcome::Memory(to)) if to.pa.0 < RAM_SIZE => End::Memory(to.pa.0),
            Ok(_) => End::Nothing,
            Err(failure) if !failure.recorded(dma.kind) => End::Nothing,
            Err(failure) => record(&case, failure.cause.reason().0),
        };
        let updates = updates.as_slice().iter();
        Self {
            end,
            failure: result.err(),
            marks: updates.map(|u| (u.addr.0, u.new & !u.old)).collect(),
            trail,
            case,
            unit,
        }
    }

    /// Walks a changed case; marks and words stay those of the original addresses.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Case)) -> Self {
        let mut case = self.case.clone();
        change(&mut case);
        Self::new(case, self.unit)
    }

    /// The same, ending otherwise.
    pub(crate) fn ending(&self, end: End) -> Self {
        Self {
            end,
            ..self.clone()
        }
    }

    /// The words of `original` after this walk.
    pub(crate) fn words(&self, original: &Case) -> BTreeMap<u64, u64> {
        let mut words = original.memory.words.clone();
        for (at, bits) in &self.marks {
            if let Some(word) = words.get_mut(at) {
                *word |= bits;
            }
        }
        words
    }
}

/// The end of a case that leaves a record with this reason.
pub(crate) fn record(case: &Case, reason: u32) -> End {
    End::Fault(Record {
        reason: reason.to_le_bytes()[0],
        sid: case.device.rid(),
        page: case.iova & !0xfff,
        read: !case.device.writes(),
        rest: 0,
    })
}
