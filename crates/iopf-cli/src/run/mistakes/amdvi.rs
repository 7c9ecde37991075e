//! What a guest of AMD-Vi gets wrong.
//!
//! Codes and flags: 48882, "Event Logging"; Linux `drivers/iommu/amd/amd_iommu_types.h`, `EVENT_TYPE_*` and
//! `EVENT_FLAG_*`; VirtualBox `include/VBox/iommu-amd.h`, `EVT_*_T`. `docs/arch/amdvi.md` says which rest on
//! one author.

mod guest;
mod host;
mod nested;
mod special;

use super::{
    Case, DOMAIN, FIRST, Lab, READ_ONLY, Shot, Special, Spoilt, WRITABLE, case, outcome, quiet,
};
use crate::run::arch::Scripted;
use crate::run::machine::{Machine, TestResult};
use iopf::{Gpa, Iova, Pasid, Rid};
use testkit::amdvi::tables::{guest, nested as both};
use testkit::amdvi::{Seen, Setup};
use testkit::paging::{Format, HOST_IR, HOST_IW, HOST_PR, P, PageTable, RW, US, XD};
use viommu::amdvi::{Amdvi, Config};

/// In the second page of the device table.
const DEVICE: Rid = Rid(0x00a0);
/// Levels of its guest CR3 table.
const CR3_LEVELS: u8 = 2;

/// Which tables the device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The host's.
    Host,
    /// Guest tables for [`FIRST`].
    Guest,
    /// Guest tables for [`FIRST`], on top of host tables that map memory to itself.
    Nested,
}

/// A table of each kind. Without nesting there is use for one only.
pub(crate) struct Tables {
    host: PageTable,
    guest: PageTable,
}

/// Whose address an event has.
#[derive(Clone, Copy)]
enum At {
    /// The request's.
    Request,
    /// This one.
    Here(u64),
    /// That of a table's entry.
    Entry(fn(&Lab<Amdvi>) -> TestResult<Gpa>),
}

/// What an event must say.
#[derive(Clone, Copy)]
pub(crate) struct Event {
    code: u8,
    flags: u16,
    /// The domain, where the event has no PASID.
    domain: u16,
    at: At,
}

/// GN, as INVALID_PPR_REQUEST has it and as the others do.
const GN: [u16; 2] = [0x200, 0x001];

impl Event {
    /// With the request's address. Only I/O page faults and PAGE_TAB_HARDWARE_ERROR have a domain.
    const fn new(code: u8, flags: u16) -> Self {
        Self {
            code,
            flags,
            domain: if matches!(code, 2 | 4) { DOMAIN } else { 0 },
            at: At::Request,
        }
    }

    const fn here(mut self, addr: u64) -> Self {
        self.at = At::Here(addr);
        self
    }

    const fn entry(mut self, entry: fn(&Lab<Amdvi>) -> TestResult<Gpa>) -> Self {
        self.at = At::Entry(entry);
        self
    }

    /// Nobody read a device table entry.
    const fn no_domain(mut self) -> Self {
        self.domain = 0;
        self
    }

    fn has_pasid(self) -> bool {
        let [page_request, other] = GN;
        let bit = if self.code == 9 { page_request } else { other };
        self.code != 3 && self.flags & bit != 0
    }
}

fn words(code: u8, flags: u16) -> String {
    format!("{} flags {flags:#06x}", Amdvi::name(code))
}

fn nothing(_: &Lab<Amdvi>) -> TestResult<()> {
    Ok(())
}

impl Spoilt for Amdvi {
    type Start = Start;
    type Tables = Tables;
    type Told = Event;

    const DEVICE: Rid = DEVICE;
    const PROCESS: Start = Start::Guest;

    fn everything() -> Config {
        Self::config()
    }

    fn setup(_: Start) -> Setup {
        Setup::default()
    }

    fn tables(machine: &Machine<Self>, start: Start) -> TestResult<Tables> {
        let ram = &machine.ram;
        let host = PageTable::new(ram, Format::AmdHost, 4)?;
        let processes = PageTable::new(ram, Format::X86, 4)?;
        for (at, write) in [(WRITABLE, true), (READ_ONLY, false)] {
            let frame = ram.frame()?;
            if start == Start::Host {
                let rights = HOST_IR | if write { HOST_IW } else { 0 };
                host.map(Iova(at), frame, HOST_PR | rights, 1)?;
            }
            let rights = P | US | XD | if write { RW } else { 0 };
            processes.map(Iova(at), frame, rights, 1)?;
        }
        let driver = &machine.guest;
        if start == Start::Host {
            driver.attach(DEVICE, &host, DOMAIN)?;
        } else {
            driver.probe(DEVICE, CR3_LEVELS, DOMAIN)?;
            driver.set_cr3(DEVICE, Pasid::truncate(FIRST), processes.root())?;
        }
        if start == Start::Nested {
            for block in (0..ram.size()).step_by(2 << 20) {
                let rights = HOST_PR | HOST_IR | HOST_IW;
                host.map(Iova(block), Gpa(block), rights, 2)?;
            }
            let cr3 = driver.cr3_table(DEVICE)?;
            let entry = both(cr3, CR3_LEVELS, host.root(), host.levels(), DOMAIN);
            driver.set_device(DEVICE, &entry)?;
        }
        Ok(Tables {
            host,
            guest: processes,
        })
    }

    fn first(tables: &Tables) -> &PageTable {
        &tables.guest
    }

    fn words(event: Event) -> String {
        words(event.code, event.flags)
    }

    fn seen(seen: &Seen) -> String {
        words(seen.code, seen.flags)
    }

    fn fits(lab: &Lab<Self>, seen: &Seen, shot: Shot, event: Event) -> TestResult<bool> {
        let addr = match event.at {
            At::Request => shot.at,
            At::Here(addr) => addr,
            At::Entry(entry) => entry(lab)?.0,
        };
        let number = if event.has_pasid() {
            shot.pasid.unwrap_or_default()
        } else {
            u32::from(event.domain)
        };
        Ok(seen.rid == DEVICE && seen.addr == addr && seen.number == number)
    }

    fn cases() -> Vec<&'static Case<Self>> {
        let all = host::CASES.iter().chain(guest::CASES);
        all.chain(nested::CASES).collect()
    }

    const SPECIAL: &'static [Special] = special::CASES;
}

impl Lab<Amdvi> {
    /// Changes a word of the device table entry.
    fn device(&self, word: u64, change: impl FnOnce(u64) -> u64) -> TestResult<()> {
        let slot = self.machine.guest.table().slot(DEVICE);
        self.poke(Gpa(slot.0 + word * 8), change)
    }

    /// Tells the IOMMU where the device table is, whatever the driver thinks.
    fn set_table(&self, value: u64) -> TestResult<()> {
        self.machine.guest.set_table(value);
        Ok(testkit::Driver::flush_everything(&self.machine.guest)?)
    }

    /// Tells the IOMMU that the device has host tables of four levels at `root`.
    fn set_host(&self, root: u64) -> TestResult<()> {
        let mode = |first: u64| first & !(0x000f_ffff_ffff_f000) | root;
        self.device(0, mode)
    }

    /// Tells the IOMMU that the guest CR3 table is at `root`.
    fn set_cr3_table(&self, root: u64) -> TestResult<()> {
        let entry = guest(Gpa(root), CR3_LEVELS, DOMAIN);
        Ok(self.machine.guest.set_device(DEVICE, &entry)?)
    }

    /// Points [`FIRST`] at guest tables at `root`.
    fn set_guest(&self, root: u64) -> TestResult<()> {
        let guest = &self.machine.guest;
        Ok(guest.set_cr3(DEVICE, Pasid::truncate(FIRST), Gpa(root))?)
    }

    /// The topmost and the lowest entry of the guest CR3 table for [`FIRST`].
    fn cr3(&self) -> TestResult<(Gpa, Gpa)> {
        let guest = &self.machine.guest;
        Ok(guest.cr3_slots(DEVICE, Pasid::truncate(FIRST))?)
    }
}
