//! What a guest of an SMMUv3 gets wrong.
//!
//! Events: IHI 0070, "Event records"; their fields are Linux's `EVTQ_*`
//! (`drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h`). All words of a record count, but what is the
//! implementation's own: Reason, and the second word of F_BAD_ATS_TREQ, which no author but us has.

mod config;
mod first;
mod nested;
mod queues;
mod second;
mod special;
mod stalls;

use super::{
    Act, Case, FIRST, Lab, NOWHERE, READ_ONLY, Shot, Special, Spoilt, WRITABLE, case, outcome,
    quiet,
};
use crate::run::arch::Scripted;
use crate::run::machine::{Machine, TestResult};
use iopf::{Gpa, Iova, Pasid, Rid};
use testkit::Driver;
use testkit::paging::{
    AF, AP_READ_ONLY, AP_USER, Format, NOT_GLOBAL, PXN, PageTable, S2_NORMAL, S2_READ, S2_WRITE,
    SHARED, UXN,
};
use testkit::smmuv3::tables::{Entry, Misses, context, nested as both, second_stage};
use testkit::smmuv3::{Guest, Seen, Setup};
use viommu::smmuv3::{Config, Smmuv3};

/// Not among the first entries of its table.
const DEVICE: Rid = Rid(0x00a0);
/// The VMID of its stage 2.
const VMID: u16 = 7;
/// Requests without a PASID.
const NOBODY: Pasid = Pasid::truncate(0);
/// The rights of a page of a process, but for AP\[2\].
const PAGE: u64 = AP_USER | SHARED | AF | NOT_GLOBAL | PXN | UXN;
/// A page of stage 2, but for its rights.
const PAGE2: u64 = S2_NORMAL | SHARED | AF;
/// An Event queue of eight entries, where faults stall.
const FEW_EVENTS: u8 = 3;
/// An intermediate physical address that stage 2 does not map.
const UNMAPPED: u64 = 1 << 30;

/// Which tables the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Stage 1, for [`FIRST`] and without a PASID.
    First,
    /// The same, and faults stall.
    Stalling,
    /// Stage 2.
    Second,
    /// Stage 1, on top of a stage 2 that maps memory to itself.
    Nested,
}

/// A table of each stage.
pub(crate) struct Tables {
    first: PageTable,
    second: PageTable,
}

/// The fourth word of an event.
#[derive(Clone, Copy)]
enum Fourth {
    Nothing,
    /// This address.
    Here(u64),
    /// That of a table's entry.
    Entry(fn(&Lab<Smmuv3>) -> TestResult<Gpa>),
}

/// What an event must say.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    id: u8,
    /// Bits 127:64, but for what the request says.
    second: u64,
    /// The first word has SSV and the SubstreamID of the request, or the latter alone.
    names: [bool; 2],
    /// RnW, InD and PnU are there.
    attributes: bool,
    /// The third word is the request's address.
    input: bool,
    fourth: Fourth,
}

// Numbers of events.
const C_BAD_STREAMID: u8 = 0x02;
const F_STE_FETCH: u8 = 0x03;
const C_BAD_STE: u8 = 0x04;
const F_BAD_ATS_TREQ: u8 = 0x05;
const F_STREAM_DISABLED: u8 = 0x06;
const F_TRANSL_FORBIDDEN: u8 = 0x07;
const C_BAD_SUBSTREAMID: u8 = 0x08;
const F_CD_FETCH: u8 = 0x09;
const C_BAD_CD: u8 = 0x0a;
const F_WALK_EABT: u8 = 0x0b;
const F_TRANSLATION: u8 = 0x10;
const F_ADDR_SIZE: u8 = 0x11;
const F_ACCESS: u8 = 0x12;
const F_PERMISSION: u8 = 0x13;

// Bits 127:64.
const S2: u64 = 1 << 39;
const CLASS: u64 = 3 << 40;
const CLASS_CD: u64 = 0 << 40;
const CLASS_TT: u64 = 1 << 40;
const CLASS_IN: u64 = 2 << 40;
const TT_READ: u64 = 1 << 44;
const REASON: u64 = 0xffff;

/// The request's StreamID and SubstreamID, and nothing else.
const fn config(id: u8) -> Event {
    Event {
        id,
        second: 0,
        names: [true, true],
        attributes: false,
        input: false,
        fourth: Fourth::Nothing,
    }
}

/// An entry that could not be read.
const fn fetch(id: u8, at: u64) -> Event {
    Event {
        fourth: Fourth::Here(at),
        ..config(id)
    }
}

/// A fault of stage 1 of the request's own address.
const fn fault(id: u8) -> Event {
    Event {
        second: CLASS_IN,
        attributes: true,
        input: true,
        ..config(id)
    }
}

/// A fault of stage 2, of this class and IPA.
const fn fault2(id: u8, class: u64, ipa: u64) -> Event {
    Event {
        second: S2 | class,
        fourth: Fourth::Here(ipa & !0xfff),
        ..fault(id)
    }
}

/// A fault of stage 2 of the page with a table's entry.
const fn entry2(id: u8, class: u64, entry: fn(&Lab<Smmuv3>) -> TestResult<Gpa>) -> Event {
    Event {
        second: S2 | class,
        fourth: Fourth::Entry(entry),
        ..fault(id)
    }
}

/// A page table entry that could not be read.
const fn walk(class: u64, at: u64) -> Event {
    Event {
        second: class,
        fourth: Fourth::Here(at),
        ..fault(F_WALK_EABT)
    }
}

impl Event {
    /// The event says nothing of the substream.
    const fn without_substream(mut self) -> Self {
        self.names = [false, false];
        self
    }

    /// The event has the substream and no SSV.
    const fn substream_only(mut self) -> Self {
        self.names = [false, true];
        self
    }

    /// The words of the record.
    fn words(self, lab: &Lab<Smmuv3>, shot: Shot) -> TestResult<[u64; 4]> {
        let [valid, number] = self.names;
        let mut first = u64::from(self.id) | u64::from(DEVICE.0) << 32;
        if let Some(pasid) = shot.pasid {
            first |= u64::from(valid) << 11;
            first |= if number { u64::from(pasid) << 12 } else { 0 };
        }
        let (privileged, instruction, read) = (1 << 33, 1 << 34, 1 << 35);
        let attributes = match shot.act {
            Act::Write => 0,
            Act::Read => read,
            Act::Fetch => read | instruction,
            Act::PrivilegedRead => read | privileged,
        };
        let fourth = match self.fourth {
            Fourth::Nothing => 0,
            Fourth::Here(at) => at,
            Fourth::Entry(entry) => entry(lab)?.0 & !0xfff,
        };
        Ok([
            first,
            self.second | if self.attributes { attributes } else { 0 },
            if self.input { shot.at } else { 0 },
            fourth,
        ])
    }
}

/// An event in words: its name, and stage and class where it has them.
fn words(id: u8, second: u64) -> String {
    let name = Smmuv3::name(id);
    if !matches!(id, F_WALK_EABT..=F_PERMISSION) {
        return name.to_owned();
    }
    let stage = if second & S2 == 0 { 1 } else { 2 };
    let class = match second & CLASS {
        CLASS_CD => "CD",
        CLASS_TT => "TT",
        _ => "IN",
    };
    format!("{name} stage {stage} class {class}")
}

fn nothing(_: &Lab<Smmuv3>) -> TestResult<()> {
    Ok(())
}

/// What the implementation may put into the second word of an event.
const fn own(id: u8) -> u64 {
    match id {
        F_STE_FETCH | F_CD_FETCH | F_WALK_EABT => REASON,
        F_BAD_ATS_TREQ => !0,
        _ => 0,
    }
}

impl Spoilt for Smmuv3 {
    type Start = Start;
    type Tables = Tables;
    type Told = Event;

    const DEVICE: Rid = DEVICE;
    const PROCESS: Start = Start::First;

    fn everything() -> Config {
        Self::config()
    }

    fn setup(start: Start) -> Setup {
        let mut setup = Setup::default();
        if start == Start::Stalling {
            setup.event_bits = FEW_EVENTS;
        }
        setup
    }

    fn tables(machine: &Machine<Self>, start: Start) -> TestResult<Tables> {
        let ram = &machine.ram;
        let first = PageTable::new(ram, Format::ArmFirst, 4)?;
        let second = PageTable::new(ram, Format::ArmSecond, 4)?;
        for (at, write) in [(WRITABLE, true), (READ_ONLY, false)] {
            let frame = ram.frame()?;
            if start == Start::Second {
                let rights = S2_READ | if write { S2_WRITE } else { 0 };
                second.map(Iova(at), frame, PAGE2 | rights, 1)?;
            }
            let rights = if write { 0 } else { AP_READ_ONLY };
            first.map(Iova(at), frame, PAGE | rights, 1)?;
        }
        let guest = &machine.guest;
        let below = second_stage(second.root(), VMID);
        if start == Start::Second {
            guest.set_stream(DEVICE, &below)?;
            return Ok(Tables { first, second });
        }
        let misses = match start {
            Start::Stalling => Misses::Stall,
            _ => Misses::Request,
        };
        let above = guest.probe(DEVICE, misses)?;
        for pasid in [NOBODY, Pasid::truncate(FIRST)] {
            let entry = context(first.root(), Guest::asid(pasid));
            guest.set_context(DEVICE, pasid, &entry)?;
        }
        if start == Start::Nested {
            for block in (0..ram.size()).step_by(2 << 20) {
                let rights = PAGE2 | S2_READ | S2_WRITE;
                second.map(Iova(block), Gpa(block), rights, 2)?;
            }
            guest.set_stream(DEVICE, &both(&above, &below))?;
        }
        Ok(Tables { first, second })
    }

    fn first(tables: &Tables) -> &PageTable {
        &tables.first
    }

    fn words(event: Event) -> String {
        words(event.id, event.second)
    }

    fn seen(seen: &Seen) -> String {
        words(seen.id, seen.words[1])
    }

    fn fits(lab: &Lab<Self>, seen: &Seen, shot: Shot, event: Event) -> TestResult<bool> {
        let expected = event.words(lab, shot)?;
        let mut found = seen.words;
        found[1] = found[1] & !own(seen.id) | expected[1] & own(seen.id);
        Ok(found == expected)
    }

    fn cases() -> Vec<&'static Case<Self>> {
        let all = config::CASES.iter().chain(first::CASES);
        all.chain(second::CASES).chain(nested::CASES).collect()
    }

    const SPECIAL: &'static [Special] = special::CASES;
}

impl Lab<Smmuv3> {
    /// Changes a word of the stream table entry.
    fn stream(&self, word: u64, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
        let slot = self.machine.guest.streams().slot(DEVICE)?;
        self.poke(Gpa(slot.0 + word * 8), change)
    }

    /// Changes a word of the context descriptor of a PASID; 0 is that of requests without one.
    fn context(&self, pasid: u32, word: u64, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
        let (_, slot) = self.contexts(pasid)?;
        self.poke(Gpa(slot.0 + word * 8), change)
    }

    /// What leads to the context descriptor of a PASID, and the descriptor.
    fn contexts(&self, pasid: u32) -> TestResult<(Gpa, Gpa)> {
        let guest = &self.machine.guest;
        Ok(guest.context_slots(DEVICE, Pasid::truncate(pasid))?)
    }

    /// Changes the stage 1 entry of `level` for the writable page.
    fn page(&self, level: u8, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
        self.poke(self.slot(&self.tables.first, WRITABLE, level)?, change)
    }

    /// Changes the stage 2 entry of `level` for `at`.
    fn page2(&self, at: u64, level: u8, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
        self.poke(self.slot(&self.tables.second, at, level)?, change)
    }

    /// Writes the whole stream table entry.
    fn set_stream(&self, entry: &Entry) -> TestResult<()> {
        Ok(self.machine.guest.set_stream(DEVICE, entry)?)
    }

    /// Flushes everything, as a guest should.
    fn flush(&self) -> TestResult<()> {
        Ok(self.machine.guest.flush_everything()?)
    }
}

/// The address field of a stream table entry's first word, and of page table entries.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Puts [`NOWHERE`] where an entry has its address.
const fn nowhere(raw: u64) -> u64 {
    raw & !ADDRESS | NOWHERE
}
