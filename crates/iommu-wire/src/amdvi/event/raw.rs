//! The words of an event.

use super::{Event, InvalidPprRequest};
use crate::amdvi::ppr::{Page, PprHead};
use crate::pcie::pri::group_bits;
use bitfield_struct::bitfield;
use iopf::{GroupIndex, Iova, Pasid, Rid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An event as it lies in the log.
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
pub struct RawEvent {
    /// Bits 63:0: [`Head`].
    head: U64,
    /// Bits 127:64: an address, or what the code makes of it.
    address: U64,
}
const _: () = assert!(size_of::<RawEvent>() == 16);

/// Code of an event: bits 63:60. Any four bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventCode(pub u8);

impl EventCode {
    /// ILLEGAL_DEV_TABLE_ENTRY
    pub const ILLEGAL_DEV_TABLE_ENTRY: Self = Self(0x1);
    /// IO_PAGE_FAULT
    pub const IO_PAGE_FAULT: Self = Self(0x2);
    /// DEV_TAB_HARDWARE_ERROR
    pub const DEV_TAB_HARDWARE_ERROR: Self = Self(0x3);
    /// PAGE_TAB_HARDWARE_ERROR
    pub const PAGE_TAB_HARDWARE_ERROR: Self = Self(0x4);
    /// ILLEGAL_COMMAND_ERROR
    pub const ILLEGAL_COMMAND_ERROR: Self = Self(0x5);
    /// COMMAND_HARDWARE_ERROR
    pub const COMMAND_HARDWARE_ERROR: Self = Self(0x6);
    /// IOTLB_INV_TIMEOUT
    pub const IOTLB_INV_TIMEOUT: Self = Self(0x7);
    /// INVALID_DEVICE_REQUEST
    pub const INVALID_DEVICE_REQUEST: Self = Self(0x8);
    /// INVALID_PPR_REQUEST
    pub const INVALID_PPR_REQUEST: Self = Self(0x9);
    /// EVENT_COUNTER_ZERO
    pub const EVENT_COUNTER_ZERO: Self = Self(0xa);
    /// RMP_FAULT; Linux prints it as RMP_PAGE_FAULT.
    pub const RMP_FAULT: Self = Self(0xd);
    /// RMP_HW_ERROR
    pub const RMP_HW_ERROR: Self = Self(0xe);

    /// The specification's name, for the codes that have a constant here.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::ILLEGAL_DEV_TABLE_ENTRY => "ILLEGAL_DEV_TABLE_ENTRY",
            Self::IO_PAGE_FAULT => "IO_PAGE_FAULT",
            Self::DEV_TAB_HARDWARE_ERROR => "DEV_TAB_HARDWARE_ERROR",
            Self::PAGE_TAB_HARDWARE_ERROR => "PAGE_TAB_HARDWARE_ERROR",
            Self::ILLEGAL_COMMAND_ERROR => "ILLEGAL_COMMAND_ERROR",
            Self::COMMAND_HARDWARE_ERROR => "COMMAND_HARDWARE_ERROR",
            Self::IOTLB_INV_TIMEOUT => "IOTLB_INV_TIMEOUT",
            Self::INVALID_DEVICE_REQUEST => "INVALID_DEVICE_REQUEST",
            Self::INVALID_PPR_REQUEST => "INVALID_PPR_REQUEST",
            Self::EVENT_COUNTER_ZERO => "EVENT_COUNTER_ZERO",
            Self::RMP_FAULT => "RMP_FAULT",
            Self::RMP_HW_ERROR => "RMP_HW_ERROR",
            _ => return None,
        })
    }

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// Type of a hardware error. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HardwareError(pub u8);

impl HardwareError {
    /// Nobody answers at the address.
    pub const MASTER_ABORT: Self = Self(1);
    /// Whoever answers refuses.
    pub const TARGET_ABORT: Self = Self(2);
    /// The data is corrupt.
    pub const DATA_ERROR: Self = Self(3);
}

/// Type of an INVALID_DEVICE_REQUEST. Any three bits are a value. The numbers are UNCONFIRMED: no
/// source at hand names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvalidRequest(pub u8);

impl InvalidRequest {
    /// A read, or a write that is not posted, in the interrupt range.
    pub const INTERRUPT_RANGE: Self = Self(0);
    /// A translated or translation request of a device whose table entry has I=0.
    pub const PRETRANSLATED: Self = Self(1);
}

/// Flags of an event: bits 59:48, as Linux prints them.
///
/// Which of them an event has is told by its code.
#[bitfield(u16)]
#[derive(PartialEq, Eq, Hash)]
pub struct Flags {
    /// `[0]` GN: the PASID field is one.
    pub gn: bool,
    /// `[1]` NX
    pub execute: bool,
    /// `[2]` US
    pub user: bool,
    /// `[3]` I: an interrupt
    pub interrupt: bool,
    /// `[4]` PR
    pub present: bool,
    /// `[5]` RW: a write
    pub write: bool,
    /// `[6]` PE
    pub permission: bool,
    /// `[7]` RZ
    pub reserved: bool,
    /// `[8]` TR: a translation request
    pub translation: bool,
    /// `[11:9]` the type of an INVALID_DEVICE_REQUEST; in its low two bits that of a hardware error.
    #[bits(3)]
    pub kind: u8,
    #[bits(4)]
    _res12: u8,
}

impl Flags {
    pub(super) const fn hardware_error(self) -> HardwareError {
        HardwareError(self.kind() & 3)
    }
    pub(super) const fn with_hardware_error(self, error: HardwareError) -> Self {
        self.with_kind(error.0 & 3)
    }
    pub(super) const fn invalid_request(self) -> InvalidRequest {
        InvalidRequest(self.kind())
    }
    pub(super) const fn with_invalid_request(self, request: InvalidRequest) -> Self {
        self.with_kind(request.0 & 7)
    }
}

/// Low half of an event.
#[bitfield(u64)]
struct Head {
    /// `[15:0]` device ID
    source: u16,
    /// `[19:16]` PASID 19:16
    #[bits(4)]
    pasid_high: u8,
    #[bits(12)]
    _res20: u16,
    /// `[47:32]` domain ID, or PASID 15:0
    pasid: u16,
    /// `[59:48]`
    #[bits(12)]
    flags: u16,
    /// `[63:60]`
    #[bits(4, default = EventCode(0))]
    code: EventCode,
}

impl RawEvent {
    /// An event of `code` and nothing else.
    #[must_use]
    pub const fn new(code: EventCode) -> Self {
        Self::from_words(Head::new().with_code(code).into_bits(), 0)
    }

    /// From its two words, low first.
    #[must_use]
    pub const fn from_words(low: u64, high: u64) -> Self {
        Self {
            head: U64::new(low),
            address: U64::new(high),
        }
    }

    /// Its two words, low first.
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        [self.head.get(), self.address.get()]
    }

    const fn head(&self) -> Head {
        Head::from_bits(self.head.get())
    }
    const fn with_head(self, head: Head) -> Self {
        Self {
            head: U64::new(head.into_bits()),
            address: self.address,
        }
    }

    /// What happened.
    #[must_use]
    pub const fn code(&self) -> EventCode {
        self.head().code()
    }

    /// Bits 15:0: the requester, where the code has one.
    #[must_use]
    pub const fn source(&self) -> Rid {
        Rid::from_pci(self.head().source())
    }

    /// Bits 59:48. Of an INVALID_PPR_REQUEST they mean something else: RX is bit 0, GN bit 9.
    #[must_use]
    pub const fn flags(&self) -> Flags {
        Flags::from_bits(self.head().flags())
    }

    /// Bits 47:32 as a domain ID.
    #[must_use]
    pub const fn domain(&self) -> u16 {
        self.head().pasid()
    }

    /// Bits 19:16 and 47:32 as a PASID; Linux prints them whether GN is set or not.
    #[must_use]
    pub const fn pasid(&self) -> u32 {
        let head = self.head();
        (head.pasid_high() as u32) << 16 | head.pasid() as u32
    }

    /// Bits 127:64.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.address.get()
    }

    /// The same event with other bits 15:0.
    #[must_use]
    pub const fn with_source(self, source: Rid) -> Self {
        self.with_head(self.head().with_source(source.pci()))
    }
    /// The same event with other bits 59:48.
    #[must_use]
    pub const fn with_flags(self, flags: Flags) -> Self {
        self.with_head(self.head().with_flags(flags.into_bits() & 0xfff))
    }
    /// The same event with other bits 19:16 and 47:32: a PASID, or a domain ID.
    #[must_use]
    pub const fn with_pasid(self, pasid: u32) -> Self {
        let [low, middle, high, _] = pasid.to_le_bytes();
        self.with_head(
            self.head()
                .with_pasid(u16::from_le_bytes([low, middle]))
                .with_pasid_high(high & 0xf),
        )
    }
    /// The same event with other bits 127:64.
    #[must_use]
    pub const fn with_address(self, address: u64) -> Self {
        Self {
            head: self.head,
            address: U64::new(address),
        }
    }
}

/// RX of an INVALID_PPR_REQUEST, among its flags.
const RX: u16 = 0x001;
/// GN of an INVALID_PPR_REQUEST, among its flags.
const GN: u16 = 0x200;

pub(super) fn invalid_ppr(raw: &RawEvent) -> Event {
    let head = PprHead::from_bits(raw.head.get());
    let flags = head.flags();
    Event::InvalidPprRequest(InvalidPprRequest {
        source: Rid::from_pci(head.requester()),
        pasid: (flags & GN != 0).then(|| Pasid::truncate(head.pasid())),
        group: GroupIndex(u32::from(head.group())),
        last: head.last(),
        answered: flags & RX != 0,
        addr: Iova(Page::from_bits(raw.address.get()).page() << 12),
    })
}

pub(super) fn invalid_ppr_raw(event: &InvalidPprRequest) -> RawEvent {
    let mut flags = 0;
    if event.answered {
        flags |= RX;
    }
    if event.pasid.is_some() {
        flags |= GN;
    }
    let head = PprHead::new()
        .with_code(EventCode::INVALID_PPR_REQUEST.0)
        .with_requester(event.source.pci())
        .with_group(group_bits(event.group))
        .with_last(event.last)
        .with_flags(flags)
        .with_pasid(event.pasid);
    let page = Page::new().with_page(event.addr.0 >> 12);
    RawEvent::from_words(head.into_bits(), page.into_bits())
}
