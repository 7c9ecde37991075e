//! What a stream table entry and a context descriptor amount to.

use super::cause::Cause;
use super::failure::{Detail, Faults};
use super::{Failure, Unit, formats};
use crate::PageTable;
use crate::format::{Format, Granules};
use core::fmt;
use core::num::NonZeroU64;
use iommu_wire::smmuv3::pte::Granule;
use iommu_wire::smmuv3::tables::{StreamConfig, StreamWord0, StreamWord1, StreamWord2};
use iopf::{Access, Dma, Gpa, Pasid};

/// A top table: where it lies, how wide its input is, and of what format it is; or none.
///
/// One word, so that it is written and read as a whole: a copy of parts would wait for each.
// The address in bits 47:4, as there are; levels in 50:48, the width of the input in 56:51, the granule in
// 58:57, the output size in 61:59, and in 62 that rights in entries that point to tables do not count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Top(u64);

impl Top {
    /// Not translated.
    pub(super) const NONE: Self = Self(0);

    const ADDRESS: u64 = 0x0000_ffff_ffff_fff0;

    /// `bits`: the width of the input.
    #[inline(always)]
    pub(super) const fn new(root: Gpa, levels: u8, bits: u8, granule: Granule, size: u8) -> Self {
        let granule = match granule {
            Granule::K4 => 0,
            Granule::K16 => 1,
            Granule::K64 => 2,
        };
        let rest = levels as u64 | (bits as u64) << 3 | granule << 9 | (size as u64) << 11;
        Self(root.0 & Self::ADDRESS | rest << 48)
    }

    /// The same without rights in entries that point to tables.
    #[inline(always)]
    pub(super) const fn without_hierarchy(self, without: bool) -> Self {
        Self(self.0 | (without as u64) << 62)
    }

    #[inline(always)]
    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    #[inline(always)]
    pub(super) const fn table(self) -> PageTable {
        PageTable {
            root: Gpa(self.0 & Self::ADDRESS),
            levels: (self.0 >> 48 & 7) as u8,
        }
    }

    /// The width of the input, in bits.
    #[inline(always)]
    pub(super) const fn bits(self) -> u8 {
        (self.0 >> 51 & 0x3f) as u8
    }

    const fn granule(self) -> Granule {
        match self.0 >> 57 & 3 {
            0 => Granule::K4,
            1 => Granule::K16,
            _ => Granule::K64,
        }
    }

    /// As a table of stage 1.
    #[inline(always)]
    pub(super) const fn first(self) -> &'static Format<Granules> {
        let hierarchy = self.0 >> 62 & 1 == 0;
        formats::first(self.granule(), (self.0 >> 59 & 7) as u8, hierarchy)
    }

    /// As a table of stage 2.
    #[inline(always)]
    pub(super) const fn second(self) -> &'static Format<Granules> {
        formats::second(self.granule(), (self.0 >> 59 & 7) as u8)
    }

    /// How many entries the top table has, as a power of two: fewer than others, or more.
    pub(super) const fn index_bits(self) -> u8 {
        let granule = self.granule();
        let below = granule.stride() * self.table().levels.saturating_sub(1);
        self.bits()
            .saturating_sub(granule.page_shift())
            .saturating_sub(below)
    }

    fn found(self) -> Option<PageTable> {
        (!self.is_none()).then(|| self.table())
    }
}

impl fmt::Debug for Top {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found() {
            None => f.write_str("none"),
            Some(table) => write!(
                f,
                "{}, {} levels, {} bits, {:?}",
                table.root,
                table.levels,
                self.bits(),
                self.granule()
            ),
        }
    }
}

/// What a request may be treated as: PRIVCFG, INSTCFG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Override {
    /// What it says.
    Incoming,
    /// Unprivileged; a read of data.
    Clear,
    /// Privileged; a read of instructions.
    Set,
}

/// A stream table entry that is valid: everything a walk needs to know of a stream.
///
/// It is what a configuration cache holds for a stream, and forgets at `CMD_CFGI_STE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub(super) word0: StreamWord0,
    /// What does not count, for what the unit is or for Config, is zero.
    pub(super) word1: StreamWord1,
    /// The same. The part that is implementation defined says whether the unit has XNX.
    pub(super) word2: StreamWord2,
    pub(super) second: Top,
}

/// Where a request's context descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Substream {
    /// It needs none: stage 1 does not translate.
    None,
    /// Of this number.
    Number(u32),
}

impl Stream {
    /// Which stages translate.
    #[must_use]
    #[inline]
    pub const fn config(&self) -> StreamConfig {
        self.word0.config()
    }

    /// The tag of the virtual machine; 0 on a unit without stage 2.
    #[must_use]
    #[inline]
    pub const fn vmid(&self) -> u16 {
        self.word2.vmid()
    }

    /// Whether translation and translated requests are allowed (EATS).
    #[must_use]
    #[inline]
    pub const fn ats(&self) -> bool {
        self.word1.ats() == 1
    }

    /// Whether automatic page request responses carry a PASID (PPAR).
    #[must_use]
    pub const fn response_with_pasid(&self) -> bool {
        self.word1.response_with_pasid()
    }

    /// How privileged requests count as (PRIVCFG).
    #[must_use]
    #[inline]
    pub const fn privilege(&self) -> Override {
        overridden(self.word1.privilege())
    }

    /// What reads count as (INSTCFG).
    #[must_use]
    #[inline]
    pub const fn instruction(&self) -> Override {
        overridden(self.word1.instruction())
    }

    /// What a request counts as that has these rights to ask for: of what it says of itself, privilege and
    /// execute are the stream's to decide. Without a PASID it says neither.
    ///
    /// [`READ`](Access::READ) is a read of data, [`EXEC`](Access::EXEC) one of instructions; a request that
    /// writes reads no instructions. An empty one is a read.
    #[must_use]
    #[inline]
    pub fn effective(&self, access: Access, pasid: Option<Pasid>) -> Access {
        let said = if pasid.is_some() {
            access
        } else {
            access.difference(Access::PRIV)
        };
        let mut effective = access.intersection(Access::WRITE);
        let privileged = match self.privilege() {
            Override::Incoming => said.contains(Access::PRIV),
            forced => forced == Override::Set,
        };
        effective.set(Access::PRIV, privileged);
        if access.contains(Access::WRITE) {
            effective.set(
                Access::READ,
                access.intersects(Access::READ.union(Access::EXEC)),
            );
            return effective;
        }
        let instruction = match self.instruction() {
            Override::Incoming => pasid.is_some() && access.contains(Access::EXEC),
            forced => forced == Override::Set,
        };
        effective.insert(if instruction {
            Access::EXEC
        } else {
            Access::READ
        });
        effective
    }

    /// Which context descriptor is for requests with this substream.
    ///
    /// # Errors
    /// The condition that keeps the request out: `C_BAD_SUBSTREAMID` or `F_STREAM_DISABLED`.
    #[inline(always)]
    pub fn substream(&self, unit: &Unit, substream: Option<Pasid>) -> Result<Substream, Cause> {
        if !self.config().first() {
            return match substream {
                None => Ok(Substream::None),
                Some(_) => Err(Cause::SubstreamWithoutFirst),
            };
        }
        let bits = self.word0.context_bits();
        match substream {
            None if bits == 0 => Ok(Substream::Number(0)),
            None => match self.word1.default_substream() {
                1 => Ok(Substream::None),
                2 => Ok(Substream::Number(0)),
                _ => Err(Cause::SubstreamNeeded),
            },
            Some(substream) => {
                let number = substream.get();
                if unit.substream_bits() == 0 {
                    Err(Cause::SubstreamsMissing)
                } else if bits == 0 {
                    Err(Cause::SubstreamsDisabled)
                } else if u64::from(number) >> bits != 0 {
                    Err(Cause::SubstreamOutsideTable)
                } else if number == 0 && self.word1.default_substream() == 2 {
                    Err(Cause::SubstreamReserved)
                } else {
                    Ok(Substream::Number(number))
                }
            }
        }
    }

    pub(super) const fn faults(&self) -> Faults {
        Faults {
            record: self.word2.record(),
            stall: self.word2.stall(),
            abort: true,
        }
    }
}

const fn overridden(bits: u8) -> Override {
    match bits {
        2 => Override::Clear,
        3 => Override::Set,
        _ => Override::Incoming,
    }
}

bitflags::bitflags! {
    /// Switches of a context descriptor, those of the unit taken into account.
    ///
    /// Those of a fault lie as in bits 46:44 of the descriptor.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Switches: u16 {
        /// Requests that fault stall (S).
        const STALL = 1 << 0;
        /// Requests that fault are recorded (R).
        const RECORD = 1 << 1;
        /// Requests that fault are aborted (A).
        const ABORT = 1 << 2;
        /// A clear access flag is no fault (AFFD).
        const ACCESS_FLAG_IGNORED = 1 << 3;
        /// Hardware sets the access flag (HA).
        const HARDWARE_ACCESS = 1 << 4;
        /// Hardware sets the dirty state (HD with HA).
        const HARDWARE_DIRTY = 1 << 5;
        /// What is writable is not executable (WXN).
        const WRITE_EXECUTE_NEVER = 1 << 6;
        /// Privileged requests may not access data that unprivileged ones may (PAN).
        const PRIVILEGED_ACCESS_NEVER = 1 << 7;
        /// PAN counts for what unprivileged requests may execute, too (EPAN).
        const ENHANCED_PAN = 1 << 8;
        /// The top byte of a lower address does not count (TBI0).
        const LOWER_TOP_BYTE_IGNORED = 1 << 9;
        /// The top byte of an upper address does not count (TBI1).
        const UPPER_TOP_BYTE_IGNORED = 1 << 10;
        /// The lower range is not for unprivileged requests (E0PD0).
        const LOWER_USER_DISABLED = 1 << 11;
        /// The upper range is not for unprivileged requests (E0PD1).
        const UPPER_USER_DISABLED = 1 << 12;
        /// The address space is not shared with processors (ASET).
        const OWN_ASID_SET = 1 << 13;
    }
}

/// A context descriptor that is valid: everything a walk needs to know of a substream.
///
/// It is what a configuration cache holds for a stream and substream, and forgets at `CMD_CFGI_CD`, and at
/// all that forgets the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The lower range (TTB0); none with EPD0.
    pub(super) lower: Top,
    /// The upper range (TTB1); none with EPD1.
    pub(super) upper: Top,
    /// A bit that is set, so that this is not zero; above it the switches, then the ASID.
    rest: NonZeroU64,
}

impl Context {
    #[inline(always)]
    pub(super) const fn new(lower: Top, upper: Top, asid: u16, switches: Switches) -> Self {
        let rest = (asid as u64) << 16 | switches.bits() as u64;
        Self {
            lower,
            upper,
            rest: NonZeroU64::MIN.saturating_add(rest << 1),
        }
    }

    /// The tag of the address space.
    #[must_use]
    #[inline]
    pub const fn asid(&self) -> u16 {
        (self.rest.get() >> 17 & 0xffff) as u16
    }

    /// The switches.
    #[must_use]
    #[inline]
    pub const fn switches(&self) -> Switches {
        Switches::from_bits_retain((self.rest.get() >> 1 & 0xffff) as u16)
    }

    const fn faults(&self) -> Faults {
        let switches = self.switches();
        Faults {
            record: switches.contains(Switches::RECORD),
            stall: switches.contains(Switches::STALL),
            abort: switches.contains(Switches::ABORT),
        }
    }
}

/// A stream and one of its substreams: everything a page walk needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// The stream.
    pub stream: Stream,
    /// The substream; `None`: stage 1 does not translate.
    pub context: Option<Context>,
}

impl Space {
    /// What is known of a request before it is translated.
    #[must_use]
    pub fn detail(&self, access: Access, pasid: Option<Pasid>) -> Detail {
        detail(&self.stream, access, pasid)
    }

    /// Puts in what the tables say of a fault.
    #[cold]
    pub(super) fn gate(&self, failure: &mut Failure) {
        // Without a context descriptor there is no such fault.
        let none = Faults {
            record: true,
            stall: false,
            abort: true,
        };
        let first = self.context.as_ref().map_or(none, Context::faults);
        failure.gate(first, self.stream.faults());
    }

    /// The failure that a walk left behind, with what the tables say of it. Put together where it goes: a
    /// copy of what was just written waits for it.
    #[cold]
    pub(super) fn failed(&self, dma: &Dma, left: Option<&crate::Failure<Cause>>) -> Failure {
        // A walk that stops leaves one.
        let nothing = crate::Failure::new(Cause::StreamAborts);
        let detail = self.detail(dma.access, dma.pasid);
        let mut failure = left.unwrap_or(&nothing).detailed(detail);
        self.gate(&mut failure);
        failure
    }

    /// The top second-stage table and its number of levels; `None` where stage 2 does not translate.
    #[must_use]
    pub fn second(&self) -> Option<PageTable> {
        self.stream.second.found()
    }

    /// The top first-stage tables of the lower and of the upper range; `None` for one that is not
    /// translated.
    #[must_use]
    pub fn first(&self) -> [Option<PageTable>; 2] {
        self.context.map_or([None; 2], |context| {
            [context.lower.found(), context.upper.found()]
        })
    }
}

/// What is known of a request of a stream.
#[cold]
pub(super) fn detail(stream: &Stream, access: Access, pasid: Option<Pasid>) -> Detail {
    let effective = stream.effective(access, pasid);
    let mut detail = Detail::empty();
    detail.set(Detail::PRIVILEGED, effective.contains(Access::PRIV));
    detail.set(Detail::INSTRUCTION, effective.contains(Access::EXEC));
    detail.set(Detail::MERGE, stream.word1.merge_events());
    detail
}

/// A table's address, aligned to its size: 2^`bits` entries of 8 bytes.
#[inline(always)]
pub(super) const fn aligned(table: Gpa, bits: u8) -> Gpa {
    Gpa(table.0 & !0 << (bits.wrapping_add(3) & 63))
}
