//! Fault recording registers.
//!
//! Source: Intel VT-d, "Fault Recording Registers"; reasons: "Fault Conditions" and the fault
//! reason table, whose numbers VirtualBox (`VTDADDRFAULT`, `VTDINTRFAULT`) and Linux
//! (`drivers/iommu/intel/dmar.c`) repeat.
//! Not covered: the advanced fault log, which has the same record in memory.

mod reason;

use bitfield_struct::bitfield;
use iopf::{Access, DmaKind, Iova, Pasid, Reason, Rid, Unrecoverable};
pub use reason::{FaultFamily, FaultReason, ReasonInfo};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// FRCD_REG as it lies in the register file.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct RawFault {
    /// Bits 63:0: [`FaultLow`].
    pub low: U64,
    /// Bits 127:64: [`FaultHigh`].
    pub high: U64,
}
const _: () = assert!(size_of::<RawFault>() == 16);

/// Low half of FRCD_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultLow {
    #[bits(12)]
    _res: u16,
    /// `[63:12]` FI: page number of the address, or in `[63:48]` an interrupt index.
    #[bits(52)]
    pub info: u64,
}

/// High half of FRCD_REG.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct FaultHigh {
    /// `[15:0]` SID.
    pub source: u16,
    #[bits(12)]
    _res16: u16,
    /// `[28]` T2: low bit of the request type.
    pub type_low: bool,
    /// `[29]` PRIV: supervisor privilege was asked for. Valid with `pasid_present`.
    pub privileged: bool,
    /// `[30]` EXE: execute permission was asked for. Valid with `pasid_present`.
    pub execute: bool,
    /// `[31]` PP: the request had a PASID.
    pub pasid_present: bool,
    /// `[39:32]` FR.
    #[bits(8, default = FaultReason(0))]
    pub reason: FaultReason,
    /// `[59:40]` PV. Valid with `pasid_present`.
    #[bits(20)]
    pub pasid: u32,
    /// `[61:60]` AT.
    #[bits(2, default = AddressType::UNTRANSLATED)]
    pub address_type: AddressType,
    /// `[62]` T1: high bit of the request type.
    pub type_high: bool,
    /// `[63]` F: the register holds a fault. Write one to clear.
    pub fault: bool,
}

/// What kind of request failed: T1 and T2 of FRCD_REG. Any two bits are a value.
///
/// VirtualBox has the same numbers in `VTDREQTYPE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestType(pub u8);

impl RequestType {
    /// A write.
    pub const WRITE: Self = Self(0);
    /// A page request.
    pub const PAGE: Self = Self(1);
    /// A read.
    pub const READ: Self = Self(2);
    /// An atomic operation.
    pub const ATOMIC: Self = Self(3);
}

/// The AT field of the request. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressType(pub u8);

impl AddressType {
    /// The address was to be translated.
    pub const UNTRANSLATED: Self = Self(0);
    /// The request asked for a translation.
    pub const TRANSLATION: Self = Self(1);
    /// The address was already translated.
    pub const TRANSLATED: Self = Self(2);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

impl From<DmaKind> for AddressType {
    fn from(kind: DmaKind) -> Self {
        match kind {
            DmaKind::Untranslated => Self::UNTRANSLATED,
            DmaKind::Translation { .. } => Self::TRANSLATION,
            DmaKind::Translated => Self::TRANSLATED,
        }
    }
}

/// The PASID of a faulting request, and what only requests with PASID carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FaultPasid {
    /// The address space.
    pub pasid: Pasid,
    /// Execute permission was asked for.
    pub execute: bool,
    /// Supervisor privilege was asked for.
    pub privileged: bool,
}

/// What a fault was about: the FI field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultInfo {
    /// The 4 KiB page of the address.
    Page(Iova),
    /// The index of a remapped interrupt.
    InterruptIndex(u16),
}

/// What a fault recording register says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// The requester.
    pub source: Rid,
    /// Why.
    pub reason: FaultReason,
    /// What kind of request it was.
    pub request: RequestType,
    /// How its address was to be understood.
    pub address_type: AddressType,
    /// The address space, where the request named one.
    pub pasid: Option<FaultPasid>,
    /// Where.
    pub info: FaultInfo,
}

impl Event {
    /// Reads a register; `None` where it holds no fault.
    #[must_use]
    pub fn decode(raw: &RawFault) -> Option<Self> {
        let high = FaultHigh::from_bits(raw.high.get());
        let low = raw.low.get();
        high.fault().then(|| Self {
            source: Rid::from_pci(high.source()),
            reason: high.reason(),
            request: RequestType(u8::from(high.type_high()) << 1 | u8::from(high.type_low())),
            address_type: high.address_type(),
            pasid: high.pasid_present().then(|| FaultPasid {
                pasid: Pasid::truncate(high.pasid()),
                execute: high.execute(),
                privileged: high.privileged(),
            }),
            info: if high.reason().family() == FaultFamily::Interrupt {
                let [.., low, top] = low.to_le_bytes();
                FaultInfo::InterruptIndex(u16::from_le_bytes([low, top]))
            } else {
                FaultInfo::Page(Iova(low & !0xfff))
            },
        })
    }

    /// The register that says this. Address bits below the page are dropped.
    #[must_use]
    pub fn encode(&self) -> RawFault {
        let mut high = FaultHigh::new()
            .with_source(self.source.pci())
            .with_reason(self.reason)
            .with_type_high(self.request.0 & 2 != 0)
            .with_type_low(self.request.0 & 1 != 0)
            .with_address_type(AddressType(self.address_type.0 & 3))
            .with_fault(true);
        if let Some(with) = self.pasid {
            high = high
                .with_pasid_present(true)
                .with_pasid(with.pasid.get())
                .with_execute(with.execute)
                .with_privileged(with.privileged);
        }
        let low = match self.info {
            FaultInfo::Page(addr) => addr.0 & !0xfff,
            FaultInfo::InterruptIndex(index) => u64::from(index) << 48,
        };
        RawFault {
            low: U64::new(low),
            high: U64::new(high.into_bits()),
        }
    }
}

impl From<Event> for Unrecoverable {
    /// The architecture-neutral form. A page request has no access of its own in this record.
    fn from(event: Event) -> Self {
        let mut access = match event.request {
            RequestType::WRITE => Access::WRITE,
            RequestType::READ => Access::READ,
            RequestType::ATOMIC => Access::RW,
            _ => Access::empty(),
        };
        if let Some(with) = event.pasid {
            access.set(Access::EXEC, with.execute);
            access.set(Access::PRIV, with.privileged);
        }
        Self {
            reason: Reason(u32::from(event.reason.0)),
            pasid: event.pasid.map(|with| with.pasid),
            access,
            addr: match event.info {
                FaultInfo::Page(addr) => Some(addr),
                FaultInfo::InterruptIndex(_) => None,
            },
            fetch_addr: None,
        }
    }
}

#[cfg(test)]
mod tests;
