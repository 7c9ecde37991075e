//! The context cache and the PASID cache.
//!
//! Spec: Intel VT-d, "Context-Cache", "PASID-Cache" and the invalidation of each. What is in here is
//! used, however old, until the guest invalidates it; what failed never gets in.

use iommu_walk::vtd::{AddressSpace, Context};
use iommu_wire::vtd::command::{ContextScope, PasidScope};
use iopf::{Pasid, Rid};
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;

/// PASID table entries that are held at most. A cache may forget at any time.
const SPACES: usize = 4096;

/// The point in the history of invalidations at which something was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

/// Both caches.
#[derive(Debug, Default)]
pub struct ConfigCache {
    contexts: HashMap<u16, Context, FxBuildHasher>,
    spaces: HashMap<(u16, u32), AddressSpace, FxBuildHasher>,
    /// Grows with each invalidation.
    invalidations: u64,
}

/// A PASID is below 2^20, so no PASID has this number.
const NO_PASID: u32 = u32::MAX;

fn key(requester: Rid, pasid: Option<Pasid>) -> (u16, u32) {
    (requester.pci(), pasid.map_or(NO_PASID, Pasid::get))
}

impl ConfigCache {
    /// What is to be handed to [`Self::insert`]; take it before the tables are read.
    pub(super) const fn moment(&self) -> Moment {
        Moment(self.invalidations)
    }

    /// The context of a requester.
    #[inline]
    pub(super) fn context(&self, requester: Rid) -> Option<&Context> {
        self.contexts.get(&requester.pci())
    }

    /// The PASID table entry of a requester and PASID.
    #[inline]
    pub(super) fn space(&self, requester: Rid, pasid: Option<Pasid>) -> Option<&AddressSpace> {
        self.spaces.get(&key(requester, pasid))
    }

    /// Remembers what was read from the tables since `moment`, unless something was invalidated
    /// meanwhile.
    pub(super) fn insert(
        &mut self,
        moment: Moment,
        requester: Rid,
        pasid: Option<Pasid>,
        context: &Context,
        space: &AddressSpace,
    ) {
        if self.invalidations != moment.0 {
            return;
        }
        self.contexts.insert(requester.pci(), *context);
        if matches!(context, Context::Scalable(_)) {
            if self.spaces.len() >= SPACES {
                self.spaces.clear();
            }
            self.spaces.insert(key(requester, pasid), *space);
        }
    }

    /// Forgets contexts.
    ///
    /// A scalable-mode context entry names no domain, so a domain's invalidation forgets all of
    /// those.
    pub(super) fn forget_contexts(&mut self, scope: ContextScope) {
        self.invalidations += 1;
        let of = |context: &Context, domain: u16| match context {
            Context::Legacy(space) => space.domain.0 == domain,
            Context::Scalable(_) => true,
        };
        match scope {
            ContextScope::Global => self.contexts.clear(),
            ContextScope::Domain(domain) => {
                self.contexts.retain(|_, context| !of(context, domain));
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
                self.contexts.retain(|rid, context| {
                    let same = (rid ^ source.pci()) & !ignored == 0;
                    !(same && of(context, domain))
                });
            }
        }
    }

    /// Forgets PASID table entries.
    pub(super) fn forget_pasids(&mut self, scope: PasidScope) {
        self.invalidations += 1;
        match scope {
            PasidScope::Global => self.spaces.clear(),
            PasidScope::Domain(domain) => {
                self.spaces.retain(|_, space| space.domain.0 != domain);
            }
            PasidScope::Pasid(domain, pasid) => self.spaces.retain(|_, space| {
                // `space.pasid` is RID_PASID for requests without one.
                space.domain.0 != domain || space.pasid != Some(pasid)
            }),
        }
    }
}

#[cfg(test)]
mod tests;
