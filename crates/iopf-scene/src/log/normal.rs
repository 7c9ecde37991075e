//! The normal form: one [`Record`] a fault message, one [`Summary`] an input.
//!
//! The order of the fields is the order of the keys in the JSON form.

use std::borrow::Cow;

use iommu_wire::smmuv3::event::Class;
use iopf::{Gpa, Iova, Pasid};
use serde::{Serialize, Serializer};

use super::dump::Dump;
use crate::capture::Device;

/// The architecture of the IOMMU that recorded a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Arch {
    /// Intel VT-d.
    Vtd,
    /// AMD I/O virtualization.
    Amdvi,
    /// Arm SMMUv3.
    Smmuv3,
    /// Arm SMMUv2, and SMMUv1.
    Smmuv2,
}

/// What sort of event a record tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// A memory transaction was refused.
    Dma,
    /// An interrupt message was refused.
    InterruptRemapping,
    /// A page request was refused.
    PageRequest,
    /// A configuration entry is not one the IOMMU can use.
    Configuration,
    /// A command of the IOMMU's driver is not one the IOMMU can carry out.
    Command,
    /// The IOMMU could not read its own tables or commands, or write its queues.
    Hardware,
}

/// The flags of an AMD-Vi event: bits 48 to 56 of its first 64-bit word.
///
/// AMD I/O Virtualization Technology Specification, "Event Logging"; VirtualBox
/// `EVT_IO_PAGE_FAULT_T`. A flag that an event does not have is `false`.
#[expect(
    clippy::struct_excessive_bools,
    reason = "nine bits of hardware, each with a name of its own"
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Flags {
    /// Guest translation: the event's domain field holds a PASID.
    pub gn: bool,
    /// The page may not be executed.
    pub nx: bool,
    /// The request was one of a user.
    pub us: bool,
    /// The request was an interrupt.
    pub i: bool,
    /// The page was present.
    pub pr: bool,
    /// The request was a write. Means nothing with `i` or `tr`.
    pub rw: bool,
    /// A permission was missing. Means nothing without `pr`.
    pub pe: bool,
    /// A reserved bit was set; without it and `pe`, a level was invalid. Means nothing without `pr`.
    pub rz: bool,
    /// The request was one for a translation.
    pub tr: bool,
}

impl Flags {
    /// The flags in `bits`, the lowest of which is bit 48 of the event.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self {
            gn: bits & 1 << 0 != 0,
            nx: bits & 1 << 1 != 0,
            us: bits & 1 << 2 != 0,
            i: bits & 1 << 3 != 0,
            pr: bits & 1 << 4 != 0,
            rw: bits & 1 << 5 != 0,
            pe: bits & 1 << 6 != 0,
            rz: bits & 1 << 7 != 0,
            tr: bits & 1 << 8 != 0,
        }
    }
}

/// What an SMMUv3 record says besides. `None`: nothing of the kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// The stage of translation that refused: 1 or 2.
    pub stage: Option<u8>,
    /// What was being translated.
    pub class: Option<Class>,
    /// The address that stage 2 refused.
    pub ipa: Option<Gpa>,
    /// The structure or table entry that could not be read.
    pub fetch: Option<Gpa>,
    /// The transaction waits, under this tag.
    pub stalled: Option<u16>,
}

/// What the transaction wanted, as far as the record says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Wanted {
    /// To read.
    Read,
    /// To write; also where both rights were asked for.
    Write,
    /// To fetch instructions.
    Exec,
    /// The record does not say.
    #[default]
    Unknown,
}

/// One fault in the normal form.
///
/// `None` is always "the input does not tell", never a guess.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Record {
    /// Position among the records of this input, from 0.
    pub record: u64,
    /// The line the message begins on, from 1. For binary input, the record's own position, from 1.
    pub line: u64,
    /// When: `2024-06-10T12:00:00Z` where the log tells the instant, else the log's own stamp.
    pub time: Option<String>,
    /// Whose record.
    pub arch: Arch,
    /// What sort of event.
    pub kind: Kind,
    /// The IOMMU's name in the log, such as `dmar0`, `ivhd0` or `arm-smmu-v3.0.auto`.
    pub iommu: Option<String>,
    /// Who sent the transaction: a PCI function, or of Arm's SMMUs a StreamID.
    pub device: Option<Device>,
    /// In which of the device's address spaces; `None` also where it named none.
    #[serde(serialize_with = "pasid")]
    pub pasid: Option<Pasid>,
    /// The address asked for, in bytes; of an event on a command, the command's. `None` for an
    /// interrupt of VT-d.
    #[serde(serialize_with = "address")]
    pub address: Option<Iova>,
    /// What was wanted there.
    pub access: Wanted,
    /// In supervisor mode.
    pub privileged: Option<bool>,
    /// The architecture's own number for the reason.
    pub code: Option<u32>,
    /// The reason as the log prints it; else our name for `code`.
    pub name: Option<Cow<'static, str>>,
    /// The flags of an AMD-Vi event, where they are printed and have these names.
    pub flags: Option<Flags>,
    /// The interrupt-remapping index, for [`Kind::InterruptRemapping`]; AMD-Vi prints none.
    pub index: Option<u32>,
    /// What happened and what to do, in one sentence.
    pub text: String,
    /// The device behind a StreamID, as the log has it: `0000:01:00.0`. Not in the JSON form.
    #[serde(skip)]
    pub client: Option<String>,
    /// What an SMMUv3 record says besides. Not in the JSON form.
    #[serde(skip)]
    pub detail: Option<Detail>,
    /// The tables that the kernel printed for this fault, with what they show. Not in the JSON form.
    #[serde(skip)]
    pub dump: Option<Dump>,
}

fn pasid<S: Serializer>(value: &Option<Pasid>, to: S) -> Result<S::Ok, S::Error> {
    value.map(Pasid::get).serialize(to)
}

fn address<S: Serializer>(value: &Option<Iova>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(iova) => to.collect_str(iova),
        None => to.serialize_none(),
    }
}

/// What an input held, in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Fault records given out.
    pub records: u64,
    /// Fault messages the kernel says it left out (`dmar_fault: 44 callbacks suppressed`), added up.
    pub suppressed: u64,
    /// Lines read, blank ones included; for binary input, record slots.
    pub lines: u64,
    /// Lines no part of which belongs to a fault record.
    pub not_faults: u64,
    /// The time of the first record that has one.
    pub first: Option<String>,
    /// The time of the last record that has one.
    pub last: Option<String>,
}

/// The last object of the JSON form: `{"summary":{…}}`.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SummaryObject<'a> {
    /// The figures.
    pub summary: &'a Summary,
}

impl Summary {
    /// These figures as the object that ends the JSON form.
    #[must_use]
    pub const fn object(&self) -> SummaryObject<'_> {
        SummaryObject { summary: self }
    }

    /// Counts `record`, in the order of the input.
    pub(crate) fn count(&mut self, record: &Record) {
        self.records += 1;
        if let Some(time) = &record.time {
            self.first.get_or_insert_with(|| time.clone());
            self.last = Some(time.clone());
        }
    }
}
