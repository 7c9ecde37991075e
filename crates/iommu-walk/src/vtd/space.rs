//! What a requester's configuration amounts to.

use crate::PageTable;
use iopf::Pasid;

/// A VT-d domain identifier: the tag of a unit's caches, up to 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

/// How addresses of one address space are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Translate {
    /// Not at all.
    PassThrough,
    /// By the first stage.
    First(PageTable),
    /// By the second stage.
    Second(PageTable),
    /// By the first stage, whose every address goes through the second.
    Nested {
        /// The first stage.
        first: PageTable,
        /// The second stage.
        second: PageTable,
    },
}

bitflags::bitflags! {
    /// Switches of an address space, gathered from all the entries that led to it.
    ///
    /// Bits 7:0 lie as in word 2 of a PASID table entry, 12:9 as in bits 4:1 of a context entry.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Switches: u16 {
        /// Privileged requests are allowed (SRE).
        const SUPERVISOR = 1 << 0;
        /// Execute requests are allowed (ERE).
        const EXECUTE = 1 << 1;
        /// Privileged writes respect read-only pages (WPE).
        const WRITE_PROTECT = 1 << 4;
        /// The execute-disable bit counts (NXE).
        const NO_EXECUTE = 1 << 5;
        /// Privileged requests execute no user pages (SMEP).
        const SMEP = 1 << 6;
        /// First-stage extended-accessed bits are set (EAFE).
        const EXTENDED_ACCESSED = 1 << 7;
        /// Requests without a PASID count as privileged (`RID_PRIV`).
        const RID_PRIVILEGED = 1 << 8;
        /// FPD was set in an entry on the path: qualified faults leave no record.
        const FAULTS_HIDDEN = 1 << 9;
        /// Translation and translated requests are allowed (TT=01b, DTE).
        const DEVICE_TLB = 1 << 10;
        /// Second-stage accessed and dirty bits are set (SSADE).
        const SECOND_ACCESSED = 1 << 11;
        /// Page requests are allowed (PRE).
        const PAGE_REQUESTS = 1 << 12;
        /// Page walks are asked to be coherent (PWSNP); it matters to a unit with
        /// [non-coherent walks](super::Unit::with_noncoherent_walks).
        const COHERENT = 1 << 13;
        /// Device accesses are snooped whatever else says (PGSNP).
        const SNOOP = 1 << 14;
        /// Scalable mode; without it, legacy.
        const SCALABLE = 1 << 15;
    }
}

/// An address space: everything a page walk needs to know of a requester and PASID.
///
/// It is what a context cache (legacy) or PASID cache (scalable) holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressSpace {
    /// The tag under which translations are cached and invalidated.
    pub domain: DomainId,
    /// The PASID whose entry this is, `RID_PASID` for requests without one; `None` in legacy mode.
    pub pasid: Option<Pasid>,
    /// How addresses are translated.
    pub translate: Translate,
    /// The rest.
    pub switches: Switches,
}
