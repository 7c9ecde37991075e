//! The device table and the guest CR3 table.
//!
//! Source: AMD I/O Virtualization Technology (IOMMU) Specification, 48882, "Device Table" and "Guest
//! CR3 Table"; Linux `drivers/iommu/amd/amd_iommu_types.h` (`DTE_*`, `DEV_ENTRY_*`, `GCR3_VALID`),
//! VirtualBox `include/VBox/iommu-amd.h` (`DTE_T`).
//!
//! A device table entry has a raw type, which is its bytes in memory, and word types, which know its
//! bits. Words decode and encode without loss.

use bitfield_struct::bitfield;
use iopf::Gpa;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where a table pointer's address bits are: `[51:12]`.
const POINTER: u64 = 0x000f_ffff_ffff_f000;

/// The number of bytes of a device table entry.
pub const DEVICE_ENTRY_SIZE: u64 = 32;

/// Word 0 of a device table entry: host translation, and the first part of guest translation.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct DeviceWord0 {
    /// `[0]` V: the entry says something. Without it, requests pass untranslated.
    pub valid: bool,
    /// `[1]` TV: it says how addresses are translated. Without it, no request is.
    pub translation_valid: bool,
    /// `[6:2]`
    #[bits(5)]
    _res0: u8,
    /// `[8:7]` HAD: which of the host tables' accessed and dirty bits hardware sets. 00b none, 01b
    /// accessed, 11b both.
    #[bits(2)]
    pub host_access_dirty: u8,
    /// `[11:9]` Mode: how many levels the host tables have, 1–6. 0: no host tables, 7 is reserved.
    #[bits(3)]
    pub mode: u8,
    /// `[51:12]` The top host table's page number.
    #[bits(40)]
    pub host_page: u64,
    /// `[52]` PPR: page requests are allowed.
    pub page_requests: bool,
    /// `[53]` GPRP: responses to page requests carry the PASID.
    pub response_with_pasid: bool,
    /// `[54]` `GIoV`: requests without a PASID are those of PASID 0.
    pub guest_io: bool,
    /// `[55]` GV: the guest fields count.
    pub guest_valid: bool,
    /// `[57:56]` GLX: how many levels the guest CR3 table has, less one. 3 is reserved.
    #[bits(2)]
    pub guest_levels: u8,
    /// `[60:58]` Bits 14:12 of the guest CR3 table's address.
    #[bits(3)]
    pub guest_page_low: u8,
    /// `[61]` IR: reads are allowed.
    pub read: bool,
    /// `[62]` IW: writes are allowed.
    pub write: bool,
    /// `[63]`
    _res1: bool,
}

impl DeviceWord0 {
    /// V.
    pub const VALID: u64 = 1 << 0;
    /// TV.
    pub const TRANSLATION_VALID: u64 = 1 << 1;
    /// HAD.
    pub const HOST_ACCESS_DIRTY: u64 = 0b11 << 7;
    /// Mode.
    pub const MODE: u64 = 0b111 << 9;
    /// PPR.
    pub const PAGE_REQUESTS: u64 = 1 << 52;
    /// GPRP.
    pub const RESPONSE_WITH_PASID: u64 = 1 << 53;
    /// `GIoV`.
    pub const GUEST_IO: u64 = 1 << 54;
    /// GV.
    pub const GUEST_VALID: u64 = 1 << 55;
    /// GLX.
    pub const GUEST_LEVELS: u64 = 0b11 << 56;
    /// Bits 14:12 of the guest CR3 table's address.
    pub const GUEST_PAGE: u64 = 0b111 << 58;
    /// IR.
    pub const READ: u64 = 1 << 61;
    /// IW.
    pub const WRITE: u64 = 1 << 62;
    /// Bits that no revision uses.
    pub const RESERVED: u64 = 1 << 63 | 0b1_1111 << 2;

    /// The top host table.
    #[must_use]
    #[inline]
    pub const fn host_table(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }
}

/// Word 1 of a device table entry: domain, switches, the rest of the guest CR3 table's address.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct DeviceWord1 {
    /// `[79:64]` `DomainID`.
    pub domain: u16,
    /// `[95:80]` Bits 30:15 of the guest CR3 table's address.
    pub guest_page_middle: u16,
    /// `[96]` I: the device has a TLB of its own; translation and translated requests are allowed.
    pub device_tlb: bool,
    /// `[97]` SE: of the device's I/O page faults, only the first leaves an event.
    pub suppress_repeats: bool,
    /// `[98]` SA: none of the device's I/O page faults leaves an event.
    pub suppress_all: bool,
    /// `[100:99]` `IoCtl`: what becomes of port I/O.
    #[bits(2)]
    pub port_io: u8,
    /// `[101]` Cache: a hint not to cache translations that a device TLB has.
    pub cache_hint: bool,
    /// `[102]` SD: translated accesses are not snooped.
    pub snoop_disable: bool,
    /// `[103]` EX: the exclusion range is for this device.
    pub exclusion: bool,
    /// `[105:104]` `SysMgt`: what becomes of system management messages.
    #[bits(2)]
    pub system_management: u8,
    /// `[106]` SATS: translated requests are checked (secure ATS). Reserved in VirtualBox, which
    /// follows revision 3.05.
    pub secure_ats: bool,
    /// `[127:107]` Bits 51:31 of the guest CR3 table's address.
    #[bits(21)]
    pub guest_page_high: u32,
}

impl DeviceWord1 {
    /// Bits 30:15 of the guest CR3 table's address.
    pub const GUEST_PAGE_MIDDLE: u64 = 0xffff << 16;
    /// I.
    pub const DEVICE_TLB: u64 = 1 << 32;
    /// SE.
    pub const SUPPRESS_REPEATS: u64 = 1 << 33;
    /// SA.
    pub const SUPPRESS_ALL: u64 = 1 << 34;
    /// `IoCtl`.
    pub const PORT_IO: u64 = 0b11 << 35;
    /// EX.
    pub const EXCLUSION: u64 = 1 << 39;
    /// SATS.
    pub const SECURE_ATS: u64 = 1 << 42;
    /// Bits 51:31 of the guest CR3 table's address.
    pub const GUEST_PAGE_HIGH: u64 = !0 << 43;
}

/// Word 2 of a device table entry: interrupts, and how many levels guest tables have.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct DeviceWord2 {
    /// `[128]` IV: the interrupt fields count.
    pub interrupt_valid: bool,
    /// `[132:129]` `IntTabLen`: the interrupt remapping table has 2^n entries.
    #[bits(4)]
    pub interrupt_table_length: u8,
    /// `[133]` IG: unmapped interrupts leave no event.
    pub ignore_unmapped: bool,
    /// `[179:134]` The interrupt remapping table, in units of 64 bytes; its lowest bit is reserved.
    #[bits(46)]
    pub interrupt_table: u64,
    /// `[181:180]`
    #[bits(2)]
    _res0: u8,
    /// `[183:182]` `GuestPagingMode`: 0 is four levels, 1 is five; the others are reserved.
    #[bits(2)]
    pub guest_paging_mode: u8,
    /// `[184]` `InitPass`.
    pub init_pass: bool,
    /// `[185]` `EIntPass`.
    pub external_pass: bool,
    /// `[186]` `NMIPass`.
    pub nmi_pass: bool,
    /// `[187]`
    _res1: bool,
    /// `[189:188]` `IntCtl`: fixed and arbitrated interrupts are aborted (0), forwarded (1) or
    /// remapped (2).
    #[bits(2)]
    pub interrupt_control: u8,
    /// `[190]` `Lint0Pass`.
    pub lint0_pass: bool,
    /// `[191]` `Lint1Pass`.
    pub lint1_pass: bool,
}

impl DeviceWord2 {
    /// `GuestPagingMode`.
    pub const GUEST_PAGING_MODE: u64 = 0b11 << 54;
}

/// Word 3 of a device table entry: attributes that are forwarded.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct DeviceWord3 {
    /// `[245:192]` Reserved, or of virtualised IOMMUs, which are not modelled.
    #[bits(54)]
    pub reserved: u64,
    /// `[246]` `AttrV`: the attributes count.
    pub attributes_valid: bool,
    /// `[247]` `Mode0FC`: accesses are coherent where there are no host tables.
    pub mode0_force_coherent: bool,
    /// `[255:248]` Snoop attributes.
    pub snoop_attributes: u8,
}

/// A device table entry as it lies in guest memory. 48882, "Device Table Entry Format".
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct RawDeviceEntry {
    words: [U64; 4],
}
const _: () = assert!(size_of::<RawDeviceEntry>() == 32);

/// A device table entry, in its four words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceEntry {
    /// Host translation.
    pub word0: DeviceWord0,
    /// Domain and switches.
    pub word1: DeviceWord1,
    /// Interrupts.
    pub word2: DeviceWord2,
    /// Attributes.
    pub word3: DeviceWord3,
}

impl DeviceEntry {
    /// Reads an entry from its words, in the host's byte order.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 4]) -> Self {
        Self {
            word0: DeviceWord0::from_bits(words[0]),
            word1: DeviceWord1::from_bits(words[1]),
            word2: DeviceWord2::from_bits(words[2]),
            word3: DeviceWord3::from_bits(words[3]),
        }
    }

    /// The entry's words.
    #[must_use]
    pub const fn words(self) -> [u64; 4] {
        [
            self.word0.into_bits(),
            self.word1.into_bits(),
            self.word2.into_bits(),
            self.word3.into_bits(),
        ]
    }

    /// Reads an entry from memory. Total: every 32 bytes are one.
    #[must_use]
    pub fn decode(raw: &RawDeviceEntry) -> Self {
        Self::from_words(raw.words.map(U64::get))
    }

    /// Writes the entry as it lies in memory.
    #[must_use]
    pub fn encode(self) -> RawDeviceEntry {
        RawDeviceEntry {
            words: self.words().map(U64::new),
        }
    }

    /// The top guest CR3 table, whose address is in three places.
    #[must_use]
    #[inline]
    pub const fn guest_table(&self) -> Gpa {
        let (low, high) = (self.word0.into_bits(), self.word1.into_bits());
        Gpa((low >> 58 & 7) << 12 | (high >> 16 & 0xffff) << 15 | (high >> 43) << 31)
    }

    /// The same entry with its guest CR3 table at `table`, whose low 12 bits and those above 51 are
    /// dropped.
    #[must_use]
    pub const fn with_guest_table(mut self, table: Gpa) -> Self {
        let (low, high) = (self.word0.into_bits(), self.word1.into_bits());
        let at = table.0 & POINTER;
        self.word0 = DeviceWord0::from_bits(low & !DeviceWord0::GUEST_PAGE | (at >> 12 & 7) << 58);
        let kept = high & !(DeviceWord1::GUEST_PAGE_MIDDLE | DeviceWord1::GUEST_PAGE_HIGH);
        let placed = (at >> 15 & 0xffff) << 16 | (at >> 31) << 43;
        self.word1 = DeviceWord1::from_bits(kept | placed);
        self
    }
}

/// A guest CR3 table entry of any level.
///
/// The lowest level's holds a guest CR3, which points to the top guest table; the others' point to
/// the table of the next lower level.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct GuestCr3Word {
    /// `[0]` V.
    pub valid: bool,
    /// `[11:1]` Reserved, but for two cacheability bits of a guest CR3, which are ignored.
    #[bits(11)]
    pub low: u16,
    /// `[51:12]` The page number of a table.
    #[bits(40)]
    pub page: u64,
    /// `[63:52]`
    #[bits(12)]
    pub high: u16,
}

impl GuestCr3Word {
    /// V.
    pub const VALID: u64 = 1;

    /// The table it points to.
    #[must_use]
    #[inline]
    pub const fn table(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }

    /// A valid entry that points to `table`, whose low 12 bits and those above 51 are dropped.
    #[must_use]
    pub const fn to(table: Gpa) -> Self {
        Self(table.0 & POINTER | Self::VALID)
    }
}

#[cfg(test)]
mod tests;
