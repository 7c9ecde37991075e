//! Root, context and PASID tables.
//!
//! Source: Intel VT-d, "Translation Structure Formats". Linux spells the same facts in
//! `drivers/iommu/intel/iommu.h` and `pasid.h`, VirtualBox in `include/VBox/iommu-intel.h`.
//! Covered: everything that decides how an address is translated, with the execute fields that
//! revision 4.1 took out. Not covered: host permission tables, memory types.
//!
//! An entry has a raw type, which is its bytes in memory; word types, which know its bits; and a
//! meaning. Words decode and encode without loss; a meaning leaves out what is reserved.

use bitfield_struct::bitfield;
use iopf::{Gpa, Pasid};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where a table pointer's address bits are.
const POINTER: u64 = !0xfff;

/// A root entry's only word (legacy), or either of its words (scalable).
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct PointerWord {
    /// `[0]` P, LP or UP: present.
    pub present: bool,
    /// `[11:1]`
    #[bits(11)]
    _res: u16,
    /// `[63:12]` CTP, LCTP or UCTP: the context table's page number.
    #[bits(52)]
    pub page: u64,
}

impl PointerWord {
    /// The context table.
    #[must_use]
    #[inline]
    pub const fn pointer(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }

    /// A word that points to a context table; the low 12 bits of `table` are dropped.
    #[must_use]
    pub const fn to(table: Gpa) -> Self {
        Self(table.0 & POINTER | 1)
    }
}

/// A context entry's translation type. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TranslationType(pub u8);

impl TranslationType {
    /// 00b: second stage; translation and translated requests are blocked.
    pub const SECOND_STAGE: Self = Self(0);
    /// 01b: second stage; translation and translated requests are allowed.
    pub const DEVICE_TLB: Self = Self(1);
    /// 10b: pass-through; translation and translated requests are blocked.
    pub const PASS_THROUGH: Self = Self(2);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// Word 0 of a legacy context entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ContextLo {
    /// `[0]` P.
    pub present: bool,
    /// `[1]` FPD: qualified faults are not recorded. It counts even where P is clear.
    pub fault_processing_disable: bool,
    /// `[3:2]` TT.
    #[bits(2)]
    pub translation_type: TranslationType,
    /// `[11:4]`
    #[bits(8)]
    _res: u8,
    /// `[63:12]` SSPTPTR: the top second-stage table's page number.
    #[bits(52)]
    pub second_stage_page: u64,
}

impl ContextLo {
    /// Where the translation type is.
    pub const TRANSLATION_TYPE: u64 = 0b11 << 2;

    /// The top second-stage table.
    #[must_use]
    #[inline]
    pub const fn second_stage(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }
}

/// Word 1 of a legacy context entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ContextHi {
    /// `[66:64]` AW: 1, 2 and 3 are 39, 48 and 57 bits, that is 3, 4 and 5 levels.
    #[bits(3)]
    pub address_width: u8,
    /// `[70:67]` Ignored by hardware.
    #[bits(4)]
    pub ignored: u8,
    /// `[71]`
    _res0: bool,
    /// `[87:72]` DID: domain identifier.
    pub domain: u16,
    /// `[127:88]`
    #[bits(40)]
    _res1: u64,
}

impl ContextHi {
    /// Where the address width is.
    pub const ADDRESS_WIDTH: u64 = 0b111;
}

/// Word 0 of a scalable-mode context entry. Words 2 and 3 are reserved.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ScalableContextLo {
    /// `[0]` P.
    pub present: bool,
    /// `[1]` FPD. It counts even where P is clear.
    pub fault_processing_disable: bool,
    /// `[2]` DTE: translation and translated requests are allowed.
    pub device_tlb: bool,
    /// `[3]` PASIDE: requests with a PASID are allowed.
    pub pasid_enabled: bool,
    /// `[4]` PRE: page requests are allowed.
    pub page_requests: bool,
    /// `[5]` HPTE: translated requests are checked against the host permission table.
    pub host_permissions: bool,
    /// `[6]` EPTR: translated requests may have a PASID.
    pub translated_pasid: bool,
    /// `[8:7]`
    #[bits(2)]
    _res: u8,
    /// `[11:9]` PDTS: the PASID directory has 2^(PDTS+7) entries, each for 64 PASIDs.
    #[bits(3)]
    pub directory_size: u8,
    /// `[63:12]` PASIDDIRPTR: the PASID directory's page number.
    #[bits(52)]
    pub directory_page: u64,
}

impl ScalableContextLo {
    /// DTE.
    pub const DEVICE_TLB: u64 = 1 << 2;
    /// PASIDE.
    pub const PASIDS: u64 = 1 << 3;
    /// PRE.
    pub const PAGE_REQUESTS: u64 = 1 << 4;
    /// EPTR.
    pub const TRANSLATED_PASID: u64 = 1 << 6;

    /// The PASID directory.
    #[must_use]
    #[inline]
    pub const fn directory(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }

    /// How many PASIDs the directory covers: 2^13 to 2^20.
    #[must_use]
    #[inline]
    pub const fn pasids(self) -> u32 {
        1 << (self.directory_size() + 7 + 6)
    }
}

/// Word 1 of a scalable-mode context entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct ScalableContextHi {
    /// `[83:64]` `RID_PASID`: the PASID of requests that have none.
    #[bits(20)]
    pub rid_pasid: u32,
    /// `[84]` `RID_PRIV`: requests without a PASID count as privileged.
    pub rid_privileged: bool,
    /// `[127:85]`
    #[bits(43)]
    _res: u64,
}

impl ScalableContextHi {
    /// Where `RID_PASID` is.
    pub const RID_PASID: u64 = 0xf_ffff;
}

/// A PASID directory entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct DirectoryWord {
    /// `[0]` P.
    pub present: bool,
    /// `[1]` FPD. It counts even where P is clear.
    pub fault_processing_disable: bool,
    /// `[11:2]`
    #[bits(10)]
    _res: u16,
    /// `[63:12]` SMPTBLPTR: the PASID table's page number.
    #[bits(52)]
    pub table_page: u64,
}

impl DirectoryWord {
    /// The PASID table, 64 entries of 64 bytes.
    #[must_use]
    #[inline]
    pub const fn table(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }
}

/// Word 0 of a PASID table entry: presence, kind of translation, second stage.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct PasidSecondWord {
    /// `[0]` P.
    pub present: bool,
    /// `[1]` FPD. It counts even where P is clear.
    pub fault_processing_disable: bool,
    /// `[4:2]` AW, as in a [legacy context entry](ContextHi::address_width).
    #[bits(3)]
    pub address_width: u8,
    /// `[5]`
    _res0: bool,
    /// `[8:6]` PGTT: 1 first stage, 2 second stage, 3 nested, 4 pass-through.
    #[bits(3)]
    pub translation: u8,
    /// `[9]` SSADE: second-stage accessed and dirty bits are kept.
    pub accessed_dirty: bool,
    /// `[11:10]`
    #[bits(2)]
    _res1: u8,
    /// `[63:12]` SSPTPTR: the top second-stage table's page number.
    #[bits(52)]
    pub table_page: u64,
}

impl PasidSecondWord {
    /// Where the translation type is.
    pub const TRANSLATION: u64 = 0b111 << 6;
    /// Where the address width is.
    pub const ADDRESS_WIDTH: u64 = 0b111 << 2;

    /// The top second-stage table.
    #[must_use]
    #[inline]
    pub const fn table(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }
}

/// Word 1 of a PASID table entry: domain, snooping, memory types.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct PasidDomainWord {
    /// `[79:64]` DID: domain identifier.
    pub domain: u16,
    /// `[86:80]`
    #[bits(7)]
    _res0: u8,
    /// `[87]` PWSNP: page walks are coherent.
    pub walk_snoop: bool,
    /// `[88]` PGSNP: accesses to the page are snooped.
    pub page_snoop: bool,
    /// `[89]` CD: caching is off.
    pub cache_disable: bool,
    /// `[90]` EMTE: second-stage memory types count.
    pub extended_memory_type: bool,
    /// `[95:91]`
    #[bits(5)]
    _res1: u8,
    /// `[127:96]` PAT.
    pub page_attributes: u32,
}

/// Word 2 of a PASID table entry: first stage. Words 3 to 7 are reserved, but for host permission
/// tables.
#[bitfield(u64)]
#[derive(PartialEq, Eq, Hash)]
pub struct PasidFirstWord {
    /// `[128]` SRE: privileged requests are allowed.
    pub supervisor: bool,
    /// `[129]` ERE, until revision 4.0: execute requests are allowed.
    pub execute: bool,
    /// `[131:130]` FSPM: 0 is four levels, 1 is five.
    #[bits(2)]
    pub paging_mode: u8,
    /// `[132]` WPE: read-only pages are so for privileged requests too.
    pub write_protect: bool,
    /// `[133]` NXE, until revision 4.0: the execute-disable bit counts.
    pub no_execute: bool,
    /// `[134]` SMEP, until revision 4.0: privileged requests execute no user pages.
    pub smep: bool,
    /// `[135]` EAFE: extended-accessed bits are kept.
    pub extended_accessed: bool,
    /// `[139:136]`
    #[bits(4)]
    _res: u8,
    /// `[191:140]` FSPTPTR: the top first-stage table's page number; a guest's, if nested.
    #[bits(52)]
    pub table_page: u64,
}

impl PasidFirstWord {
    /// Where the paging mode is.
    pub const PAGING_MODE: u64 = 0b11 << 2;

    /// The top first-stage table.
    #[must_use]
    #[inline]
    pub const fn table(self) -> Gpa {
        Gpa(self.0 & POINTER)
    }
}

macro_rules! raw {
    ($(#[$doc:meta])* $name:ident, $words:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq,
            FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            words: [U64; $words],
        }
        const _: () = assert!(size_of::<$name>() == 8 * $words);

        impl $name {
            /// The entry with these words.
            #[must_use]
            pub fn from_words(words: [u64; $words]) -> Self {
                Self { words: words.map(U64::new) }
            }

            /// The entry's words.
            #[must_use]
            pub fn words(&self) -> [u64; $words] {
                self.words.map(U64::get)
            }
        }
    };
}

raw! {
    /// A root entry as it lies in memory. "Root Entry", "Scalable-mode Root Entry".
    RawRootEntry, 2
}
raw! {
    /// A legacy context entry as it lies in memory. "Context Entry".
    RawContextEntry, 2
}
raw! {
    /// A scalable-mode context entry as it lies in memory. "Scalable-Mode Context-Entry".
    RawScalableContextEntry, 4
}
raw! {
    /// A PASID directory entry as it lies in memory. "Scalable-Mode PASID Directory Entry".
    RawDirectoryEntry, 1
}
raw! {
    /// A PASID table entry as it lies in memory. "Scalable-Mode PASID Table Entry".
    RawPasidEntry, 8
}

/// What a root entry says: where each half of a bus has its context table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootEntry {
    /// Legacy: one table for all functions, if any.
    Legacy(Option<Gpa>),
    /// Scalable: one table for devices 0–15, one for 16–31, if any.
    Scalable {
        /// Devices 0–15.
        lower: Option<Gpa>,
        /// Devices 16–31.
        upper: Option<Gpa>,
    },
}

impl RootEntry {
    /// Reads an entry of a legacy root table.
    #[must_use]
    pub fn decode_legacy(raw: &RawRootEntry) -> Self {
        Self::Legacy(pointer(raw.words()[0]))
    }

    /// Reads an entry of a scalable-mode root table.
    #[must_use]
    pub fn decode_scalable(raw: &RawRootEntry) -> Self {
        let [lower, upper] = raw.words().map(pointer);
        Self::Scalable { lower, upper }
    }

    /// Writes the entry.
    #[must_use]
    pub fn encode(&self) -> RawRootEntry {
        let word = |table: Option<Gpa>| table.map_or(0, |t| PointerWord::to(t).into_bits());
        RawRootEntry::from_words(match *self {
            Self::Legacy(table) => [word(table), 0],
            Self::Scalable { lower, upper } => [word(lower), word(upper)],
        })
    }
}

fn pointer(word: u64) -> Option<Gpa> {
    let word = PointerWord::from_bits(word);
    word.present().then(|| word.pointer())
}

/// What a present legacy context entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContextEntry {
    /// FPD.
    pub faults_hidden: bool,
    /// TT.
    pub translation: TranslationType,
    /// SSPTPTR.
    pub second_stage: Gpa,
    /// AW, as encoded: 1, 2 and 3 are 39, 48 and 57 bits.
    pub address_width: u8,
    /// DID.
    pub domain: u16,
}

impl ContextEntry {
    /// Reads an entry; `None` where it is not present.
    #[must_use]
    pub fn decode(raw: &RawContextEntry) -> Option<Self> {
        let [lo, hi] = raw.words();
        let (lo, hi) = (ContextLo::from_bits(lo), ContextHi::from_bits(hi));
        lo.present().then(|| Self {
            faults_hidden: lo.fault_processing_disable(),
            translation: lo.translation_type(),
            second_stage: lo.second_stage(),
            address_width: hi.address_width(),
            domain: hi.domain(),
        })
    }

    /// Writes the entry, present.
    #[must_use]
    pub fn encode(&self) -> RawContextEntry {
        let lo = ContextLo::new()
            .with_present(true)
            .with_fault_processing_disable(self.faults_hidden)
            .with_translation_type(self.translation)
            .with_second_stage_page(self.second_stage.0 >> 12);
        let hi = ContextHi::new()
            .with_address_width(self.address_width & 7)
            .with_domain(self.domain);
        RawContextEntry::from_words([lo.into_bits(), hi.into_bits()])
    }
}

/// What a present scalable-mode context entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalableContextEntry {
    /// FPD.
    pub faults_hidden: bool,
    /// DTE.
    pub device_tlb: bool,
    /// PASIDE.
    pub pasid_enabled: bool,
    /// PRE.
    pub page_requests: bool,
    /// EPTR.
    pub translated_pasid: bool,
    /// PDTS, as encoded, 0–7.
    pub directory_size: u8,
    /// PASIDDIRPTR.
    pub directory: Gpa,
    /// `RID_PASID`.
    pub rid_pasid: Pasid,
    /// `RID_PRIV`.
    pub rid_privileged: bool,
}

impl ScalableContextEntry {
    /// Reads an entry; `None` where it is not present.
    #[must_use]
    pub fn decode(raw: &RawScalableContextEntry) -> Option<Self> {
        let [lo, hi, ..] = raw.words();
        let lo = ScalableContextLo::from_bits(lo);
        let hi = ScalableContextHi::from_bits(hi);
        lo.present().then(|| Self {
            faults_hidden: lo.fault_processing_disable(),
            device_tlb: lo.device_tlb(),
            pasid_enabled: lo.pasid_enabled(),
            page_requests: lo.page_requests(),
            translated_pasid: lo.translated_pasid(),
            directory_size: lo.directory_size(),
            directory: lo.directory(),
            rid_pasid: Pasid::truncate(hi.rid_pasid()),
            rid_privileged: hi.rid_privileged(),
        })
    }

    /// Writes the entry, present.
    #[must_use]
    pub fn encode(&self) -> RawScalableContextEntry {
        let lo = ScalableContextLo::new()
            .with_present(true)
            .with_fault_processing_disable(self.faults_hidden)
            .with_device_tlb(self.device_tlb)
            .with_pasid_enabled(self.pasid_enabled)
            .with_page_requests(self.page_requests)
            .with_translated_pasid(self.translated_pasid)
            .with_directory_size(self.directory_size & 7)
            .with_directory_page(self.directory.0 >> 12);
        let hi = ScalableContextHi::new()
            .with_rid_pasid(self.rid_pasid.get())
            .with_rid_privileged(self.rid_privileged);
        RawScalableContextEntry::from_words([lo.into_bits(), hi.into_bits(), 0, 0])
    }
}

/// What a present PASID directory entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// FPD.
    pub faults_hidden: bool,
    /// SMPTBLPTR.
    pub table: Gpa,
}

impl DirectoryEntry {
    /// Reads an entry; `None` where it is not present.
    #[must_use]
    pub fn decode(raw: &RawDirectoryEntry) -> Option<Self> {
        let word = DirectoryWord::from_bits(raw.words()[0]);
        word.present().then(|| Self {
            faults_hidden: word.fault_processing_disable(),
            table: word.table(),
        })
    }

    /// Writes the entry, present.
    #[must_use]
    pub fn encode(&self) -> RawDirectoryEntry {
        let word = DirectoryWord::new()
            .with_present(true)
            .with_fault_processing_disable(self.faults_hidden)
            .with_table_page(self.table.0 >> 12);
        RawDirectoryEntry::from_words([word.into_bits()])
    }
}

/// What a present PASID table entry says, in its three words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidEntry {
    /// Kind of translation, second stage.
    pub second: PasidSecondWord,
    /// Domain and snooping.
    pub domain: PasidDomainWord,
    /// First stage.
    pub first: PasidFirstWord,
}

impl PasidEntry {
    /// Reads an entry; `None` where it is not present.
    #[must_use]
    pub fn decode(raw: &RawPasidEntry) -> Option<Self> {
        let [second, domain, first, ..] = raw.words();
        let second = PasidSecondWord::from_bits(second);
        second.present().then(|| Self {
            second,
            domain: PasidDomainWord::from_bits(domain),
            first: PasidFirstWord::from_bits(first),
        })
    }

    /// Writes the entry, present.
    #[must_use]
    pub fn encode(&self) -> RawPasidEntry {
        let second = self.second.with_present(true).into_bits();
        let (domain, first) = (self.domain.into_bits(), self.first.into_bits());
        RawPasidEntry::from_words([second, domain, first, 0, 0, 0, 0, 0])
    }
}

#[cfg(test)]
mod tests;
