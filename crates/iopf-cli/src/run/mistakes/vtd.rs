//! What a guest of VT-d gets wrong.

mod legacy;
mod scalable;
mod special;

use super::{Case, DOMAIN, FIRST, Lab, READ_ONLY, Shot, Special, Spoilt, WRITABLE, outcome};
use crate::run::arch::Scripted;
use crate::run::machine::{Machine, TestResult};
use iopf::{Gpa, Iova, Pasid, Rid};
use testkit::paging::{Format, PageTable};
use testkit::vtd::numbers::{FS_P, FS_RW, FS_US, FS_XD, PE_NXE, PE_WPE, SS_R, SS_W};
use testkit::vtd::tables::{first_stage, second_stage};
use testkit::vtd::{Seen, Setup};
use viommu::vtd::{Config, Scalable, Vtd};

const DEVICE: Rid = Rid(0x0018);
/// A PASID with a second-stage table.
const SECOND: u32 = 6;

/// Which tables there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A second stage for the device.
    Legacy,
    /// A first stage for [`FIRST`], a second stage for [`SECOND`].
    Scalable,
}

/// A table of each stage. Legacy mode has no use for the first.
pub(crate) struct Tables {
    second: PageTable,
    first: PageTable,
}

fn words(code: u8) -> String {
    format!("{code:#04x} {}", Vtd::name(code))
}

impl Spoilt for Vtd {
    type Start = Mode;
    type Tables = Tables;
    /// The fault reason.
    type Told = u8;

    const DEVICE: Rid = DEVICE;
    const PROCESS: Mode = Mode::Scalable;

    /// Also privileged and execute requests.
    fn everything() -> Config {
        let scalable = Config::default().scalable.map(|scalable| Scalable {
            supervisor: true,
            execute: true,
            ..scalable
        });
        Config {
            scalable,
            ..Self::config()
        }
    }

    fn setup(start: Mode) -> Setup {
        Setup {
            scalable: start == Mode::Scalable,
            ..Setup::default()
        }
    }

    fn tables(machine: &Machine<Self>, start: Mode) -> TestResult<Tables> {
        let second = PageTable::new(&machine.ram, Format::VtdSecond, 4)?;
        let first = PageTable::new(&machine.ram, Format::X86, 4)?;
        for (at, write) in [(WRITABLE, true), (READ_ONLY, false)] {
            let frame = machine.ram.frame()?;
            let ss = SS_R | if write { SS_W } else { 0 };
            second.map(Iova(at), frame, ss, 1)?;
            let fs = FS_P | FS_US | FS_XD | if write { FS_RW } else { 0 };
            first.map(Iova(at), frame, fs, 1)?;
        }
        let guest = &machine.guest;
        match start {
            Mode::Legacy => guest.attach(DEVICE, 1, &second, DOMAIN)?,
            Mode::Scalable => {
                guest.probe(DEVICE, true, 0)?;
                let entry = first_stage(first.root(), 4, 1, PE_NXE | PE_WPE);
                guest.set_pasid(DEVICE, Pasid::truncate(FIRST), &entry)?;
                let entry = second_stage(second.root(), 2, DOMAIN);
                guest.set_pasid(DEVICE, Pasid::truncate(SECOND), &entry)?;
            }
        }
        Ok(Tables { second, first })
    }

    fn first(tables: &Tables) -> &PageTable {
        &tables.first
    }

    fn words(code: u8) -> String {
        words(code)
    }

    fn seen(seen: &Seen) -> String {
        words(seen.reason)
    }

    fn fits(_: &Lab<Self>, seen: &Seen, shot: Shot, _: u8) -> TestResult<bool> {
        Ok(seen.rid == DEVICE
            && seen.addr.0 == shot.at & !0xfff
            && seen.pasid == shot.pasid.map(Pasid::truncate))
    }

    fn cases() -> Vec<&'static Case<Self>> {
        legacy::CASES.iter().chain(scalable::CASES).collect()
    }

    const SPECIAL: &'static [Special] = special::CASES;
}

impl Lab<Vtd> {
    /// Rewrites the entry of [`FIRST`] with other flags.
    fn set_first(&self, flags: u64) -> TestResult<()> {
        let entry = first_stage(self.tables.first.root(), 4, 1, flags);
        let guest = &self.machine.guest;
        Ok(guest.set_pasid(DEVICE, Pasid::truncate(FIRST), &entry)?)
    }

    /// Tells the IOMMU where the root table is, whatever the driver thinks.
    fn set_root(&self, value: u64) -> TestResult<()> {
        Ok(self.machine.guest.set_root(value)?)
    }

    fn context(&self) -> TestResult<Gpa> {
        Ok(self.machine.guest.root().context_slot(DEVICE)?)
    }

    /// The directory slot and the table slot of a PASID.
    fn pasid(&self, pasid: u32) -> TestResult<(Gpa, Gpa)> {
        let pasid = Pasid::truncate(pasid);
        Ok(self.machine.guest.pasid_slots(DEVICE, pasid)?)
    }
}
