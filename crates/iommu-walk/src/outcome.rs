//! What a walk gives, of whichever architecture.

use iopf::{Access, Gpa};

/// A page table: where its top lies, and its number of levels (VT-d: 3–5; AMD-Vi: 1–6; SMMUv3: 1–4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageTable {
    /// The top table, a multiple of 4 KiB (SMMUv3: of its size, at least 16 bytes). In a nested walk the
    /// first stage's is a guest address.
    pub root: Gpa,
    /// How many levels there are.
    pub levels: u8,
}

/// What a translation grants, for every kind of requester in its address space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights {
    /// To a request in user mode; of [`Access::READ`], [`Access::WRITE`] and [`Access::EXEC`].
    pub user: Access,
    /// To a privileged request.
    pub privileged: Access,
}

impl Rights {
    /// What a request in privileged mode or not may do.
    #[must_use]
    #[inline]
    pub const fn of(self, privileged: bool) -> Access {
        if privileged {
            self.privileged
        } else {
            self.user
        }
    }
}

/// A translation, and what may be concluded from it for the page around the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Where the requested address lies.
    pub pa: Gpa,
    /// The size of the page that all this holds for, as a power of two: 12 for 4 KiB. A page that
    /// would reach into a range that is treated otherwise (VT-d: the interrupt range) is cut to
    /// 4 KiB.
    pub page_shift: u8,
    /// SMMUv3: the size of the first-stage page that the second stage has this one cut out of, as a power of
    /// two; 0 for a page of its own. Whoever invalidates one address of it means all of it. VT-d and AMD-Vi
    /// do not say so: their invalidations name a size.
    pub cut_from: u8,
    /// What the tables grant there, whatever was asked. A request that these rights refuse needs a
    /// walk of its own, which finds the reason.
    pub rights: Rights,
    /// What this request may do: its share of `rights`; without write, for a translation request
    /// that does not ask for it.
    pub perms: Access,
    /// A later write through a cached copy may skip the walk: the page's dirty bits are set, or
    /// will be by this walk's updates, or there are none.
    pub dirty: bool,
    /// Device accesses must be snooped: the N bit of a translation completion is clear. VT-d:
    /// `PGSNP`, or `SNP` of the second-stage leaf; AMD-Vi: `FC` of the host leaf; SMMUv3: always.
    pub snoop: bool,
    /// Every address space of the same virtual machine shares it: SMMUv3, nG of the stage 1 leaf is clear.
    /// VT-d and AMD-Vi do not say so of what they cache.
    pub global: bool,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It reaches memory (or a translation completion) through this translation.
    Memory(Translation),
    /// Its address, 0xfee0_0000–0xfeef_ffff without a PASID, is the interrupt range. An
    /// untranslated write there is an interrupt message, which is not remapped as DMA; a
    /// zero-length read completes. A translation request is answered *untranslated access only*
    /// (U=W=1, R=0), or without any permission if it does not ask for write.
    InterruptRange,
}
