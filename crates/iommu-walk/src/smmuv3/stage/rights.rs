//! What an entry that maps a page grants.
//!
//! Spec: DDI 0487, "Memory access control", direct permissions of a regime with two privilege levels, and
//! "Hardware management of the dirty state".

use crate::format::Leaf;
use crate::outcome::Rights;
use crate::smmuv3::formats::WRITABLE;
use crate::smmuv3::space::Switches;
use iommu_wire::smmuv3::pte::{Stage1Entry, Stage2Entry, TableEntry};
use iopf::Access;

/// A stage 1 page is writable-clean: hardware makes it writable when it is written to.
#[inline(always)]
pub(super) const fn clean(leaf: &Leaf, switches: Switches) -> bool {
    leaf.raw & (WRITABLE | Stage1Entry::DIRTY_MODIFIER) == Stage1Entry::DIRTY_MODIFIER
        && leaf.any & TableEntry::READ_ONLY == 0
        && switches.contains(Switches::HARDWARE_DIRTY)
}

/// What stage 1 grants. `clean`: see [`clean`].
#[inline(always)]
pub(super) fn first(leaf: &Leaf, clean: bool, switches: Switches) -> Rights {
    let (raw, any) = (leaf.raw, leaf.any);
    let write = clean || raw & WRITABLE != 0 && any & TableEntry::READ_ONLY == 0;
    let data = if write { Access::RW } else { Access::READ };
    let mut rights = Rights {
        user: Access::empty(),
        privileged: data,
    };
    if raw & Stage1Entry::USER != 0 && any & TableEntry::NO_USER == 0 {
        rights.user = data;
    }
    // What unprivileged requests may write, privileged ones never execute.
    let never = switches.contains(Switches::WRITE_EXECUTE_NEVER);
    if raw & Stage1Entry::PRIVILEGED_EXECUTE_NEVER == 0
        && any & TableEntry::PRIVILEGED_EXECUTE_NEVER == 0
        && !rights.user.contains(Access::WRITE)
        && !(never && write)
    {
        rights.privileged.insert(Access::EXEC);
    }
    if raw & Stage1Entry::USER_EXECUTE_NEVER == 0
        && any & TableEntry::USER_EXECUTE_NEVER == 0
        && !(never && rights.user.contains(Access::WRITE))
    {
        rights.user.insert(Access::EXEC);
    }
    if switches.contains(Switches::PRIVILEGED_ACCESS_NEVER) {
        let of_user = if switches.contains(Switches::ENHANCED_PAN) {
            Access::RW.union(Access::EXEC)
        } else {
            Access::RW
        };
        if rights.user.intersects(of_user) {
            rights.privileged.remove(Access::RW);
        }
    }
    rights
}

/// What stage 2 grants, of a leaf whose dirty state was taken into account.
#[inline(always)]
pub(super) fn second(leaf: &Leaf, execute_levels: bool) -> Rights {
    // S2AP has read and write in the order of `Access`.
    let data = Access::from_bits_retain((leaf.every >> 6 & 0b11) as u8);
    let never = leaf.raw & Stage2Entry::EXECUTE_NEVER != 0;
    let low = leaf.raw & Stage2Entry::EXECUTE_NEVER_LOW != 0 && execute_levels;
    // 00b all, 01b unprivileged, 10b nobody, 11b privileged.
    let with = |execute| {
        if execute {
            data.union(Access::EXEC)
        } else {
            data
        }
    };
    Rights {
        user: with(!never),
        privileged: with(never == low),
    }
}
