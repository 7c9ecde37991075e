//! One sentence a person can act on.
//!
//! What all architectures share: who did what, which entry is to blame, which of its bits. What each
//! finds and advises is in a file of its own.

pub(super) mod amdvi;
pub(super) mod smmuv3;
pub(super) mod vtd;

use super::fields::{self, Formats};
use super::{Answer, Fault, blamed};
use crate::capture::{Request, RequestKind};
use iommu_walk::{Failure, Stage, Step, Table};
use iopf::{Access, Gpa, Pasid};
use std::fmt::Write;

/// Where a walk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blame {
    pub(super) level: u8,
    pub(super) stage: Option<Stage>,
    pub(super) entry_addr: Option<Gpa>,
    pub(super) entry: Option<u64>,
    pub(super) bits: u64,
    pub(super) guest_addr: Option<Gpa>,
}

impl Blame {
    pub(super) const fn of<C: Copy, D: Copy>(failure: &Failure<C, D>) -> Self {
        Self {
            level: failure.level,
            stage: failure.stage,
            entry_addr: failure.entry_addr,
            entry: failure.entry,
            bits: failure.bits,
            guest_addr: failure.guest_addr,
        }
    }
}

/// A fault of which only the place is known yet.
impl From<Blame> for Fault {
    fn from(blame: Blame) -> Self {
        Self {
            code: None,
            name: "",
            recoverable: false,
            stage: blame.stage.map(|stage| match stage {
                Stage::First => 1,
                Stage::Second => 2,
            }),
            level: (blame.level > 0).then_some(blame.level),
            entry_addr: blame.entry_addr,
            entry: blame.entry,
            bits: blame.bits,
            record: None,
            response: None,
            text: String::new(),
        }
    }
}

/// All there is to tell about a fault, but for its cause.
pub(super) struct Story<'a> {
    pub(super) request: &'a Request,
    pub(super) formats: Formats,
    pub(super) blame: Blame,
    pub(super) trail: &'a [Step],
    pub(super) recorded: bool,
    pub(super) response: Option<Answer>,
}

/// What happened to a request for the interrupt range.
pub(super) fn interrupt(request: &Request, formats: Formats) -> String {
    let what = match request.kind {
        RequestKind::Translation => {
            "that is the interrupt range, which devices reach untranslated: the answer is success, \
             untranslated access only"
        }
        _ => {
            "that is the interrupt range: the write is an interrupt message (MSI) and no DMA, so no \
             page table was asked; if it was meant as DMA, the driver gave the device a wrong \
             address"
        }
    };
    format!("{}; {what}.", deed(request, formats))
}

/// What happened to a page request that may be asked.
pub(super) fn queued(request: &Request, formats: Formats) -> String {
    let next = if request.last {
        "software maps the pages of group {} and answers with a page group response"
    } else {
        "group {} is not complete: the device sends its last request before software answers"
    };
    format!(
        "{}; the request is allowed and goes into the page request queue, {}.",
        deed(request, formats),
        next.replace("{}", &request.group.0.to_string())
    )
}

/// Who did what: `0000:00:05.0 with PASID 0x5 tried to read 0x7f001000`.
fn deed(request: &Request, formats: Formats) -> String {
    let mut who = formats.device(request.device);
    if let Some(pasid) = request.pasid {
        let _ = write!(who, " with {} {pasid}", formats.substream());
    }
    let access = request.rights();
    let mode = if access.contains(Access::PRIV) {
        " in privileged mode"
    } else {
        ""
    };
    let verb = match (
        access.contains(Access::READ),
        access.contains(Access::WRITE),
        access.contains(Access::EXEC),
    ) {
        (_, _, true) if access.contains(Access::WRITE) => "read, write and execute",
        (true, _, true) => "read and execute",
        (false, false, true) => "fetch instructions from",
        (true, true, false) => "read and write",
        (false, true, false) => "write",
        (true, false, false) => "read",
        (false, false, false) => "make a zero-length read of",
        (false, true, true) => "write and execute",
    };
    let addr = request.addr;
    match request.kind {
        RequestKind::Untranslated => format!("{who} tried to {verb} {addr}{mode}"),
        RequestKind::Translation => {
            format!("{who} asked for a translation of {addr} to {verb} it{mode}")
        }
        RequestKind::Translated => {
            format!("{who} tried to {verb} {addr}{mode} as an already translated address")
        }
        RequestKind::PageRequest => {
            format!("{who} asked for the page of {addr} to {verb} it{mode}")
        }
    }
}

impl Story<'_> {
    /// The sentence. `hidden` says why nothing is recorded, where the tables ask for that.
    fn text(&self, finding: &str, advice: &str, hidden: Option<&str>) -> String {
        let mut text = format!("{}: {finding}; {advice}", deed(self.request, self.formats));
        if let Some(hidden) = hidden {
            text.push_str(" (no fault is recorded, as ");
            text.push_str(hidden);
            text.push(')');
        } else if !self.recorded && self.response == Some(Answer::Success) {
            text.push_str(
                " (the device was told it has no access and may ask for the page; nothing is recorded)",
            );
        }
        text.push('.');
        text
    }

    fn pasid(&self) -> String {
        self.request
            .pasid
            .unwrap_or_else(|| Pasid::truncate(0))
            .to_string()
    }

    /// The entry to blame, with its address and value.
    fn entry(&self) -> String {
        let Some(addr) = self.blame.entry_addr else {
            return "the entry".into();
        };
        let rid = match self.request.device {
            crate::capture::Device::Pci { rid, .. } => rid,
            crate::capture::Device::Number(number) => iopf::Rid(number),
        };
        let found = blamed(self.trail, addr);
        let name = match found.map(|(step, _)| (step.table, step)) {
            Some((Table::Root, _)) => format!("the root entry of bus {:#04x}", rid.bus()),
            Some((Table::Context, _)) => format!("the context entry of {rid}"),
            Some((Table::DeviceTable, _)) => format!("the device table entry of {rid}"),
            Some((Table::GuestCr3, step)) => format!("guest CR3 table entry {}", step.index),
            Some((Table::PasidDirectory, step)) => {
                format!("PASID directory entry {}", step.index)
            }
            Some((Table::PasidTable, step)) => {
                let dir = self.trail.iter().rev();
                let dir = dir.clone().find(|s| s.table == Table::PasidDirectory);
                let pasid = dir.map_or(0, |s| s.index) * 64 + step.index;
                format!("the PASID table entry of PASID {pasid:#x}")
            }
            Some((Table::StreamLevel1, step)) => {
                format!("level 1 stream table descriptor {}", step.index)
            }
            Some((Table::Stream, _)) => {
                format!(
                    "the stream table entry of {}",
                    self.formats.device(self.request.device)
                )
            }
            Some((Table::ContextLevel1, step)) => {
                format!("level 1 context descriptor {}", step.index)
            }
            Some((Table::ContextDescriptor, _)) => match self.request.pasid {
                Some(pasid) => format!("the context descriptor of substream {pasid}"),
                None => "the context descriptor of requests without a substream".into(),
            },
            Some((table, step)) => {
                let stage = match table {
                    Table::FirstStage => Stage::First,
                    _ => Stage::Second,
                };
                let (level, stage) = (self.formats.level(step.level), self.formats.stage(stage));
                format!("the level-{level} {stage} entry {}", step.index)
            }
            None => match self.blame.stage {
                Some(stage) => {
                    let (level, stage) = (
                        self.formats.level(self.blame.level),
                        self.formats.stage(stage),
                    );
                    format!("the level-{level} {stage} entry")
                }
                None => "the entry".into(),
            },
        };
        let guest = match found.and_then(|(step, _)| step.guest_addr) {
            Some(guest) => format!(" (guest address {guest})"),
            None => String::new(),
        };
        match self.blame.entry {
            Some(value) => format!("{name} at {addr}{guest} is {value:#x}"),
            None => format!("{name} at {addr}{guest}"),
        }
    }

    /// The bits that decided, named.
    fn bits(&self) -> String {
        let place = self
            .blame
            .entry_addr
            .and_then(|addr| blamed(self.trail, addr));
        match place {
            Some((step, word)) => {
                fields::name_bits(self.formats, step.table, word, self.blame.bits)
            }
            None => format!("bits {:#x}", self.blame.bits),
        }
    }

    /// `bit 0 (P) is clear`, or `are`.
    fn state(&self, word: &str) -> String {
        let verb = if self.blame.bits.count_ones() > 1 {
            "are"
        } else {
            "is"
        };
        format!("{}, {} {verb} {word}", self.entry(), self.bits())
    }

    fn bits_of(&self) -> String {
        if self.blame.bits == 0 {
            self.entry()
        } else {
            format!("{}, {}", self.entry(), self.bits())
        }
    }

    fn guest(&self) -> String {
        match self.blame.guest_addr {
            Some(addr) => format!(" at guest address {addr}"),
            None => String::new(),
        }
    }

    fn denied(&self, what: &str) -> String {
        if self.blame.entry_addr.is_none() {
            return format!("no mapping allows the device to {what}");
        }
        if self.blame.entry == Some(0) {
            return format!("{}, nothing is mapped there{}", self.entry(), self.guest());
        }
        format!(
            "{}, so the device may not {what} there{}",
            self.state("clear"),
            self.guest()
        )
    }
}
