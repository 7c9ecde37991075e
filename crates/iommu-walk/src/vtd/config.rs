//! From a requester and PASID to an address space.
//!
//! Spec: Intel VT-d, "Mapping Devices to Domains" and the entry formats of "Translation Structure
//! Formats".

use super::space::{AddressSpace, DomainId, PageTable, Switches, Translate, Translation};
use super::unit::{Mode, Unit};
use super::{Cause, Failure, caps, in_interrupt_range, stage};
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

/// Reads entries and records them.
struct Reader<'a, M, R> {
    unit: &'a Unit,
    mem: &'a M,
    recorder: &'a mut R,
}

/// One configuration entry under examination.
struct Entry<const N: usize> {
    table: Table,
    index: u32,
    addr: Gpa,
    words: [u64; N],
    hidden: bool,
}

impl<M: TableMem, R: Recorder> Reader<'_, M, R> {
    #[inline]
    fn read<const N: usize>(
        &mut self,
        table: Table,
        base: Gpa,
        index: u32,
        hidden: bool,
        unreadable: Cause,
    ) -> Result<Entry<N>, Failure> {
        let addr = Gpa(base.0.wrapping_add(u64::from(index) * 8 * N as u64));
        match self.mem.load_words(addr) {
            Ok(words) => Ok(Entry {
                table,
                index,
                addr,
                words,
                hidden,
            }),
            Err(Unreachable(_)) => {
                self.record(table, index, addr, Raw::NONE, Verdict::Unreadable);
                Err(Failure::new(unreadable).hidden(hidden).unreadable(addr))
            }
        }
    }

    #[inline]
    fn record(&mut self, table: Table, index: u32, addr: Gpa, raw: Raw, verdict: Verdict) {
        if R::ACTIVE {
            self.recorder.step(&Step {
                table,
                level: 0,
                index,
                addr,
                guest_addr: None,
                raw,
                verdict,
            });
        }
    }

    #[inline]
    fn passed<const N: usize>(&mut self, entry: &Entry<N>) {
        if R::ACTIVE {
            let raw = Raw::new(&entry.words);
            self.record(entry.table, entry.index, entry.addr, raw, Verdict::Next);
        }
    }

    /// Ends the walk at this entry: `bits` of its word `word` decided.
    #[cold]
    fn reject<const N: usize>(
        &mut self,
        entry: &Entry<N>,
        verdict: Verdict,
        cause: Cause,
        word: usize,
        bits: u64,
    ) -> Failure {
        let raw = Raw::new(&entry.words);
        self.record(entry.table, entry.index, entry.addr, raw, verdict);
        let at = Gpa(entry.addr.0 + 8 * word as u64);
        let value = entry.words.get(word).copied().unwrap_or(0);
        Failure::new(cause).hidden(entry.hidden).at(at, value, bits)
    }

    /// Rejects the entry if any reserved bit is set.
    #[inline]
    fn unreserved<const N: usize>(
        &mut self,
        entry: &Entry<N>,
        masks: &[u64; N],
        cause: Cause,
    ) -> Result<(), Failure> {
        let mut all = 0;
        for (word, mask) in entry.words.iter().zip(masks) {
            all |= word & mask;
        }
        if all == 0 {
            return Ok(());
        }
        let mut found = (0, 0);
        for (at, (word, mask)) in entry.words.iter().zip(masks).enumerate().rev() {
            if word & mask != 0 {
                found = (at, word & mask);
            }
        }
        Err(self.reject(entry, Verdict::Reserved, cause, found.0, found.1))
    }

    fn legacy(&mut self, rid: Rid) -> Result<AddressSpace, Failure> {
        let unit = self.unit;
        let bus = u32::from(rid.bus());
        let root = unit.root_table();
        let entry: Entry<2> = self.read(Table::Root, root, bus, false, Cause::RootUnreadable)?;
        let lo = PointerWord::from_bits(entry.words[0]);
        if !lo.present() {
            return Err(self.reject(&entry, Verdict::NotPresent, Cause::RootNotPresent, 0, 1));
        }
        let masks = [unit.above_haw | 0xffe, !0];
        self.unreserved(&entry, &masks, Cause::RootReserved)?;
        self.passed(&entry);

        let table = lo.pointer();
        let devfn = u32::from(rid.devfn());
        let mut entry: Entry<2> = self.read(
            Table::Context,
            table,
            devfn,
            false,
            Cause::ContextUnreadable,
        )?;
        let lo = ContextLo::from_bits(entry.words[0]);
        let hi = ContextHi::from_bits(entry.words[1]);
        entry.hidden = lo.fault_processing_disable();
        if !lo.present() {
            return Err(self.reject(&entry, Verdict::NotPresent, Cause::ContextNotPresent, 0, 1));
        }
        self.unreserved(&entry, &unit.context_reserved, Cause::ContextReserved)?;

        let mut switches = Switches::empty();
        switches.set(Switches::FAULTS_HIDDEN, entry.hidden);
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
                let bits = ContextLo::TRANSLATION_TYPE;
                return Err(self.reject(&entry, Verdict::Invalid, Cause::ContextType, 0, bits));
            }
        };
        if !unit.supports_width(width) {
            let bits = ContextHi::ADDRESS_WIDTH;
            return Err(self.reject(&entry, Verdict::Invalid, Cause::ContextWidth, 1, bits));
        }
        self.passed(&entry);
        Ok(AddressSpace {
            domain: DomainId(hi.domain()),
            pasid: None,
            translate,
            switches,
        })
    }

    fn scalable(&mut self, rid: Rid) -> Result<ScalableContext, Failure> {
        let unit = self.unit;
        let bus = u32::from(rid.bus());
        let root = unit.root_table();
        let entry: Entry<2> =
            self.read(Table::Root, root, bus, false, Cause::ScalableRootUnreadable)?;
        // Devices 0–15 are in the lower table, 16–31 in the upper one.
        let half = usize::from(rid.devfn() >> 7);
        let word = if half == 0 {
            entry.words[0]
        } else {
            entry.words[1]
        };
        let pointer = PointerWord::from_bits(word);
        if !pointer.present() {
            let cause = Cause::ScalableRootNotPresent;
            return Err(self.reject(&entry, Verdict::NotPresent, cause, half, 1));
        }
        let mask = unit.above_haw | 0xffe;
        if word & mask != 0 {
            let cause = Cause::ScalableRootReserved;
            return Err(self.reject(&entry, Verdict::Reserved, cause, half, word & mask));
        }
        self.passed(&entry);

        let table = pointer.pointer();
        let devfn = u32::from(rid.devfn() & 0x7f);
        let mut entry: Entry<4> = self.read(
            Table::Context,
            table,
            devfn,
            false,
            Cause::ScalableContextUnreadable,
        )?;
        let lo = ScalableContextLo::from_bits(entry.words[0]);
        let hi = ScalableContextHi::from_bits(entry.words[1]);
        entry.hidden = lo.fault_processing_disable();
        if !lo.present() {
            let cause = Cause::ScalableContextNotPresent;
            return Err(self.reject(&entry, Verdict::NotPresent, cause, 0, 1));
        }
        let masks = &unit.scalable_context_reserved;
        self.unreserved(&entry, masks, Cause::ScalableContextReserved)?;
        if lo.page_requests() && !lo.device_tlb() {
            let cause = Cause::PageRequestsWithoutDeviceTlb;
            let bits = ScalableContextLo::DEVICE_TLB | ScalableContextLo::PAGE_REQUESTS;
            return Err(self.reject(&entry, Verdict::Invalid, cause, 0, bits));
        }
        let pasids = lo.pasids();
        if hi.rid_pasid() >= pasids {
            let bits = ScalableContextHi::RID_PASID;
            return Err(self.reject(&entry, Verdict::Invalid, Cause::RidPasidTooLarge, 1, bits));
        }
        if lo.translated_pasid() && !lo.pasid_enabled() {
            let cause = Cause::TranslatedPasidWithoutPasid;
            let bits = ScalableContextLo::PASIDS | ScalableContextLo::TRANSLATED_PASID;
            return Err(self.reject(&entry, Verdict::Invalid, cause, 0, bits));
        }
        self.passed(&entry);
        let mut switches = Switches::SCALABLE;
        switches.set(Switches::FAULTS_HIDDEN, entry.hidden);
        switches.set(Switches::DEVICE_TLB, lo.device_tlb());
        switches.set(Switches::PAGE_REQUESTS, lo.page_requests());
        switches.set(Switches::RID_PRIVILEGED, hi.rid_privileged());
        Ok(ScalableContext {
            directory: lo.directory(),
            pasids,
            rid_pasid: Pasid::truncate(hi.rid_pasid()),
            switches,
            pasid_enabled: lo.pasid_enabled(),
            translated_pasid: lo.translated_pasid(),
        })
    }

    fn pasid_entry(
        &mut self,
        context: &ScalableContext,
        pasid: Pasid,
    ) -> Result<AddressSpace, Failure> {
        let unit = self.unit;
        let hidden = context.switches.contains(Switches::FAULTS_HIDDEN);
        let mut entry: Entry<1> = self.read(
            Table::PasidDirectory,
            context.directory,
            pasid.get() >> 6,
            hidden,
            Cause::DirectoryUnreadable,
        )?;
        let word = DirectoryWord::from_bits(entry.words[0]);
        entry.hidden |= word.fault_processing_disable();
        if !word.present() {
            let cause = Cause::DirectoryNotPresent;
            return Err(self.reject(&entry, Verdict::NotPresent, cause, 0, 1));
        }
        self.unreserved(&entry, &[unit.above_haw | 0xffc], Cause::DirectoryReserved)?;
        self.passed(&entry);

        let mut entry: Entry<8> = self.read(
            Table::PasidTable,
            word.table(),
            pasid.get() & 0x3f,
            entry.hidden,
            Cause::PasidEntryUnreadable,
        )?;
        let second = PasidSecondWord::from_bits(entry.words[0]);
        let domain = PasidDomainWord::from_bits(entry.words[1]);
        let first = PasidFirstWord::from_bits(entry.words[2]);
        entry.hidden |= second.fault_processing_disable();
        if !second.present() {
            let cause = Cause::PasidEntryNotPresent;
            return Err(self.reject(&entry, Verdict::NotPresent, cause, 0, 1));
        }
        self.unreserved(&entry, &unit.pasid_reserved, Cause::PasidEntryReserved)?;
        let translate = self.translation_of(&entry, second, first)?;
        self.passed(&entry);

        let mut switches = context.switches;
        let execute = unit.has(caps::ECAP_ERS);
        let first_stage = matches!(translate, Translate::First(_) | Translate::Nested { .. });
        let second_stage = matches!(translate, Translate::Second(_) | Translate::Nested { .. });
        switches.set(Switches::FAULTS_HIDDEN, entry.hidden);
        switches.set(Switches::SUPERVISOR, first.supervisor());
        switches.set(Switches::EXECUTE, execute && first.execute());
        switches.set(Switches::WRITE_PROTECT, first.write_protect());
        switches.set(Switches::NO_EXECUTE, execute && first.no_execute());
        switches.set(Switches::SMEP, execute && first.smep());
        switches.set(
            Switches::EXTENDED_ACCESSED,
            first_stage && first.extended_accessed(),
        );
        switches.set(
            Switches::SECOND_ACCESSED,
            second_stage && second.accessed_dirty(),
        );
        switches.set(Switches::COHERENT, domain.walk_snoop());
        switches.set(Switches::SNOOP, domain.page_snoop());
        Ok(AddressSpace {
            domain: DomainId(domain.domain()),
            pasid: Some(pasid),
            translate,
            switches,
        })
    }

    #[inline]
    fn translation_of(
        &mut self,
        entry: &Entry<8>,
        second: PasidSecondWord,
        first: PasidFirstWord,
    ) -> Result<Translate, Failure> {
        let unit = self.unit;
        let kind = second.translation();
        let (supported, one, two) = match kind {
            1 => (unit.has(caps::ECAP_FSTS), true, false),
            2 => (unit.has(caps::ECAP_SSTS), false, true),
            3 => (unit.has(caps::ECAP_NEST), true, true),
            4 => (unit.has(caps::ECAP_PT), false, false),
            _ => (false, false, false),
        };
        if !supported {
            let bits = PasidSecondWord::TRANSLATION;
            return Err(self.reject(entry, Verdict::Invalid, Cause::PasidEntryType, 0, bits));
        }
        let width = second.address_width();
        if two && !unit.supports_width(width) {
            let bits = PasidSecondWord::ADDRESS_WIDTH;
            return Err(self.reject(entry, Verdict::Invalid, Cause::PasidEntryWidth, 0, bits));
        }
        let five = match first.paging_mode() {
            1 if unit.cap() & caps::CAP_FS5LP != 0 => true,
            0 => false,
            _ if !one => false,
            _ => {
                let cause = Cause::PasidEntryPagingMode;
                let bits = PasidFirstWord::PAGING_MODE;
                return Err(self.reject(entry, Verdict::Invalid, cause, 2, bits));
            }
        };
        let first = PageTable {
            root: first.table(),
            levels: if five { 5 } else { 4 },
        };
        let second = PageTable {
            root: second.table(),
            levels: width + 2,
        };
        Ok(match (one, two) {
            (true, false) => Translate::First(first),
            (false, true) => Translate::Second(second),
            (false, false) => Translate::PassThrough,
            (true, true) => {
                let beyond = first.root.0 & !0 << unit.input_bits(second.levels);
                if beyond != 0 {
                    let cause = Cause::FirstStagePointerWidth;
                    return Err(self.reject(entry, Verdict::Invalid, cause, 2, beyond));
                }
                Translate::Nested { first, second }
            }
        })
    }
}

/// What the root table address register says to a request, before any table is read.
#[inline]
fn mode(unit: &Unit, pasid: Option<Pasid>, execute: bool) -> Result<Mode, Failure> {
    let mode = unit.mode();
    let supported = match mode {
        Mode::Legacy => unit.rtaddr() & caps::RTADDR_SSIRWE == 0 || !unit.has(caps::ECAP_SSIRWS),
        Mode::Scalable => unit.has(caps::ECAP_SMTS),
        Mode::Reserved => false,
        Mode::Abort => unit.has(caps::ECAP_ADMS),
    };
    if !supported {
        return Err(Failure::new(Cause::ModeUnsupported));
    }
    if mode == Mode::Abort {
        return Err(Failure::new(Cause::AbortMode));
    }
    if mode == Mode::Legacy && pasid.is_some() {
        return Err(Failure::new(Cause::PasidInLegacyMode));
    }
    if execute && pasid.is_some() && unit.version() >= 8 {
        return Err(Failure::new(Cause::ExecuteUnsupported));
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
#[inline]
pub fn read_context<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<Context, Failure> {
    let mode = mode(unit, dma.pasid, dma.access.contains(Access::EXEC))?;
    let mut reader = Reader {
        unit,
        mem,
        recorder,
    };
    if mode == Mode::Scalable {
        reader.scalable(dma.requester).map(Context::Scalable)
    } else {
        reader.legacy(dma.requester).map(Context::Legacy)
    }
}

/// Checks a request against its context, and reads the PASID directory and PASID table entries in
/// scalable mode.
///
/// The result can be cached under the requester and PASID: [`walk`](super::walk) repeats the
/// checks that depend on the rest of the request.
///
/// # Errors
/// [`Failure`] of an `LCT.5`, `SCT`, `SPD` or `SPT` condition.
#[inline]
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
            Reader {
                unit,
                mem,
                recorder,
            }
            .pasid_entry(context, pasid)
        }
    }
}

/// [`read_context`] and [`read_space`] in one.
///
/// # Errors
/// Those of its two halves.
#[inline]
pub fn configure<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<AddressSpace, Failure> {
    let context = read_context(unit, mem, dma, recorder)?;
    read_space(unit, &context, mem, dma, recorder)
}

/// Whether the context lets this request in.
#[inline]
fn admit(unit: &Unit, context: &Context, dma: &Dma) -> Result<(), Failure> {
    let tlb = !matches!(dma.kind, DmaKind::Untranslated);
    match context {
        Context::Legacy(space) => {
            if dma.pasid.is_some() {
                return Err(Failure::new(Cause::PasidInLegacyMode));
            }
            if tlb && !space.switches.contains(Switches::DEVICE_TLB) {
                return Err(refuse(Cause::AddressTypeBlocked, space.switches));
            }
        }
        Context::Scalable(context) => {
            if tlb && !context.switches.contains(Switches::DEVICE_TLB) {
                return Err(refuse(Cause::DeviceTlbDisabled, context.switches));
            }
            if let Some(pasid) = dma.pasid {
                let translated = dma.kind == DmaKind::Translated;
                admit_pasid(unit, context, pasid, translated)?;
            }
        }
    }
    Ok(())
}

#[inline]
fn admit_pasid(
    unit: &Unit,
    context: &ScalableContext,
    pasid: Pasid,
    translated: bool,
) -> Result<(), Failure> {
    let cause = if !translated && !context.pasid_enabled {
        Cause::PasidDisabled
    } else if translated && !context.translated_pasid {
        Cause::TranslatedPasidDisabled
    } else if pasid.get() >> unit.pasid_bits() != 0 {
        Cause::PasidUnsupported
    } else if pasid.get() >= context.pasids {
        Cause::PasidTooLarge
    } else if pasid == context.rid_pasid {
        Cause::PasidIsRidPasid
    } else {
        return Ok(());
    };
    Err(refuse(cause, context.switches))
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
    if mode(unit, None, false)? == Mode::Legacy {
        return Err(Failure::new(Cause::PageRequestInLegacyMode));
    }
    let mut reader = Reader {
        unit,
        mem,
        recorder,
    };
    let context = reader.scalable(requester)?;
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
    reader.pasid_entry(&context, pasid.unwrap_or(context.rid_pasid))
}
