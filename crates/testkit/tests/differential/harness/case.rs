//! One case, what our walk makes of it, and what an architecture brings to the comparison.

use super::board::Board;
use super::machine::{Bus, Device};
use fastrand::Rng;
use iommu_walk::{TableMem, Trail, Unreachable, Updates};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Rid};
use std::collections::BTreeMap;
use std::fmt::{self, Debug};
use std::ops::Range;
use testkit::qemu::qtest::{QtestError, Read};

// Places in guest memory, from where it starts, which is 0 on q35.

/// Guest memory: 64 MiB, and nothing above.
pub(crate) const RAM_SIZE: u64 = 64 << 20;
/// Below lie firmware and video memory, or a device tree.
pub(crate) const LOW: u64 = 1 << 20;
/// Tables are built here.
pub(crate) const TABLES: Range<u64> = 0x110_0000..0x200_0000;
/// Pages for DMA; every 32-bit word holds its own address.
pub(crate) const DATA: Range<u64> = 0x200_0000..0x3ff_0000;
/// A word of the harness itself.
pub(crate) const SCRATCH: u64 = 0x3ff_8000;
/// Tables of the harness itself.
pub(crate) const FIXED: u64 = 0x3ff_9000;

// Places as the machine has them.

/// Memory and devices lie below.
pub(crate) const BUSY: u64 = 1 << 32;
/// Where there is no memory, and no device either; inside 39 bits.
pub(crate) const NOWHERE: u64 = 0x40_0000_0000;

/// An IOMMU of QEMU's with the walk of ours that it is compared with.
///
/// The value is QEMU's unit as the harness found it.
pub(crate) trait Arch: Clone + Eq + Debug + 'static {
    /// The machine that has the IOMMU.
    const BOARD: Board;

    /// The kinds of translation that are compared, each with a unit of its own.
    type Mode: Copy;
    /// The registers of a case.
    type Setup: Clone + Eq + Debug;
    /// What our walk knows of the registers.
    type Unit: Copy + PartialEq + Debug;
    /// Why our walk found no address.
    type Failure: Copy + PartialEq + Debug;
    /// What is recorded of a request that was blocked, as far as both sides have it.
    type Record: Clone + Eq + Debug;

    /// Finds the unit, and prepares it for cases of this mode.
    fn start(bus: &mut Bus, mode: Self::Mode) -> Result<Self, QtestError>;
    /// What it says that it can do, in a line.
    fn capabilities(&self) -> String;
    /// The same for our walk.
    fn unit(&self) -> Self::Unit;
    /// Makes the unit use the tables of this case, with nothing left from the one before; without
    /// a case, tables that lead to every byte of memory.
    fn enter(&self, bus: &mut Bus, case: Option<&Case<Self>>) -> Result<(), QtestError>;
    /// Where QEMU says whether it has recorded something.
    fn status(&self) -> Vec<Read>;
    /// What it has recorded, with the values of [`status`](Self::status); cleared for the next.
    fn take(&self, bus: &mut Bus, status: &[u64]) -> Result<Option<Self::Record>, QtestError>;

    /// Builds one case. The same generator state gives the same case.
    fn case(rng: &mut Rng, mode: Self::Mode) -> Case<Self>;
    /// Walks our side.
    fn walk(walked: Walking<'_, Self>) -> (End<Self>, Option<Self::Failure>);
    /// The deviations that cases of this mode must meet.
    fn deviations(mode: Self::Mode) -> Vec<&'static Deviation<Self>>;
    /// The kind of a record, for the count of what happened.
    fn kind(record: &Self::Record) -> String;
}

/// A departure with a name. Its evidence is beside it.
pub(crate) struct Deviation<A: Arch> {
    pub(crate) name: &'static str,
    /// Our result as it would be if QEMU were right here; `None` where this has no bearing.
    pub(crate) as_qemu: fn(&Walked<A>) -> Option<Walked<A>>,
}

/// The words of a case; everything else is as it always is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Where memory starts.
    pub(crate) start: u64,
    pub(crate) words: BTreeMap<u64, u64>,
}

impl Memory {
    /// Memory of this machine, as it is when no case has written there.
    pub(crate) fn of(board: &Board) -> Self {
        Self {
            start: board.ram,
            words: BTreeMap::new(),
        }
    }

    /// The place of something that lies so far from the start.
    pub(crate) const fn place(&self, from_start: &Range<u64>) -> Range<u64> {
        self.start + from_start.start..self.start + from_start.end
    }

    /// What lies at `at` when no case has written there.
    pub(crate) fn default_word(&self, at: u64) -> u64 {
        if self.place(&DATA).contains(&at) {
            (at + 4) << 32 | at
        } else {
            0
        }
    }

    /// The pages that are not zero at the start.
    pub(crate) fn default_pages(&self) -> impl Iterator<Item = (u64, Vec<u8>)> {
        self.place(&DATA).step_by(4096).map(|page| {
            let words = (page..page + 4096).step_by(8);
            let bytes = words.flat_map(|at| self.default_word(at).to_le_bytes());
            (page, bytes.collect())
        })
    }

    pub(crate) fn get(&self, at: u64) -> u64 {
        let word = self.words.get(&at).copied();
        word.unwrap_or_else(|| self.default_word(at))
    }

    /// The word at `at`, to be changed.
    pub(crate) fn word(&mut self, at: u64) -> &mut u64 {
        let default = self.default_word(at);
        self.words.entry(at).or_insert(default)
    }
}

impl TableMem for Memory {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        if self.place(&(0..RAM_SIZE)).contains(&at.0) {
            Ok(self.get(at.0))
        } else {
            Err(Unreachable(at))
        }
    }
}

/// One DMA with the tables it meets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Case<A: Arch> {
    pub(crate) setup: A::Setup,
    pub(crate) device: Device,
    pub(crate) iova: u64,
    pub(crate) memory: Memory,
    /// What the generator did to a valid case.
    pub(crate) changes: Vec<String>,
}

impl<A: Arch> Case<A> {
    /// The request that the device makes: without a PASID, and untranslated.
    pub(crate) fn dma(&self) -> Dma {
        Dma {
            requester: Rid::from_pci(self.device.rid()),
            pasid: None,
            kind: DmaKind::Untranslated,
            addr: Iova(self.iova),
            access: if self.device.writes() {
                Access::WRITE
            } else {
                Access::READ
            },
        }
    }
}

impl<A: Arch> Debug for Case<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?} at {:#x}, {:?}, changed: {}",
            self.device,
            self.iova,
            self.setup,
            self.changes.join(", ")
        )?;
        for (at, word) in &self.memory.words {
            writeln!(f, "  [{at:#x}] = {word:#018x}")?;
        }
        Ok(())
    }
}

/// How a DMA ended.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum End<A: Arch> {
    /// It reached memory at this address.
    Memory(u64),
    /// It reached nothing, and nothing was recorded: a hidden fault, or no memory there.
    Nothing,
    /// It was blocked, and recorded.
    Fault(A::Record),
}

impl<A: Arch> Debug for End<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(at) => write!(f, "memory at {at:#x}"),
            Self::Nothing => write!(f, "nothing"),
            Self::Fault(record) => write!(f, "{record:?}"),
        }
    }
}

/// What our walk gets, and where it leaves its trail and its updates.
pub(crate) struct Walking<'a, A: Arch> {
    pub(crate) case: &'a Case<A>,
    pub(crate) unit: A::Unit,
    pub(crate) updates: &'a mut Updates,
    pub(crate) trail: &'a mut Trail,
}

/// A case with what our walk says of it.
#[derive(Clone, Debug)]
pub(crate) struct Walked<A: Arch> {
    pub(crate) case: Case<A>,
    pub(crate) unit: A::Unit,
    pub(crate) end: End<A>,
    pub(crate) failure: Option<A::Failure>,
    /// Accessed and dirty bits to add, by address.
    pub(crate) marks: BTreeMap<u64, u64>,
    pub(crate) trail: Trail,
}

impl<A: Arch> Walked<A> {
    pub(crate) fn new(case: Case<A>, unit: A::Unit) -> Self {
        let (mut updates, mut trail) = (Updates::new(), Trail::new());
        let (end, failure) = A::walk(Walking {
            case: &case,
            unit,
            updates: &mut updates,
            trail: &mut trail,
        });
        let updates = updates.as_slice().iter();
        Self {
            end,
            failure,
            marks: updates.map(|u| (u.addr.0, u.new & !u.old)).collect(),
            trail,
            case,
            unit,
        }
    }

    /// Whether nothing that follows can tell them apart.
    pub(crate) fn alike(&self, other: &Self) -> bool {
        self.end == other.end
            && self.failure == other.failure
            && self.unit == other.unit
            && self.case == other.case
    }

    /// Walks a changed case; marks and words stay those of the original addresses.
    pub(crate) fn with(&self, change: impl FnOnce(&mut Case<A>)) -> Self {
        let mut case = self.case.clone();
        change(&mut case);
        Self::new(case, self.unit)
    }

    /// The same, ending otherwise.
    pub(crate) fn ending(&self, end: End<A>) -> Self {
        Self {
            end,
            ..self.clone()
        }
    }

    /// The words of `original` after this walk.
    pub(crate) fn words(&self, original: &Case<A>) -> BTreeMap<u64, u64> {
        let mut words = original.memory.words.clone();
        for (at, bits) in &self.marks {
            if let Some(word) = words.get_mut(at) {
                *word |= bits;
            }
        }
        words
    }
}
