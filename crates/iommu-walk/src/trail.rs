//! What a walk leaves behind: the steps it took, and the updates it asks for.

use arrayvec::ArrayVec;
use core::fmt;
use iopf::Gpa;

/// A kind of table on a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Table {
    /// VT-d root table, one entry a bus.
    Root,
    /// VT-d context table, one entry a function.
    Context,
    /// VT-d PASID directory.
    PasidDirectory,
    /// VT-d PASID table.
    PasidTable,
    /// AMD-Vi device table, one entry a function.
    DeviceTable,
    /// AMD-Vi guest CR3 table, of any level.
    GuestCr3,
    /// SMMUv3 stream table, level 1 of two.
    StreamLevel1,
    /// SMMUv3 stream table, one entry a stream.
    Stream,
    /// SMMUv3 table of context descriptors, level 1 of two.
    ContextLevel1,
    /// SMMUv3 table of context descriptors, one a substream.
    ContextDescriptor,
    /// A page table of [`Stage::First`].
    FirstStage,
    /// A page table of [`Stage::Second`].
    SecondStage,
}

impl Table {
    /// A short lower-case name, as captures and reports print it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Context => "context",
            Self::PasidDirectory => "pasid directory",
            Self::PasidTable => "pasid table",
            Self::DeviceTable => "device table",
            Self::GuestCr3 => "guest cr3 table",
            Self::StreamLevel1 => "level 1 stream table",
            Self::Stream => "stream table",
            Self::ContextLevel1 => "level 1 context table",
            Self::ContextDescriptor => "context descriptor table",
            Self::FirstStage => "first stage",
            Self::SecondStage => "second stage",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A stage of address translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Device address to guest physical address (or to the end, where it is the only stage).
    First,
    /// Guest physical address to physical address.
    Second,
}

/// An entry as it was read: one to eight 64-bit words, in the host's byte order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Raw {
    words: [u64; 8],
    len: u8,
}

impl Raw {
    /// Nothing: the read was refused.
    pub const NONE: Self = Self {
        words: [0; 8],
        len: 0,
    };

    /// The first eight of `words`.
    #[must_use]
    pub fn new(words: &[u64]) -> Self {
        let mut raw = Self::NONE;
        for (to, from) in raw.words.iter_mut().zip(words) {
            *to = *from;
            raw.len += 1;
        }
        raw
    }

    /// The words read; empty where the read was refused.
    #[must_use]
    pub fn words(&self) -> &[u64] {
        self.words.get(..usize::from(self.len)).unwrap_or(&[])
    }
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.words().iter().map(|w| HexWord(*w)))
            .finish()
    }
}

struct HexWord(u64);

impl fmt::Debug for HexWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What an entry meant to the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Well formed: the walk goes on to the next table.
    Next,
    /// Well formed, and the end of its stage: it maps a page.
    Leaf,
    /// No memory backs the entry.
    Unreadable,
    /// Not present.
    NotPresent,
    /// Present with reserved bits set.
    Reserved,
    /// Present and without reserved bits, but it asks for what this unit does not do.
    Invalid,
    /// Well formed, but it refuses this request.
    Refused,
}

impl Verdict {
    /// A short lower-case name, as captures and reports print it: `ok` where the walk went on.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Next => "ok",
            Self::Leaf => "leaf",
            Self::Unreadable => "unreadable",
            Self::NotPresent => "not present",
            Self::Reserved => "reserved bits",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }
}

/// One entry that a walk looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which kind of table.
    pub table: Table,
    /// The page-table level, 1 being the lowest; 0 for configuration tables.
    pub level: u8,
    /// The entry's number in its table.
    pub index: u32,
    /// Where the walk read the entry: a physical address, after the second stage if there is one.
    pub addr: Gpa,
    /// Where the entry lies in the first stage's own address space, in a nested walk.
    pub guest_addr: Option<Gpa>,
    /// What was read.
    pub raw: Raw,
    /// What came of it.
    pub verdict: Verdict,
}

/// Sees every step of a walk.
pub trait Recorder {
    /// Whether steps are wanted; with `false` the walk does not even build them.
    const ACTIVE: bool = true;

    /// Takes one step, in the order of the walk.
    fn step(&mut self, step: &Step);
}

/// Records nothing.
impl Recorder for () {
    const ACTIVE: bool = false;

    #[inline]
    fn step(&mut self, _: &Step) {}
}

impl<R: Recorder + ?Sized> Recorder for &mut R {
    const ACTIVE: bool = R::ACTIVE;

    #[inline]
    fn step(&mut self, step: &Step) {
        (**self).step(step);
    }
}

/// Every step of one walk. It holds the longest walk there is, one of AMD-Vi: the device table, then
/// three guest CR3 tables and five first-stage levels, each behind six second-stage ones, and six for
/// the page itself.
#[derive(Clone, Debug, Default)]
pub struct Trail {
    steps: ArrayVec<Step, { Self::CAPACITY }>,
}

impl Trail {
    /// The length of the longest walk.
    pub const CAPACITY: usize = 1 + (3 + 5) * (6 + 1) + 6;

    /// An empty trail.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The steps, in the order of the walk.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Forgets everything, for the next walk.
    pub fn clear(&mut self) {
        self.steps.clear();
    }
}

impl Recorder for Trail {
    fn step(&mut self, step: &Step) {
        // Never full on one walk; a trail that is not cleared between walks keeps the first.
        let _ = self.steps.try_push(*step);
    }
}

/// A word the walk wants changed: accessed, dirty or extended-accessed bits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Update {
    /// The entry.
    pub addr: Gpa,
    /// What the walk read there.
    pub old: u64,
    /// What should be there: `old` with bits set (SMMUv3: a read-only bit that says clean, cleared).
    pub new: u64,
    /// Whose table it is.
    pub stage: Stage,
}

impl fmt::Debug for Update {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Update({}: {:#x} -> {:#x}, {:?})",
            self.addr, self.old, self.new, self.stage
        )
    }
}

/// The updates of one walk, in its order, one an entry.
#[derive(Clone, Debug, Default)]
pub struct Updates {
    list: ArrayVec<Update, { Trail::CAPACITY }>,
}

impl Updates {
    /// No updates.
    #[must_use]
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// The updates, in the order of the walk.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[Update] {
        &self.list
    }

    /// Whether the walk left everything as it is.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets everything, for the next walk.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// Asks for `bits` in the entry at `addr`, which was read as `old`: they are to be set, and those
    /// `inverted` clear.
    #[cold]
    pub(crate) fn add(&mut self, stage: Stage, addr: Gpa, old: u64, bits: u64, inverted: u64) {
        let with = |word: u64| (word ^ inverted | bits) ^ inverted;
        if let Some(known) = self.list.iter_mut().find(|u| u.addr == addr) {
            known.new = with(known.new);
            return;
        }
        // One entry a step at most, and the list is as long as the longest walk.
        let _ = self.list.try_push(Update {
            addr,
            old,
            new: with(old),
            stage,
        });
    }
}
