//! PRI queue entries: page requests of devices.
//!
//! Source: IHI 0070, "Page request queue"; Linux `arm-smmu-v3.h` (`PRIQ_0_*`, `PRIQ_1_*`) has the
//! positions, and takes an entry apart in `arm_smmu_handle_ppr`. QEMU and FreeBSD do not have the queue:
//! UNCONFIRMED beyond Linux.

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
pub struct RawPageRequest {
    /// Bits 63:0: who asks, and how.
    pub head: U64,
    /// Bits 127:64: the group and the page.
    pub page: U64,
}
const _: () = assert!(size_of::<RawPageRequest>() == 16);

/// Bits 63:0.
#[bitfield(u64)]
struct Head {
    /// `[31:0]` StreamID
    stream: u32,
    /// `[51:32]` SubstreamID. Valid with SSV.
    #[bits(20)]
    substream: u32,
    #[bits(6)]
    _res52: u8,
    /// `[58]` Priv
    privileged: bool,
    /// `[59]` X
    execute: bool,
    /// `[60]` R
    read: bool,
    /// `[61]` W
    write: bool,
    /// `[62]` Last
    last: bool,
    /// `[63]` SSV
    ssv: bool,
}

/// Bits 127:64, numbered from 0.
#[bitfield(u64)]
struct Page {
    /// `[8:0]` PRGIndex
    #[bits(9)]
    group: u16,
    #[bits(3)]
    _res9: u8,
    /// `[63:12]` page number
    #[bits(52)]
    page: u64,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Who asks.
    pub stream: Rid,
    /// For what. A message without a PASID is never a stop marker.
    pub message: PageMessage,
}

impl Entry {
    /// Reads an entry. Without a SubstreamID it asks for neither execution nor privilege.
    #[must_use]
    pub fn decode(raw: &RawPageRequest) -> Self {
        let head = Head::from_bits(raw.head.get());
        let page = Page::from_bits(raw.page.get());
        let pasid = head.ssv().then(|| Pasid::truncate(head.substream()));
        let mut access = Access::empty();
        access.set(Access::READ, head.read());
        access.set(Access::WRITE, head.write());
        access.set(Access::EXEC, head.ssv() && head.execute());
        access.set(Access::PRIV, head.ssv() && head.privileged());
        let message = if head.ssv() && head.last() && !access.intersects(Access::RW) {
            PageMessage::StopMarker { pasid }
        } else {
            PageMessage::Request(PageRequest {
                pasid,
                group: GroupIndex(u32::from(page.group())),
                addr: Iova(page.page() << 12),
                access,
                last: head.last(),
                response_needs_pasid: pasid.is_some(),
                private_data: [0; 2],
            })
        };
        Self {
            stream: Rid(head.stream()),
            message,
        }
    }

    /// The entry that says this. A group index keeps its low 9 bits, an address its page.
    #[must_use]
    pub fn encode(&self) -> RawPageRequest {
        let (pasid, access, group, addr, last) = match &self.message {
            PageMessage::Request(request) => (
                request.pasid,
                request.access,
                group_bits(request.group),
                request.addr,
                request.last,
            ),
            PageMessage::StopMarker { pasid } => (*pasid, Access::empty(), 0, Iova(0), true),
        };
        let named = pasid.is_some();
        let head = Head::new()
            .with_stream(self.stream.0)
            .with_substream(pasid.map_or(0, Pasid::get))
            .with_privileged(named && access.contains(Access::PRIV))
            .with_execute(named && access.contains(Access::EXEC))
            .with_read(access.contains(Access::READ))
            .with_write(access.contains(Access::WRITE))
            .with_last(last)
            .with_ssv(named);
        let page = Page::new().with_group(group).with_page(addr.0 >> 12);
        RawPageRequest {
            head: U64::new(head.into_bits()),
            page: U64::new(page.into_bits()),
        }
    }
}

#[cfg(test)]
mod tests;
