//! Tables of context descriptors.
//!
//! Spec: IHI 0070, "L1CD, Level 1 Context Descriptor", "Validity of CD".

use super::{At, Bad, bad};
use crate::format::Stop;
use crate::smmuv3::Failure;
use crate::smmuv3::cause::{Cause, Class};
use crate::smmuv3::formats;
use crate::smmuv3::space::{Context, Space, Stream, Switches, Top, aligned};
use crate::smmuv3::stage::Regime;
use crate::smmuv3::unit::{StallModel, Unit};
use crate::stage::{Lower, Trip};
use crate::trail::{Recorder, Stage, Table, Updates, Verdict};
use crate::{TableMem, Unreachable};
use iommu_wire::smmuv3::pte::{Granule, Stage2Entry};
use iommu_wire::smmuv3::tables::{
    ContextDescriptor, ContextWord0, ENTRY_SIZE, LEVEL1_SIZE, Level1Context,
};
use iopf::{Dma, Gpa};

/// Reads the context descriptor of this number, through stage 2 where it translates.
///
/// The result depends on nothing but the stream and the number, and can be cached under them. `dma` is for
/// whom it is read: a failure tells of it. `updates` receives the access flags of stage 2 to set; it is not
/// cleared.
///
/// # Errors
/// [`Failure`] of a condition of the table, or of stage 2 on the way to it.
#[inline(always)]
pub fn read_context<M: TableMem, R: Recorder>(
    unit: &Unit,
    stream: &Stream,
    mem: &M,
    dma: &Dma,
    number: u32,
    updates: &mut Updates,
    recorder: &mut R,
) -> Result<Context, Failure> {
    let mut reader = Reader {
        unit,
        stream,
        mem,
        dma,
        updates,
        recorder,
    };
    let word0 = stream.word0;
    let addr = match (word0.context_bits(), word0.context_format()) {
        (bits @ 1.., 1) => reader.level1(number, bits, 6)?,
        (bits @ 1.., 2) => reader.level1(number, bits, 10)?,
        (bits, _) => {
            // The table is aligned to its size: 2^bits entries of 64 bytes.
            let table = aligned(word0.contexts(), bits + 3);
            Gpa(table.0 + u64::from(number) * ENTRY_SIZE)
        }
    };
    reader.descriptor(addr, number)
}

/// Reads a descriptor, through stage 2 or not.
struct Reader<'a, M, R> {
    unit: &'a Unit,
    stream: &'a Stream,
    mem: &'a M,
    dma: &'a Dma,
    updates: &'a mut Updates,
    recorder: &'a mut R,
}

impl<M: TableMem, R: Recorder> Reader<'_, M, R> {
    /// Where an entry of a table lies in memory.
    #[inline(always)]
    fn locate(&mut self, table: Table, index: u32, addr: Gpa) -> Result<At, Failure> {
        let second = self.stream.second;
        let (physical, guest) = if second.is_none() {
            (addr, None)
        } else {
            (self.through(second, addr)?, Some(addr))
        };
        Ok(At {
            table,
            index,
            addr: physical,
            guest,
        })
    }

    /// Goes through stage 2 to read what lies at an intermediate address.
    #[inline(never)]
    fn through(&mut self, second: Top, addr: Gpa) -> Result<Gpa, Failure> {
        let regime = Regime::new(second, second, self.stream.word2);
        let mut trip = Trip {
            unit: &regime,
            mem: self.mem,
            recorder: self.recorder,
            updates: self.updates,
            given: Class::Context,
            failure: None,
        };
        let lower = trip.lower(second.table());
        reach(&mut trip, &lower, addr).map_err(|Stop| {
            let space = Space {
                stream: *self.stream,
                context: None,
            };
            space.failed(self.dma, trip.failure.as_ref())
        })
    }

    /// Goes through a level 1 table, whose entries are for 2^`split` descriptors each.
    #[inline(never)]
    fn level1(&mut self, number: u32, bits: u8, split: u8) -> Result<Gpa, Failure> {
        // The table is aligned to its size.
        let table = aligned(self.stream.word0.contexts(), bits.saturating_sub(split));
        let index = number >> split;
        let addr = Gpa(table.0 + u64::from(index) * LEVEL1_SIZE);
        let at = self.locate(Table::ContextLevel1, index, addr)?;
        let Ok(word) = self.mem.load(at.addr) else {
            return Err(at.unreadable(self.recorder, Cause::ContextLevel1Unreadable));
        };
        let entry = Level1Context::from_bits(word);
        let beyond = entry.table().0 & !0 << self.unit.output_bits();
        let bad = if !entry.valid() {
            bad(Cause::ContextLevel1Invalid, 0, Level1Context::VALID)
        } else if beyond != 0 {
            bad(Cause::ContextLevel1Pointer, 0, beyond)
        } else {
            at.record(self.recorder, &[word], Verdict::Next);
            let index = number & !(!0 << split);
            let table = aligned(entry.table(), split + 3);
            return Ok(Gpa(table.0 + u64::from(index) * ENTRY_SIZE));
        };
        Err(at.reject(self.recorder, &[word], bad))
    }

    #[inline(always)]
    fn descriptor(&mut self, addr: Gpa, number: u32) -> Result<Context, Failure> {
        let at = self.locate(Table::ContextDescriptor, number, addr)?;
        let words: [u64; 8] = match self.mem.load_words(at.addr) {
            Ok(words) => words,
            Err(Unreachable(_)) => {
                return Err(at.unreadable(self.recorder, Cause::ContextUnreadable));
            }
        };
        match check(
            self.unit,
            self.stream,
            &ContextDescriptor::from_words(words),
        ) {
            Ok(context) => {
                at.record(self.recorder, &words, Verdict::Next);
                Ok(context)
            }
            Err(bad) => Err(at.reject(self.recorder, &words, bad)),
        }
    }
}

/// Where an intermediate address lies that is to be read.
fn reach<M: TableMem, R: Recorder>(
    trip: &mut Trip<'_, Regime, M, R>,
    lower: &Lower,
    addr: Gpa,
) -> Result<Gpa, Stop> {
    let leaf = trip.second(lower, addr.0, Some(addr), 0)?;
    if leaf.every & Stage2Entry::READ == 0 {
        let guilty = trip.guilty_second(lower.table, addr.0, Stage2Entry::READ);
        return Err(trip.refuse(
            Cause::ContextIpaDenied,
            Stage::Second,
            guilty,
            Stage2Entry::READ,
            Some(addr),
        ));
    }
    if lower.accessed & !leaf.raw != 0 {
        trip.mark_second(leaf.here, leaf.raw, lower.accessed, Some(addr))?;
    }
    Ok(Gpa(leaf.address(trip.format(Stage::Second), addr.0)))
}

/// The checks of "Validity of CD", in its order, but for the granules, which come before the sizes.
#[inline(always)]
fn check(unit: &Unit, stream: &Stream, entry: &ContextDescriptor) -> Result<Context, Bad> {
    let word0 = entry.word0;
    if !word0.valid() {
        return Err(bad(Cause::ContextInvalid, 0, ContextWord0::VALID));
    }
    let stalls = match unit.stall_model() {
        StallModel::Chosen => word0.stall() && !stream.word1.stall_disable(),
        StallModel::Never => false,
        StallModel::Always => true,
    };
    if word0.stall() != stalls {
        return Err(bad(Cause::ContextStall, 0, ContextWord0::STALL));
    }
    if unit.always_aborts() && !word0.abort() {
        return Err(bad(Cause::ContextAbort, 0, ContextWord0::ABORT));
    }
    if word0.big_endian() && !(word0.lower_disabled() && word0.upper_disabled()) {
        return Err(bad(Cause::ContextEndian, 0, ContextWord0::BIG_ENDIAN));
    }
    if !word0.aarch64() || !unit.has_tables() {
        return Err(bad(Cause::ContextFormat, 0, ContextWord0::AARCH64));
    }
    let (accesses, dirties) = unit.updates();
    if word0.hardware_access() && !accesses || word0.hardware_dirty() && !dirties {
        let bits = ContextWord0::HARDWARE_ACCESS | ContextWord0::HARDWARE_DIRTY;
        return Err(bad(Cause::ContextUpdates, 0, bits));
    }
    if word0.asid() > 0xff && !unit.wide_asids() {
        return Err(bad(Cause::ContextAsid, 0, ContextWord0::ASID));
    }
    let lower = if word0.lower_disabled() {
        Top::NONE
    } else {
        let half = Half {
            word: 1,
            granule: Granule::lower(word0.lower_granule()),
            granule_bits: ContextWord0::LOWER_GRANULE,
            size: word0.lower_size(),
            size_bits: ContextWord0::LOWER_SIZE,
            table: entry.word1.top(),
            hierarchy_disabled: entry.word1.hierarchy_disabled(),
        };
        half.top(unit, word0.output_size())?
    };
    let upper = if word0.upper_disabled() {
        Top::NONE
    } else {
        let half = Half {
            word: 2,
            granule: Granule::upper(word0.upper_granule()),
            granule_bits: ContextWord0::UPPER_GRANULE,
            size: word0.upper_size(),
            size_bits: ContextWord0::UPPER_SIZE,
            table: entry.word2.top(),
            hierarchy_disabled: entry.word2.hierarchy_disabled(),
        };
        half.top(unit, word0.output_size())?
    };
    let switches = switches(unit, entry);
    Ok(Context::new(lower, upper, word0.asid(), switches))
}

/// One of the two ranges.
struct Half {
    /// The word that has its table.
    word: u8,
    granule: Option<Granule>,
    granule_bits: u64,
    size: u8,
    size_bits: u64,
    table: Gpa,
    hierarchy_disabled: bool,
}

impl Half {
    #[inline(always)]
    fn top(&self, unit: &Unit, output: u8) -> Result<Top, Bad> {
        let granule = match self.granule {
            Some(granule) if unit.has_granule(granule) => granule,
            _ => return Err(bad(Cause::ContextGranule, 0, self.granule_bits)),
        };
        if !(16..=unit.largest_size(granule)).contains(&self.size) {
            return Err(bad(Cause::ContextInputSize, 0, self.size_bits));
        }
        let output = output.min(unit.output_size());
        let beyond = self.table.0 & !0 << formats::width(output);
        if beyond != 0 {
            return Err(bad(Cause::ContextTable, self.word, beyond));
        }
        let bits = 64 - self.size;
        let resolved = bits - granule.page_shift();
        let levels = resolved.div_ceil(granule.stride());
        let index = resolved - granule.stride() * (levels - 1);
        let root = aligned(self.table, index);
        let without = self.hierarchy_disabled && unit.has_hierarchy_disable();
        Ok(Top::new(root, levels, bits, granule, output).without_hierarchy(without))
    }
}

#[inline(always)]
fn switches(unit: &Unit, entry: &ContextDescriptor) -> Switches {
    let word0 = entry.word0;
    let bits = word0.into_bits();
    // S, R and A are where `Switches` has them, 44 bits below.
    let mut switches = Switches::from_bits_retain((bits >> 44 & 0b111) as u16);
    switches.set(Switches::ACCESS_FLAG_IGNORED, word0.access_flag_ignored());
    switches.set(Switches::HARDWARE_ACCESS, word0.hardware_access());
    let dirty = word0.hardware_dirty() && word0.hardware_access();
    switches.set(Switches::HARDWARE_DIRTY, dirty);
    switches.set(Switches::WRITE_EXECUTE_NEVER, word0.write_execute_never());
    switches.set(
        Switches::PRIVILEGED_ACCESS_NEVER,
        word0.privileged_access_never(),
    );
    let enhanced = entry.word1.enhanced_pan() && unit.has_enhanced_pan();
    switches.set(Switches::ENHANCED_PAN, enhanced);
    switches.set(
        Switches::LOWER_TOP_BYTE_IGNORED,
        word0.lower_top_byte_ignored(),
    );
    switches.set(
        Switches::UPPER_TOP_BYTE_IGNORED,
        word0.upper_top_byte_ignored(),
    );
    if unit.has_user_disable() {
        switches.set(Switches::LOWER_USER_DISABLED, entry.word1.user_disabled());
        switches.set(Switches::UPPER_USER_DISABLED, entry.word2.user_disabled());
    }
    switches.set(Switches::OWN_ASID_SET, word0.own_asid_set());
    switches
}
