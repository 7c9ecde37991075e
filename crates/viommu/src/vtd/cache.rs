//! The context cache and the PASID cache.
//!
//! Spec: Intel VT-d, "Context-Cache", "PASID-Cache" and the invalidation of each. What is in here is
//! used, however old, until the guest invalidates it; what failed never gets in.

use iommu_walk::vtd::{AddressSpace, Context};
use iommu_wire::vtd::command::{ContextScope, PasidScope};
use iopf::{Pasid, Rid};
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// PASID table entries that are held at most. A cache may forget at any time.
const SPACES: usize = 4096;

/// The point in the history of invalidations at which something was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

/// What the caches hold for a requester and PASID.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) context: Option<Context>,
    pub(super) space: Option<AddressSpace>,
    /// To be handed to the insertion of what was not found.
    pub(super) moment: Moment,
}

#[derive(Debug, Default)]
struct Entries {
    contexts: HashMap<u16, Context, FxBuildHasher>,
    spaces: HashMap<(u16, u32), AddressSpace, FxBuildHasher>,
    /// Grows with each invalidation.
    invalidations: u64,
}

/// Both caches.
#[derive(Debug, Default)]
pub(super) struct ConfigCache {
    entries: RwLock<Entries>,
}

/// A PASID is below 2^20, so no PASID has this number.
const NO_PASID: u32 = u32::MAX;

fn key(requester: Rid, pasid: Option<Pasid>) -> (u16, u32) {
    (requester.0, pasid.map_or(NO_PASID, Pasid::get))
}

impl ConfigCache {
    // Nothing panics while the lock is held; if it did, the maps would still be maps.
    fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, Entries> {
        self.entries.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks both up.
    pub(super) fn lookup(&self, requester: Rid, pasid: Option<Pasid>) -> Found {
        let entries = self.read();
        Found {
            context: entries.contexts.get(&requester.0).copied(),
            space: entries.spaces.get(&key(requester, pasid)).copied(),
            moment: Moment(entries.invalidations),
        }
    }

    /// Remembers what was read from the tables since `moment`, unless something was invalidated
    /// meanwhile.
    pub(super) fn insert(
        &self,
        moment: Moment,
        requester: Rid,
        pasid: Option<Pasid>,
        context: &Context,
        space: &AddressSpace,
    ) {
        let mut entries = self.write();
        if entries.invalidations != moment.0 {
            return;
        }
        entries.contexts.insert(requester.0, *context);
        if matches!(context, Context::Scalable(_)) {
            if entries.spaces.len() >= SPACES {
                entries.spaces.clear();
            }
            entries.spaces.insert(key(requester, pasid), *space);
        }
    }

    /// Forgets contexts.
    ///
    /// A scalable-mode context entry names no domain, so a domain's invalidation forgets all of
    /// those.
    pub(super) fn forget_contexts(&self, scope: ContextScope) {
        let mut entries = self.write();
        entries.invalidations += 1;
        let of = |context: &Context, domain: u16| match context {
            Context::Legacy(space) => space.domain.0 == domain,
            Context::Scalable(_) => true,
        };
        match scope {
            ContextScope::Global => entries.contexts.clear(),
            ContextScope::Domain(domain) => {
                entries.contexts.retain(|_, context| !of(context, domain));
            }
            ContextScope::Device {
                domain,
                source,
                function_mask,
            } => {
                // Bits of the function number from bit 2 down: 100b, 110b, 111b.
                let ignored = match function_mask {
                    0 => 0,
                    1 => 0b100,
                    2 => 0b110,
                    _ => 0b111,
                };
                entries.contexts.retain(|rid, context| {
                    let same = (rid ^ source.0) & !ignored == 0;
                    !(same && of(context, domain))
                });
            }
        }
    }

    /// Forgets PASID table entries.
    pub(super) fn forget_pasids(&self, scope: PasidScope) {
        let mut entries = self.write();
        entries.invalidations += 1;
        match scope {
            PasidScope::Global => entries.spaces.clear(),
            PasidScope::Domain(domain) => {
                entries.spaces.retain(|_, space| space.domain.0 != domain);
            }
            PasidScope::Pasid(domain, pasid) => entries.spaces.retain(|_, space| {
                // `space.pasid` is RID_PASID for requests without one.
                space.domain.0 != domain || space.pasid != Some(pasid)
            }),
        }
    }
}
