//! The words of each descriptor.

use super::{
    ContextScope, DeviceTlb, GroupResponse, InterruptScope, IotlbScope, Pages, PasidScope, Wait,
};
use crate::pcie::pri::ResponseCode;
use crate::vtd::regs::{Granularity, InvalidateAddress};
use bitfield_struct::bitfield;
use iopf::{Iova, Pasid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A descriptor as it lies in guest memory, at its full width. A 128-bit descriptor is the first
/// half, and the second is zero.
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
pub struct RawCommand {
    /// The four 64-bit words, low first.
    pub words: [U64; 4],
}
const _: () = assert!(size_of::<RawCommand>() == 32);

/// Type of a descriptor: bits 3:0, and above them bits 11:9. Any seven bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandType(pub u8);

impl CommandType {
    /// Context-cache invalidation.
    pub const CONTEXT_CACHE: Self = Self(1);
    /// IOTLB invalidation.
    pub const IOTLB: Self = Self(2);
    /// Device-TLB invalidation.
    pub const DEVICE_TLB: Self = Self(3);
    /// Interrupt entry cache invalidation.
    pub const INTERRUPT_CACHE: Self = Self(4);
    /// Invalidation wait.
    pub const WAIT: Self = Self(5);
    /// PASID-based IOTLB invalidation.
    pub const PASID_IOTLB: Self = Self(6);
    /// PASID-cache invalidation.
    pub const PASID_CACHE: Self = Self(7);
    /// PASID-based device-TLB invalidation.
    pub const PASID_DEVICE_TLB: Self = Self(8);
    /// Page group response.
    pub const GROUP_RESPONSE: Self = Self(9);
    /// Page stream response. Revision 2 only.
    pub const STREAM_RESPONSE: Self = Self(10);
}

/// Granularity of a PASID-based IOTLB invalidation: the whole PASID.
pub(super) const PASID_ALL: u8 = 2;
/// Granularity of a PASID-based IOTLB invalidation: pages.
pub(super) const PASID_PAGES: u8 = 3;
/// Granularity of a PASID-cache invalidation: a domain.
pub(super) const CACHE_DOMAIN: u8 = 0;
/// Granularity of a PASID-cache invalidation: a PASID in a domain.
pub(super) const CACHE_PASID: u8 = 1;
/// Granularity of a PASID-cache invalidation: everything.
pub(super) const CACHE_GLOBAL: u8 = 3;

/// Context-cache invalidation, low word.
#[bitfield(u64)]
pub(super) struct ContextCacheWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[5:4]` G
    #[bits(2, default = Granularity(0))]
    pub(super) granularity: Granularity,
    #[bits(10)]
    _res6: u16,
    /// `[31:16]` DID
    pub(super) domain: u16,
    /// `[47:32]` SID
    pub(super) source: u16,
    /// `[49:48]` FM
    #[bits(2)]
    pub(super) function_mask: u8,
    #[bits(14)]
    _res50: u16,
}

/// IOTLB invalidation, low word. The second is laid out as the IVA register.
#[bitfield(u64)]
pub(super) struct IotlbWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[5:4]` G
    #[bits(2, default = Granularity(0))]
    pub(super) granularity: Granularity,
    /// `[6]` DW
    pub(super) drain_writes: bool,
    /// `[7]` DR
    pub(super) drain_reads: bool,
    _res8: u8,
    /// `[31:16]` DID
    pub(super) domain: u16,
    _res32: u32,
}

/// Device-TLB invalidation, low word.
#[bitfield(u64)]
pub(super) struct DeviceTlbWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    _res4: u8,
    /// `[15:12]` PFSID, low bits
    #[bits(4)]
    pub(super) pf_low: u8,
    /// `[20:16]` MIP
    #[bits(5)]
    pub(super) max_pending: u8,
    #[bits(11)]
    _res21: u16,
    /// `[47:32]` SID
    pub(super) source: u16,
    #[bits(4)]
    _res48: u8,
    /// `[63:52]` PFSID, high bits
    #[bits(12)]
    pub(super) pf_high: u16,
}

/// Device-TLB invalidation, second word.
#[bitfield(u64)]
pub(super) struct DeviceTlbAddress {
    /// `[0]` S
    pub(super) large: bool,
    #[bits(11)]
    _res1: u16,
    /// `[63:12]` ADDR
    #[bits(52)]
    pub(super) page: u64,
}

/// Interrupt entry cache invalidation, low word.
#[bitfield(u64)]
pub(super) struct InterruptCacheWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[4]` G
    pub(super) selective: bool,
    #[bits(22)]
    _res5: u32,
    /// `[31:27]` IM
    #[bits(5)]
    pub(super) index_mask: u8,
    /// `[47:32]` IIDX
    pub(super) index: u16,
    _res48: u16,
}

/// Invalidation wait, low word. The second is the status address.
#[bitfield(u64)]
pub(super) struct WaitWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[4]` IF
    pub(super) interrupt: bool,
    /// `[5]` SW
    pub(super) status_write: bool,
    /// `[6]` FN
    pub(super) fence: bool,
    /// `[7]` PD
    pub(super) drain_page_requests: bool,
    #[bits(24)]
    _res8: u32,
    /// `[63:32]` STDATA
    pub(super) status: u32,
}

/// PASID-based IOTLB invalidation and PASID-cache invalidation, low word.
#[bitfield(u64)]
pub(super) struct PasidWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[5:4]` G
    #[bits(2)]
    pub(super) granularity: u8,
    #[bits(10)]
    _res6: u16,
    /// `[31:16]` DID
    pub(super) domain: u16,
    /// `[51:32]` PASID
    #[bits(20)]
    pub(super) pasid: u32,
    #[bits(12)]
    _res52: u16,
}

/// PASID-based device-TLB invalidation, low word.
#[bitfield(u64)]
pub(super) struct PasidDeviceTlbWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[8:4]` MIP
    #[bits(5)]
    pub(super) max_pending: u8,
    #[bits(3)]
    _res9: u8,
    /// `[15:12]` PFSID, low bits
    #[bits(4)]
    pub(super) pf_low: u8,
    /// `[31:16]` SID
    pub(super) source: u16,
    /// `[51:32]` PASID
    #[bits(20)]
    pub(super) pasid: u32,
    /// `[63:52]` PFSID, high bits
    #[bits(12)]
    pub(super) pf_high: u16,
}

/// PASID-based device-TLB invalidation, second word.
#[bitfield(u64)]
pub(super) struct PasidDeviceTlbAddress {
    /// `[0]` G
    pub(super) global: bool,
    #[bits(10)]
    _res1: u16,
    /// `[11]` S
    pub(super) large: bool,
    /// `[63:12]` ADDR
    #[bits(52)]
    pub(super) page: u64,
}

/// Page group response, low word.
#[bitfield(u64)]
pub(super) struct GroupResponseWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[4]` PP
    pub(super) pasid_present: bool,
    #[bits(7)]
    _res5: u8,
    /// `[15:12]` response code
    #[bits(4, default = ResponseCode::SUCCESS)]
    pub(super) code: ResponseCode,
    /// `[31:16]` RID
    pub(super) requester: u16,
    /// `[51:32]` PASID
    #[bits(20)]
    pub(super) pasid: u32,
    #[bits(12)]
    _res52: u16,
}

/// Page group response, second word.
#[bitfield(u64)]
pub(super) struct GroupResponseTail {
    #[bits(3)]
    _res0: u8,
    /// `[11:3]` PRG index
    #[bits(9)]
    pub(super) group: u16,
    #[bits(52)]
    _res12: u64,
}

/// Page stream response, low word. Layout: Linux 4.20, `QI_PSTRM_*`.
#[bitfield(u64)]
pub(super) struct StreamResponseWord {
    /// `[3:0]`
    #[bits(4)]
    kind: u8,
    /// `[23:4]` PASID
    #[bits(20)]
    pub(super) pasid: u32,
    /// `[31:24]` bus
    pub(super) bus: u8,
    /// `[54:32]` private data
    #[bits(23)]
    _private: u32,
    /// `[63:55]` PRG index
    #[bits(9)]
    pub(super) group: u16,
}

/// Page stream response, second word.
#[bitfield(u64)]
pub(super) struct StreamResponseTail {
    /// `[3:0]` response code
    #[bits(4, default = ResponseCode::SUCCESS)]
    pub(super) code: ResponseCode,
    /// `[11:4]` device and function
    pub(super) devfn: u8,
    /// `[63:12]` ADDR
    #[bits(52)]
    pub(super) page: u64,
}

impl RawCommand {
    /// A descriptor of 128 bits.
    #[must_use]
    pub fn narrow(low: u64, high: u64) -> Self {
        Self::new([low, high, 0, 0])
    }

    /// A descriptor of 256 bits, low word first.
    #[must_use]
    pub fn new(words: [u64; 4]) -> Self {
        Self {
            words: words.map(U64::new),
        }
    }

    /// Its type.
    #[must_use]
    pub fn command_type(&self) -> CommandType {
        let [low, high, ..] = self.word(0).to_le_bytes();
        if low & 0xf == CommandType::STREAM_RESPONSE.0 {
            // Its revision had four bits of type, and a PASID above them.
            return CommandType::STREAM_RESPONSE;
        }
        CommandType(low & 0xf | (high & 0xe) << 3)
    }

    /// Whether a bit is set that its type reserves. `false` for a type without a name.
    #[must_use]
    pub fn has_reserved_bits(&self) -> bool {
        // Bits of the low and the second word that may be set, the type's own among them.
        let (low, high) = match self.command_type() {
            CommandType::CONTEXT_CACHE => (0x0003_ffff_ffff_0e3f, 0),
            CommandType::IOTLB => (0xffff_0eff, !0xf80),
            CommandType::DEVICE_TLB => (0xfff0_ffff_001f_fe0f, !0xffe),
            CommandType::INTERRUPT_CACHE => (0x0000_ffff_f800_0e1f, 0),
            CommandType::WAIT => (0xffff_ffff_0000_0eff, !3),
            CommandType::PASID_IOTLB => (0x000f_ffff_ffff_0e3f, !0xf80),
            CommandType::PASID_CACHE => (0x000f_ffff_ffff_0e3f, 0),
            CommandType::PASID_DEVICE_TLB => (u64::MAX, !0x7fe),
            CommandType::GROUP_RESPONSE => (0x000f_ffff_ffff_fe1f, 0xffc),
            _ => return false,
        };
        let wide = self.command_type() != CommandType::GROUP_RESPONSE
            && (self.word(2) != 0 || self.word(3) != 0);
        self.word(0) & !low != 0 || self.word(1) & !high != 0 || wide
    }

    fn word(&self, at: usize) -> u64 {
        self.words.get(at).map_or(0, |word| word.get())
    }

    pub(super) fn context_cache(&self) -> ContextCacheWord {
        ContextCacheWord::from_bits(self.word(0))
    }
    pub(super) fn iotlb(&self) -> (IotlbWord, InvalidateAddress) {
        (
            IotlbWord::from_bits(self.word(0)),
            InvalidateAddress::from_bits(self.word(1)),
        )
    }
    pub(super) fn device_tlb(&self) -> (DeviceTlbWord, DeviceTlbAddress) {
        (
            DeviceTlbWord::from_bits(self.word(0)),
            DeviceTlbAddress::from_bits(self.word(1)),
        )
    }
    pub(super) fn interrupt_cache(&self) -> InterruptCacheWord {
        InterruptCacheWord::from_bits(self.word(0))
    }
    pub(super) fn wait(&self) -> (WaitWord, u64) {
        (WaitWord::from_bits(self.word(0)), self.word(1))
    }
    pub(super) fn pasid_iotlb(&self) -> (PasidWord, InvalidateAddress) {
        (
            PasidWord::from_bits(self.word(0)),
            InvalidateAddress::from_bits(self.word(1)),
        )
    }
    pub(super) fn pasid_cache(&self) -> PasidWord {
        PasidWord::from_bits(self.word(0))
    }
    pub(super) fn pasid_device_tlb(&self) -> (PasidDeviceTlbWord, PasidDeviceTlbAddress) {
        (
            PasidDeviceTlbWord::from_bits(self.word(0)),
            PasidDeviceTlbAddress::from_bits(self.word(1)),
        )
    }
    pub(super) fn group_response(&self) -> (GroupResponseWord, GroupResponseTail) {
        (
            GroupResponseWord::from_bits(self.word(0)),
            GroupResponseTail::from_bits(self.word(1)),
        )
    }
    pub(super) fn stream_response(&self) -> (StreamResponseWord, StreamResponseTail) {
        (
            StreamResponseWord::from_bits(self.word(0)),
            StreamResponseTail::from_bits(self.word(1)),
        )
    }
}

fn address(pages: Pages) -> InvalidateAddress {
    InvalidateAddress::new()
        .with_page(pages.range.addr.0 >> 12)
        .with_mask(pages.range.size_shift.clamp(12, 64) - 12)
        .with_leaf_only(pages.leaf_only)
}

pub(super) fn context_cache(scope: ContextScope) -> RawCommand {
    let word = ContextCacheWord::new().with_kind(CommandType::CONTEXT_CACHE.0);
    let word = match scope {
        ContextScope::Global => word.with_granularity(Granularity::GLOBAL),
        ContextScope::Domain(domain) => word
            .with_granularity(Granularity::DOMAIN)
            .with_domain(domain),
        ContextScope::Device {
            domain,
            source,
            function_mask,
        } => word
            .with_granularity(Granularity::SELECTIVE)
            .with_domain(domain)
            .with_source(source.pci())
            .with_function_mask(function_mask & 3),
    };
    RawCommand::narrow(word.into_bits(), 0)
}

pub(super) fn iotlb(scope: IotlbScope, drain_reads: bool, drain_writes: bool) -> RawCommand {
    let word = IotlbWord::new()
        .with_kind(CommandType::IOTLB.0)
        .with_drain_reads(drain_reads)
        .with_drain_writes(drain_writes);
    let (word, second) = match scope {
        IotlbScope::Global => (word.with_granularity(Granularity::GLOBAL), 0),
        IotlbScope::Domain(domain) => (
            word.with_granularity(Granularity::DOMAIN)
                .with_domain(domain),
            0,
        ),
        IotlbScope::Pages(domain, pages) => (
            word.with_granularity(Granularity::SELECTIVE)
                .with_domain(domain),
            address(pages).into_bits(),
        ),
    };
    RawCommand::narrow(word.into_bits(), second)
}

/// Low four and high twelve bits of a physical function's ID.
fn split(physical: u16) -> (u8, u16) {
    (physical.to_le_bytes()[0] & 0xf, physical >> 4)
}

pub(super) fn device_tlb(tlb: DeviceTlb) -> RawCommand {
    let (low, high) = split(tlb.physical.pci());
    let word = DeviceTlbWord::new()
        .with_kind(CommandType::DEVICE_TLB.0)
        .with_pf_low(low)
        .with_pf_high(high)
        .with_max_pending(tlb.max_pending & 0x1f)
        .with_source(tlb.source.pci());
    let (page, large) = tlb.range.to_sized();
    let second = DeviceTlbAddress::new().with_page(page).with_large(large);
    RawCommand::narrow(word.into_bits(), second.into_bits())
}

pub(super) fn interrupt_cache(scope: InterruptScope) -> RawCommand {
    let word = InterruptCacheWord::new().with_kind(CommandType::INTERRUPT_CACHE.0);
    let word = match scope {
        InterruptScope::Global => word,
        InterruptScope::Index { index, mask } => word
            .with_selective(true)
            .with_index(index)
            .with_index_mask(mask & 0x1f),
    };
    RawCommand::narrow(word.into_bits(), 0)
}

pub(super) fn wait(wait: Wait) -> RawCommand {
    let word = WaitWord::new()
        .with_kind(CommandType::WAIT.0)
        .with_interrupt(wait.interrupt)
        .with_status_write(wait.status.is_some())
        .with_fence(wait.fence)
        .with_drain_page_requests(wait.drain_page_requests)
        .with_status(wait.status.map_or(0, |status| status.data));
    let addr = wait.status.map_or(0, |status| status.addr.0 & !3);
    RawCommand::narrow(word.into_bits(), addr)
}

pub(super) fn pasid_iotlb(domain: u16, pasid: Pasid, pages: Option<Pages>) -> RawCommand {
    let granularity = if pages.is_some() {
        PASID_PAGES
    } else {
        PASID_ALL
    };
    let word = PasidWord::new()
        .with_kind(CommandType::PASID_IOTLB.0)
        .with_granularity(granularity)
        .with_domain(domain)
        .with_pasid(pasid.get());
    let second = pages.map_or(0, |pages| address(pages).into_bits());
    RawCommand::narrow(word.into_bits(), second)
}

pub(super) fn pasid_cache(scope: PasidScope) -> RawCommand {
    let word = PasidWord::new().with_kind(CommandType::PASID_CACHE.0);
    let word = match scope {
        PasidScope::Global => word.with_granularity(CACHE_GLOBAL),
        PasidScope::Domain(domain) => word.with_granularity(CACHE_DOMAIN).with_domain(domain),
        PasidScope::Pasid(domain, pasid) => word
            .with_granularity(CACHE_PASID)
            .with_domain(domain)
            .with_pasid(pasid.get()),
    };
    RawCommand::narrow(word.into_bits(), 0)
}

pub(super) fn pasid_device_tlb(tlb: DeviceTlb, pasid: Pasid, global: bool) -> RawCommand {
    let (low, high) = split(tlb.physical.pci());
    let word = PasidDeviceTlbWord::new()
        .with_kind(CommandType::PASID_DEVICE_TLB.0)
        .with_pf_low(low)
        .with_pf_high(high)
        .with_max_pending(tlb.max_pending & 0x1f)
        .with_source(tlb.source.pci())
        .with_pasid(pasid.get());
    let (page, large) = tlb.range.to_sized();
    let second = PasidDeviceTlbAddress::new()
        .with_page(page)
        .with_large(large)
        .with_global(global);
    RawCommand::narrow(word.into_bits(), second.into_bits())
}

pub(super) fn group_response(response: GroupResponse, group: u16) -> RawCommand {
    let word = GroupResponseWord::new()
        .with_kind(CommandType::GROUP_RESPONSE.0)
        .with_code(ResponseCode(response.code.0 & 0xf))
        .with_requester(response.requester.pci())
        .with_pasid_present(response.pasid.is_some())
        .with_pasid(response.pasid.map_or(0, Pasid::get));
    let tail = GroupResponseTail::new().with_group(group);
    RawCommand::narrow(word.into_bits(), tail.into_bits())
}

pub(super) fn stream_response(response: GroupResponse, group: u16, addr: Iova) -> RawCommand {
    let [devfn, bus] = response.requester.pci().to_le_bytes();
    let word = StreamResponseWord::new()
        .with_kind(CommandType::STREAM_RESPONSE.0)
        .with_pasid(response.pasid.map_or(0, Pasid::get))
        .with_bus(bus)
        .with_group(group);
    let tail = StreamResponseTail::new()
        .with_code(ResponseCode(response.code.0 & 0xf))
        .with_devfn(devfn)
        .with_page(addr.0 >> 12);
    RawCommand::narrow(word.into_bits(), tail.into_bits())
}
