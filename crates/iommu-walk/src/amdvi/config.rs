//! From a requester to a device table entry.
//!
//! Spec: 48882, "Device Table" and "Device Table Entry Format".

use super::space::{DomainId, GuestTables, Space, Switches};
use super::{Cause, Detail, Failure, Unit, stage};
use crate::format::Stop;
use crate::outcome::Translation;
use crate::trail::{Raw, Recorder, Step, Table, Verdict};
use crate::{TableMem, Unreachable};
use iommu_wire::amdvi::tables::{DeviceEntry, DeviceWord0, DeviceWord2};
use iopf::{Access, Dma, DmaKind, Gpa, Pasid, Rid};

/// Reads one device table entry. A method that returns [`Stop`] leaves the reason in `failure`.
struct Reader<'a, M, R> {
    unit: &'a Unit,
    mem: &'a M,
    recorder: &'a mut R,
    failure: Option<Failure>,
    addr: Gpa,
    index: u32,
}

impl<M: TableMem, R: Recorder> Reader<'_, M, R> {
    #[inline(always)]
    fn record(&mut self, words: &[u64], verdict: Verdict) {
        if R::ACTIVE {
            self.recorder.step(&Step {
                table: Table::DeviceTable,
                level: 0,
                index: self.index,
                addr: self.addr,
                guest_addr: None,
                raw: Raw::new(words),
                verdict,
            });
        }
    }

    /// Ends the walk: `bits` of the entry's word `word` decided.
    #[inline(always)]
    fn reject(
        &mut self,
        words: &[u64; 4],
        verdict: Verdict,
        cause: Cause,
        (word, bits): (u8, u64),
    ) -> Stop {
        self.record(words, verdict);
        let value = words.get(usize::from(word)).copied().unwrap_or(0);
        self.blame(8 * u64::from(word), value, cause, bits, words[1])
    }

    #[cold]
    fn blame(&mut self, offset: u64, value: u64, cause: Cause, bits: u64, word1: u64) -> Stop {
        let entry = DeviceEntry::from_words([0, word1, 0, 0]);
        let detail = Detail {
            domain: DomainId(entry.word1.domain()),
            ..Detail::default()
        };
        let failure = Failure::with(cause, detail);
        self.failure = Some(failure.at(Gpa(self.addr.0 + offset), value, bits));
        Stop
    }

    #[cold]
    fn unreadable(&mut self) -> Stop {
        self.record(&[], Verdict::Unreadable);
        let failure = Failure::with(Cause::DeviceEntryUnreadable, Detail::default());
        self.failure = Some(failure.unreadable(self.addr));
        Stop
    }

    #[inline(always)]
    fn space(&mut self) -> Result<Space, Stop> {
        let unit = self.unit;
        let words: [u64; 4] = match self.mem.load_words(self.addr) {
            Ok(words) => words,
            Err(Unreachable(_)) => return Err(self.unreadable()),
        };
        let entry = DeviceEntry::from_words(words);
        if !entry.word0.valid() {
            self.record(&words, Verdict::Next);
            return Ok(Space::PASS_THROUGH);
        }
        let [low, high] = unit.device_reserved;
        if words[0] & low | words[1] & high != 0 {
            return Err(self.reserved(words));
        }
        let mut space = Space::new(
            DomainId(entry.word1.domain()),
            entry.word0.host_table(),
            entry.word0.mode(),
            switches(&words),
        );
        if entry.word0.translation_valid() {
            let levels = entry.word0.mode();
            if levels > unit.host_levels {
                let bits = (0, DeviceWord0::MODE);
                return Err(self.reject(&words, Verdict::Invalid, Cause::PagingMode, bits));
            }
            if entry.word0.host_access_dirty() == 2 {
                let bits = (0, DeviceWord0::HOST_ACCESS_DIRTY);
                return Err(self.reject(&words, Verdict::Invalid, Cause::AccessDirtyMode, bits));
            }
            if entry.word0.guest_valid() && unit.guest_enabled() {
                space = space.with_guest(self.guest(words)?);
            }
        }
        self.record(&words, Verdict::Next);
        Ok(space)
    }

    #[cold]
    fn reserved(&mut self, words: [u64; 4]) -> Stop {
        let [low, high] = self.unit.device_reserved;
        let at = match words[0] & low {
            0 => (1, words[1] & high),
            bits => (0, bits),
        };
        self.reject(&words, Verdict::Reserved, Cause::DeviceEntryReserved, at)
    }

    // By value: lent, the words would have to be in memory for every other entry too.
    #[inline(never)]
    fn guest(&mut self, words: [u64; 4]) -> Result<GuestTables, Stop> {
        let (entry, words) = (DeviceEntry::from_words(words), &words);
        let levels = entry.word0.guest_levels() + 1;
        if levels > 3 || levels > self.unit.guest_cr3_levels() {
            let bits = (0, DeviceWord0::GUEST_LEVELS);
            return Err(self.reject(words, Verdict::Invalid, Cause::GuestLevels, bits));
        }
        let paging = entry.word2.guest_paging_mode() + 4;
        if paging > self.unit.guest_paging() {
            let bits = (2, DeviceWord2::GUEST_PAGING_MODE);
            return Err(self.reject(words, Verdict::Invalid, Cause::GuestPagingMode, bits));
        }
        Ok(GuestTables {
            root: entry.guest_table(),
            levels,
            paging,
        })
    }
}

/// The switches of a valid device table entry.
#[inline(always)]
const fn switches(words: &[u64; 4]) -> Switches {
    let [low, high, _, attributes] = *words;
    // IR and IW; V and TV; I, SA and SE; EX.
    let mut bits = (low >> 61 & 0b11) as u16;
    bits |= (low << 2 & 0b1100) as u16;
    bits |= (high >> 28 & 1 << 4) as u16;
    bits |= (high >> 29 & 1 << 5) as u16;
    bits |= (high >> 27 & 1 << 6) as u16;
    bits |= (high >> 32 & 1 << 7) as u16;
    // HAD; PPR, GPRP and GIoV; AttrV with Mode0FC.
    bits |= (low << 1 & 0b11 << 8) as u16;
    bits |= (low >> 42 & 0b111 << 10) as u16;
    bits |= (attributes >> 41 & attributes >> 42 & 1 << 13) as u16;
    Switches::from_bits_retain(bits)
}

/// Reads an entry; `none`: the table has none.
#[inline(always)]
fn read<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    requester: Rid,
    none: Cause,
    recorder: &mut R,
) -> Result<Space, Failure> {
    let Some((addr, index)) = unit.device_entry(requester) else {
        return Err(outside(none));
    };
    let mut reader = Reader {
        unit,
        mem,
        recorder,
        failure: None,
        addr,
        index,
    };
    reader.space().map_err(|Stop| {
        let left = reader.failure.take();
        left.unwrap_or(Failure::with(Cause::Disabled, Detail::default()))
    })
}

#[cold]
fn outside(cause: Cause) -> Failure {
    Failure::with(cause, Detail::default())
}

/// Reads the device table entry of a request's sender.
///
/// The result depends on nothing but the requester and can be cached under it: [`walk`](super::walk)
/// makes the checks that depend on the rest of the request.
///
/// # Errors
/// [`Failure`] of a condition of the device table.
#[inline(always)]
pub fn read_space<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    recorder: &mut R,
) -> Result<Space, Failure> {
    let none = match dma.kind {
        DmaKind::Translation { .. } => Cause::TranslationOutsideTable,
        _ => Cause::DeviceOutsideTable,
    };
    read(unit, mem, dma.requester, none, recorder)
}

/// Lets a translated request through: it needs nothing but its device table entry.
///
/// # Errors
/// [`Failure`] when that, or the address, does not allow it.
#[inline]
pub fn translated(unit: &Unit, space: &Space, dma: &Dma) -> Result<Translation, Failure> {
    if super::in_special_range(dma.addr) {
        stage::special(unit, dma)?;
    }
    if !space.switches().contains(Switches::DEVICE_TLB) {
        return Err(refuse(Cause::DeviceTlbDisabled, *space, dma.pasid));
    }
    Ok(stage::identity(dma, Access::RW, 30))
}

#[cold]
pub(super) fn refuse(cause: Cause, space: Space, pasid: Option<Pasid>) -> Failure {
    let hidden = space.switches().contains(Switches::FAULTS_HIDDEN);
    Failure::with(cause, space.detail(pasid)).hidden(hidden)
}

/// Checks a page request: whether its sender may ask.
///
/// No table but the device table is read: a page request is about a page that is not there, and the
/// unit does not look why. That part is UNCONFIRMED.
///
/// # Errors
/// [`Failure`] of a condition of the device table, or of a page request.
pub fn page_request<M: TableMem, R: Recorder>(
    unit: &Unit,
    mem: &M,
    requester: Rid,
    pasid: Option<Pasid>,
    recorder: &mut R,
) -> Result<Space, Failure> {
    let none = Cause::PageRequestsDisabled;
    let space = read(unit, mem, requester, none, recorder)?;
    if !unit.page_requests_enabled() || !space.switches().contains(Switches::PAGE_REQUESTS) {
        return Err(refuse(Cause::PageRequestsDisabled, space, pasid));
    }
    if let Some(pasid) = pasid {
        let covered = space.guest().map_or(0, |guest| 1 << (9 * guest.levels));
        if pasid.get() >= covered.min(unit.pasids) {
            return Err(refuse(Cause::PageRequestPasid, space, Some(pasid)));
        }
    }
    Ok(space)
}
