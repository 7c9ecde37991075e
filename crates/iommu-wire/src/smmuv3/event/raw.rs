//! The words of a record.

use super::{BadAtsRequest, Fault, Fetch, Origin, PageHint};
use bitfield_struct::bitfield;
use iopf::{Access, Gpa, Iova, Pasid, Rid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A record as it lies in the queue.
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
    /// Bits 63:0: what happened, and to whom.
    head: U64,
    /// Bits 127:64: how.
    syndrome: U64,
    /// Bits 191:128: InputAddr.
    input: U64,
    /// Bits 255:192: IPA, or FetchAddr.
    address: U64,
}
const _: () = assert!(size_of::<RawEvent>() == 32);

/// Number of an event. Any byte is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventNumber(pub u8);

impl EventNumber {
    /// F_UUT
    pub const UUT: Self = Self(0x01);
    /// C_BAD_STREAMID
    pub const BAD_STREAMID: Self = Self(0x02);
    /// F_STE_FETCH
    pub const STE_FETCH: Self = Self(0x03);
    /// C_BAD_STE
    pub const BAD_STE: Self = Self(0x04);
    /// F_BAD_ATS_TREQ
    pub const BAD_ATS_TREQ: Self = Self(0x05);
    /// F_STREAM_DISABLED
    pub const STREAM_DISABLED: Self = Self(0x06);
    /// F_TRANSL_FORBIDDEN
    pub const TRANSL_FORBIDDEN: Self = Self(0x07);
    /// C_BAD_SUBSTREAMID
    pub const BAD_SUBSTREAMID: Self = Self(0x08);
    /// F_CD_FETCH
    pub const CD_FETCH: Self = Self(0x09);
    /// C_BAD_CD
    pub const BAD_CD: Self = Self(0x0a);
    /// F_WALK_EABT
    pub const WALK_EABT: Self = Self(0x0b);
    /// F_TRANSLATION
    pub const TRANSLATION: Self = Self(0x10);
    /// F_ADDR_SIZE
    pub const ADDR_SIZE: Self = Self(0x11);
    /// F_ACCESS
    pub const ACCESS: Self = Self(0x12);
    /// F_PERMISSION
    pub const PERMISSION: Self = Self(0x13);
    /// F_TLB_CONFLICT
    pub const TLB_CONFLICT: Self = Self(0x20);
    /// F_CFG_CONFLICT
    pub const CFG_CONFLICT: Self = Self(0x21);
    /// E_PAGE_REQUEST
    pub const PAGE_REQUEST: Self = Self(0x24);
    /// F_VMS_FETCH
    pub const VMS_FETCH: Self = Self(0x25);

    /// The specification's name, for the numbers that have a constant here.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::UUT => "F_UUT",
            Self::BAD_STREAMID => "C_BAD_STREAMID",
            Self::STE_FETCH => "F_STE_FETCH",
            Self::BAD_STE => "C_BAD_STE",
            Self::BAD_ATS_TREQ => "F_BAD_ATS_TREQ",
            Self::STREAM_DISABLED => "F_STREAM_DISABLED",
            Self::TRANSL_FORBIDDEN => "F_TRANSL_FORBIDDEN",
            Self::BAD_SUBSTREAMID => "C_BAD_SUBSTREAMID",
            Self::CD_FETCH => "F_CD_FETCH",
            Self::BAD_CD => "C_BAD_CD",
            Self::WALK_EABT => "F_WALK_EABT",
            Self::TRANSLATION => "F_TRANSLATION",
            Self::ADDR_SIZE => "F_ADDR_SIZE",
            Self::ACCESS => "F_ACCESS",
            Self::PERMISSION => "F_PERMISSION",
            Self::TLB_CONFLICT => "F_TLB_CONFLICT",
            Self::CFG_CONFLICT => "F_CFG_CONFLICT",
            Self::PAGE_REQUEST => "E_PAGE_REQUEST",
            Self::VMS_FETCH => "F_VMS_FETCH",
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

/// CLASS: what was being translated when a fault came up. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Class(pub u8);

impl Class {
    /// CD: the address of a context descriptor.
    pub const CD: Self = Self(0);
    /// TTD: the address of a stage-1 descriptor.
    pub const TT: Self = Self(1);
    /// IN: the address of the transaction.
    pub const IN: Self = Self(2);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// Bits 63:0.
#[bitfield(u64)]
struct Head {
    /// `[7:0]`
    #[bits(8, default = EventNumber(0))]
    number: EventNumber,
    #[bits(3)]
    _res8: u8,
    /// `[11]` SSV
    ssv: bool,
    /// `[31:12]` SubstreamID
    #[bits(20)]
    substream: u32,
    /// `[63:32]` StreamID
    stream: u32,
}

/// Bits 127:64 of most records, numbered from 0.
#[bitfield(u64)]
struct Syndrome {
    /// `[15:0]` STAG, or Reason
    tag: u16,
    #[bits(15)]
    _res16: u16,
    /// `[31]` Stall
    stall: bool,
    #[bits(1)]
    _res32: u8,
    /// `[33]` PnU
    privileged: bool,
    /// `[34]` InD
    instruction: bool,
    /// `[35]` RnW
    read: bool,
    #[bits(3)]
    _res36: u8,
    /// `[39]` S2
    second: bool,
    /// `[41:40]` CLASS
    #[bits(2, default = Class(0))]
    class: Class,
    #[bits(2)]
    _res42: u8,
    /// `[44]` TTRnW
    table_read: bool,
    #[bits(19)]
    _res45: u32,
}

/// Bits 127:64 of an F_BAD_ATS_TREQ, numbered from 0.
#[bitfield(u64)]
struct AtsRequest {
    /// `[3:0]` Span
    #[bits(4)]
    span: u8,
    #[bits(24)]
    _res4: u32,
    /// `[28]` Priv
    privileged: bool,
    /// `[29]` X
    execute: bool,
    /// `[30]` W
    write: bool,
    /// `[31]` R
    read: bool,
    _res32: u32,
}

/// Bits 127:64 of an E_PAGE_REQUEST, numbered from 0. The rights are [`Rights`].
#[bitfield(u64)]
struct Hint {
    #[bits(33)]
    _res0: u64,
    /// `[35:33]` uX, uW, uR
    #[bits(3, default = Rights(0))]
    user: Rights,
    #[bits(1)]
    _res36: u8,
    /// `[39:37]` pX, pW, pR
    #[bits(3, default = Rights(0))]
    privileged: Rights,
    #[bits(4)]
    _res40: u8,
    /// `[51:44]` Span
    pages: u8,
    #[bits(12)]
    _res52: u16,
}

/// Execute in bit 0, write in bit 1, read in bit 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights(u8);

impl Rights {
    const BITS: [(Access, u8); 3] = [(Access::EXEC, 1), (Access::WRITE, 2), (Access::READ, 4)];

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }

    fn access(self) -> Access {
        let mut access = Access::empty();
        for (right, bit) in Self::BITS {
            access.set(right, self.0 & bit != 0);
        }
        access
    }

    fn of(access: Access) -> Self {
        let bits = Self::BITS.into_iter();
        Self(bits.fold(0, |bits, (right, bit)| {
            bits | if access.contains(right) { bit } else { 0 }
        }))
    }
}

/// The bits of IPA that a record has.
const IPA: u64 = 0x00ff_ffff_ffff_f000;
/// The bits of FetchAddr that a record has.
const FETCH: u64 = 0x00ff_ffff_ffff_fff8;
/// The bits of an InputAddr that names a page.
const PAGE: u64 = !0xfff;

impl RawEvent {
    /// A record of `number` and nothing else.
    #[must_use]
    pub const fn new(number: EventNumber) -> Self {
        Self::from_words([Head::new().with_number(number).into_bits(), 0, 0, 0])
    }

    /// From its four words, low first.
    #[must_use]
    pub const fn from_words(words: [u64; 4]) -> Self {
        let [head, syndrome, input, address] = words;
        Self {
            head: U64::new(head),
            syndrome: U64::new(syndrome),
            input: U64::new(input),
            address: U64::new(address),
        }
    }

    /// Its four words, low first, as Linux prints them.
    #[must_use]
    pub const fn words(&self) -> [u64; 4] {
        [
            self.head.get(),
            self.syndrome.get(),
            self.input.get(),
            self.address.get(),
        ]
    }

    const fn head(&self) -> Head {
        Head::from_bits(self.head.get())
    }
    const fn with_head(mut self, head: Head) -> Self {
        self.head = U64::new(head.into_bits());
        self
    }
    const fn syndrome(&self) -> Syndrome {
        Syndrome::from_bits(self.syndrome.get())
    }
    const fn with_syndrome(mut self, syndrome: Syndrome) -> Self {
        self.syndrome = U64::new(syndrome.into_bits());
        self
    }

    /// What happened.
    #[must_use]
    pub const fn number(&self) -> EventNumber {
        self.head().number()
    }

    /// StreamID.
    #[must_use]
    pub const fn stream(&self) -> Rid {
        Rid(self.head().stream())
    }

    /// StreamID, and SubstreamID if SSV is set.
    #[must_use]
    pub fn origin(&self) -> Origin {
        Origin {
            stream: self.stream(),
            substream: self.head().ssv().then(|| self.substream()),
        }
    }

    /// SubstreamID, whether SSV is set or not.
    #[must_use]
    pub const fn substream(&self) -> Pasid {
        Pasid::truncate(self.head().substream())
    }

    /// Stall and STAG.
    #[must_use]
    pub fn stalled(&self) -> Option<u16> {
        let syndrome = self.syndrome();
        syndrome.stall().then(|| syndrome.tag())
    }

    /// RnW, InD and PnU.
    #[must_use]
    pub fn access(&self) -> Access {
        let syndrome = self.syndrome();
        let mut access = if syndrome.read() {
            Access::READ
        } else {
            Access::WRITE
        };
        access.set(Access::EXEC, syndrome.instruction());
        access.set(Access::PRIV, syndrome.privileged());
        access
    }

    pub(super) const fn reason(&self) -> u16 {
        self.syndrome().tag()
    }
    pub(super) const fn second(&self) -> bool {
        self.syndrome().second()
    }
    pub(super) const fn class(&self) -> Class {
        self.syndrome().class()
    }
    pub(super) const fn input(&self) -> Iova {
        Iova(self.input.get())
    }
    pub(super) const fn fetch_addr(&self) -> Gpa {
        Gpa(self.address.get() & FETCH)
    }
    pub(super) fn ipa(&self) -> Option<Gpa> {
        self.second().then(|| Gpa(self.address.get() & IPA))
    }

    pub(super) fn fetch(&self) -> Fetch {
        Fetch {
            origin: self.origin(),
            reason: self.reason(),
            addr: self.fetch_addr(),
        }
    }

    pub(super) fn fault(&self) -> Fault {
        let (number, class) = (self.number(), self.class());
        Fault {
            origin: self.origin(),
            stalled: self.stalled(),
            access: self.access(),
            class,
            addr: self.input(),
            ipa: self.ipa(),
            table_read: table_read(number, class, self.syndrome().table_read()),
        }
    }

    pub(super) fn bad_ats_request(&self) -> BadAtsRequest {
        let request = AtsRequest::from_bits(self.syndrome.get());
        let mut access = Access::empty();
        access.set(Access::READ, request.read());
        access.set(Access::WRITE, request.write());
        access.set(Access::EXEC, request.execute());
        access.set(Access::PRIV, request.privileged());
        BadAtsRequest {
            origin: self.origin(),
            span: request.span(),
            access,
            addr: Iova(self.input.get() & PAGE),
        }
    }

    pub(super) fn page_hint(&self) -> PageHint {
        let hint = Hint::from_bits(self.syndrome.get());
        PageHint {
            origin: self.origin(),
            pages: hint.pages(),
            privileged: hint.privileged().access(),
            user: hint.user().access(),
            addr: Iova(self.input.get() & PAGE),
        }
    }

    pub(super) fn with_origin(self, origin: Origin) -> Self {
        let head = self.head().with_stream(origin.stream.0);
        let raw = self.with_head(head.with_ssv(origin.substream.is_some()));
        origin
            .substream
            .map_or(raw, |substream| raw.with_substream(substream))
    }
    pub(super) const fn with_substream(self, substream: Pasid) -> Self {
        self.with_head(self.head().with_substream(substream.get()))
    }
    pub(super) const fn with_reason(self, reason: u16) -> Self {
        self.with_syndrome(self.syndrome().with_tag(reason))
    }
    pub(super) fn with_access(self, access: Access) -> Self {
        let write = access.contains(Access::WRITE);
        self.with_syndrome(
            self.syndrome()
                .with_read(!write)
                .with_instruction(!write && access.contains(Access::EXEC))
                .with_privileged(access.contains(Access::PRIV)),
        )
    }
    pub(super) const fn with_class(self, class: Class) -> Self {
        self.with_syndrome(self.syndrome().with_class(Class(class.0 & 3)))
    }
    pub(super) const fn with_second(self, second: bool) -> Self {
        self.with_syndrome(self.syndrome().with_second(second))
    }
    pub(super) const fn with_input(mut self, addr: Iova) -> Self {
        self.input = U64::new(addr.0);
        self
    }
    pub(super) const fn with_fetch_addr(mut self, addr: Gpa) -> Self {
        self.address = U64::new(addr.0 & FETCH);
        self
    }
    pub(super) fn with_ipa(mut self, ipa: Option<Gpa>) -> Self {
        if let Some(ipa) = ipa {
            self.address = U64::new(ipa.0 & IPA);
        }
        self.with_second(ipa.is_some())
    }
    /// The record of a translation-related fault, by its number.
    #[must_use]
    #[inline]
    pub fn of_fault(number: EventNumber, fault: &Fault) -> Self {
        let raw = Self::new(number)
            .with_origin(fault.origin)
            .with_access(fault.access)
            .with_class(fault.class)
            .with_input(fault.addr)
            .with_ipa(fault.ipa);
        let read = table_read(number, fault.class, fault.table_read);
        let raw = raw.with_syndrome(raw.syndrome().with_table_read(read));
        fault.stalled.map_or(raw, |tag| raw.with_stall(tag))
    }
    /// The same record of a stalled transaction.
    #[must_use]
    pub const fn with_stall(self, tag: u16) -> Self {
        self.with_syndrome(self.syndrome().with_stall(true).with_tag(tag))
    }
}

/// TTRnW means nothing elsewhere.
fn table_read(number: EventNumber, class: Class, bit: bool) -> bool {
    bit && number == EventNumber::PERMISSION && class == Class::TT
}

pub(super) fn fetch(number: EventNumber, event: Fetch) -> RawEvent {
    RawEvent::new(number)
        .with_origin(event.origin)
        .with_reason(event.reason)
        .with_fetch_addr(event.addr)
}

pub(super) fn bad_ats_request(event: BadAtsRequest) -> RawEvent {
    let request = AtsRequest::new()
        .with_span(event.span & 0xf)
        .with_read(event.access.contains(Access::READ))
        .with_write(event.access.contains(Access::WRITE))
        .with_execute(event.access.contains(Access::EXEC))
        .with_privileged(event.access.contains(Access::PRIV));
    let mut raw = RawEvent::new(EventNumber::BAD_ATS_TREQ)
        .with_origin(event.origin)
        .with_input(Iova(event.addr.0 & PAGE));
    raw.syndrome = U64::new(request.into_bits());
    raw
}

pub(super) fn page_hint(event: PageHint) -> RawEvent {
    let hint = Hint::new()
        .with_pages(event.pages)
        .with_privileged(Rights::of(event.privileged))
        .with_user(Rights::of(event.user));
    let mut raw = RawEvent::new(EventNumber::PAGE_REQUEST)
        .with_origin(event.origin)
        .with_input(Iova(event.addr.0 & PAGE));
    raw.syndrome = U64::new(hint.into_bits());
    raw
}
