//! The registers that a walk depends on, and what follows from them.

use crate::format::{Format, Pages4K};
use iommu_wire::amdvi::pte::HostEntry;
use iommu_wire::amdvi::tables::{DEVICE_ENTRY_SIZE, DeviceWord0, DeviceWord1};
use iopf::{Gpa, Rid};

/// The bits of the Extended Feature Register that decide how a walk goes.
///
/// 48882, "Extended Feature Register"; Linux `amd_iommu_types.h` (`FEATURE_*`), VirtualBox
/// `iommu-amd.h` (`IOMMU_EXT_FEAT_BF_*`).
mod efr {
    pub(super) const PPR: u64 = 1 << 1;
    pub(super) const NO_EXECUTE: u64 = 1 << 3;
    pub(super) const GUEST: u64 = 1 << 4;
    pub(super) const USER_SUPERVISOR: u64 = 1 << 37;
    pub(super) const GUEST_IO: u64 = 1 << 48;
    pub(super) const HOST_ACCESSED: u64 = 1 << 49;
    pub(super) const ENHANCED_PPR: u64 = 1 << 50;
    pub(super) const HOST_DIRTY: u64 = 1 << 52;
}

/// The bits of the IOMMU Control Register that decide how a walk goes.
///
/// 48882, "IOMMU Control Register"; Linux `amd_iommu_types.h` (`CONTROL_*`), FreeBSD `amd_reg.h`
/// (`AMDIOMMU_CTRL_*`).
mod control {
    pub(super) const ENABLED: u64 = 1 << 0;
    pub(super) const PPR: u64 = 1 << 15;
    pub(super) const GUEST: u64 = 1 << 16;
    pub(super) const GUEST_DIRTY_DISABLED: u64 = 1 << 48;
    pub(super) const GUEST_ACCESSED_DISABLED: u64 = 1 << 54;
    pub(super) const GUEST_CR3_IS_GUEST: u64 = 1 << 58;
}

/// `GCR3TRPMode` of Extended Feature Register 2.
const EFR2_GUEST_CR3_IS_GUEST: u64 = 1 << 3;
/// `HtRangeIgnore` of Extended Feature Register 2.
const EFR2_HYPERTRANSPORT_IGNORED: u64 = 1 << 11;

/// A unit as a walk sees it: features, control bits, device table, and the masks that follow from
/// them.
///
/// The width of a physical address does not come in: no table reserves the bits above it, and
/// memory that is not there cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    efr: u64,
    efr2: u64,
    control: u64,
    /// The Device Table Base Address Register, and those of segments 1–7.
    tables: [u64; 8],
    /// The Exclusion Base and Range Limit Registers.
    exclusion: [u64; 2],
    pub(super) host: Format,
    pub(super) guest: Format,
    /// What must be zero in the first two words of a valid device table entry.
    pub(super) device_reserved: [u64; 2],
    /// How many bits of a requester choose a segment.
    segment_bits: u8,
    /// The most levels that host tables may have.
    pub(super) host_levels: u8,
    /// The first PASID that is too wide.
    pub(super) pasids: u32,
}

impl Unit {
    /// A unit with these Extended Feature Registers (at offsets 30h and 1A0h), everything off, a
    /// device table of one page at 0, and no exclusion range.
    #[must_use]
    pub fn new(efr: u64, efr2: u64) -> Self {
        let mut unit = Self {
            efr,
            efr2,
            control: 0,
            tables: [0; 8],
            exclusion: [0; 2],
            host: host_format(),
            guest: Format::EMPTY,
            device_reserved: [0; 2],
            segment_bits: 0,
            host_levels: 0,
            pasids: 0,
        };
        unit.derive();
        unit
    }

    /// The same unit with this IOMMU Control Register.
    #[must_use]
    pub fn with_control(mut self, control: u64) -> Self {
        self.control = control;
        self.derive();
        self
    }

    /// The same unit with this Device Table Base Address Register: the table in bits 51:12, its
    /// number of 4 KiB pages less one in bits 8:0.
    #[must_use]
    pub fn with_device_table(self, base: u64) -> Self {
        self.with_segment(0, base)
    }

    /// The same unit with this Device Table Segment Base Address Register, 1–7; 0 is the Device Table
    /// Base Address Register. Others are ignored.
    #[must_use]
    pub fn with_segment(mut self, segment: usize, base: u64) -> Self {
        if let Some(table) = self.tables.get_mut(segment) {
            *table = base;
        }
        self
    }

    /// The same unit with these Exclusion Base and Exclusion Range Limit Registers.
    #[must_use]
    pub fn with_exclusion(mut self, base: u64, limit: u64) -> Self {
        self.exclusion = [base, limit];
        self
    }

    /// The Extended Feature Register.
    #[must_use]
    pub const fn efr(&self) -> u64 {
        self.efr
    }

    /// Extended Feature Register 2.
    #[must_use]
    pub const fn efr2(&self) -> u64 {
        self.efr2
    }

    /// The IOMMU Control Register.
    #[must_use]
    pub const fn control(&self) -> u64 {
        self.control
    }

    /// The Device Table Base Address Register of a segment, 0–7; 0 for others.
    #[must_use]
    pub fn device_table(&self, segment: usize) -> u64 {
        self.tables.get(segment).copied().unwrap_or(0)
    }

    /// The Exclusion Base and Exclusion Range Limit Registers.
    #[must_use]
    pub const fn exclusion(&self) -> [u64; 2] {
        self.exclusion
    }

    /// Whether translation is on (`IommuEn`).
    #[must_use]
    #[inline]
    pub const fn enabled(&self) -> bool {
        self.control & control::ENABLED != 0
    }

    /// Whether guest tables are looked at (`GTSup`, `GTEn`).
    #[must_use]
    #[inline]
    pub const fn guest_enabled(&self) -> bool {
        self.efr & efr::GUEST != 0 && self.control & control::GUEST != 0
    }

    /// Whether page requests are taken (`PPRSup`, `PPREn`).
    #[must_use]
    #[inline]
    pub const fn page_requests_enabled(&self) -> bool {
        self.efr & efr::PPR != 0 && self.control & control::PPR != 0
    }

    /// Whether addresses in the HyperTransport range are addresses like any other.
    #[must_use]
    #[inline]
    pub const fn hypertransport_ignored(&self) -> bool {
        self.efr2 & EFR2_HYPERTRANSPORT_IGNORED != 0
    }

    /// Whether supervisor requests are told apart (`USSup`).
    #[inline]
    pub(super) const fn user_supervisor(&self) -> bool {
        self.efr & efr::USER_SUPERVISOR != 0
    }

    /// Whether the device table entry's guest CR3 table pointer is a guest physical address, where
    /// there are host tables.
    pub(super) const fn guest_cr3_is_guest(&self) -> bool {
        self.efr2 & EFR2_GUEST_CR3_IS_GUEST != 0 && self.control & control::GUEST_CR3_IS_GUEST != 0
    }

    /// The most levels that guest page tables may have.
    pub(super) const fn guest_paging(&self) -> u8 {
        if self.efr >> 12 & 3 == 0 { 4 } else { 5 }
    }

    /// The most levels that guest CR3 tables may have.
    pub(super) const fn guest_cr3_levels(&self) -> u8 {
        (self.efr >> 14 & 3) as u8 + 1
    }

    /// The width of the host tables' input with this many levels, in bits.
    #[inline(always)]
    pub(super) const fn input_bits(&self, levels: u8) -> u8 {
        // No guest address is wider than an entry's.
        if levels >= 5 { 52 } else { 12 + 9 * levels }
    }

    /// Where a requester's device table entry lies, and its number; `None` beyond the table.
    #[inline(always)]
    pub(super) fn device_entry(&self, requester: Rid) -> Option<(Gpa, u32)> {
        let low_bits = 16 - u32::from(self.segment_bits & 3);
        let segment = usize::from(requester.pci()) >> low_bits;
        let index = u32::from(requester.pci()) & ((1 << low_bits) - 1);
        let table = self.tables.get(segment & 7).copied().unwrap_or(0);
        let offset = u64::from(index) * DEVICE_ENTRY_SIZE;
        // The size is in 4 KiB pages, less one.
        if offset >> 12 > (table & 0x1ff) {
            return None;
        }
        Some((Gpa((table & HostEntry::ADDRESS) + offset), index))
    }

    /// Whether there is an exclusion range (`ExEn`).
    #[inline(always)]
    pub(super) const fn has_exclusion(&self) -> bool {
        self.exclusion[0] & 1 != 0
    }

    /// Whether the exclusion range is for all devices (`Allow`).
    pub(super) const fn excludes_all(&self) -> bool {
        self.exclusion[0] & 2 != 0
    }

    /// The first and the last address of the exclusion range.
    pub(super) const fn exclusion_range(&self) -> (u64, u64) {
        let [base, limit] = self.exclusion;
        (
            base & HostEntry::ADDRESS,
            limit & HostEntry::ADDRESS | 0xfff,
        )
    }

    fn derive(&mut self) {
        self.guest = self.guest_format();
        self.device_reserved = self.device_masks();
        // HATS: 4, 5 or 6 levels; 3 is a unit without host tables.
        self.host_levels = [4, 5, 6, 0][usize::from((self.efr >> 10 & 3) as u8)];
        // PASmax is the width of a PASID less one.
        self.pasids = 1 << (self.efr >> 32 & 0x1f).min(19) << 1;
        let wanted = (self.control >> 34 & 7).min(3) as u8;
        self.segment_bits = wanted.min((self.efr >> 38 & 3) as u8);
    }

    /// The format of guest tables, that of x86-64.
    fn guest_format(&self) -> Format {
        const LEAF: u64 = 1 << 7;
        let unless = |disabled: u64, bit: u64| if self.control & disabled == 0 { bit } else { 0 };
        Format {
            geometry: Pages4K,
            present: 1,
            leaf: LEAF,
            address: HostEntry::ADDRESS,
            // P, R/W and U/S; NX. A unit that does not know NX ignores it.
            grants: 0b111,
            denies: (self.efr & efr::NO_EXECUTE) << 60,
            table_reserved: 0,
            leaf_reserved: [0, 0x1f_e000, 0x3fff_e000, LEAF, LEAF],
            accessed: unless(control::GUEST_ACCESSED_DISABLED, 1 << 5),
            dirty: unless(control::GUEST_DIRTY_DISABLED, 1 << 6),
        }
    }

    /// What a valid device table entry must not have, in its first two words.
    const fn device_masks(&self) -> [u64; 2] {
        let mut low = DeviceWord0::RESERVED;
        let mut high = DeviceWord1::SECURE_ATS;
        if self.efr & efr::PPR == 0 {
            low |= DeviceWord0::PAGE_REQUESTS;
        }
        if self.efr & efr::ENHANCED_PPR == 0 {
            low |= DeviceWord0::RESPONSE_WITH_PASID;
        }
        if self.efr & efr::GUEST_IO == 0 {
            low |= DeviceWord0::GUEST_IO;
        }
        if self.efr & efr::GUEST == 0 {
            low |= DeviceWord0::GUEST_VALID | DeviceWord0::GUEST_LEVELS | DeviceWord0::GUEST_PAGE;
            high |= DeviceWord1::GUEST_PAGE_MIDDLE | DeviceWord1::GUEST_PAGE_HIGH;
        }
        // Linux asks for both where the unit has HDSup, whatever HASup is.
        if self.efr & efr::HOST_DIRTY == 0 {
            low |= if self.efr & efr::HOST_ACCESSED == 0 {
                DeviceWord0::HOST_ACCESS_DIRTY
            } else {
                0b10 << 7
            };
        }
        [low, high]
    }
}

/// The format of host tables. Which level an entry leads to is in the entry.
const fn host_format() -> Format {
    Format {
        geometry: Pages4K,
        present: HostEntry::PRESENT,
        leaf: 0,
        address: HostEntry::ADDRESS,
        grants: HostEntry::PRESENT | HostEntry::READ | HostEntry::WRITE,
        denies: 0,
        table_reserved: HostEntry::TABLE_RESERVED,
        leaf_reserved: [HostEntry::PAGE_RESERVED; 5],
        accessed: HostEntry::ACCESSED,
        dirty: HostEntry::DIRTY,
    }
}
