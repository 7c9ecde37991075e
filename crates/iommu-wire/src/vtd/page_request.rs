//! Page request descriptors: what the unit puts into the page request queue.
//!
//! Source: Intel VT-d, "Page Request Descriptor"; Linux has the same layout in
//! `drivers/iommu/intel/prq.c`, `struct page_req_dsc`.

use crate::pcie::pri::{PageMessage, RawPageRequest};
use bitfield_struct::bitfield;
use iopf::{Access, Pasid, Rid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// One descriptor as it lies in guest memory.
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
pub struct RawDescriptor {
    /// Bits 63:0: [`Head`].
    pub head: U64,
    /// Bits 127:64: the page request itself, [`RawPageRequest`].
    pub request: U64,
    /// Bits 255:128: private data.
    pub private: [U64; 2],
}
const _: () = assert!(size_of::<RawDescriptor>() == 32);

/// Low quarter of a descriptor.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Head {
    /// `[7:0]` type; [`Head::PAGE_REQUEST`] is the only one.
    pub kind: u8,
    /// `[8]` PP: the request had a PASID.
    pub pasid_present: bool,
    #[bits(7)]
    _res9: u8,
    /// `[31:16]` RID.
    pub requester: u16,
    /// `[51:32]` PASID. Valid with `pasid_present`.
    #[bits(20)]
    pub pasid: u32,
    /// `[52]` EXR: execute permission is asked for.
    pub execute: bool,
    /// `[53]` PMR: supervisor privilege is asked for.
    pub privileged: bool,
    #[bits(10)]
    _res54: u16,
}

impl Head {
    /// The type of a page request.
    pub const PAGE_REQUEST: u8 = 1;
}

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Descriptor {
    /// A page request or stop marker.
    Page {
        /// Who asks.
        requester: Rid,
        /// For what.
        message: PageMessage,
    },
    /// A type we carry but do not interpret.
    Other(RawDescriptor),
}

impl Descriptor {
    /// Reads a descriptor.
    #[must_use]
    pub fn decode(raw: &RawDescriptor) -> Self {
        let head = Head::from_bits(raw.head.get());
        if head.kind() != Head::PAGE_REQUEST {
            return Self::Other(*raw);
        }
        let mut rights = Access::empty();
        rights.set(Access::EXEC, head.execute());
        rights.set(Access::PRIV, head.privileged());
        let pasid = head.pasid_present().then(|| Pasid::truncate(head.pasid()));
        let request = RawPageRequest::from_bits(raw.request.get());
        let mut message = PageMessage::decode(request, pasid, rights);
        if let PageMessage::Request(request) = &mut message {
            request.private_data = raw.private.map(U64::get);
        }
        Self::Page {
            requester: Rid::from_pci(head.requester()),
            message,
        }
    }

    /// The descriptor that says this.
    #[must_use]
    pub fn encode(&self) -> RawDescriptor {
        let (requester, message) = match self {
            Self::Other(raw) => return *raw,
            Self::Page { requester, message } => (requester, message),
        };
        let (pasid, access, private) = match message {
            PageMessage::Request(request) => (request.pasid, request.access, request.private_data),
            PageMessage::StopMarker { pasid } => (*pasid, Access::empty(), [0; 2]),
        };
        let head = Head::new()
            .with_kind(Head::PAGE_REQUEST)
            .with_pasid_present(pasid.is_some())
            .with_requester(requester.pci())
            .with_pasid(pasid.map_or(0, Pasid::get))
            .with_execute(access.contains(Access::EXEC))
            .with_privileged(access.contains(Access::PRIV));
        RawDescriptor {
            head: U64::new(head.into_bits()),
            request: U64::new(message.encode().into_bits()),
            private: private.map(U64::new),
        }
    }
}

#[cfg(test)]
mod tests;
