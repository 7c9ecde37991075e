//! What a device table entry amounts to.

use super::Detail;
use crate::PageTable;
use core::fmt;
use iopf::{Access, Gpa, Pasid};

/// An AMD-Vi domain identifier: the tag of a unit's caches, 16 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u16);

/// Where the guest tables of a device's PASIDs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GuestTables {
    /// The top guest CR3 table, a multiple of 4 KiB.
    pub root: Gpa,
    /// How many levels the guest CR3 table has, 1–3, each of 9 bits of the PASID.
    pub levels: u8,
    /// How many levels the guest page tables have, 4 or 5.
    pub paging: u8,
}

bitflags::bitflags! {
    /// Switches of a device table entry.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Switches: u16 {
        /// Reads are allowed (IR). As in [`Access`].
        const READ = 1 << 0;
        /// Writes are allowed (IW). As in [`Access`].
        const WRITE = 1 << 1;
        /// The entry says something (V). Without it, requests pass untranslated.
        const VALID = 1 << 2;
        /// It says how addresses are translated (TV). Without it, no request is.
        const TRANSLATING = 1 << 3;
        /// Translation and translated requests are allowed (I).
        const DEVICE_TLB = 1 << 4;
        /// None of the device's I/O page faults leaves an event (SA).
        const FAULTS_HIDDEN = 1 << 5;
        /// Only the first of the device's I/O page faults leaves an event (SE).
        const FAULTS_ONCE = 1 << 6;
        /// The exclusion range is for this device (EX).
        const EXCLUSION = 1 << 7;
        /// Accessed bits of host tables are set (HAD 01b, 11b).
        const HOST_ACCESSED = 1 << 8;
        /// Dirty bits of host tables are set (HAD 11b).
        const HOST_DIRTY = 1 << 9;
        /// Page requests are allowed (PPR).
        const PAGE_REQUESTS = 1 << 10;
        /// Responses to page requests carry the PASID (GPRP).
        const RESPONSE_WITH_PASID = 1 << 11;
        /// Requests without a PASID are those of PASID 0 (`GIoV`).
        const GUEST_IO = 1 << 12;
        /// Without host tables, accesses are coherent (`Mode0FC` with `AttrV`).
        const FORCE_COHERENT = 1 << 13;
    }
}

/// A device table entry: everything a page walk needs to know of a requester.
///
/// It is what a device table cache holds.
// Three words, each written and read as a whole: a walk has it in registers.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Space {
    /// The top host table, and the number of levels in bits 2:0; 0 where there are none.
    host: u64,
    /// The top guest CR3 table, its levels in bits 3:0 and those of guest tables in 7:4; 0 where there
    /// are none.
    guest: u64,
    domain: DomainId,
    switches: Switches,
}

/// Where a table's address is.
const ADDRESS: u64 = !0xfff;

impl Space {
    /// Of a device whose entry says nothing: requests pass.
    pub const PASS_THROUGH: Self = Self {
        host: 0,
        guest: 0,
        domain: DomainId(0),
        switches: Switches::empty(),
    };

    /// The host tables with 0–6 levels; no guest tables.
    #[inline(always)]
    pub(super) const fn new(domain: DomainId, host: Gpa, levels: u8, switches: Switches) -> Self {
        Self {
            host: if levels == 0 {
                0
            } else {
                host.0 & ADDRESS | levels as u64
            },
            guest: 0,
            domain,
            switches,
        }
    }

    #[must_use]
    pub(super) const fn with_guest(mut self, guest: GuestTables) -> Self {
        self.guest = guest.root.0 & ADDRESS | (guest.paging as u64) << 4 | guest.levels as u64;
        self
    }

    /// The tag under which translations are cached and invalidated.
    #[must_use]
    #[inline(always)]
    pub const fn domain(&self) -> DomainId {
        self.domain
    }

    /// The switches of the entry.
    #[must_use]
    #[inline(always)]
    pub const fn switches(&self) -> Switches {
        self.switches
    }

    /// The host tables, from guest physical to system physical; `None` where they are the same
    /// (Mode 0).
    #[must_use]
    #[inline(always)]
    pub const fn host(&self) -> Option<PageTable> {
        if self.host == 0 {
            return None;
        }
        Some(PageTable {
            root: Gpa(self.host & ADDRESS),
            levels: (self.host & 7) as u8,
        })
    }

    /// The guest tables (GV), where the unit has them on.
    #[must_use]
    #[inline]
    pub const fn guest(&self) -> Option<GuestTables> {
        if self.guest == 0 {
            return None;
        }
        Some(GuestTables {
            root: Gpa(self.guest & ADDRESS),
            levels: (self.guest & 0xf) as u8,
            paging: (self.guest >> 4 & 0xf) as u8,
        })
    }

    /// What the device table entry allows: IR and IW. Execute goes with read.
    #[must_use]
    #[inline(always)]
    pub const fn rights(&self) -> Access {
        // Read is where `Access` has it, and execute is two bits above.
        let low = (self.switches.bits() & 3) as u8;
        Access::from_bits_retain(low | (low & 1) << 2)
    }

    /// The PASID whose guest tables a request goes through; `None` where it goes through the host's
    /// alone.
    #[must_use]
    #[inline]
    pub fn guest_pasid(&self, pasid: Option<Pasid>) -> Option<Pasid> {
        if self.guest == 0 {
            return None;
        }
        match pasid {
            None if self.switches.contains(Switches::GUEST_IO) => Some(Pasid::default()),
            pasid => pasid,
        }
    }

    /// What an event of a request with this PASID needs.
    #[must_use]
    pub fn detail(&self, pasid: Option<Pasid>) -> Detail {
        Detail {
            domain: self.domain,
            pasid: self.guest_pasid(pasid).or(pasid),
            once: self.switches.contains(Switches::FAULTS_ONCE),
        }
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Space")
            .field("domain", &self.domain)
            .field("host", &self.host())
            .field("guest", &self.guest())
            .field("switches", &self.switches)
            .finish()
    }
}
