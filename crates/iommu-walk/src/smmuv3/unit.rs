//! The registers that a walk depends on, and what follows from them.

use super::formats::width;
use iommu_wire::smmuv3::pte::Granule;
use iommu_wire::smmuv3::tables::{ENTRY_SIZE, LEVEL1_SIZE};
use iopf::Gpa;

/// The bits of IDR0 that decide how a walk goes. IHI 0070, `SMMU_IDR0`; Linux `arm-smmu-v3.h` (`IDR0_*`),
/// FreeBSD `smmureg.h` (`IDR0_*`).
mod idr0 {
    pub(super) const SECOND: u32 = 1 << 0;
    pub(super) const FIRST: u32 = 1 << 1;
    pub(super) const ATS: u32 = 1 << 10;
    pub(super) const ASID16: u32 = 1 << 12;
    pub(super) const VMID16: u32 = 1 << 18;
    pub(super) const CONTEXT_LEVELS: u32 = 1 << 19;
    pub(super) const ALWAYS_ABORTS: u32 = 1 << 26;
}

/// The bits of IDR3 that decide how a walk goes. IHI 0070, `SMMU_IDR3`.
mod idr3 {
    pub(super) const HIERARCHY_DISABLE: u32 = 1 << 2;
    pub(super) const EXECUTE_LEVELS: u32 = 1 << 4;
    pub(super) const SMALL_TABLES: u32 = 1 << 9;
    pub(super) const USER_DISABLE: u32 = 1 << 13;
    pub(super) const ENHANCED_PAN: u32 = 1 << 17;
}

/// `ATTR_PERMS_OVR` of IDR1.
const IDR1_OVERRIDES: u32 = 1 << 26;

const CR0_ENABLED: u32 = 1 << 0;
const CR0_PAGE_REQUESTS: u32 = 1 << 1;
const CR0_CHECKS_TRANSLATED: u32 = 1 << 4;
const CR2_RECORDS_STREAM_IDS: u32 = 1 << 1;
const GBPA_ABORT: u32 = 1 << 20;
/// Where the stream table is, in `STRTAB_BASE`.
const STREAM_TABLE: u64 = 0x00ff_ffff_ffff_ffc0;

/// The identification registers that decide how a walk goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Features {
    /// `SMMU_IDR0`.
    pub idr0: u32,
    /// `SMMU_IDR1`.
    pub idr1: u32,
    /// `SMMU_IDR3`.
    pub idr3: u32,
    /// `SMMU_IDR5`.
    pub idr5: u32,
}

/// Whether requests that fault stall: `STALL_MODEL`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StallModel {
    /// 00b: as the tables say.
    Chosen,
    /// 01b, or reserved: none does.
    Never,
    /// 10b: all do.
    Always,
}

/// A unit as a walk sees it: features, control bits, stream table.
///
/// It is one of SMMUv3.1, whatever its registers say, and the following is as if they said no: 32-bit tables
/// (`TTF[0]`), big-endian tables (`TTENDIAN`), EL2 (HYP), split-stage ATS (NS1ATS is set), addresses of
/// more than 48 bits (OAS, VAX, DS), access flags in entries that point to tables (HTTU 11b), device
/// permission tables, permission indirection, and ATS errors in the event queue (`ATSRECERR`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    features: Features,
    cr0: u32,
    cr2: u32,
    gbpa: u32,
    strtab_base: u64,
    strtab_base_cfg: u32,
}

impl Unit {
    /// A unit with these features, everything off, and a linear stream table of one entry at 0.
    #[must_use]
    pub const fn new(features: Features) -> Self {
        Self {
            features,
            cr0: 0,
            cr2: 0,
            gbpa: 0,
            strtab_base: 0,
            strtab_base_cfg: 0,
        }
    }

    /// The same unit with these `SMMU_CR0` and `SMMU_CR2`, as acknowledged.
    #[must_use]
    pub const fn with_control(mut self, cr0: u32, cr2: u32) -> Self {
        self.cr0 = cr0;
        self.cr2 = cr2;
        self
    }

    /// The same unit with this `SMMU_GBPA`.
    #[must_use]
    pub const fn with_global_bypass(mut self, gbpa: u32) -> Self {
        self.gbpa = gbpa;
        self
    }

    /// The same unit with these `SMMU_STRTAB_BASE` and `SMMU_STRTAB_BASE_CFG`.
    #[must_use]
    pub const fn with_stream_table(mut self, base: u64, config: u32) -> Self {
        self.strtab_base = base;
        self.strtab_base_cfg = config;
        self
    }

    /// The identification registers.
    #[must_use]
    pub const fn features(&self) -> Features {
        self.features
    }

    /// `SMMU_CR0` and `SMMU_CR2`.
    #[must_use]
    pub const fn control(&self) -> (u32, u32) {
        (self.cr0, self.cr2)
    }

    /// `SMMU_GBPA`.
    #[must_use]
    pub const fn global_bypass(&self) -> u32 {
        self.gbpa
    }

    /// `SMMU_STRTAB_BASE` and `SMMU_STRTAB_BASE_CFG`.
    #[must_use]
    pub const fn stream_table(&self) -> (u64, u32) {
        (self.strtab_base, self.strtab_base_cfg)
    }

    /// Whether translation is on (`SMMUEN`).
    #[must_use]
    #[inline]
    pub const fn enabled(&self) -> bool {
        self.cr0 & CR0_ENABLED != 0
    }

    /// Whether requests are aborted while translation is off (`GBPA.ABORT`).
    #[must_use]
    #[inline]
    pub const fn aborts(&self) -> bool {
        self.gbpa & GBPA_ABORT != 0
    }

    /// Whether page requests are taken (`PRIQEN`, `SMMUEN`).
    #[must_use]
    #[inline]
    pub const fn page_requests_enabled(&self) -> bool {
        self.cr0 & CR0_PAGE_REQUESTS != 0 && self.enabled()
    }

    /// Whether translated requests are looked up in the stream table (`ATSCHK`).
    #[must_use]
    #[inline]
    pub const fn checks_translated(&self) -> bool {
        self.cr0 & CR0_CHECKS_TRANSLATED != 0
    }

    /// Whether requests of streams that are not in the table leave an event (`RECINVSID`).
    #[must_use]
    pub const fn records_stream_ids(&self) -> bool {
        self.cr2 & CR2_RECORDS_STREAM_IDS != 0
    }

    /// The width of an output address, in bits (OAS): 32–48. That of an intermediate one is the same.
    #[must_use]
    #[inline]
    pub const fn output_bits(&self) -> u8 {
        width(self.output_size())
    }

    /// Whether requests that fault stall.
    #[must_use]
    pub const fn stall_model(&self) -> StallModel {
        match self.features.idr0 >> 24 & 3 {
            0 => StallModel::Chosen,
            2 => StallModel::Always,
            _ => StallModel::Never,
        }
    }

    /// The width of a substream, in bits (`SSIDSIZE`); 0: there are none.
    #[must_use]
    #[inline]
    pub const fn substream_bits(&self) -> u8 {
        let bits = (self.features.idr1 >> 6 & 0x1f) as u8;
        if bits < 20 { bits } else { 20 }
    }

    /// OAS, 0–5.
    pub(super) const fn output_size(&self) -> u8 {
        let size = (self.features.idr5 & 7) as u8;
        if size < 5 { size } else { 5 }
    }

    pub(super) const fn has_first(&self) -> bool {
        self.features.idr0 & idr0::FIRST != 0
    }

    pub(super) const fn has_second(&self) -> bool {
        self.features.idr0 & idr0::SECOND != 0
    }

    /// Whether there are tables with 64-bit descriptors (`TTF[1]`).
    pub(super) const fn has_tables(&self) -> bool {
        self.features.idr0 >> 3 & 1 != 0
    }

    pub(super) const fn has_ats(&self) -> bool {
        self.features.idr0 & idr0::ATS != 0
    }

    pub(super) const fn wide_asids(&self) -> bool {
        self.features.idr0 & idr0::ASID16 != 0
    }

    pub(super) const fn wide_vmids(&self) -> bool {
        self.features.idr0 & idr0::VMID16 != 0
    }

    pub(super) const fn has_context_levels(&self) -> bool {
        self.features.idr0 & idr0::CONTEXT_LEVELS != 0
    }

    pub(super) const fn always_aborts(&self) -> bool {
        self.features.idr0 & idr0::ALWAYS_ABORTS != 0
    }

    /// Whether hardware can set access flags, and dirty state.
    pub(super) const fn updates(&self) -> (bool, bool) {
        let httu = self.features.idr0 >> 6 & 3;
        (httu >= 1, httu >= 2)
    }

    pub(super) const fn has_overrides(&self) -> bool {
        self.features.idr1 & IDR1_OVERRIDES != 0
    }

    pub(super) const fn has_hierarchy_disable(&self) -> bool {
        self.features.idr3 & idr3::HIERARCHY_DISABLE != 0
    }

    /// Whether stage 2 tells privileged execution apart (XNX).
    pub(super) const fn has_execute_levels(&self) -> bool {
        self.features.idr3 & idr3::EXECUTE_LEVELS != 0
    }

    pub(super) const fn has_user_disable(&self) -> bool {
        self.features.idr3 & idr3::USER_DISABLE != 0
    }

    pub(super) const fn has_enhanced_pan(&self) -> bool {
        self.features.idr3 & idr3::ENHANCED_PAN != 0
    }

    pub(super) const fn has_granule(&self, granule: Granule) -> bool {
        let bit = match granule {
            Granule::K4 => 4,
            Granule::K16 => 5,
            Granule::K64 => 6,
        };
        self.features.idr5 >> bit & 1 != 0
    }

    /// Whether inputs may be narrower than 25 bits (STT).
    pub(super) const fn has_small_tables(&self) -> bool {
        self.features.idr3 & idr3::SMALL_TABLES != 0
    }

    /// The largest T0SZ, T1SZ or `S2T0SZ`: the smallest input.
    pub(super) const fn largest_size(&self, granule: Granule) -> u8 {
        match granule {
            _ if !self.has_small_tables() => 39,
            Granule::K4 | Granule::K16 => 48,
            Granule::K64 => 47,
        }
    }

    /// How many bits of a stream have entries (`LOG2SIZE`, `SIDSIZE`): 0–32.
    const fn stream_bits(&self) -> u32 {
        let table = self.strtab_base_cfg & 0x3f;
        let unit = self.features.idr1 & 0x3f;
        let bits = if table < unit { table } else { unit };
        if bits < 32 { bits } else { 32 }
    }

    /// The bits of a stream that choose an entry of its level 2 table; `None` with a linear table.
    pub(super) const fn split(&self) -> Option<u32> {
        if self.features.idr0 >> 27 & 3 == 0 || self.strtab_base_cfg >> 16 & 3 != 1 {
            return None;
        }
        match self.strtab_base_cfg >> 6 & 0x1f {
            split @ (8 | 10) => Some(split),
            _ => Some(6),
        }
    }

    /// Where a stream's entry lies, in the only table or in that of level 1, and its number; `None` beyond
    /// the table.
    #[inline(always)]
    pub(super) const fn stream_entry(&self, stream: u32) -> Option<(Gpa, u32)> {
        if stream as u64 >> self.stream_bits() != 0 {
            return None;
        }
        let (index, entry, bits) = match self.split() {
            None => (stream, ENTRY_SIZE, 0),
            Some(split) => (stream >> split, LEVEL1_SIZE, split),
        };
        // The table is aligned to its size as it is written, at least to that of an entry.
        let entries = (self.strtab_base_cfg & 0x3f).saturating_sub(bits);
        let size = match entry.checked_shl(entries) {
            Some(size) if size > 64 => size,
            _ => 64,
        };
        let table = self.strtab_base & STREAM_TABLE & !(size - 1);
        Some((Gpa(table + index as u64 * entry), index))
    }
}
