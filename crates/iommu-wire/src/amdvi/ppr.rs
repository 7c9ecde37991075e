//! PPR log entries: what the unit puts into the peripheral page request log.
//!
//! Source: AMD 48882, "Peripheral Page Request (PPR) Logging"; Linux has the same layout in
//! `drivers/iommu/amd/amd_iommu_types.h`, `PPR_*`, and takes it apart in `ppr.c`. There is no second
//! author at hand for the fields: VirtualBox, FreeBSD and QEMU do not have the log. UNCONFIRMED
//! beyond Linux.

use crate::pcie::pri::{PageMessage, group_bits};
use bitfield_struct::bitfield;
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Rid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One entry as it lies in guest memory.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct RawPpr {
    /// Bits 63:0: who asks, and how.
    pub head: U64,
    /// Bits 127:64: the page.
    pub address: U64,
}
const _: () = assert!(size_of::<RawPpr>() == 16);

/// Code of an entry: bits 63:60. Any four bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PprCode(pub u8);

impl PprCode {
    /// PAGE_SERVICE_REQUEST
    pub const PAGE_SERVICE_REQUEST: Self = Self(1);
}

/// Low half of an entry, and of an INVALID_PPR_REQUEST event.
#[bitfield(u64)]
pub(crate) struct PprHead {
    /// `[15:0]` device ID
    pub(crate) requester: u16,
    /// `[31:16]` PASID 15:0
    pasid_low: u16,
    /// `[40:32]` tag: the page request group index
    #[bits(9)]
    pub(crate) group: u16,
    /// `[41]` tag bit 9: last of its group
    pub(crate) last: bool,
    /// `[45:42]` PASID 19:16
    #[bits(4)]
    pasid_high: u8,
    #[bits(2)]
    _res46: u8,
    /// `[59:48]`
    #[bits(12)]
    pub(crate) flags: u16,
    /// `[63:60]`
    #[bits(4)]
    pub(crate) code: u8,
}

impl PprHead {
    pub(crate) const fn pasid(self) -> u32 {
        (self.pasid_high() as u32) << 16 | self.pasid_low() as u32
    }

    pub(crate) fn with_pasid(self, pasid: Option<Pasid>) -> Self {
        let [low, middle, high, _] = pasid.map_or(0, Pasid::get).to_le_bytes();
        self.with_pasid_low(u16::from_le_bytes([low, middle]))
            .with_pasid_high(high & 0xf)
    }
}

/// High half of an entry.
#[bitfield(u64)]
pub(crate) struct Page {
    #[bits(12)]
    _res0: u16,
    /// `[63:12]` page number
    #[bits(52)]
    pub(crate) page: u64,
}

/// Flags of an entry: its bits 59:48, as Linux prints them.
#[bitfield(u16)]
#[derive(PartialEq, Eq, Hash)]
pub struct Flags {
    #[bits(1)]
    _res0: u8,
    /// `[1]` EXEC: execute permission is asked for.
    pub execute: bool,
    /// `[2]` READ
    pub read: bool,
    #[bits(2)]
    _res3: u8,
    /// `[5]` WRITE
    pub write: bool,
    /// `[6]` US: with user privilege.
    pub user: bool,
    /// `[7]` RVSD: a reserved bit of the message was set.
    pub malformed: bool,
    /// `[8]` GN: the request had a PASID.
    pub gn: bool,
    #[bits(3)]
    _res9: u8,
    #[bits(4)]
    _res12: u8,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ppr {
    /// A page request or stop marker.
    PageServiceRequest {
        /// Who asks.
        requester: Rid,
        /// For what.
        message: PageMessage,
        /// A reserved bit of the message was set.
        malformed: bool,
    },
    /// A code we carry but do not interpret.
    Other(RawPpr),
}

impl RawPpr {
    /// Its code.
    #[must_use]
    pub const fn code(&self) -> PprCode {
        PprCode(self.parts().code())
    }

    /// Its flags.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags::from_bits(self.parts().flags())
    }

    const fn parts(&self) -> PprHead {
        PprHead::from_bits(self.head.get())
    }
}

impl Ppr {
    /// Reads an entry.
    #[must_use]
    pub fn decode(raw: &RawPpr) -> Self {
        if raw.code() != PprCode::PAGE_SERVICE_REQUEST {
            return Self::Other(*raw);
        }
        let (head, flags) = (raw.parts(), raw.flags());
        let pasid = flags.gn().then(|| Pasid::truncate(head.pasid()));
        let mut access = Access::empty();
        access.set(Access::READ, flags.read());
        access.set(Access::WRITE, flags.write());
        access.set(Access::EXEC, flags.execute());
        access.set(Access::PRIV, !flags.user());
        let message = if head.last() && !access.intersects(Access::RW) {
            PageMessage::StopMarker { pasid }
        } else {
            PageMessage::Request(PageRequest {
                pasid,
                group: GroupIndex(u32::from(head.group())),
                addr: Iova(Page::from_bits(raw.address.get()).page() << 12),
                access,
                last: head.last(),
                response_needs_pasid: pasid.is_some(),
                private_data: [0; 2],
            })
        };
        Self::PageServiceRequest {
            requester: Rid::from_pci(head.requester()),
            message,
            malformed: flags.malformed(),
        }
    }

    /// The entry that says this. A group index keeps its low 9 bits, an address its page.
    #[must_use]
    pub fn encode(&self) -> RawPpr {
        let (requester, message, malformed) = match self {
            Self::Other(raw) => return *raw,
            Self::PageServiceRequest {
                requester,
                message,
                malformed,
            } => (requester, message, *malformed),
        };
        let (pasid, access, group, addr, last) = match message {
            PageMessage::Request(request) => (
                request.pasid,
                request.access,
                group_bits(request.group),
                request.addr,
                request.last,
            ),
            PageMessage::StopMarker { pasid } => (*pasid, Access::empty(), 0, Iova(0), true),
        };
        let flags = Flags::new()
            .with_execute(access.contains(Access::EXEC))
            .with_read(access.contains(Access::READ))
            .with_write(access.contains(Access::WRITE))
            .with_user(!access.contains(Access::PRIV))
            .with_malformed(malformed)
            .with_gn(pasid.is_some());
        let head = PprHead::new()
            .with_requester(requester.pci())
            .with_group(group)
            .with_last(last)
            .with_flags(flags.into_bits() & 0xfff)
            .with_code(PprCode::PAGE_SERVICE_REQUEST.0)
            .with_pasid(pasid);
        RawPpr {
            head: U64::new(head.into_bits()),
            address: U64::new(Page::new().with_page(addr.0 >> 12).into_bits()),
        }
    }
}

#[cfg(test)]
mod tests;
