//! The guest decides: a fault of its own stage is told to its virtual IOMMU.
//!
//! What the host's IOMMU gave as a reason is about the host's tables. The guest is told the fact
//! alone, and its virtual IOMMU finds the reason in the guest's own tables.

use super::{Decision, Resolver};
use crate::engine::{DeviceId, Group, Handle, Pages, Stray, Verdict};
use crate::{Access, GroupIndex, Iova, Pasid, Response};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// What the guest is told of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The device, in the caller's numbers.
    pub device: DeviceId,
    /// The address space, where the device named one.
    pub pasid: Option<Pasid>,
    /// Where.
    pub addr: Iova,
    /// To do what.
    pub access: Access,
}

/// What became of an injected unrecoverable fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Injected {
    /// The guest's tables deny the access: its virtual IOMMU recorded that, with their reason.
    Told,
    /// The guest's tables translate the access, so there is nothing to tell.
    Vanished,
}

/// A page request did not get into the guest's queue.
///
/// With what the virtual IOMMU answers by itself where the page is the last of its group: SUCCESS
/// after an overflow, so that the device asks again; INVALID where the guest takes no requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the guest's page request queue takes no more")]
pub struct NotQueued(pub Response);

/// A virtual IOMMU, as a place to inject faults.
pub trait Inject {
    /// Walks the guest's own tables for `access`, and tells the guest what they say.
    fn fault(&mut self, access: &Attempt) -> Injected;

    /// Queues one page of a group for the guest, even if its tables translate the access by now:
    /// the device waits for the guest's answer.
    ///
    /// # Errors
    /// [`NotQueued`]; nothing of the page was queued.
    fn page_request(
        &mut self,
        access: &Attempt,
        group: GroupIndex,
        last: bool,
    ) -> Result<(), NotQueued>;
}

/// Injects faults of nested attachments into a guest. The rest stays with the host: page requests
/// are denied, unrecoverable faults logged.
///
/// It remembers a handle for each group the guest owes an answer ([`Injector::answered`] brings
/// it back). A second group of an index is refused until that answer comes, even where the engine
/// gave the first up at its deadline or a detach: the guest names a group by its index alone, so its
/// late answer to the first would be taken for one to the second. A guest that will not answer
/// because it was reset must be forgotten with [`Injector::forget`].
///
/// It remembers at most twice as many as wait in the engine, and 64. A guest that owes more is held
/// to have lost those that the engine gave up.
#[derive(Debug)]
pub struct Injector<I> {
    guest: I,
    pub(super) waiting: HashMap<Key, Handle, FxBuildHasher>,
    /// Look for stale handles at this many.
    prune_at: usize,
}

pub(super) type Key = (DeviceId, Option<Pasid>, GroupIndex);

/// Below this many handles, stale ones are left alone.
const FEW: usize = 64;

impl<I: Inject> Injector<I> {
    /// Injects into `guest`.
    pub fn new(guest: I) -> Self {
        Self {
            guest,
            waiting: HashMap::default(),
            prune_at: FEW,
        }
    }

    /// The guest's virtual IOMMU.
    pub fn guest(&mut self) -> &mut I {
        &mut self.guest
    }

    /// The guest answered a group: the handle to answer with, if it was owed one. It may be stale,
    /// when a deadline or a detach was faster.
    pub fn answered(
        &mut self,
        device: DeviceId,
        pasid: Option<Pasid>,
        group: GroupIndex,
    ) -> Option<Handle> {
        self.waiting.remove(&(device, pasid, group))
    }

    /// The guest owes no answers for `device` any more: it was reset, or the device was taken away
    /// from it. Detach or remove the device at the engine too, which answers what still waits.
    pub fn forget(&mut self, device: DeviceId) {
        self.waiting.retain(|(of, ..), _| *of != device);
    }

    /// Drops stale handles when there are many.
    fn prune(&mut self, pages: &Pages<'_>) {
        if self.waiting.len() >= self.prune_at {
            self.waiting.retain(|_, handle| pages.is_waiting(*handle));
            self.prune_at = self.waiting.len() * 2 + FEW;
        }
    }
}

impl<I: Inject> Resolver for Injector<I> {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        if !group.nested {
            return Decision::Answer(Response::Invalid);
        }
        self.prune(&pages);
        let key = (group.device, group.pasid, group.index);
        if self.waiting.contains_key(&key) {
            return Decision::Refuse;
        }
        let mut last = Ok(());
        for page in pages {
            let access = Attempt {
                device: group.device,
                pasid: page.pasid,
                addr: page.addr,
                access: page.access,
            };
            // As in hardware, the last page decides. A partial one that found no room is gone: the
            // device asks again when it retries.
            last = self.guest.page_request(&access, group.index, page.last);
        }
        if let Err(NotQueued(response)) = last {
            return Decision::Answer(response);
        }
        self.waiting.insert(key, group.handle);
        Decision::Later
    }

    fn stray(&mut self, stray: &Stray) -> Verdict {
        match stray.fault.addr {
            Some(addr) if stray.nested => {
                let access = Attempt {
                    device: stray.device,
                    pasid: stray.fault.pasid,
                    addr,
                    access: stray.fault.access,
                };
                match self.guest.fault(&access) {
                    Injected::Told => Verdict::Injected,
                    Injected::Vanished => Verdict::Vanished,
                }
            }
            _ => Verdict::Logged,
        }
    }
}
