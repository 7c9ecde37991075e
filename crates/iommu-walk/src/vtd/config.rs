//! From a requester and PASID to an address space.
//!
//! Spec: Intel VT-d, "Mapping Devices to Domains" and the entry formats of "Translation Structure
//! Formats".

use super::space::{AddressSpace, DomainId, Switches, Translate};
use super::unit::{Mode, Unit};
use super::{Cause, Failure, caps, in_interrupt_range, stage};
use crate::format::Stop;
use crate::outcome::{PageTable, Translation};
use crate::trail::{Raw, Recorder, Step, Table, Verdict};
use crate::{TableMem, Unreachable};
use iommu_wire::vtd::tables::{
    ContextHi, ContextLo, DirectoryWord, PasidDomainWord, PasidFirstWord, PasidSecondWord,
    PointerWord, ScalableContextHi, ScalableContextLo, TranslationType,
};
use iopf::{Access, Dma, DmaKind, Gpa, Pasid, Rid};

/// A requester's context entry: what a context cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Context {
    /// Legacy mode: the context entry is all there is.
    Legacy(AddressSpace),
    /// Scalable mode: the way to the PASID table.
    Scalable(ScalableContext),
}

/// A scalable-mode context entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ScalableContext {
    /// Where the PASID directory lies.
    pub directory: Gpa,
    /// How many PASIDs the directory covers.
    pub pasids: u32,
    /// The PASID that stands for requests without one.
    pub rid_pasid: Pasid,
    /// What the context entry allows; the PASID table entry adds to it.
    pub switches: Switches,
    /// Requests with a PASID are allowed (PASIDE).
    pub pasid_enabled: bool,
    /// Translated requests with a PASID are allowed (EPTR).
    pub translated_pasid: bool,
}

impl Context {
    /// Whether translation and translated requests are allowed.
    #[must_use]
    pub const fn device_tlb(&self) -> bool {
        match self {
            Self::Legacy(space) => space.switches.contains(Switches::DEVICE_TLB),
            Self::Scalable(context) => context.switches.contains(Switches::DEVICE_TLB),
        }
    }
}

/// An entry's place.
#[derive(Clone, Copy)]
struct Place {
    table: Table,
    index: u32,
    addr: Gpa,
}

/// Reads configuration entries. A method that returns [`Stop`] leaves the reason in `failure`.
struct Reader<'a, M, R> {
    unit: &'a Unit,
    mem: &'a M,
    recorder: &'a mut R,
    failure: Option<Failure>,
    /// The first words of the entries read so far that have FPD, one over the other.
    first_words: u64,
}

/// Where FPD is, in every entry that has it.
const FPD: u64 = 1 << 1;

impl<'a, M: TableMem, R: Recorder> Reader<'a, M, R> {
    #[inline]
    fn new(unit: &'a Unit, mem: &'a M, recorder: &'a mut R) -> Self {
        Self {
            unit,
            mem,
            recorder,
            failure: None,
            first_words: 0,
        }
    }

    /// The failure that a method left behind.
    #[cold]
    fn failed(&mut self) -> Failure {
        self.failure
            .take()
            .unwrap_or(Failure::new(Cause::ModeUnsupported))
    }

    /// Whether FPD was set in an entry read so far.
    fn hidden(&self) -> bool {
        self.first_words & FPD != 0
    }

    #[inline(always)]
    fn read<const N: usize>(&mut self, place: Place, cause: Cause) -> Result<[u64; N], Stop> {
        match self.mem.load_words(place.addr) {
            Ok(words) => Ok(words),
            Err(Unreachable(_)) => Err(self.unreadable(place, cause)),
        }
    }

    #[cold]
    fn unreadable(&mut self, place: Place, cause: Cause) -> Stop {
        self.record(place, &[], Verdict::Unreadable);
        let failure = Failure::new(cause).hidden(self.hidden());
        self.failure = Some(failure.unreadable(place.addr));
        Stop
    }

    #[inline(always)]
    fn record(&mut self, place: Place, words: &[u64], verdict: Verdict) {
        if R::ACTIVE {
            self.recorder.step(&Step {
                table: place.table,
                level: 0,
                index: place.index,
                addr: place.addr,
                guest_addr: None,
                raw: Raw::new(words),
                verdict,
            });
        }
    }

    // What follows is inlined down to `blame`, so that a recorder that is not active leaves no need
    // to have the entry in memory.

    /// Ends the walk at this entry: `bits` of its word `word` decided.
    #[inline(always)]
    fn reject<const N: usize>(
        &mut self,
        place: Place,
        words: &[u64; N],
        verdict: Verdict,
        cause: Cause,
        (word, bits): (u8, u64),
    ) -> Stop {
        self.record(place, words, verdict);
        let value = words.get(usize::from(word)).copied().unwrap_or(0);
        self.blame(place.addr.0 + 8 * u64::from(word), value, cause, bits)
    }

    #[cold]
    fn blame(&mut self, at: u64, value: u64, cause: Cause, bits: u64) -> Stop {
        let failure = Failure::new(cause).hidden(self.hidden());
        self.failure = Some(failure.at(Gpa(at), value, bits));
        Stop
    }

    #[inline(always)]
    fn absent<const N: usize>(&mut self, place: Place, words: &[u64; N], cause: Cause) -> Stop {
        self.reject(place, words, Verdict::NotPresent, cause, (0, 1))
    }

    #[inline(always)]
    fn invalid<const N: usize>(
        &mut self,
        place: Place,
        words: &[u64; N],
        cause: Cause,
        bits: (u8, u64),
    ) -> Stop {
        self.reject(place, words, Verdict::Invalid, cause, bits)
    }

    /// Rejects the entry for the first word with reserved bits.
    #[inline(always)]
    fn reserved<const N: usize>(
        &mut self,
        place: Place,
        words: &[u64; N],
        masks: &[u64],
        cause: Cause,
    ) -> Stop {
        self.record(place, words, Verdict::Reserved);
        let (mut at, mut value, mut bits) = (0, 0, 0);
        // From the last word to the first, so that the first one wins.
        for (number, word) in words.iter().enumerate().rev() {
            let set = word & masks.get(number).unwrap_or(&!0);
            if set != 0 {
                (at, value, bits) = (number as u64, *word, set);
            }
        }
        self.blame(place.addr.0 + 8 * at, value, cause, bits)
    }

    #[inline(always)]
    fn legacy(&mut self, rid: Rid) -> Result<AddressSpace, Stop> {
        let unit = self.unit;
        let place = Place::of(Table::Root, unit.root_table(), rid.bus().into(), 16);
        let words: [u64; 2] = self.read(place, Cause::RootUnreadable)?;
        let lo = PointerWord::from_bits(words[0]);
        if !lo.present() {
            return Err(self.absent(place, &words, Cause::RootNotPresent));
        }
        let masks = [unit.above_haw | 0xffe, !0];
        if set(&words, &masks) {
            return Err(self.reserved(place, &words, &masks, Cause::RootReserved));
        }
        self.record(place, &words, Verdict::Next);

        let place = Place::of(Table::Context, lo.pointer(), rid.devfn().into(), 16);
        let words: [u64; 2] = self.read(place, Cause::ContextUnreadable)?;
        let lo = ContextLo::from_bits(words[0]);
        let hi = ContextHi::from_bits(words[1]);
        self.first_words = words[0];
        if !lo.present() {
            return Err(self.absent(place, &words, Cause::ContextNotPresent));
        }
        if set(&words, &unit.context_reserved) {
            let masks = &unit.context_reserved;
            return Err(self.reserved(place, &words, masks, Cause::ContextReserved));
        }
        let mut switches = Switches::empty();
        switches.set(Switches::FAULTS_HIDDEN, lo.fault_processing_disable());
        // A width of w has w + 2 levels and covers 30 + 9 w bits.
        let width = hi.address_width();
        let table = PageTable {
            root: lo.second_stage(),
            levels: width + 2,
        };
        let translate = match lo.translation_type() {
            TranslationType::SECOND_STAGE => Translate::Second(table),
            TranslationType::DEVICE_TLB if unit.has(caps::ECAP_DT) => {
                switches |= Switches::DEVICE_TLB;
                Translate::Second(table)
            }
            TranslationType::PASS_THROUGH if unit.has(caps::ECAP_PT) => Translate::PassThrough,
            _ => {
                let bits = (0, ContextLo::TRANSLATION_TYPE);
                return Err(self.invalid(place, &words, Cause::ContextType, bits));
            }
        };
        if !unit.supports_width(width) {
            let bits = (1, ContextHi::ADDRESS_WIDTH);
            return Err(self.invalid(place, &words, Cause::ContextWidth, bits));
        }
        self.record(place, &words, Verdict::Next);
        Ok(AddressSpace {
            domain: DomainId(hi.domain()),
            pasid: None,
            translate,
            switches,
        })
    }

    #[inline(always)]
    fn scalable(&mut self, rid: Rid) -> Result<ScalableContext, Stop> {
        let unit = self.unit;
        let place = Place::of(Table::Root, unit.root_table(), rid.bus().into(), 16);
        let words: [u64; 2] = self.read(place, Cause::ScalableRootUnreadable)?;
        // Devices 0–15 are in the lower table, 16–31 in the upper one.
        let half = rid.devfn() >> 7;
        let word = if half == 0 { words[0] } else { words[1] };
        let at = place.addr.0 + 8 * u64::from(half);
        let pointer = PointerWord::from_bits(word);
        if !pointer.present() {
            self.record(place, &words, Verdict::NotPresent);
            let cause = Cause::ScalableRootNotPresent;
            return Err(self.blame(at, word, cause, 1));
        }
        let bits = word & (unit.above_haw | 0xffe);
        if bits != 0 {
            self.record(place, &words, Verdict::Reserved);
            return Err(self.blame(at, word, Cause::ScalableRootReserved, bits));
        }
        self.record(place, &words, Verdict::Next);

        let index = u32::from(rid.devfn() & 0x7f);
        let place = Place::of(Table::Context, pointer.pointer(), index, 32);
        let words: [u64; 4] = self.read(place, Cause::ScalableContextUnreadable)?;
        let lo = ScalableContextLo::from_bits(words[0]);
        let hi = ScalableContextHi::from_bits(words[1]);
        self.first_words = words[0];
        if !lo.present() {
            return Err(self.absent(place, &words, Cause::ScalableContextNotPresent));
        }
        if set(&words, &unit.scalable_context_reserved) {
            let masks = &unit.scalable_context_reserved;
            return Err(self.reserved(place, &words, masks, Cause::ScalableContextReserved));
        }
        if lo.page_requests() && !lo.device_tlb() {
            let bits = ScalableContextLo::DEVICE_TLB | ScalableContextLo::PAGE_REQUESTS;
            let cause = Cause::PageRequestsWithoutDeviceTlb;
            return Err(self.invalid(place, &words, cause, (0, bits)));
        }
        let pasids = lo.pasids();
        if hi.rid_pasid() >= pasids {
            let bits = (1, ScalableContextHi::RID_PASID);
            return Err(self.invalid(place, &words, Cause::RidPasidTooLarge, bits));
        }
        if lo.translated_pasid() && !lo.pasid_enabled() {
            let bits = ScalableContextLo::PASIDS | ScalableContextLo::TRANSLATED_PASID;
            let cause = Cause::TranslatedPasidWithoutPasid;
            return Err(self.invalid(place, &words, cause, (0, bits)));
        }
        self.record(place, &words, Verdict::Next);
        // FPD, DTE and PRE, then RID_PRIV: see `Switches`.
        #[expect(clippy::cast_possible_truncation, reason = "both are masked")]
        let bits = ((words[0] & 0b1_0110) << 8 | words[1] >> 12 & 0x100) as u16;
        Ok(ScalableContext {
            directory: lo.directory(),
            pasids,
            rid_pasid: Pasid::truncate(hi.rid_pasid()),
            switches: Switches::from_bits_retain(bits) | Switches::SCALABLE,
            pasid_enabled: lo.pasid_enabled(),
            translated_pasid: lo.translated_pasid(),
        })
    }

    #[inline(always)]
    fn pasid_entry(
        &mut self,
        context: &ScalableContext,
        pasid: Pasid,
    ) -> Result<AddressSpace, Stop> {
        let unit = self.unit;
        // FPD of the context entry: see `Switches`.
        self.first_words = u64::from(context.switches.bits() >> 8);
        let (high, low) = (pasid.get() >> 6, pasid.get() & 0x3f);
        let place = Place::of(Table::PasidDirectory, context.directory, high, 8);
        let words: [u64; 1] = self.read(place, Cause::DirectoryUnreadable)?;
        let word = DirectoryWord::from_bits(words[0]);
        self.first_words |= words[0];
        if !word.present() {
            return Err(self.absent(place, &words, Cause::DirectoryNotPresent));
        }
        let masks = [unit.above_haw | 0xffc];
        if set(&words, &masks) {
            return Err(self.reserved(place, &words, &masks, Cause::DirectoryReserved));
        }
        self.record(place, &words, Verdict::Next);

        let place = Place::of(Table::PasidTable, word.table(), low, 64);
        let words: [u64; 8] = self.read(place, Cause::PasidEntryUnreadable)?;
        let second = PasidSecondWord::from_bits(words[0]);
        self.first_words |= words[0];
        if !second.present() {
            return Err(self.absent(place, &words, Cause::PasidEntryNotPresent));
        }
        if set(&words, &unit.pasid_reserved) {
            let masks = &unit.pasid_reserved;
            return Err(self.reserved(place, &words, masks, Cause::PasidEntryReserved));
        }
        let first = PasidFirstWord::from_bits(words[2]);
        let translate = self.translation_of(place, &words, second, first)?;
        self.record(place, &words, Verdict::Next);

        // SRE to EAFE; SSADE; PWSNP and PGSNP; FPD: see `Switches`.
        #[expect(clippy::cast_possible_truncation, reason = "all four are masked")]
        let bits = words[2] as u16 & unit.first_switches
            | ((words[0] & 1 << 9) << 2) as u16
            | (words[1] >> 10 & 0x6000) as u16
            | ((self.first_words & FPD) << 8) as u16;
        let switches = context.switches | Switches::from_bits_retain(bits);
        Ok(AddressSpace {
            domain: DomainId(PasidDomainWord::from_bits(words[1]).domain()),
            pasid: Some(pasid),
            translate,
            switches,
        })
    }

    #[inline(always)]
    fn translation_of(
        &mut self,
        place: Place,
        words: &[u64; 8],
        second: PasidSecondWord,
        first: PasidFirstWord,
    ) -> Result<Translate, Stop> {
        const FIRST: u8 = 1;
        const SECOND: u8 = 2;
        const NESTED: u8 = 3;
        let unit = self.unit;
        let kind = second.translation();
        if unit.translations >> (kind & 7) & 1 == 0 {
            let bits = (0, PasidSecondWord::TRANSLATION);
            return Err(self.invalid(place, words, Cause::PasidEntryType, bits));
        }
        let width = second.address_width();
        if matches!(kind, SECOND | NESTED) && !unit.supports_width(width) {
            let bits = (0, PasidSecondWord::ADDRESS_WIDTH);
            return Err(self.invalid(place, words, Cause::PasidEntryWidth, bits));
        }
        let mode = first.paging_mode();
        let five = mode == 1 && unit.cap() & caps::CAP_FS5LP != 0;
        if matches!(kind, FIRST | NESTED) && mode != 0 && !five {
            let bits = (2, PasidFirstWord::PAGING_MODE);
            return Err(self.invalid(place, words, Cause::PasidEntryPagingMode, bits));
        }
        let first = PageTable {
            root: first.table(),
            levels: 4 + u8::from(five),
        };
        let second = PageTable {
            root: second.table(),
            levels: width + 2,
        };
        if kind == FIRST {
            return Ok(Translate::First(first));
        }
        if kind == SECOND {
            return Ok(Translate::Second(second));
        }
        if kind != NESTED {
            return Ok(Translate::PassThrough);
        }
        let beyond = first.root.0 & !0 << unit.input_bits(second.levels);
        if beyond != 0 {
            let cause = Cause::FirstStagePointerWidth;
            return Err(self.invalid(place, words, cause, (2, beyond)));
        }
        Ok(Translate::Nested { first, second })
    }
}

impl Place {
    /// Entry `index` of the table at `base`, whose entries have `size` bytes.
    #[inline(always)]
    fn of(table: Table, base: Gpa, index: u32, size: u64) -> Self {
        Self {
            table,
            index,
            addr: Gpa(base.0.wrapping_add(u64::from(index) * size)),
        }
    }
}

/// Whether any bit of the masks is set, or of the words that have none.
#[inline(always)]
fn set<const N: usize>(words: &[u64; N], masks: &[u64]) -> bool {
    let mut all = 0;
    for (at, word) in words.iter().enumerate() {
        all |= word & masks.get(at).unwrap_or(&!0);
    }
    all != 0
}

/// What the root table address register says to a request, before any table is read.
#[inline]
fn mode(unit: &Unit, pasid: Option<Pasid>, execute: bool) -> Result<Mode, Cause> {
    let mode = unit.usable?;
    if pasid.is_some() {
        if mode == Mode::Legacy {
            return Err(Cause::PasidInLegacyMode);
        }
        if execute && unit.version() >= 8 {
            return Err(Cause::ExecuteUnsupported);
        }
    }
    Ok(mode)
}

/// Reads the context entry of a request's sender.
///
/// The request itself decides only what precedes the tables (a PASID in legacy mode); the result
/// depends on nothing but the requester and can be cached under it.
///
/// # Errors
/// [`Failure`] of an `RTA`, `LRT`, `LCT`, `SRT` or `SCT` condition.
#[inline(always)]
pub fn read_context<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<Context, Failure> {
    let execute = dma.access.contains(Access::EXEC);
    let mode = mode(unit, dma.pasid, execute).map_err(Failure::new)?;
    let mut reader = Reader::new(unit, mem, recorder);
    let context = if mode == Mode::Scalable {
        reader.scalable(dma.requester).map(Context::Scalable)
    } else {
        reader.legacy(dma.requester).map(Context::Legacy)
    };
    context.map_err(|Stop| reader.failed())
}

/// Checks a request against its context, and reads the PASID directory and PASID table entries in
/// scalable mode.
///
/// The result can be cached under the requester and PASID: [`walk`](super::walk) repeats the
/// checks that depend on the rest of the request.
///
/// # Errors
/// [`Failure`] of an `LCT.5`, `SCT`, `SPD` or `SPT` condition.
#[inline(always)]
pub fn read_space<M: TableMem, R: Recorder>(
    unit: &Unit,
    context: &Context,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<AddressSpace, Failure> {
    admit(unit, context, dma)?;
    match context {
        Context::Legacy(space) => Ok(*space),
        Context::Scalable(context) => {
            let pasid = dma.pasid.unwrap_or(context.rid_pasid);
            let mut reader = Reader::new(unit, mem, recorder);
            reader
                .pasid_entry(context, pasid)
                .map_err(|Stop| reader.failed())
        }
    }
}

/// [`read_context`] and [`read_space`] in one.
///
/// # Errors
/// Those of its two halves.
#[inline(always)]
pub fn configure<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<AddressSpace, Failure> {
    let execute = dma.access.contains(Access::EXEC);
    let mode = mode(unit, dma.pasid, execute).map_err(Failure::new)?;
    let mut reader = Reader::new(unit, mem, recorder);
    let space = if mode == Mode::Scalable {
        match reader.scalable(dma.requester) {
            Ok(context) => {
                admit_scalable(unit, &context, dma)?;
                reader.pasid_entry(&context, dma.pasid.unwrap_or(context.rid_pasid))
            }
            Err(Stop) => Err(Stop),
        }
    } else {
        match reader.legacy(dma.requester) {
            Ok(space) => {
                admit_legacy(&space, dma)?;
                Ok(space)
            }
            Err(Stop) => Err(Stop),
        }
    };
    space.map_err(|Stop| reader.failed())
}

/// Whether the context lets this request in.
#[inline]
fn admit(unit: &Unit, context: &Context, dma: &Dma) -> Result<(), Failure> {
    match context {
        Context::Legacy(space) => admit_legacy(space, dma),
        Context::Scalable(context) => admit_scalable(unit, context, dma),
    }
}

#[inline(always)]
fn admit_legacy(space: &AddressSpace, dma: &Dma) -> Result<(), Failure> {
    let cause = if dma.pasid.is_some() {
        Cause::PasidInLegacyMode
    } else if !matches!(dma.kind, DmaKind::Untranslated)
        && !space.switches.contains(Switches::DEVICE_TLB)
    {
        Cause::AddressTypeBlocked
    } else {
        return Ok(());
    };
    Err(refuse(cause, space.switches))
}

#[inline(always)]
fn admit_scalable(unit: &Unit, context: &ScalableContext, dma: &Dma) -> Result<(), Failure> {
    let tlb = !matches!(dma.kind, DmaKind::Untranslated);
    let verdict = match dma.pasid {
        _ if tlb && !context.switches.contains(Switches::DEVICE_TLB) => {
            Err(Cause::DeviceTlbDisabled)
        }
        None => Ok(()),
        Some(pasid) => admit_pasid(unit, context, pasid, dma.kind),
    };
    verdict.map_err(|cause| refuse(cause, context.switches))
}

#[inline]
fn admit_pasid(
    unit: &Unit,
    context: &ScalableContext,
    pasid: Pasid,
    kind: DmaKind,
) -> Result<(), Cause> {
    let translated = matches!(kind, DmaKind::Translated);
    if !translated && !context.pasid_enabled {
        Err(Cause::PasidDisabled)
    } else if translated && !context.translated_pasid {
        Err(Cause::TranslatedPasidDisabled)
    } else if pasid.get() >= unit.pasids {
        Err(Cause::PasidUnsupported)
    } else if pasid.get() >= context.pasids {
        Err(Cause::PasidTooLarge)
    } else if pasid == context.rid_pasid {
        Err(Cause::PasidIsRidPasid)
    } else {
        Ok(())
    }
}

#[cold]
fn refuse(cause: Cause, switches: Switches) -> Failure {
    Failure::new(cause).hidden(switches.contains(Switches::FAULTS_HIDDEN))
}

/// Lets a translated request through: it needs nothing but its context.
///
/// # Errors
/// [`Failure`] when its context, or its address, does not allow it.
#[inline]
pub fn translated(unit: &Unit, context: &Context, dma: &Dma) -> Result<Translation, Failure> {
    admit(unit, context, dma)?;
    let (switches, wide, interrupt) = match context {
        Context::Legacy(space) => (
            space.switches,
            Cause::LegacyTranslatedWidth,
            Cause::LegacyInterruptRange,
        ),
        Context::Scalable(context) => (
            context.switches,
            Cause::TranslatedWidth,
            Cause::InterruptRange,
        ),
    };
    if dma.addr.0 & unit.above_haw != 0 {
        return Err(refuse(wide, switches));
    }
    if in_interrupt_range(dma.addr) {
        return Err(refuse(interrupt, switches));
    }
    Ok(stage::identity(unit, dma, Access::RW))
}

/// [`read_context`] and [`translated`] in one.
#[inline(never)]
pub(super) fn through<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<Translation, Failure> {
    let context = read_context(unit, mem, dma, recorder)?;
    translated(unit, &context, dma)
}

/// Checks a page request: whether its sender may ask, and whether its PASID leads anywhere.
///
/// Every failure is answered with [`PAGE_REQUEST_ANSWER`](super::PAGE_REQUEST_ANSWER) if the page
/// is the last of its group, else dropped, and recorded either way unless FPD
/// [suppresses](Failure::suppressed) it.
///
/// # Errors
/// [`Failure`] of an `RTA`, `SRT`, `SCT`, `SPD` or `SPT` condition.
pub fn page_request<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    requester: Rid,
    pasid: Option<Pasid>,
    recorder: &mut R,
) -> Result<AddressSpace, Failure> {
    if mode(unit, None, false).map_err(Failure::new)? == Mode::Legacy {
        return Err(Failure::new(Cause::PageRequestInLegacyMode));
    }
    let mut reader = Reader::new(unit, mem, recorder);
    let context = reader.scalable(requester).map_err(|Stop| reader.failed())?;
    if pasid.is_some() && !context.pasid_enabled {
        return Err(refuse(Cause::PasidDisabled, context.switches));
    }
    if pasid.is_some_and(|p| p.get() >= context.pasids) {
        return Err(refuse(Cause::PasidTooLarge, context.switches));
    }
    if !context.switches.contains(Switches::PAGE_REQUESTS) {
        return Err(refuse(Cause::PageRequestsDisabled, context.switches));
    }
    if pasid == Some(context.rid_pasid) {
        return Err(refuse(Cause::PasidIsRidPasid, context.switches));
    }
    reader
        .pasid_entry(&context, pasid.unwrap_or(context.rid_pasid))
        .map_err(|Stop| reader.failed())
}
