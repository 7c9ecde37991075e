//! The words of each command.

use super::{CompletionWait, IommuPages, IotlbPages, PprCompletion, Prefetch};
use crate::pcie::pri::{ResponseCode, group_bits};
use bitfield_struct::bitfield;
use iopf::{Pasid, Rid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A command as it lies in guest memory.
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
    /// The two 64-bit words, low first.
    pub words: [U64; 2],
}
const _: () = assert!(size_of::<RawCommand>() == 16);

/// Opcode of a command: bits 63:60. Any four bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandType(pub u8);

impl CommandType {
    /// COMPLETION_WAIT
    pub const COMPLETION_WAIT: Self = Self(1);
    /// INVALIDATE_DEVTAB_ENTRY
    pub const INVALIDATE_DEVTAB_ENTRY: Self = Self(2);
    /// INVALIDATE_IOMMU_PAGES
    pub const INVALIDATE_IOMMU_PAGES: Self = Self(3);
    /// INVALIDATE_IOTLB_PAGES
    pub const INVALIDATE_IOTLB_PAGES: Self = Self(4);
    /// INVALIDATE_INTERRUPT_TABLE
    pub const INVALIDATE_INTERRUPT_TABLE: Self = Self(5);
    /// PREFETCH_IOMMU_PAGES
    pub const PREFETCH_IOMMU_PAGES: Self = Self(6);
    /// COMPLETE_PPR_REQUEST
    pub const COMPLETE_PPR_REQUEST: Self = Self(7);
    /// INVALIDATE_IOMMU_ALL
    pub const INVALIDATE_IOMMU_ALL: Self = Self(8);
    /// INSERT_GUEST_EVENT
    pub const INSERT_GUEST_EVENT: Self = Self(9);
    /// RESET_VMMIO
    pub const RESET_VMMIO: Self = Self(10);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// COMPLETION_WAIT, low word. The second is the store data.
#[bitfield(u64)]
pub(super) struct WaitWord {
    /// `[0]` S
    pub(super) store: bool,
    /// `[1]` I
    pub(super) interrupt: bool,
    /// `[2]` F
    pub(super) flush: bool,
    /// `[51:3]` store address
    #[bits(49)]
    pub(super) address: u64,
    _res52: u8,
    /// `[63:60]`
    #[bits(4, default = CommandType::COMPLETION_WAIT)]
    kind: CommandType,
}

/// Commands that name a device and no more, low word.
#[bitfield(u64)]
struct DeviceWord {
    /// `[15:0]` device ID
    device: u16,
    #[bits(44)]
    _res16: u64,
    /// `[63:60]`
    #[bits(4, default = CommandType(0))]
    kind: CommandType,
}

/// INVALIDATE_IOMMU_PAGES, low word.
#[bitfield(u64)]
pub(super) struct IommuPagesWord {
    /// `[19:0]` PASID. Valid with GN.
    #[bits(20)]
    pub(super) pasid: u32,
    #[bits(12)]
    _res20: u16,
    /// `[47:32]` domain ID
    pub(super) domain: u16,
    #[bits(12)]
    _res48: u16,
    /// `[63:60]`
    #[bits(4, default = CommandType::INVALIDATE_IOMMU_PAGES)]
    kind: CommandType,
}

/// The pages of an invalidation or prefetch: second word.
#[bitfield(u64)]
pub(super) struct PagesWord {
    /// `[0]` S: the address names more than one page.
    pub(super) large: bool,
    /// `[1]` PDE, of INVALIDATE_IOMMU_PAGES only
    pub(super) directory: bool,
    /// `[2]` GN
    pub(super) gn: bool,
    #[bits(1)]
    _res3: u8,
    /// `[4]` Inval, of PREFETCH_IOMMU_PAGES only
    pub(super) invalidate: bool,
    #[bits(7)]
    _res5: u8,
    /// `[63:12]` address
    #[bits(52)]
    pub(super) page: u64,
}

/// INVALIDATE_IOTLB_PAGES, low word.
#[bitfield(u64)]
pub(super) struct IotlbPagesWord {
    /// `[15:0]` device ID
    pub(super) device: u16,
    /// `[23:16]` PASID 15:8
    pasid_middle: u8,
    /// `[31:24]` Maxpend
    pub(super) max_pending: u8,
    /// `[47:32]` QueueID
    pub(super) queue: u16,
    /// `[55:48]` PASID 7:0
    pasid_low: u8,
    /// `[59:56]` PASID 19:16 (FreeBSD `amdiommu_cmd_invalidate_iotlb_pages`; Linux has none above 15)
    #[bits(4)]
    pasid_high: u8,
    /// `[63:60]`
    #[bits(4, default = CommandType::INVALIDATE_IOTLB_PAGES)]
    kind: CommandType,
}

impl IotlbPagesWord {
    pub(super) const fn pasid(self) -> u32 {
        u32::from_le_bytes([self.pasid_low(), self.pasid_middle(), self.pasid_high(), 0])
    }

    fn with_pasid(self, pasid: Pasid) -> Self {
        let [low, middle, high, _] = pasid.get().to_le_bytes();
        self.with_pasid_low(low)
            .with_pasid_middle(middle)
            .with_pasid_high(high & 0xf)
    }
}

/// INVALIDATE_IOTLB_PAGES, second word.
#[bitfield(u64)]
pub(super) struct IotlbPagesTail {
    /// `[0]` S
    pub(super) large: bool,
    #[bits(1)]
    _res1: u8,
    /// `[2]` GN
    pub(super) gn: bool,
    #[bits(1)]
    _res3: u8,
    /// `[5:4]` Type
    #[bits(2)]
    pub(super) kind: u8,
    #[bits(6)]
    _res6: u8,
    /// `[63:12]` address
    #[bits(52)]
    pub(super) page: u64,
}

/// PREFETCH_IOMMU_PAGES, low word.
#[bitfield(u64)]
pub(super) struct PrefetchWord {
    /// `[15:0]` device ID
    pub(super) device: u16,
    _res16: u8,
    /// `[31:24]` PFCount
    pub(super) count: u8,
    /// `[51:32]` PASID
    #[bits(20)]
    pub(super) pasid: u32,
    _res52: u8,
    /// `[63:60]`
    #[bits(4, default = CommandType::PREFETCH_IOMMU_PAGES)]
    kind: CommandType,
}

/// COMPLETE_PPR_REQUEST, low word.
#[bitfield(u64)]
pub(super) struct PprWord {
    /// `[15:0]` device ID
    pub(super) device: u16,
    _res16: u16,
    /// `[51:32]` PASID
    #[bits(20)]
    pub(super) pasid: u32,
    _res52: u8,
    /// `[63:60]`
    #[bits(4, default = CommandType::COMPLETE_PPR_REQUEST)]
    kind: CommandType,
}

/// COMPLETE_PPR_REQUEST, second word.
#[bitfield(u64)]
pub(super) struct PprTail {
    #[bits(2)]
    _res0: u8,
    /// `[2]` GN
    pub(super) gn: bool,
    #[bits(29)]
    _res3: u32,
    /// `[40:32]` page request group index: completion tag 8:0
    #[bits(9)]
    pub(super) group: u16,
    /// `[43:41]` completion tag 11:9
    #[bits(3)]
    _tag: u8,
    /// `[47:44]` response code: completion tag 15:12
    #[bits(4, default = ResponseCode::SUCCESS)]
    pub(super) code: ResponseCode,
    _res48: u16,
}

impl RawCommand {
    /// A command of these words, low first.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Self {
        Self {
            words: [U64::new(low), U64::new(high)],
        }
    }

    pub(super) fn of_device(kind: CommandType, device: Rid) -> Self {
        let word = DeviceWord::new().with_kind(kind).with_device(device.pci());
        Self::new(word.into_bits(), 0)
    }

    /// Its opcode.
    #[must_use]
    pub const fn command_type(&self) -> CommandType {
        DeviceWord::from_bits(self.low()).kind()
    }

    /// Whether a bit is set that its type reserves. `false` for a type that is not interpreted.
    #[must_use]
    pub fn has_reserved_bits(&self) -> bool {
        // Bits of the low and the second word that may be set, the opcode among them.
        let (low, high) = match self.command_type() {
            CommandType::COMPLETION_WAIT => (0xf00f_ffff_ffff_ffff, u64::MAX),
            CommandType::INVALIDATE_DEVTAB_ENTRY | CommandType::INVALIDATE_INTERRUPT_TABLE => {
                (0xf000_0000_0000_ffff, 0)
            }
            CommandType::INVALIDATE_IOMMU_PAGES => (0xf000_ffff_000f_ffff, !0xff8),
            CommandType::INVALIDATE_IOTLB_PAGES => (u64::MAX, !0xfca),
            CommandType::PREFETCH_IOMMU_PAGES => (0xf00f_ffff_ff00_ffff, !0xfea),
            CommandType::COMPLETE_PPR_REQUEST => (0xf00f_ffff_0000_ffff, 0x0000_ffff_0000_0004),
            CommandType::INVALIDATE_IOMMU_ALL => (0xf000_0000_0000_0000, 0),
            _ => return false,
        };
        self.low() & !low != 0 || self.high() & !high != 0
    }

    const fn low(&self) -> u64 {
        let [low, _] = &self.words;
        low.get()
    }
    const fn high(&self) -> u64 {
        let [_, high] = &self.words;
        high.get()
    }

    pub(super) const fn device(&self) -> Rid {
        Rid::from_pci(DeviceWord::from_bits(self.low()).device())
    }
    pub(super) const fn completion_wait(&self) -> (WaitWord, u64) {
        (WaitWord::from_bits(self.low()), self.high())
    }
    pub(super) const fn iommu_pages(&self) -> (IommuPagesWord, PagesWord) {
        (
            IommuPagesWord::from_bits(self.low()),
            PagesWord::from_bits(self.high()),
        )
    }
    pub(super) const fn iotlb_pages(&self) -> (IotlbPagesWord, IotlbPagesTail) {
        (
            IotlbPagesWord::from_bits(self.low()),
            IotlbPagesTail::from_bits(self.high()),
        )
    }
    pub(super) const fn prefetch(&self) -> (PrefetchWord, PagesWord) {
        (
            PrefetchWord::from_bits(self.low()),
            PagesWord::from_bits(self.high()),
        )
    }
    pub(super) const fn ppr_completion(&self) -> (PprWord, PprTail) {
        (
            PprWord::from_bits(self.low()),
            PprTail::from_bits(self.high()),
        )
    }
}

pub(super) fn completion_wait(wait: CompletionWait) -> RawCommand {
    let word = WaitWord::new()
        .with_store(wait.store.is_some())
        .with_interrupt(wait.interrupt)
        .with_flush(wait.flush)
        .with_address(wait.store.map_or(0, |store| store.addr.0 << 12 >> 15));
    RawCommand::new(word.into_bits(), wait.store.map_or(0, |store| store.data))
}

pub(super) fn iommu_pages(pages: IommuPages) -> RawCommand {
    let word = IommuPagesWord::new()
        .with_pasid(pages.pasid.map_or(0, Pasid::get))
        .with_domain(pages.domain);
    let (page, large) = pages.range.to_sized();
    let second = PagesWord::new()
        .with_large(large)
        .with_directory(pages.directory)
        .with_gn(pages.pasid.is_some())
        .with_page(page);
    RawCommand::new(word.into_bits(), second.into_bits())
}

pub(super) fn iotlb_pages(pages: IotlbPages) -> RawCommand {
    let mut word = IotlbPagesWord::new()
        .with_device(pages.device.pci())
        .with_max_pending(pages.max_pending)
        .with_queue(pages.queue);
    if let Some(pasid) = pages.pasid {
        word = word.with_pasid(pasid);
    }
    let (page, large) = pages.range.to_sized();
    let second = IotlbPagesTail::new()
        .with_large(large)
        .with_gn(pages.pasid.is_some())
        .with_kind(pages.kind & 3)
        .with_page(page);
    RawCommand::new(word.into_bits(), second.into_bits())
}

pub(super) fn prefetch(prefetch: Prefetch) -> RawCommand {
    let word = PrefetchWord::new()
        .with_device(prefetch.device.pci())
        .with_count(prefetch.count)
        .with_pasid(prefetch.pasid.map_or(0, Pasid::get));
    let second = PagesWord::new()
        .with_large(prefetch.large)
        .with_gn(prefetch.pasid.is_some())
        .with_invalidate(prefetch.invalidate)
        .with_page(prefetch.addr.0 >> 12);
    RawCommand::new(word.into_bits(), second.into_bits())
}

pub(super) fn ppr_completion(completion: PprCompletion) -> RawCommand {
    let word = PprWord::new()
        .with_device(completion.device.pci())
        .with_pasid(completion.pasid.map_or(0, Pasid::get));
    let tail = PprTail::new()
        .with_gn(completion.pasid.is_some())
        .with_group(group_bits(completion.group))
        .with_code(ResponseCode(completion.code.0 & 0xf));
    RawCommand::new(word.into_bits(), tail.into_bits())
}
