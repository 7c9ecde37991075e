//! The registers that a walk depends on, and what follows from them.

use super::{Cause, caps};
use crate::format::{Format, Pages4K};
use iopf::Gpa;

/// Translation table mode, the TTM field of `RTADDR_REG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 00b.
    Legacy,
    /// 01b.
    Scalable,
    /// 10b: no such mode.
    Reserved,
    /// 11b.
    Abort,
}

/// A remapping unit as a walk sees it: capabilities, root table pointer, and the masks that follow
/// from them.
///
/// Host permission tables and memory types are not modelled: their fields count as reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    cap: u64,
    ecap: u64,
    rtaddr: u64,
    enabled: bool,
    haw: u8,
    version: u8,
    noncoherent: bool,
    pub(crate) above_haw: u64,
    pub(crate) second: Format,
    pub(crate) first: Format,
    /// The same with the execute-disable bit reserved.
    pub(crate) first_without_nx: Format,
    /// The mode that requests meet, or why they meet none.
    pub(crate) usable: Result<Mode, Cause>,
    /// Bit *n*: the unit has translation type *n* of a PASID table entry.
    pub(crate) translations: u8,
    /// Which of the low bits of a PASID table entry's word 2 count: see
    /// [`Switches`](super::Switches).
    pub(crate) first_switches: u16,
    /// The first PASID that is too wide, by `ECAP_REG.PSS`.
    pub(crate) pasids: u32,
    pub(crate) context_reserved: [u64; 2],
    /// Words 2 and 3 are reserved altogether.
    pub(crate) scalable_context_reserved: [u64; 2],
    /// Words 3 to 7 are reserved altogether.
    pub(crate) pasid_reserved: [u64; 3],
}

impl Unit {
    /// A unit with `CAP_REG` and `ECAP_REG` as given, a host address width of `haw` bits (12–52,
    /// clamped), translation on, a root table at 0 in legacy mode, and major version 1.
    #[must_use]
    pub fn new(cap: u64, ecap: u64, haw: u8) -> Self {
        let mut unit = Self {
            cap,
            ecap,
            rtaddr: 0,
            enabled: true,
            haw: haw.clamp(12, 52),
            version: 1,
            noncoherent: false,
            above_haw: 0,
            second: Format::EMPTY,
            first: Format::EMPTY,
            first_without_nx: Format::EMPTY,
            usable: Err(Cause::ModeUnsupported),
            translations: 0,
            first_switches: 0,
            pasids: 0,
            context_reserved: [0; 2],
            scalable_context_reserved: [0; 2],
            pasid_reserved: [0; 3],
        };
        unit.derive();
        unit
    }

    /// The same unit with this `RTADDR_REG`.
    #[must_use]
    pub fn with_rtaddr(mut self, rtaddr: u64) -> Self {
        self.rtaddr = rtaddr;
        self.derive();
        self
    }

    /// The same unit with translation on or off (`GSTS_REG.TES`).
    #[must_use]
    pub fn with_enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// The same unit with this major version (`VER_REG.MAX`). From 8 on, a request with a PASID
    /// that asks for execute is refused outright.
    #[must_use]
    pub fn with_version(mut self, major: u8) -> Self {
        self.version = major;
        self
    }

    /// The same unit with page walks that do not snoop caches where an address space does not ask
    /// for it (PWSNP clear). Such a walk cannot set accessed and dirty bits: where one is due, the
    /// request fails with `SFL.9` or `SSL.5`.
    ///
    /// Off to begin with: the walks of a virtual unit are always coherent.
    #[must_use]
    pub fn with_noncoherent_walks(mut self, noncoherent: bool) -> Self {
        self.noncoherent = noncoherent;
        self
    }

    /// Whether page walks depend on PWSNP: see
    /// [`with_noncoherent_walks`](Self::with_noncoherent_walks).
    #[must_use]
    pub const fn noncoherent_walks(&self) -> bool {
        self.noncoherent
    }

    /// `CAP_REG`.
    #[must_use]
    pub const fn cap(&self) -> u64 {
        self.cap
    }

    /// `ECAP_REG`.
    #[must_use]
    pub const fn ecap(&self) -> u64 {
        self.ecap
    }

    /// `RTADDR_REG`.
    #[must_use]
    pub const fn rtaddr(&self) -> u64 {
        self.rtaddr
    }

    /// Whether translation is on.
    #[must_use]
    pub const fn enabled(&self) -> bool {
        self.enabled
    }

    /// Host address width in bits.
    #[must_use]
    pub const fn haw(&self) -> u8 {
        self.haw
    }

    /// Major version of the unit.
    #[must_use]
    pub const fn version(&self) -> u8 {
        self.version
    }

    /// What the root table address register asks for, supported or not.
    #[must_use]
    #[inline]
    pub const fn mode(&self) -> Mode {
        match self.rtaddr >> 10 & 3 {
            0 => Mode::Legacy,
            1 => Mode::Scalable,
            2 => Mode::Reserved,
            _ => Mode::Abort,
        }
    }

    /// Where the root table lies.
    #[must_use]
    #[inline]
    pub const fn root_table(&self) -> Gpa {
        Gpa(self.rtaddr & !0xfff)
    }

    /// The largest address the second stage takes as input, by `CAP_REG.MGAW`, in bits.
    #[must_use]
    #[inline]
    pub const fn mgaw(&self) -> u8 {
        (self.cap >> 16 & 0x3f) as u8 + 1
    }

    /// The bit number of read permission in a second-stage entry; write is the next.
    #[inline(always)]
    pub(crate) const fn second_shift(&self) -> u32 {
        self.second.present.trailing_zeros() & 63
    }

    /// The second-stage bit that grants read.
    #[inline(always)]
    pub(crate) const fn second_read(&self) -> u64 {
        1 << self.second_shift()
    }

    /// The second-stage bit that grants write.
    #[inline(always)]
    pub(crate) const fn second_write(&self) -> u64 {
        2 << self.second_shift()
    }

    /// Whether an address width field with this value is one of `CAP_REG.SAGAW`: 1, 2 and 3 stand
    /// for 39, 48 and 57 bits.
    #[inline]
    pub(crate) const fn supports_width(&self, field: u8) -> bool {
        matches!(field, 1..=3) && self.cap >> (8 + field) & 1 != 0
    }

    /// The width of the second stage's input with this many levels, in bits.
    #[inline]
    pub(crate) fn input_bits(&self, levels: u8) -> u8 {
        self.mgaw().min(12 + 9 * levels.min(5))
    }

    /// The width of a PASID, by `ECAP_REG.PSS`, in bits: 1–32.
    const fn pasid_bits(&self) -> u32 {
        let bits = (self.ecap >> 35 & 0x1f) as u32 + 1;
        if bits > 31 { 31 } else { bits }
    }

    #[inline]
    pub(crate) const fn has(&self, ecap: u64) -> bool {
        self.ecap & ecap != 0
    }

    /// Whether the second stage's permissions are the I/O read and write bits.
    const fn io_permissions(&self) -> bool {
        self.rtaddr & caps::RTADDR_SSIRWE != 0 && self.has(caps::ECAP_SSIRWS)
    }

    fn derive(&mut self) {
        self.above_haw = !0 << self.haw;
        self.second = self.second_stage();
        self.first = self.first_stage(0);
        // A unit that knows execute-disable reserves it where NXE is clear; one that does not
        // ignores it.
        let disable = if self.has(caps::ECAP_ERS) { 1 << 63 } else { 0 };
        self.first_without_nx = self.first_stage(disable);
        self.usable = self.usable_mode();
        self.translations = self.translation_types();
        self.first_switches = if self.has(caps::ECAP_ERS) { 0xf3 } else { 0x91 };
        self.pasids = 1 << self.pasid_bits();
        self.context_reserved = self.context_masks();
        self.scalable_context_reserved = self.scalable_context_masks();
        self.pasid_reserved = self.pasid_masks();
    }

    /// Intel VT-d, "Root Table Address Register".
    fn usable_mode(&self) -> Result<Mode, Cause> {
        let mode = self.mode();
        let supported = match mode {
            Mode::Legacy => !self.io_permissions(),
            Mode::Scalable => self.has(caps::ECAP_SMTS),
            Mode::Reserved => false,
            Mode::Abort => self.has(caps::ECAP_ADMS),
        };
        if !supported {
            Err(Cause::ModeUnsupported)
        } else if mode == Mode::Abort {
            Err(Cause::AbortMode)
        } else {
            Ok(mode)
        }
    }

    /// The PGTT field of "Scalable-Mode PASID Table Entry".
    fn translation_types(&self) -> u8 {
        let mut types = 0;
        for (ecap, value) in [
            (caps::ECAP_FSTS, 1),
            (caps::ECAP_SSTS, 2),
            (caps::ECAP_NEST, 3),
            (caps::ECAP_PT, 4),
        ] {
            if self.has(ecap) {
                types |= 1 << value;
            }
        }
        types
    }

    /// Intel VT-d, "Second-Stage Paging Entries".
    fn second_stage(&self) -> Format {
        const LEAF: u64 = 1 << 7;
        const SNOOP: u64 = 1 << 11;
        let address = !self.above_haw & !0xfff;
        let wide = self.above_haw & ((1 << 52) - 1);
        let io = self.io_permissions();
        let io_write = if io { 0 } else { 1 << 62 };
        let both = wide | io_write;
        let snoop = if self.has(caps::ECAP_SC) { 0 } else { SNOOP };
        let large = both | snoop;
        let rights = if io { 0b11 << 61 } else { 0b11 };
        Format {
            geometry: Pages4K,
            present: rights,
            leaf: LEAF,
            address,
            grants: rights,
            denies: 0,
            table_reserved: both | SNOOP,
            leaf_reserved: [
                both | snoop,
                large | 0x1f_f000 | unless(self.cap & caps::CAP_SSLPS_2M, LEAF),
                large | 0x3fff_f000 | unless(self.cap & caps::CAP_SSLPS_1G, LEAF),
                both | SNOOP | LEAF,
                both | SNOOP | LEAF,
            ],
            accessed: 1 << 8,
            dirty: 1 << 9,
        }
    }

    /// Intel VT-d, "First-Stage Paging Entries".
    fn first_stage(&self, reserved: u64) -> Format {
        const LEAF: u64 = 1 << 7;
        let address = !self.above_haw & !0xfff;
        let wide = self.above_haw & ((1 << 52) - 1) | reserved;
        Format {
            geometry: Pages4K,
            present: 1,
            leaf: LEAF,
            address,
            // P, R/W and U/S; XD.
            grants: 0b111,
            denies: 1 << 63,
            table_reserved: wide,
            leaf_reserved: [
                wide,
                wide | 0x1f_e000,
                wide | 0x3fff_e000 | unless(self.cap & caps::CAP_FS1GP, LEAF),
                wide | LEAF,
                wide | LEAF,
            ],
            accessed: 1 << 5,
            dirty: 1 << 6,
        }
    }

    /// The bits of a domain identifier that this unit does not have, at `shift`.
    fn domain_reserved(&self, shift: u32) -> u64 {
        let bits = 4 + 2 * (self.cap & 7);
        if bits >= 16 {
            0
        } else {
            (0xffff << bits & 0xffff) << shift
        }
    }

    /// Intel VT-d, "Context Entry".
    fn context_masks(&self) -> [u64; 2] {
        [
            self.above_haw | 0xff0,
            !0 << 24 | 1 << 7 | self.domain_reserved(8),
        ]
    }

    /// Intel VT-d, "Scalable-Mode Context-Entry".
    fn scalable_context_masks(&self) -> [u64; 2] {
        let mut lo = self.above_haw | 0x1a0;
        for (ecap, bit) in [
            (caps::ECAP_DT, 2),
            (caps::ECAP_PASID, 3),
            (caps::ECAP_PRS, 4),
            (caps::ECAP_PTRS, 6),
        ] {
            if !self.has(ecap) {
                lo |= 1 << bit;
            }
        }
        let mut hi = !0 << 21;
        if !self.has(caps::ECAP_RPS) {
            hi |= 0xf_ffff;
        }
        if !self.has(caps::ECAP_RPRIVS) {
            hi |= 1 << 20;
        }
        [lo, hi]
    }

    /// Intel VT-d, "Scalable-Mode PASID Table Entry".
    fn pasid_masks(&self) -> [u64; 3] {
        let mut lo = self.above_haw | 0xc20;
        // The specification reserves AW as well where there is no second stage. Linux writes it all
        // the same (`pasid_pte_config_first_level`), so no unit it runs on can mind.
        if !self.has(caps::ECAP_SSTS) {
            lo |= !0xfff;
        }
        if !(self.has(caps::ECAP_SSTS) && self.has(caps::ECAP_SSADS)) {
            lo |= 1 << 9;
        }
        let mut domain = 0xf87f_0000 | self.domain_reserved(0);
        if !self.has(caps::ECAP_SMPWC) {
            domain |= 1 << 23;
        }
        if !self.has(caps::ECAP_SC) {
            domain |= 1 << 24;
        }
        if !self.has(caps::ECAP_MTS) {
            // CD, EMTE and the page attribute table.
            domain |= 1 << 25 | 1 << 26 | !0 << 32;
        }
        let mut first = self.above_haw | 0xf00;
        if !self.has(caps::ECAP_SRS) {
            first |= 1 << 0;
        }
        if !self.has(caps::ECAP_ERS) {
            first |= 1 << 1;
        }
        if !self.has(caps::ECAP_EAFS) {
            first |= 1 << 7;
        }
        if !self.has(caps::ECAP_FSTS) {
            first |= !0xfff | 0b11100;
        }
        [lo, domain, first]
    }
}

/// `bits`, reserved unless the unit has the capability.
const fn unless(capability: u64, bits: u64) -> u64 {
    if capability == 0 { bits } else { 0 }
}
