//! Raw records, in binary or as hexadecimal text, in the normal form.
//!
//! Of VT-d, two records are known: the fault recording register (16 bytes) and the page request
//! descriptor (32 bytes, of which the second half is the device's own). They tell themselves apart: bits
//! 11:0 of the one are reserved and zero, and bits 7:0 of the other hold its type, 1. Of AMD-Vi, two as
//! well: the entries of the event log and of the PPR log (16 bytes each). Of SMMUv3, the records of the
//! event queue (32 bytes) and the entries of the PRI queue (16 bytes). Whose records they are must be
//! told: [`Arch`]. An SMMUv2 has registers and no records.

mod amdvi;
mod hex;
pub(crate) mod smmuv3;

pub use hex::{HexLine, HexReader};

use iommu_wire::pcie::pri::PageMessage;
use iommu_wire::vtd::event::{Event, FaultFamily, FaultInfo, RawFault, RequestType};
use iommu_wire::vtd::page_request::{Descriptor, RawDescriptor};
use iopf::{Access, Iova, Pasid, Rid};
use zerocopy::FromBytes;

use crate::capture::Device;
use crate::log::{self, Arch, Detail, Flags, Kind, Record, Wanted, names, text_of};

/// A raw record's meaning: the normal form without its words, and without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Whose record.
    pub arch: Arch,
    /// What sort of event.
    pub kind: Kind,
    /// Who sent the transaction: a PCI function, of segment 0 as a record has none, or a StreamID. `None`
    /// where the record is of no transaction.
    pub device: Option<Device>,
    /// In which of the device's address spaces.
    pub pasid: Option<Pasid>,
    /// The page it asked for.
    pub address: Option<Iova>,
    /// What it wanted there.
    pub access: Wanted,
    /// In supervisor mode; known where there is a PASID.
    pub privileged: Option<bool>,
    /// The fault reason of VT-d, the event code of AMD-Vi, the event number of SMMUv3; page requests have
    /// none.
    pub code: Option<u8>,
    /// The interrupt index.
    pub index: Option<u16>,
    /// The flags of an AMD-Vi event, where they have these names.
    pub flags: Option<Flags>,
    /// What an event of SMMUv3 says besides.
    pub detail: Option<Detail>,
}

/// What stands in memory where a record may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slot {
    /// `None` where it is no fault.
    fault: Option<Fault>,
    /// How much of memory it takes.
    bytes: usize,
}

/// The meaning of a fault recording register; `None` where it holds no fault.
#[must_use]
pub fn fault(raw: &RawFault) -> Option<Fault> {
    let event = Event::decode(raw)?;
    let interrupt = event.reason.family() == FaultFamily::Interrupt;
    let kind = match event.request {
        _ if interrupt => Kind::InterruptRemapping,
        RequestType::PAGE => Kind::PageRequest,
        _ => Kind::Dma,
    };
    let access = match event.request {
        _ if interrupt => Wanted::Unknown,
        _ if event.pasid.is_some_and(|with| with.execute) => Wanted::Exec,
        RequestType::READ => Wanted::Read,
        RequestType::WRITE | RequestType::ATOMIC => Wanted::Write,
        _ => Wanted::Unknown,
    };
    let (address, index) = match event.info {
        FaultInfo::Page(address) => (Some(address), None),
        FaultInfo::InterruptIndex(index) => (None, Some(index)),
    };
    Some(Fault {
        arch: Arch::Vtd,
        kind,
        device: Some(function(event.source)),
        pasid: event.pasid.map(|with| with.pasid),
        address,
        access,
        privileged: event.pasid.map(|with| with.privileged),
        code: Some(event.reason.0),
        index,
        flags: None,
        detail: None,
    })
}

/// The meaning of a page request descriptor; `None` for stop markers and unknown types.
#[must_use]
pub fn page_request(raw: &RawDescriptor) -> Option<Fault> {
    let Descriptor::Page { requester, message } = Descriptor::decode(raw) else {
        return None;
    };
    page_fault(Arch::Vtd, function(requester), &message)
}

/// The function with this requester ID.
const fn function(rid: Rid) -> Device {
    Device::Pci { segment: 0, rid }
}

/// The meaning of a page request, whoever has queued it; `None` for stop markers.
fn page_fault(arch: Arch, device: Device, message: &PageMessage) -> Option<Fault> {
    let PageMessage::Request(request) = message else {
        return None;
    };
    Some(Fault {
        arch,
        kind: Kind::PageRequest,
        device: Some(device),
        pasid: request.pasid,
        address: Some(request.addr),
        access: wanted(request.access),
        privileged: request.pasid.map(|_| request.access.contains(Access::PRIV)),
        code: None,
        index: None,
        flags: None,
        detail: None,
    })
}

/// What a page request wants most.
fn wanted(access: Access) -> Wanted {
    if access.contains(Access::EXEC) {
        Wanted::Exec
    } else if access.contains(Access::WRITE) {
        Wanted::Write
    } else if access.contains(Access::READ) {
        Wanted::Read
    } else {
        Wanted::Unknown
    }
}

impl Fault {
    /// The record of this fault: number `record`, found on `line`.
    #[must_use]
    pub fn record(&self, record: u64, line: u64) -> Record {
        let code = self.code.map(u32::from);
        let name = match self.arch {
            Arch::Vtd => names::reason,
            Arch::Amdvi => log::amdvi::name_of,
            Arch::Smmuv3 | Arch::Smmuv2 => log::arm::event_name,
        };
        let mut record = Record {
            record,
            line,
            time: None,
            arch: self.arch,
            kind: self.kind,
            iommu: None,
            device: self.device,
            pasid: self.pasid,
            address: self.address,
            access: self.access,
            privileged: self.privileged,
            code,
            name: code.and_then(name).map(Into::into),
            flags: self.flags,
            index: self.index.map(u32::from),
            text: String::new(),
            client: None,
            detail: self.detail,
            dump: None,
        };
        record.text = text_of(&record);
        record
    }
}

/// Whether the two words can be a fault recording register that holds a fault: F set, and what is
/// reserved zero.
const fn is_fault(low: u64, high: u64) -> bool {
    low & 0xfff == 0 && high >> 63 == 1 && high & 0x0fff_0000 == 0
}

/// Whether the word can be the first of a page request descriptor. Bit 9 said that there is private
/// data before the specification dropped it.
const fn is_page_request(head: u64) -> bool {
    head & 0xff == 1 && head & 0xfc00 == 0 && head >> 54 == 0
}

/// Whether `bytes` begin with something that can be a raw record of `arch`, empty ones before it or
/// not.
#[must_use]
pub fn looks_raw(arch: Arch, bytes: &[u8]) -> bool {
    let mut slots = bytes.chunks_exact(size_of::<RawFault>());
    let Some(first) = slots.find(|slot| slot.iter().any(|&byte| byte != 0)) else {
        return false;
    };
    let Ok(raw) = RawFault::read_from_bytes(first) else {
        return false;
    };
    let (low, high) = (raw.low.get(), raw.high.get());
    match arch {
        Arch::Vtd => is_fault(low, high) || is_page_request(low),
        Arch::Amdvi => amdvi::is_entry(low),
        Arch::Smmuv3 => smmuv3::is_entry(low),
        Arch::Smmuv2 => false,
    }
}

/// Reads one raw record after the other from memory, as fast as it goes.
///
/// The item is `None` for a slot that holds no fault. What is left over at the end, fewer bytes
/// than a record has, is dropped.
///
/// ```
/// # use iopf_scene::record::Faults;
/// // A write of 00:14.0 to page 0xffcda000 met an entry without write permission.
/// let frcd = [0, 0xa0, 0xcd, 0xff, 0, 0, 0, 0, 0xa0, 0, 0, 0, 0x05, 0, 0, 0x80];
/// let fault = Faults::new(&frcd).next().flatten().unwrap();
/// assert_eq!((fault.device.unwrap().to_string(), fault.code), ("0000:00:14.0".into(), Some(5)));
/// ```
#[derive(Clone, Debug)]
pub struct Faults<'a> {
    arch: Arch,
    rest: &'a [u8],
}

impl<'a> Faults<'a> {
    /// Reads `bytes`, which begin with a record of VT-d.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self::of(Arch::Vtd, bytes)
    }

    /// Reads `bytes`, which begin with a record of `arch`.
    #[must_use]
    pub const fn of(arch: Arch, bytes: &'a [u8]) -> Self {
        Self { arch, rest: bytes }
    }

    /// What has not been read yet.
    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl Iterator for Faults<'_> {
    type Item = Option<Fault>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if matches!(self.arch, Arch::Smmuv3 | Arch::Smmuv2) {
            let slot = smmuv3::slot(self.rest)?;
            self.rest = self.rest.get(slot.bytes..).unwrap_or_default();
            return Some(slot.fault.filter(|_| self.arch == Arch::Smmuv3));
        }
        let (raw, rest) = RawFault::ref_from_prefix(self.rest).ok()?;
        if self.arch == Arch::Amdvi {
            self.rest = rest;
            return Some(amdvi::entry(raw.low.get(), raw.high.get()));
        }
        if is_page_request(raw.low.get()) {
            let (raw, rest) = RawDescriptor::ref_from_prefix(self.rest).ok()?;
            self.rest = rest;
            return Some(page_request(raw));
        }
        self.rest = rest;
        Some(fault(raw))
    }
}

#[cfg(test)]
mod tests;
