//! The words of each command.

use super::{
    Action, Addresses, AtcInvalidation, Granule, Level, PageResponse, Prefetch, PriResponse,
    Resume, Signal, Span, Sync,
};
use crate::pcie::pri::group_bits;
use bitfield_struct::bitfield;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Rid};
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

/// Opcode of a command: bits 7:0. Any byte is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Opcode(pub u8);

impl Opcode {
    /// CMD_PREFETCH_CONFIG
    pub const PREFETCH_CONFIG: Self = Self(0x01);
    /// CMD_PREFETCH_ADDR
    pub const PREFETCH_ADDR: Self = Self(0x02);
    /// CMD_CFGI_STE
    pub const CFGI_STE: Self = Self(0x03);
    /// CMD_CFGI_STE_RANGE, and CMD_CFGI_ALL
    pub const CFGI_STE_RANGE: Self = Self(0x04);
    /// CMD_CFGI_CD
    pub const CFGI_CD: Self = Self(0x05);
    /// CMD_CFGI_CD_ALL
    pub const CFGI_CD_ALL: Self = Self(0x06);
    /// CMD_CFGI_VMS_PIDM
    pub const CFGI_VMS_PIDM: Self = Self(0x07);
    /// CMD_TLBI_NH_ALL
    pub const TLBI_NH_ALL: Self = Self(0x10);
    /// CMD_TLBI_NH_ASID
    pub const TLBI_NH_ASID: Self = Self(0x11);
    /// CMD_TLBI_NH_VA
    pub const TLBI_NH_VA: Self = Self(0x12);
    /// CMD_TLBI_NH_VAA
    pub const TLBI_NH_VAA: Self = Self(0x13);
    /// CMD_TLBI_EL2_ALL
    pub const TLBI_EL2_ALL: Self = Self(0x20);
    /// CMD_TLBI_EL2_ASID
    pub const TLBI_EL2_ASID: Self = Self(0x21);
    /// CMD_TLBI_EL2_VA
    pub const TLBI_EL2_VA: Self = Self(0x22);
    /// CMD_TLBI_EL2_VAA
    pub const TLBI_EL2_VAA: Self = Self(0x23);
    /// CMD_TLBI_S12_VMALL
    pub const TLBI_S12_VMALL: Self = Self(0x28);
    /// CMD_TLBI_S2_IPA
    pub const TLBI_S2_IPA: Self = Self(0x2a);
    /// CMD_TLBI_NSNH_ALL
    pub const TLBI_NSNH_ALL: Self = Self(0x30);
    /// CMD_ATC_INV
    pub const ATC_INV: Self = Self(0x40);
    /// CMD_PRI_RESP
    pub const PRI_RESP: Self = Self(0x41);
    /// CMD_RESUME
    pub const RESUME: Self = Self(0x44);
    /// CMD_STALL_TERM
    pub const STALL_TERM: Self = Self(0x45);
    /// CMD_SYNC
    pub const SYNC: Self = Self(0x46);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// Commands that name a stream: low word.
#[bitfield(u64)]
struct StreamWord {
    /// `[7:0]`
    #[bits(8, default = Opcode(0))]
    opcode: Opcode,
    #[bits(1)]
    _res8: u8,
    /// `[9]` G, of CMD_ATC_INV only
    global: bool,
    /// `[10]` SSec: the stream is Secure. Not from the Non-secure Command queue.
    secure: bool,
    /// `[11]` SSV
    ssv: bool,
    /// `[31:12]` SubstreamID
    #[bits(20)]
    substream: u32,
    /// `[63:32]` StreamID
    stream: u32,
}

/// CMD_TLBI_* and CMD_CFGI_VMS_PIDM: low word.
#[bitfield(u64)]
struct TlbiWord {
    /// `[7:0]`
    #[bits(8, default = Opcode(0))]
    opcode: Opcode,
    #[bits(4)]
    _res8: u8,
    /// `[16:12]` NUM
    #[bits(5)]
    num: u8,
    #[bits(3)]
    _res17: u8,
    /// `[25:20]` SCALE
    #[bits(6)]
    scale: u8,
    #[bits(6)]
    _res26: u8,
    /// `[47:32]` VMID
    vmid: u16,
    /// `[63:48]` ASID
    asid: u16,
}

/// Second word of CMD_TLBI_*, and of CMD_CFGI_STE and CMD_CFGI_CD for its Leaf.
#[bitfield(u64)]
struct AddressWord {
    /// `[0]` Leaf
    leaf: bool,
    #[bits(7)]
    _res1: u8,
    /// `[9:8]` TTL
    #[bits(2)]
    level: u8,
    /// `[11:10]` TG
    #[bits(2)]
    granule: u8,
    /// `[63:12]` Address
    #[bits(52)]
    page: u64,
}

/// Second word of CMD_CFGI_STE_RANGE.
#[bitfield(u64)]
struct RangeWord {
    /// `[4:0]` Range
    #[bits(5)]
    range: u8,
    #[bits(59)]
    _res5: u64,
}

/// Second word of CMD_ATC_INV.
#[bitfield(u64)]
struct AtcWord {
    /// `[5:0]` Size
    #[bits(6)]
    size: u8,
    #[bits(6)]
    _res6: u8,
    /// `[63:12]` Address
    #[bits(52)]
    page: u64,
}

/// Second word of CMD_PRI_RESP.
#[bitfield(u64)]
struct ResponseWord {
    /// `[8:0]` PRGIndex
    #[bits(9)]
    group: u16,
    #[bits(3)]
    _res9: u8,
    /// `[13:12]` Resp
    #[bits(2, default = PriResponse::FAILURE)]
    code: PriResponse,
    #[bits(50)]
    _res14: u64,
}

/// CMD_RESUME: low word.
#[bitfield(u64)]
struct ResumeWord {
    /// `[7:0]`
    #[bits(8, default = Opcode::RESUME)]
    opcode: Opcode,
    #[bits(2)]
    _res8: u8,
    /// `[10]` SSec
    secure: bool,
    #[bits(1)]
    _res11: u8,
    /// `[12]` Ac
    retry: bool,
    /// `[13]` Ab
    abort: bool,
    #[bits(18)]
    _res14: u32,
    /// `[63:32]` StreamID
    stream: u32,
}

/// CMD_SYNC: low word.
#[bitfield(u64)]
struct SyncWord {
    /// `[7:0]`
    #[bits(8, default = Opcode::SYNC)]
    opcode: Opcode,
    #[bits(4)]
    _res8: u8,
    /// `[13:12]` CS
    #[bits(2, default = Signal::NONE)]
    signal: Signal,
    #[bits(8)]
    _res14: u8,
    /// `[23:22]` MSH
    #[bits(2)]
    shareability: u8,
    /// `[27:24]` MSIAttr
    #[bits(4)]
    memory: u8,
    #[bits(4)]
    _res28: u8,
    /// `[63:32]` MSIData
    data: u32,
}

/// MSIAddress: bits 55:2 of the second word of CMD_SYNC.
const MESSAGE: u64 = 0x00ff_ffff_ffff_fffc;

impl RawCommand {
    /// A command of these words, low first.
    #[must_use]
    pub const fn new(low: u64, high: u64) -> Self {
        Self {
            words: [U64::new(low), U64::new(high)],
        }
    }

    const fn low(&self) -> u64 {
        let [low, _] = &self.words;
        low.get()
    }
    const fn high(&self) -> u64 {
        let [_, high] = &self.words;
        high.get()
    }
    const fn with_high(self, high: u64) -> Self {
        Self::new(self.low(), high)
    }
    const fn named(&self) -> StreamWord {
        StreamWord::from_bits(self.low())
    }

    /// Its opcode.
    #[must_use]
    pub const fn opcode(&self) -> Opcode {
        self.named().opcode()
    }

    /// Whether a bit is set that its opcode reserves: SSec counts, since only the Secure Command queue
    /// may set it. `false` for an opcode that is not interpreted.
    #[must_use]
    pub fn has_reserved_bits(&self) -> bool {
        // Bits of the low and the second word that may be set, the opcode among them.
        const STREAM: u64 = 0xffff_ffff_0000_00ff;
        const SUBSTREAM: u64 = 0xffff_ffff_ffff_f8ff;
        const SPAN: u64 = 0x03f1_f000;
        const ADDRESS: u64 = !0xfe;
        let (low, high) = match self.opcode() {
            Opcode::PREFETCH_CONFIG => (SUBSTREAM, 0),
            // Size in 4:0, Stride in 9:5: the latter UNCONFIRMED, its place is known from no second
            // author.
            Opcode::PREFETCH_ADDR => (SUBSTREAM, !0xc00),
            Opcode::CFGI_STE => (STREAM, 1),
            Opcode::CFGI_STE_RANGE => (STREAM, 0x1f),
            Opcode::CFGI_CD => (SUBSTREAM & !(1 << 11), 1),
            Opcode::CFGI_CD_ALL | Opcode::STALL_TERM => (STREAM, 0),
            Opcode::CFGI_VMS_PIDM | Opcode::TLBI_NH_ALL | Opcode::TLBI_S12_VMALL => {
                (0x0000_ffff_0000_00ff, 0)
            }
            Opcode::TLBI_NH_ASID => (STREAM, 0),
            Opcode::TLBI_NH_VA => (STREAM | SPAN, ADDRESS),
            Opcode::TLBI_NH_VAA | Opcode::TLBI_S2_IPA => (0x0000_ffff_0000_00ff | SPAN, ADDRESS),
            Opcode::TLBI_EL2_ALL | Opcode::TLBI_NSNH_ALL => (0xff, 0),
            Opcode::TLBI_EL2_ASID => (0xffff_0000_0000_00ff, 0),
            Opcode::TLBI_EL2_VA => (0xffff_0000_0000_00ff | SPAN, ADDRESS),
            Opcode::TLBI_EL2_VAA => (0xff | SPAN, ADDRESS),
            Opcode::ATC_INV => (SUBSTREAM | 1 << 9, !0xfc0),
            Opcode::PRI_RESP => (SUBSTREAM, 0x31ff),
            Opcode::RESUME => (STREAM | 3 << 12, 0xffff),
            Opcode::SYNC => (0xffff_ffff_0fc0_30ff, MESSAGE),
            _ => return false,
        };
        self.low() & !low != 0 || self.high() & !high != 0
    }

    pub(super) const fn of_stream(opcode: Opcode, stream: Rid) -> Self {
        let word = StreamWord::new().with_opcode(opcode).with_stream(stream.0);
        Self::new(word.into_bits(), 0)
    }
    pub(super) const fn tlbi(opcode: Opcode, vmid: u16, asid: u16) -> Self {
        let word = TlbiWord::new()
            .with_opcode(opcode)
            .with_vmid(vmid)
            .with_asid(asid);
        Self::new(word.into_bits(), 0)
    }

    pub(super) const fn stream(&self) -> Rid {
        Rid(self.named().stream())
    }
    pub(super) const fn substream(&self) -> Pasid {
        Pasid::truncate(self.named().substream())
    }
    fn optional_substream(&self) -> Option<Pasid> {
        self.named().ssv().then(|| self.substream())
    }
    pub(super) const fn leaf(&self) -> bool {
        AddressWord::from_bits(self.high()).leaf()
    }
    pub(super) const fn range(&self) -> u8 {
        RangeWord::from_bits(self.high()).range()
    }
    pub(super) const fn vmid(&self) -> u16 {
        TlbiWord::from_bits(self.low()).vmid()
    }
    pub(super) const fn asid(&self) -> u16 {
        TlbiWord::from_bits(self.low()).asid()
    }

    pub(super) fn addresses(&self) -> Addresses {
        let low = TlbiWord::from_bits(self.low());
        let high = AddressWord::from_bits(self.high());
        Addresses {
            first: high.page() << 12,
            leaf: high.leaf(),
            span: Granule::decode(high.granule()).map(|granule| Span {
                granule,
                num: low.num(),
                scale: low.scale(),
                level: Level(high.level()),
            }),
        }
    }

    pub(super) fn prefetch(&self) -> Prefetch {
        Prefetch {
            stream: self.stream(),
            substream: self.optional_substream(),
        }
    }

    pub(super) fn atc_invalidation(&self) -> AtcInvalidation {
        let word = AtcWord::from_bits(self.high());
        AtcInvalidation {
            stream: self.stream(),
            substream: self.optional_substream(),
            global: self.named().global(),
            addr: Iova(word.page() << 12),
            size: word.size(),
        }
    }

    pub(super) fn page_response(&self) -> PageResponse {
        let word = ResponseWord::from_bits(self.high());
        PageResponse {
            stream: self.stream(),
            substream: self.optional_substream(),
            group: GroupIndex(u32::from(word.group())),
            code: word.code(),
        }
    }

    pub(super) fn resume(&self) -> Resume {
        let word = ResumeWord::from_bits(self.low());
        let [low, high, ..] = self.high().to_le_bytes();
        let action = match (word.retry(), word.abort()) {
            (true, _) => Action::Retry,
            (false, true) => Action::Abort,
            (false, false) => Action::Ignore,
        };
        Resume {
            stream: self.stream(),
            tag: u16::from_le_bytes([low, high]),
            action,
        }
    }

    pub(super) fn sync(&self) -> Sync {
        let word = SyncWord::from_bits(self.low());
        Sync {
            signal: word.signal(),
            addr: Gpa(self.high() & MESSAGE),
            data: word.data(),
            shareability: word.shareability(),
            memory: word.memory(),
        }
    }

    pub(super) fn with_leaf(self, leaf: bool) -> Self {
        self.with_high(AddressWord::new().with_leaf(leaf).into_bits())
    }
    pub(super) fn with_range(self, range: u8) -> Self {
        self.with_high(RangeWord::new().with_range(range & 0x1f).into_bits())
    }
    pub(super) fn with_substream(self, substream: Pasid) -> Self {
        let word = self.named().with_substream(substream.get());
        Self::new(word.into_bits(), self.high())
    }
    fn with_optional_substream(self, substream: Option<Pasid>) -> Self {
        substream.map_or(self, |substream| {
            let named = self.with_substream(substream);
            Self::new(named.named().with_ssv(true).into_bits(), named.high())
        })
    }

    pub(super) fn with_addresses(self, addresses: &Addresses) -> Self {
        let mut low = TlbiWord::from_bits(self.low());
        let mut high = AddressWord::new()
            .with_leaf(addresses.leaf)
            .with_page(addresses.first >> 12);
        if let Some(span) = addresses.span {
            low = low.with_num(span.num & 0x1f).with_scale(span.scale & 0x3f);
            high = high
                .with_granule(span.granule.encode())
                .with_level(span.level.0 & 3);
        }
        Self::new(low.into_bits(), high.into_bits())
    }
}

pub(super) fn prefetch(opcode: Opcode, prefetch: Prefetch) -> RawCommand {
    RawCommand::of_stream(opcode, prefetch.stream).with_optional_substream(prefetch.substream)
}

pub(super) fn atc_invalidation(invalidation: AtcInvalidation) -> RawCommand {
    let raw = RawCommand::of_stream(Opcode::ATC_INV, invalidation.stream)
        .with_optional_substream(invalidation.substream);
    let low = raw.named().with_global(invalidation.global);
    let high = AtcWord::new()
        .with_size(invalidation.size & 0x3f)
        .with_page(invalidation.addr.0 >> 12);
    RawCommand::new(low.into_bits(), high.into_bits())
}

pub(super) fn page_response(response: PageResponse) -> RawCommand {
    let word = ResponseWord::new()
        .with_group(group_bits(response.group))
        .with_code(PriResponse(response.code.0 & 3));
    RawCommand::of_stream(Opcode::PRI_RESP, response.stream)
        .with_optional_substream(response.substream)
        .with_high(word.into_bits())
}

pub(super) fn resume(resume: Resume) -> RawCommand {
    let word = ResumeWord::new()
        .with_stream(resume.stream.0)
        .with_retry(resume.action == Action::Retry)
        .with_abort(resume.action == Action::Abort);
    RawCommand::new(word.into_bits(), u64::from(resume.tag))
}

pub(super) fn sync(sync: Sync) -> RawCommand {
    let word = SyncWord::new()
        .with_signal(Signal(sync.signal.0 & 3))
        .with_shareability(sync.shareability & 3)
        .with_memory(sync.memory & 0xf)
        .with_data(sync.data);
    RawCommand::new(word.into_bits(), sync.addr.0 & MESSAGE)
}
