//! Capture files: one fault scene, as registers, memory, requests and expectations.
//!
//! A user attaches a capture to a bug report, a test replays it, a VMM writes one at the moment of
//! a fault ([`Builder`], [`Recorder`]). The format is version 1, JSON in UTF-8, optionally gzip;
//! `docs/captures.md` describes every key. A capture is input from strangers: [`Limits`] are
//! checked before anything is allocated, and every refusal names its place.
//!
//! What the format leaves open is read so:
//! - `memory_limit` absent: no limit, all of the 64-bit space reads as zero where no range names it.
//! - A byte that a range names outside `memory_base`…`memory_limit` aborts like any other there.
//! - `type` absent is `untranslated`; `access` absent is `r` for requests to memory and nothing for
//!   `translation` and `page_request`.
//! - `pasid`, `group` and `len` may be `null`, which is absent; `len` is a number or a hex string.
//! - Hex strings have a lower-case `0x` and 1 to 16 digits of either case.

mod build;
mod error;
mod expect;
mod fault;
mod gzip;
pub(crate) mod hex;
mod memory;
mod parse;
mod record;
mod write;

pub use build::Builder;
pub use error::{CaptureError, Place, Problem};
pub use expect::Expect;
pub use fault::{amdvi_fault, smmuv3_fault, vtd_fault};
pub use memory::SceneMemory;
pub use record::Recorder;

use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Rid};
use serde::{Serialize, Serializer};
use std::fmt;

/// What a capture may hold; more is refused before it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits;

impl Limits {
    /// Bytes of JSON text, packed or unpacked: 32 MiB.
    pub const BYTES: usize = 32 << 20;
    /// Ranges of memory.
    pub const RANGES: usize = 65_536;
    /// Ranges that abort.
    pub const ABORTS: usize = 4_096;
    /// Requests, and expectations.
    pub const REQUESTS: usize = 65_536;
    /// Codes, steps or writes of one expectation.
    pub const EXPECTED: usize = 64;
}

/// One fault scene.
#[derive(Clone, Debug, PartialEq)]
pub struct Capture {
    /// Whose tables these are.
    pub arch: Arch,
    /// Free text, empty for none.
    pub note: String,
    /// The registers that matter.
    pub registers: Registers,
    /// First address of memory; below it reads abort.
    pub memory_base: Gpa,
    /// First address past memory, from where on reads abort; `None`: no limit.
    pub memory_limit: Option<Gpa>,
    /// What memory holds, sorted by address, without overlaps; elsewhere it reads as zero.
    pub memory: Vec<Range>,
    /// Where reads abort.
    pub aborts: Vec<Span>,
    /// What devices asked for, in order.
    pub requests: Vec<Request>,
    /// What should come of each request, in order; there may be fewer than requests.
    pub expect: Vec<Expect>,
}

/// The IOMMU architectures of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// Intel VT-d.
    Vtd,
    /// AMD I/O virtualization.
    Amdvi,
    /// Arm SMMUv3.
    Smmuv3,
    /// RISC-V IOMMU.
    Riscv,
    /// virtio-iommu.
    Virtio,
}

impl Arch {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Vtd,
        Self::Amdvi,
        Self::Smmuv3,
        Self::Riscv,
        Self::Virtio,
    ];

    /// The name the format uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vtd => "vtd",
            Self::Amdvi => "amdvi",
            Self::Smmuv3 => "smmuv3",
            Self::Riscv => "riscv",
            Self::Virtio => "virtio",
        }
    }

    /// The registers a capture of this architecture may hold.
    #[must_use]
    pub const fn registers(self) -> &'static [&'static str] {
        match self {
            Self::Vtd => &["CAP_REG", "ECAP_REG", "GSTS_REG", "RTADDR_REG", "HAW"],
            Self::Amdvi => &[
                "DEV_TAB_BASE",
                "IOMMU_CONTROL",
                "EXT_FEATURE",
                "EXCL_BASE",
                "EXCL_LIMIT",
                "EXT_FEATURE2",
                "DEV_TAB_SEG1_BASE",
                "DEV_TAB_SEG2_BASE",
                "DEV_TAB_SEG3_BASE",
                "DEV_TAB_SEG4_BASE",
                "DEV_TAB_SEG5_BASE",
                "DEV_TAB_SEG6_BASE",
                "DEV_TAB_SEG7_BASE",
            ],
            Self::Smmuv3 => &[
                "SMMU_CR0",
                "SMMU_CR2",
                "SMMU_GBPA",
                "SMMU_IDR0",
                "SMMU_IDR1",
                "SMMU_IDR3",
                "SMMU_IDR5",
                "SMMU_STRTAB_BASE",
                "SMMU_STRTAB_BASE_CFG",
            ],
            Self::Riscv => &["capabilities", "fctl", "ddtp"],
            Self::Virtio => &[],
        }
    }

    /// Whether devices are named by PCI address (otherwise by a number).
    #[must_use]
    pub const fn names_pci(self) -> bool {
        matches!(self, Self::Vtd | Self::Amdvi)
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Registers by the specification's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers(Vec<(&'static str, u64)>);

impl Registers {
    /// The value of `name`, where the capture holds it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|&(_, value)| value)
    }

    /// Sets `name`; a later value replaces an earlier one.
    pub fn set(&mut self, name: &'static str, value: u64) {
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Every register with its value, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

/// A piece of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub addr: Gpa,
    /// The bytes, in memory order.
    pub data: Vec<u8>,
}

/// A stretch of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First address.
    pub addr: Gpa,
    /// Length in bytes; the end is within the 64-bit space.
    pub len: u64,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Device {
    /// A PCI function.
    Pci {
        /// PCI segment (Linux: domain).
        segment: u32,
        /// Bus, device and function.
        rid: Rid,
    },
    /// A StreamID, a RISC-V device_id or a virtio endpoint.
    Number(u32),
}

impl fmt::Display for Device {
    /// `0000:00:05.0`, or the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci { segment, rid } => write!(f, "{segment:04x}:{rid}"),
            Self::Number(number) => write!(f, "{number}"),
        }
    }
}

/// As the formats have it: the address as text, the number as a number.
impl Serialize for Device {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Pci { .. } => to.collect_str(self),
            Self::Number(number) => to.serialize_u32(*number),
        }
    }
}

/// What kind of message a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// An access to memory, to be translated.
    Untranslated,
    /// An ATS translation request.
    Translation,
    /// An access whose address the device translated before.
    Translated,
    /// A page request of the Page Request Interface.
    PageRequest,
}

impl RequestKind {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Untranslated,
        Self::Translation,
        Self::Translated,
        Self::PageRequest,
    ];

    /// The name the format uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Untranslated => "untranslated",
            Self::Translation => "translation",
            Self::Translated => "translated",
            Self::PageRequest => "page_request",
        }
    }
}

/// One request of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who asks.
    pub device: Device,
    /// In which address space, where it named one.
    pub pasid: Option<Pasid>,
    /// What kind of message.
    pub kind: RequestKind,
    /// Where.
    pub addr: Iova,
    /// Length in bytes, at least 1; the request lies within 4 KiB, as PCI Express asks for.
    pub len: u32,
    /// To do what.
    pub access: Access,
    /// The NW flag of a translation request.
    pub no_write: bool,
    /// Page request group index, 0–511.
    pub group: GroupIndex,
    /// Last of its group.
    pub last: bool,
}

impl Request {
    /// The rights the request asks for: a translation request always asks for read, and for write
    /// unless `no_write`.
    #[must_use]
    pub fn rights(&self) -> Access {
        if self.kind != RequestKind::Translation {
            return self.access;
        }
        let mut rights = self.access & (Access::EXEC | Access::PRIV) | Access::READ;
        rights.set(Access::WRITE, !self.no_write);
        rights
    }
}

impl Capture {
    /// Reads a capture from the bytes of a file, unpacking gzip where it starts like gzip.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn parse(bytes: &[u8]) -> Result<Self, Box<CaptureError>> {
        parse::capture(bytes)
    }

    /// The capture as JSON text on one line, as `--lines` takes it.
    #[must_use]
    pub fn to_line(&self) -> String {
        write::line(self)
    }

    /// The capture as JSON text for people: a key, a range or a request a line.
    #[must_use]
    pub fn to_text(&self) -> String {
        write::text(self)
    }

    /// The capture as `.json.gz`.
    #[must_use]
    pub fn to_gzip(&self) -> Vec<u8> {
        gzip::pack(self.to_text().as_bytes())
    }
}

#[cfg(test)]
mod tests;
