//! Stream tables.
//!
//! Spec: IHI 0070, "Stream table lookup", "L1STD, Level 1 Stream Table Descriptor", "Validity of STE".

use super::{At, Bad, bad};
use crate::smmuv3::formats;
use crate::smmuv3::space::{Stream, Top, aligned};
use crate::smmuv3::unit::{StallModel, Unit};
use crate::smmuv3::{Cause, Detail, Failure};
use crate::trail::{Recorder, Table, Verdict};
use crate::{TableMem, Unreachable};
use iommu_wire::smmuv3::pte::Granule;
use iommu_wire::smmuv3::tables::{
    ENTRY_SIZE, Level1Stream, StreamEntry, StreamWord0, StreamWord1, StreamWord2, StreamWord3,
};
use iopf::{Gpa, Rid};

/// Reads a stream table entry.
///
/// The result depends on nothing but the stream and can be cached under it: [`admit`](super::admit),
/// [`Stream::substream`] and [`walk`](crate::smmuv3::walk) make the checks that depend on the request.
///
/// # Errors
/// [`Failure`] of a condition of the stream table: `C_BAD_STREAMID`, `F_STE_FETCH` or `C_BAD_STE`.
#[inline(always)]
pub fn read_stream<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    stream: Rid,
    recorder: &mut R,
) -> Result<Stream, Failure> {
    let Some((addr, index)) = unit.stream_entry(stream.0) else {
        return Err(outside(unit));
    };
    let (addr, index) = match unit.split() {
        None => (addr, index),
        Some(split) => level1(unit, mem, recorder, stream.0, split, (addr, index))?,
    };
    let at = At {
        table: Table::Stream,
        index,
        addr,
        guest: None,
    };
    let words: [u64; 8] = match mem.load_words(addr) {
        Ok(words) => words,
        Err(Unreachable(_)) => return Err(at.unreadable(recorder, Cause::StreamUnreadable)),
    };
    match check(unit, StreamEntry::from_words(words)) {
        Ok(stream) => {
            at.record(recorder, &words, Verdict::Next);
            Ok(stream)
        }
        Err(bad) => Err(at.reject(recorder, &words, bad)),
    }
}

/// The stream is not in the table.
#[cold]
fn outside(unit: &Unit) -> Failure {
    let failure = Failure::with(Cause::StreamOutsideTable, Detail::empty());
    failure.hidden(!unit.records_stream_ids())
}

/// Goes through a level 1 table: gives the entry in the level 2 table, and its number there.
#[inline(never)]
fn level1<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    recorder: &mut R,
    stream: u32,
    split: u32,
    (addr, index): (Gpa, u32),
) -> Result<(Gpa, u32), Failure> {
    let at = At {
        table: Table::StreamLevel1,
        index,
        addr,
        guest: None,
    };
    let Ok(word) = mem.load(addr) else {
        return Err(at.unreadable(recorder, Cause::StreamLevel1Unreadable));
    };
    let entry = Level1Stream::from_bits(word);
    let hidden = !unit.records_stream_ids();
    let mut reject = |cause| {
        let failure = at.reject(recorder, &[word], bad(cause, 0, Level1Stream::SPAN));
        Err(failure.hidden(hidden))
    };
    if entry.entries() == 0 || u32::from(entry.span()) > split + 1 {
        return reject(Cause::StreamLevel1Invalid);
    }
    let index = stream & !(!0 << split);
    if index >= entry.entries() {
        return reject(Cause::StreamOutsideSpan);
    }
    at.record(recorder, &[word], Verdict::Next);
    Ok((Gpa(entry.table().0 + u64::from(index) * ENTRY_SIZE), index))
}

/// The checks of "Validity of STE", in its order.
#[inline(always)]
fn check(unit: &Unit, entry: StreamEntry) -> Result<Stream, Bad> {
    let StreamEntry {
        mut word0,
        word1,
        word2,
        word3,
        ..
    } = entry;
    if !word0.valid() {
        return Err(bad(Cause::StreamInvalid, 0, StreamWord0::VALID));
    }
    let config = word0.config();
    if unit.substream_bits() == 0 {
        word0.set_context_bits(0);
    }
    let mut stream = Stream {
        word0,
        word1,
        word2: StreamWord2::new(),
        second: Top::NONE,
    };
    if config.aborts() {
        return Ok(stream);
    }
    if config.first() && !unit.has_first() {
        return Err(bad(Cause::StreamFirstMissing, 0, StreamWord0::CONFIG));
    }
    if config.second() && !unit.has_second() {
        return Err(bad(Cause::StreamSecondMissing, 0, StreamWord0::CONFIG));
    }
    let translates = config.first() || config.second();
    stream.word1 = attributes(unit, word1, translates);
    if stream.word1.ats() == 2 || stream.ats() && config.second() && word2.stall() {
        return Err(bad(Cause::StreamAts, 1, StreamWord1::ATS));
    }
    if config.first() {
        first(unit, word0, word1)?;
    }
    if config.second() {
        stream.second = second(unit, word2, word3)?;
        stream.word2 = word2
            .with_hardware_dirty(word2.hardware_dirty() && word2.hardware_access())
            .with_implementation(unit.has_execute_levels().into());
    }
    if unit.has_second() && translates {
        if word2.vmid() > 0xff && !unit.wide_vmids() {
            return Err(bad(Cause::StreamVmid, 2, StreamWord2::VMID));
        }
        stream.word2.set_vmid(word2.vmid());
    }
    Ok(stream)
}

/// Word 1 without what does not count.
#[inline(always)]
fn attributes(unit: &Unit, word1: StreamWord1, translates: bool) -> StreamWord1 {
    let mut word = word1.into_bits();
    if !unit.has_overrides() {
        word &= !(StreamWord1::PRIVILEGE | StreamWord1::INSTRUCTION);
    }
    if !unit.has_ats() || !translates {
        word &= !StreamWord1::ATS;
    }
    StreamWord1::from_bits(word)
}

/// Of an entry whose stage 1 translates.
#[inline(always)]
fn first(unit: &Unit, word0: StreamWord0, word1: StreamWord1) -> Result<(), Bad> {
    if word1.stall_disable() && unit.stall_model() != StallModel::Chosen {
        let bits = StreamWord1::STALL_DISABLE;
        return Err(bad(Cause::StreamStallDisable, 1, bits));
    }
    if word0.context_bits() > unit.substream_bits() {
        return Err(bad(Cause::StreamContextBits, 0, StreamWord0::CONTEXT_BITS));
    }
    if word0.context_bits() != 0
        && !unit.has_context_levels()
        && matches!(word0.context_format(), 1 | 2)
    {
        let bits = StreamWord0::CONTEXT_FORMAT;
        return Err(bad(Cause::StreamContextFormat, 0, bits));
    }
    // An intermediate address may be as wide as a physical one.
    let beyond = word0.contexts().0 & !0 << unit.output_bits();
    if beyond != 0 {
        return Err(bad(Cause::StreamContextPointer, 0, beyond));
    }
    Ok(())
}

/// Of an entry whose stage 2 translates.
#[inline(always)]
fn second(unit: &Unit, word2: StreamWord2, word3: StreamWord3) -> Result<Top, Bad> {
    let stalls = match unit.stall_model() {
        StallModel::Chosen => word2.stall(),
        StallModel::Never => false,
        StallModel::Always => true,
    };
    if word2.stall() != stalls {
        return Err(bad(Cause::StreamSecondStall, 2, StreamWord2::STALL));
    }
    if !word2.aarch64() || !unit.has_tables() {
        return Err(bad(Cause::StreamSecondFormat, 2, StreamWord2::AARCH64));
    }
    let (accesses, dirties) = unit.updates();
    if word2.hardware_access() && !accesses || word2.hardware_dirty() && !dirties {
        let bits = StreamWord2::HARDWARE_ACCESS | StreamWord2::HARDWARE_DIRTY;
        return Err(bad(Cause::StreamSecondUpdates, 2, bits));
    }
    let granule = match Granule::lower(word2.granule()) {
        Some(granule) if unit.has_granule(granule) => granule,
        _ => return Err(bad(Cause::StreamSecondGranule, 2, StreamWord2::GRANULE)),
    };
    let size = word2.output_size().min(unit.output_size());
    let beyond = word3.top().0 & !0 << formats::width(size);
    if beyond != 0 {
        return Err(bad(Cause::StreamSecondTable, 3, beyond));
    }
    // The input is no wider than an intermediate address.
    let smallest = 64 - unit.output_bits();
    if !(smallest..=unit.largest_size(granule)).contains(&word2.input_size()) {
        return Err(bad(Cause::StreamSecondInput, 2, StreamWord2::INPUT_SIZE));
    }
    let bits = 64 - word2.input_size();
    let levels = start_level(unit, granule, word2.start_level());
    let below = granule.page_shift() + granule.stride() * levels.saturating_sub(1);
    // A top table resolves at least one bit, and at most four more than others do.
    if levels == 0 || bits <= below || bits - below > granule.stride() + 4 {
        let decided = StreamWord2::START_LEVEL | StreamWord2::INPUT_SIZE;
        return Err(bad(Cause::StreamSecondLevel, 2, decided));
    }
    if word2.big_endian() {
        return Err(bad(Cause::StreamSecondEndian, 2, StreamWord2::BIG_ENDIAN));
    }
    let root = aligned(word3.top(), bits - below);
    Ok(Top::new(root, levels, bits, granule, size))
}

/// The level at which a walk starts, counted from 1, the level of pages; 0 where it is reserved. DDI 0487,
/// "AArch64.S2StartLevel" and "AArch64.S2InvalidSL".
const fn start_level(unit: &Unit, granule: Granule, level: u8) -> u8 {
    let narrow = match granule {
        Granule::K4 | Granule::K64 => unit.output_bits() < 44,
        Granule::K16 => unit.output_bits() < 42,
    };
    match (granule, level) {
        (_, 2) if narrow => 0,
        (Granule::K4, 3) => unit.has_small_tables() as u8,
        // With 16 KiB it takes DS, and with that descriptors of 52-bit addresses.
        (Granule::K16 | Granule::K64, 3) => 0,
        (Granule::K4, level) => level + 2,
        (_, level) => level + 1,
    }
}
