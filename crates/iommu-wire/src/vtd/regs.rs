//! The register file: offsets, and the fields of each register.
//!
//! Source: Intel VT-d, "Register Descriptions". Linux spells the same facts in
//! `drivers/iommu/intel/iommu.h`.
//! Covered: everything that DMA remapping, queued invalidation and page requests use.
//! Not covered: interrupt remapping beyond its enable bits, advanced fault logging, performance
//! monitoring, MTRRs, virtual and enhanced commands.

use bitfield_struct::bitfield;
use iopf::Gpa;

/// Byte offsets of the registers whose place is fixed.
///
/// The IOTLB and fault recording registers have none: see [`Ecap::iotlb_offset`] and
/// [`Cap::fault_offset`].
pub mod offset {
    /// VER_REG, 32 bit, read-only: architecture version.
    pub const VER: u64 = 0x00;
    /// CAP_REG, 64 bit, read-only: [`Cap`](super::Cap).
    pub const CAP: u64 = 0x08;
    /// ECAP_REG, 64 bit, read-only: [`Ecap`](super::Ecap).
    pub const ECAP: u64 = 0x10;
    /// GCMD_REG, 32 bit, write-only: [`GlobalCommand`](super::GlobalCommand).
    pub const GCMD: u64 = 0x18;
    /// GSTS_REG, 32 bit, read-only: [`GlobalStatus`](super::GlobalStatus).
    pub const GSTS: u64 = 0x1c;
    /// RTADDR_REG, 64 bit: [`RootTableAddress`](super::RootTableAddress).
    pub const RTADDR: u64 = 0x20;
    /// CCMD_REG, 64 bit: [`ContextCommand`](super::ContextCommand).
    pub const CCMD: u64 = 0x28;
    /// FSTS_REG, 32 bit: [`FaultStatus`](super::FaultStatus).
    pub const FSTS: u64 = 0x34;
    /// FECTL_REG, 32 bit: [`EventControl`](super::EventControl) of fault events.
    pub const FECTL: u64 = 0x38;
    /// FEDATA_REG, 32 bit: message data of fault events.
    pub const FEDATA: u64 = 0x3c;
    /// FEADDR_REG, 32 bit: message address of fault events.
    pub const FEADDR: u64 = 0x40;
    /// FEUADDR_REG, 32 bit: upper half of the message address.
    pub const FEUADDR: u64 = 0x44;
    /// AFLOG_REG, 64 bit: advanced fault log.
    pub const AFLOG: u64 = 0x58;
    /// PMEN_REG, 32 bit: [`ProtectedMemoryEnable`](super::ProtectedMemoryEnable).
    pub const PMEN: u64 = 0x64;
    /// PLMBASE_REG, 32 bit: protected low memory, base.
    pub const PLMBASE: u64 = 0x68;
    /// PLMLIMIT_REG, 32 bit: protected low memory, limit.
    pub const PLMLIMIT: u64 = 0x6c;
    /// PHMBASE_REG, 64 bit: protected high memory, base.
    pub const PHMBASE: u64 = 0x70;
    /// PHMLIMIT_REG, 64 bit: protected high memory, limit.
    pub const PHMLIMIT: u64 = 0x78;
    /// IQH_REG, 64 bit, read-only: [`InvalidationHead`](super::InvalidationHead).
    pub const IQH: u64 = 0x80;
    /// IQT_REG, 64 bit: [`InvalidationTail`](super::InvalidationTail).
    pub const IQT: u64 = 0x88;
    /// IQA_REG, 64 bit: [`InvalidationQueueAddress`](super::InvalidationQueueAddress).
    pub const IQA: u64 = 0x90;
    /// ICS_REG, 32 bit: [`InvalidationStatus`](super::InvalidationStatus).
    pub const ICS: u64 = 0x9c;
    /// IECTL_REG, 32 bit: [`EventControl`](super::EventControl) of invalidation events.
    pub const IECTL: u64 = 0xa0;
    /// IEDATA_REG, 32 bit: message data of invalidation events.
    pub const IEDATA: u64 = 0xa4;
    /// IEADDR_REG, 32 bit: message address of invalidation events.
    pub const IEADDR: u64 = 0xa8;
    /// IEUADDR_REG, 32 bit: upper half of the message address.
    pub const IEUADDR: u64 = 0xac;
    /// IQERCD_REG, 64 bit, read-only: [`QueueErrorRecord`](super::QueueErrorRecord).
    pub const IQERCD: u64 = 0xb0;
    /// IRTA_REG, 64 bit: interrupt remapping table address.
    pub const IRTA: u64 = 0xb8;
    /// PQH_REG, 64 bit: [`PageQueuePointer`](super::PageQueuePointer), moved by software.
    pub const PQH: u64 = 0xc0;
    /// PQT_REG, 64 bit: [`PageQueuePointer`](super::PageQueuePointer), moved by hardware.
    pub const PQT: u64 = 0xc8;
    /// PQA_REG, 64 bit: [`PageQueueAddress`](super::PageQueueAddress).
    pub const PQA: u64 = 0xd0;
    /// PRS_REG, 32 bit: [`PageRequestStatus`](super::PageRequestStatus).
    pub const PRS: u64 = 0xdc;
    /// PECTL_REG, 32 bit: [`EventControl`](super::EventControl) of page request events.
    pub const PECTL: u64 = 0xe0;
    /// PEDATA_REG, 32 bit: message data of page request events.
    pub const PEDATA: u64 = 0xe4;
    /// PEADDR_REG, 32 bit: message address of page request events.
    pub const PEADDR: u64 = 0xe8;
    /// PEUADDR_REG, 32 bit: upper half of the message address.
    pub const PEUADDR: u64 = 0xec;
    /// MTRRCAP_REG, 64 bit, read-only: memory type ranges.
    pub const MTRRCAP: u64 = 0x100;
}

/// VER_REG: version of the architecture. "Version Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Version {
    /// `[3:0]` minor.
    #[bits(4)]
    pub minor: u8,
    /// `[7:4]` major.
    #[bits(4)]
    pub major: u8,
    #[bits(24)]
    _res: u32,
}

/// CAP_REG. "Capability Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Cap {
    /// `[2:0]` ND: domain IDs have `4 + 2 × nd` bits; see [`Cap::domain_bits`].
    #[bits(3)]
    pub nd: u8,
    /// `[3]` AFL: advanced fault logging.
    pub afl: bool,
    /// `[4]` RWBF: software must flush write buffers.
    pub rwbf: bool,
    /// `[5]` PLMR: protected low memory region.
    pub plmr: bool,
    /// `[6]` PHMR: protected high memory region.
    pub phmr: bool,
    /// `[7]` CM: caching mode; entries that are not present may be cached.
    pub cm: bool,
    /// `[12:8]` SAGAW: bit 1 means 39-bit (3 levels), bit 2 48-bit (4), bit 3 57-bit (5).
    #[bits(5)]
    pub sagaw: u8,
    #[bits(3)]
    _res13: u8,
    /// `[21:16]` MGAW: width of the largest second-stage input address, less one.
    #[bits(6)]
    pub mgaw: u8,
    /// `[22]` ZLR: zero-length reads to write-only pages are supported.
    pub zlr: bool,
    #[bits(1)]
    _res23: u8,
    /// `[33:24]` FRO: offset of the fault recording registers in units of 16 bytes.
    #[bits(10)]
    pub fro: u16,
    /// `[37:34]` SSLPS: second-stage large pages; bit 0 means 2 MiB, bit 1 1 GiB.
    #[bits(4)]
    pub sslps: u8,
    #[bits(1)]
    _res38: u8,
    /// `[39]` PSI: page-selective invalidation.
    pub psi: bool,
    /// `[47:40]` NFR: number of fault recording registers, less one.
    #[bits(8)]
    pub nfr: u8,
    /// `[53:48]` MAMV: largest address mask of a page-selective invalidation.
    #[bits(6)]
    pub mamv: u8,
    /// `[54]` DWD: writes are drained on invalidation.
    pub dwd: bool,
    /// `[55]` DRD: reads are drained on invalidation.
    pub drd: bool,
    /// `[56]` FS1GP: first-stage 1 GiB pages.
    pub fs1gp: bool,
    #[bits(2)]
    _res57: u8,
    /// `[59]` PI: posted interrupts.
    pub pi: bool,
    /// `[60]` FS5LP: first-stage 5-level paging.
    pub fs5lp: bool,
    /// `[61]` ECMDS: enhanced commands.
    pub ecmds: bool,
    /// `[62]` ESIRTPS: setting the interrupt remapping table pointer invalidates by itself.
    pub esirtps: bool,
    /// `[63]` ESRTPS: setting the root table pointer invalidates by itself.
    pub esrtps: bool,
}

impl Cap {
    /// Bits of a domain ID, 4–16. ND 7 is reserved and reads as 16.
    #[must_use]
    pub const fn domain_bits(self) -> u8 {
        let bits = 4 + 2 * self.nd();
        if bits > 16 { 16 } else { bits }
    }

    /// Byte offset of the first fault recording register.
    #[must_use]
    pub const fn fault_offset(self) -> u64 {
        self.fro() as u64 * 16
    }

    /// Number of fault recording registers, 1–256.
    #[must_use]
    pub const fn fault_count(self) -> u16 {
        self.nfr() as u16 + 1
    }

    /// Width in bits of the largest second-stage input address, 1–64.
    #[must_use]
    pub const fn max_guest_width(self) -> u8 {
        self.mgaw() + 1
    }
}

/// ECAP_REG. "Extended Capability Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Ecap {
    /// `[0]` C: page walks are coherent with processor caches (legacy mode).
    pub c: bool,
    /// `[1]` QI: queued invalidation.
    pub qi: bool,
    /// `[2]` DT: device-TLBs.
    pub dt: bool,
    /// `[3]` IR: interrupt remapping.
    pub ir: bool,
    /// `[4]` EIM: extended interrupt mode.
    pub eim: bool,
    #[bits(1)]
    _res5: u8,
    /// `[6]` PT: pass-through.
    pub pt: bool,
    /// `[7]` SC: snoop control.
    pub sc: bool,
    /// `[17:8]` IRO: offset of the IOTLB registers in units of 16 bytes.
    #[bits(10)]
    pub iro: u16,
    #[bits(2)]
    _res18: u8,
    /// `[23:20]` MHMV: largest handle mask of an interrupt entry cache invalidation.
    #[bits(4)]
    pub mhmv: u8,
    #[bits(1)]
    _res24: u8,
    /// `[25]` MTS: memory types.
    pub mts: bool,
    /// `[26]` NEST: nested translation.
    pub nest: bool,
    #[bits(2)]
    _res27: u8,
    /// `[29]` PRS: page requests.
    pub prs: bool,
    /// `[30]` ERS: execute requests.
    pub ers: bool,
    /// `[31]` SRS: supervisor requests.
    pub srs: bool,
    #[bits(1)]
    _res32: u8,
    /// `[33]` NWFS: the no-write flag of translation requests.
    pub nwfs: bool,
    /// `[34]` EAFS: extended accessed flag of first-stage entries.
    pub eafs: bool,
    /// `[39:35]` PSS: bits of a PASID, less one.
    #[bits(5)]
    pub pss: u8,
    /// `[40]` PASID: requests with PASID.
    pub pasid: bool,
    /// `[41]` DIT: device-TLB invalidation throttling.
    pub dit: bool,
    /// `[42]` PDS: page request draining.
    pub pds: bool,
    /// `[43]` SMTS: scalable mode.
    pub smts: bool,
    /// `[44]` VCS: virtual commands.
    pub vcs: bool,
    /// `[45]` SSADS: accessed and dirty flags in second-stage entries.
    pub ssads: bool,
    /// `[46]` SSTS: second-stage translation in scalable mode.
    pub ssts: bool,
    /// `[47]` FSTS: first-stage translation in scalable mode.
    pub fsts: bool,
    /// `[48]` SMPWCS: scalable-mode page walks can be made coherent.
    pub smpwcs: bool,
    /// `[49]` RPS: the context entry's RID_PASID field.
    pub rps: bool,
    #[bits(1)]
    _res50: u8,
    /// `[51]` PMS: performance monitoring.
    pub pms: bool,
    /// `[52]` ADMS: abort-DMA mode.
    pub adms: bool,
    /// `[53]` RPRIVS: the context entry's RID_PRIV field.
    pub rprivs: bool,
    #[bits(4)]
    _res54: u8,
    /// `[58]` SMS: stop markers.
    pub sms: bool,
    #[bits(5)]
    _res59: u8,
}

impl Ecap {
    /// Byte offset of the IVA register; the IOTLB register follows 8 bytes later.
    #[must_use]
    pub const fn iotlb_offset(self) -> u64 {
        self.iro() as u64 * 16
    }

    /// Bits of a PASID, 1–32.
    #[must_use]
    pub const fn pasid_bits(self) -> u8 {
        self.pss() + 1
    }
}

/// GCMD_REG. "Global Command Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalCommand {
    #[bits(23)]
    _res: u32,
    /// `[23]` CFI: let compatibility format interrupts pass.
    pub cfi: bool,
    /// `[24]` SIRTP: latch the interrupt remapping table pointer. One-shot.
    pub sirtp: bool,
    /// `[25]` IRE: interrupt remapping on.
    pub ire: bool,
    /// `[26]` QIE: queued invalidation on.
    pub qie: bool,
    /// `[27]` WBF: flush write buffers. One-shot.
    pub wbf: bool,
    /// `[28]` EAFL: advanced fault logging on.
    pub eafl: bool,
    /// `[29]` SFL: latch the fault log pointer. One-shot.
    pub sfl: bool,
    /// `[30]` SRTP: latch the root table pointer. One-shot.
    pub srtp: bool,
    /// `[31]` TE: translation on.
    pub te: bool,
}

/// GSTS_REG. "Global Status Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct GlobalStatus {
    #[bits(23)]
    _res: u32,
    /// `[23]` CFIS: compatibility format interrupts pass.
    pub cfis: bool,
    /// `[24]` IRTPS: the interrupt remapping table pointer is latched.
    pub irtps: bool,
    /// `[25]` IRES: interrupt remapping is on.
    pub ires: bool,
    /// `[26]` QIES: queued invalidation is on.
    pub qies: bool,
    /// `[27]` WBFS: a write buffer flush is under way.
    pub wbfs: bool,
    /// `[28]` AFLS: advanced fault logging is on.
    pub afls: bool,
    /// `[29]` FLS: the fault log pointer is latched.
    pub fls: bool,
    /// `[30]` RTPS: the root table pointer is latched.
    pub rtps: bool,
    /// `[31]` TES: translation is on.
    pub tes: bool,
}

/// What a root table holds: RTADDR_REG, field TTM. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TableMode(pub u8);

impl TableMode {
    /// Root and context tables of legacy mode.
    pub const LEGACY: Self = Self(0);
    /// Scalable-mode root, context and PASID tables.
    pub const SCALABLE: Self = Self(1);
    /// Reserved (extended mode of revision 2).
    pub const RESERVED: Self = Self(2);
    /// Every request is aborted; needs ECAP.ADMS.
    pub const ABORT_DMA: Self = Self(3);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// RTADDR_REG. "Root Table Address Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RootTableAddress {
    #[bits(10)]
    _res: u16,
    /// `[11:10]` TTM: what the root table holds.
    #[bits(2, default = TableMode::LEGACY)]
    pub mode: TableMode,
    /// `[63:12]` RTA: page number of the root table.
    #[bits(52)]
    pub page: u64,
}

impl RootTableAddress {
    /// Where the root table starts.
    #[must_use]
    pub const fn table(self) -> Gpa {
        Gpa(self.page() << 12)
    }
}

/// How much a context command or an IOTLB command invalidates. Any two bits are a value; 0 is
/// reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Granularity(pub u8);

impl Granularity {
    /// Everything.
    pub const GLOBAL: Self = Self(1);
    /// One domain.
    pub const DOMAIN: Self = Self(2);
    /// One device (contexts) or one range of pages (IOTLB).
    pub const SELECTIVE: Self = Self(3);

    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    pub(super) const fn into_bits(self) -> u8 {
        self.0
    }
}

/// CCMD_REG. "Context Command Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    /// `[15:0]` DID.
    pub domain: u16,
    /// `[31:16]` SID.
    pub source: u16,
    /// `[33:32]` FM: how many bits of the function number, from bit 2 down, are ignored.
    #[bits(2)]
    pub function_mask: u8,
    #[bits(25)]
    _res: u32,
    /// `[60:59]` CAIG: what was invalidated.
    #[bits(2, default = Granularity(0))]
    pub actual: Granularity,
    /// `[62:61]` CIRG: what to invalidate.
    #[bits(2, default = Granularity(0))]
    pub requested: Granularity,
    /// `[63]` ICC: set to start, clear when done.
    pub invalidate: bool,
}

/// IOTLB_REG, 8 bytes after IVA_REG. "IOTLB Invalidate Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct IotlbCommand {
    #[bits(32)]
    _res0: u32,
    /// `[47:32]` DID.
    pub domain: u16,
    /// `[48]` DW: drain writes.
    pub drain_writes: bool,
    /// `[49]` DR: drain reads.
    pub drain_reads: bool,
    #[bits(7)]
    _res50: u8,
    /// `[58:57]` IAIG: what was invalidated.
    #[bits(2, default = Granularity(0))]
    pub actual: Granularity,
    #[bits(1)]
    _res59: u8,
    /// `[61:60]` IIRG: what to invalidate.
    #[bits(2, default = Granularity(0))]
    pub requested: Granularity,
    #[bits(1)]
    _res62: u8,
    /// `[63]` IVT: set to start, clear when done.
    pub invalidate: bool,
}

/// IVA_REG. "Invalidate Address Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidateAddress {
    /// `[5:0]` AM: how many low bits of the page number are ignored.
    #[bits(6)]
    pub mask: u8,
    /// `[6]` IH: only leaf entries changed.
    pub leaf_only: bool,
    #[bits(5)]
    _res: u8,
    /// `[63:12]` ADDR: page number.
    #[bits(52)]
    pub page: u64,
}

/// FSTS_REG. "Fault Status Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct FaultStatus {
    /// `[0]` PFO: a fault found every recording register in use. Write one to clear.
    pub pfo: bool,
    /// `[1]` PPF: some recording register holds a fault. Read-only.
    pub ppf: bool,
    /// `[2]` AFO: advanced fault log overflow.
    pub afo: bool,
    /// `[3]` APF: advanced fault log pending.
    pub apf: bool,
    /// `[4]` IQE: invalidation queue error. Write one to clear.
    pub iqe: bool,
    /// `[5]` ICE: invalidation completion error. Write one to clear.
    pub ice: bool,
    /// `[6]` ITE: invalidation time-out. Write one to clear.
    pub ite: bool,
    /// `[7]` PRO: page request queue overflow (revision 2; later PRS_REG holds it).
    pub pro: bool,
    /// `[15:8]` FRI: the first register that got a fault since PPF was clear. Read-only.
    pub fri: u8,
    #[bits(16)]
    _res: u16,
}

/// FECTL_REG, IECTL_REG and PECTL_REG: masking of one event's interrupt.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct EventControl {
    #[bits(30)]
    _res: u32,
    /// `[30]` IP: an interrupt waits behind the mask. Read-only.
    pub pending: bool,
    /// `[31]` IM: no message is sent.
    pub masked: bool,
}

/// PMEN_REG. "Protected Memory Enable Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ProtectedMemoryEnable {
    /// `[0]` PRS: the regions are protected. Read-only.
    pub status: bool,
    #[bits(30)]
    _res: u32,
    /// `[31]` EPM: protect the regions.
    pub enable: bool,
}

/// IQH_REG. "Invalidation Queue Head Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidationHead {
    #[bits(4)]
    _res: u8,
    /// `[18:4]` QH: where the next descriptor is read, in units of 16 bytes. With 256-bit
    /// descriptors bit 0 of it is zero.
    #[bits(15)]
    pub index: u16,
    #[bits(45)]
    _res19: u64,
}

/// IQT_REG. "Invalidation Queue Tail Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidationTail {
    #[bits(4)]
    _res: u8,
    /// `[18:4]` QT: where software writes next, in units of 16 bytes.
    #[bits(15)]
    pub index: u16,
    #[bits(45)]
    _res19: u64,
}

/// IQA_REG. "Invalidation Queue Address Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct InvalidationQueueAddress {
    /// `[2:0]` QS: the queue has 2^QS pages of 4 KiB.
    #[bits(3)]
    pub size: u8,
    #[bits(8)]
    _res: u8,
    /// `[11]` DW: descriptors have 256 bits.
    pub wide: bool,
    /// `[63:12]` IQA: page number of the queue.
    #[bits(52)]
    pub page: u64,
}

impl InvalidationQueueAddress {
    /// Where the queue starts.
    #[must_use]
    pub const fn base(self) -> Gpa {
        Gpa(self.page() << 12)
    }

    /// Bytes of the queue, 4 KiB–512 KiB.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        0x1000 << self.size()
    }

    /// Bytes of one descriptor, 16 or 32.
    #[must_use]
    pub const fn descriptor_bytes(self) -> u64 {
        if self.wide() { 32 } else { 16 }
    }
}

/// ICS_REG. "Invalidation Completion Status Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct InvalidationStatus {
    /// `[0]` IWC: a wait descriptor with its interrupt flag completed. Write one to clear.
    pub complete: bool,
    #[bits(31)]
    _res: u32,
}

/// Why the invalidation queue stopped: IQERCD_REG, field IQEI. Any four bits are a value.
///
/// "Invalidation Queue Error Record Register"; VirtualBox has the same numbers in `VTDIQEI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct QueueError(pub u8);

impl QueueError {
    /// No detail.
    pub const NONE: Self = Self(0);
    /// The tail lies outside the queue.
    pub const TAIL: Self = Self(1);
    /// A descriptor could not be read.
    pub const FETCH: Self = Self(2);
    /// No such descriptor type.
    pub const TYPE: Self = Self(3);
    /// A reserved field is not zero.
    pub const RESERVED_FIELD: Self = Self(4);
    /// The descriptor width in IQA_REG does not suit the unit or its mode.
    pub const WIDTH: Self = Self(5);
    /// The tail is not aligned to a 256-bit descriptor.
    pub const TAIL_ALIGNMENT: Self = Self(6);
    /// RTADDR_REG has a TTM that the unit does not know.
    pub const TABLE_MODE: Self = Self(7);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// IQERCD_REG. "Invalidation Queue Error Record Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueErrorRecord {
    /// `[3:0]` IQEI: why IQE is set.
    #[bits(4, default = QueueError::NONE)]
    pub error: QueueError,
    #[bits(28)]
    _res: u32,
    /// `[47:32]` ITESID: whose device-TLB invalidation timed out.
    pub timeout_source: u16,
    /// `[63:48]` ICESID: who completed an invalidation that it was not sent.
    pub completion_source: u16,
}

/// PQH_REG and PQT_REG. "Page Request Queue Head Register", "… Tail Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageQueuePointer {
    #[bits(5)]
    _res: u8,
    /// `[18:5]` index in units of 32 bytes.
    #[bits(14)]
    pub index: u16,
    #[bits(45)]
    _res19: u64,
}

/// PQA_REG. "Page Request Queue Address Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct PageQueueAddress {
    /// `[2:0]` PQS: the queue has 2^PQS pages of 4 KiB.
    #[bits(3)]
    pub size: u8,
    #[bits(9)]
    _res: u16,
    /// `[63:12]` PQA: page number of the queue.
    #[bits(52)]
    pub page: u64,
}

impl PageQueueAddress {
    /// Where the queue starts.
    #[must_use]
    pub const fn base(self) -> Gpa {
        Gpa(self.page() << 12)
    }

    /// Bytes of the queue, 4 KiB–512 KiB.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        0x1000 << self.size()
    }
}

/// PRS_REG. "Page Request Status Register".
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct PageRequestStatus {
    /// `[0]` PPR: a request was queued. Write one to clear.
    pub pending: bool,
    /// `[1]` PRO: a request found the queue full. Write one to clear.
    pub overflow: bool,
    #[bits(30)]
    _res: u32,
}

#[cfg(test)]
mod tests;
