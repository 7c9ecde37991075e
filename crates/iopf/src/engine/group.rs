//! Partial pages, groups, and what a resolver gets to see of them.

use super::loss::Losses;
use super::slab::{NIL, NO_PASID, Slab, Slot, State, flag};
use super::{DeviceId, DomainId, Engine, Handle, Reported, Tick};
use crate::{Access, Gpa, GroupIndex, Iova, PageRequest, Pasid, Reason, Unrecoverable};

/// A page request group that waits for its one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// To answer it with, and to look at its pages with [`Engine::pages`].
    pub handle: Handle,
    /// Who asks.
    pub device: DeviceId,
    /// The attachment's domain.
    pub domain: DomainId,
    /// The attachment is nested: the guest's own tables come first.
    pub nested: bool,
    /// The PASID of the last page. Under [`Policy::linux`](super::Policy::linux) other pages may
    /// name another.
    pub pasid: Option<Pasid>,
    /// The group's index. Not unique: key on the handle.
    pub index: GroupIndex,
    /// How many pages, at least 1.
    pub pages: u32,
    /// When the last page came.
    pub since: Tick,
}

/// An unrecoverable fault that waits for its one verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// To judge it with.
    pub handle: Handle,
    /// Whose transaction it was.
    pub device: DeviceId,
    /// The attachment's domain.
    pub domain: DomainId,
    /// The attachment is nested: the guest's own tables come first.
    pub nested: bool,
    /// Everything known of it.
    pub fault: Unrecoverable,
    /// When it came.
    pub since: Tick,
}

/// Something to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Answer it with [`Engine::answer`].
    Group(Group),
    /// Judge it with [`Engine::judge`].
    Stray(Stray),
}

/// The pages of a group, in the order they came.
#[derive(Clone, Debug)]
pub struct Pages<'a>(Source<'a>);

#[derive(Clone, Debug)]
enum Source<'a> {
    Engine {
        slab: &'a Slab,
        next: u32,
        last: u32,
        left: u32,
    },
    /// The only page of a group that has no slot yet, and will have the next.
    One {
        slab: &'a Slab,
        page: Option<&'a PageRequest>,
    },
    Copy(core::slice::Iter<'a, PageRequest>),
}

impl<'a> Pages<'a> {
    /// The `left` pages of a group: the chain from `next` on, and `last`.
    #[inline]
    pub(super) fn of(slab: &'a Slab, next: u32, last: u32, left: u32) -> Self {
        Self(Source::Engine {
            slab,
            next,
            last,
            left,
        })
    }

    /// The only page of a group that has no slot yet, and will have the next.
    #[inline]
    pub(super) fn one(slab: &'a Slab, page: &'a PageRequest) -> Self {
        let page = Some(page);
        Self(Source::One { slab, page })
    }

    /// Pages that were copied out of the engine, for a resolver that works away from it.
    #[must_use]
    pub fn copied(pages: &'a [PageRequest]) -> Self {
        Self(Source::Copy(pages.iter()))
    }

    /// Whether `handle` names something that still waits. Away from the engine nobody knows, and
    /// everything counts as waiting.
    #[must_use]
    pub fn is_waiting(&self, handle: Handle) -> bool {
        match &self.0 {
            Source::Engine { slab, .. } => slab.waiting(handle).is_some(),
            Source::One { slab, .. } => slab.is_next(handle) || slab.waiting(handle).is_some(),
            Source::Copy(_) => true,
        }
    }
}

impl Iterator for Pages<'_> {
    type Item = PageRequest;

    fn next(&mut self) -> Option<PageRequest> {
        match &mut self.0 {
            Source::Copy(pages) => pages.next().copied(),
            Source::One { page, .. } => page.take().map(|page| PageRequest {
                last: true,
                ..*page
            }),
            Source::Engine { left: 0, .. } => None,
            Source::Engine {
                slab,
                next,
                last,
                left,
            } => {
                *left -= 1;
                if *next == NIL {
                    return Some(page(slab.at(*last), true));
                }
                let slot = slab.at(*next);
                *next = slot.link;
                Some(page(slot, false))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            Source::Engine { left, .. } => *left as usize,
            Source::One { page, .. } => usize::from(page.is_some()),
            Source::Copy(pages) => pages.len(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pages<'_> {}

pub(super) fn pasid(slot: &Slot) -> Option<Pasid> {
    Pasid::new(slot.pasid)
}

fn page(slot: &Slot, last: bool) -> PageRequest {
    PageRequest {
        pasid: pasid(slot),
        group: GroupIndex(slot.group),
        addr: Iova(slot.addr),
        access: Access::from_bits_truncate(slot.access),
        last,
        response_needs_pasid: slot.has(flag::NEEDS_PASID),
        private_data: slot.private,
    }
}

pub(super) fn stray(slot: &Slot) -> Unrecoverable {
    let [fetch, reason] = slot.private;
    let [a, b, c, d, ..] = reason.to_le_bytes();
    Unrecoverable {
        reason: Reason(u32::from_le_bytes([a, b, c, d])),
        pasid: pasid(slot),
        access: Access::from_bits_truncate(slot.access),
        addr: slot.has(flag::ADDR).then_some(Iova(slot.addr)),
        fetch_addr: slot.has(flag::FETCH).then_some(Gpa(fetch)),
    }
}

impl Engine {
    /// The next fault to resolve, each once, in the order the policy calls for.
    ///
    /// It need not be resolved before the next call, and not in this order.
    #[must_use = "what was delivered is not delivered again"]
    #[inline]
    pub fn poll_fault(&mut self) -> Option<Delivery> {
        if self.order.is_empty() {
            return None;
        }
        self.next_fault()
    }

    fn next_fault(&mut self) -> Option<Delivery> {
        let index = self.order.pop(&mut self.devices, &mut self.slab)?;
        Some(self.delivery(index))
    }

    fn delivery(&self, index: u32) -> Delivery {
        let slot = self.slab.at(index);
        let device = self.devices.at(slot.device);
        let handle = Handle {
            slot: index,
            generation: slot.generation,
        };
        let (domain, nested) = (DomainId(slot.domain_or_tail), slot.has(flag::NESTED));
        let (device, since) = (device.id, Tick(slot.at));
        if slot.has(flag::UNRECOVERABLE) {
            Delivery::Stray(Stray {
                handle,
                device,
                domain,
                nested,
                fault: stray(slot),
                since,
            })
        } else {
            Delivery::Group(Group {
                handle,
                device,
                domain,
                nested,
                pasid: pasid(slot),
                index: GroupIndex(slot.group),
                pages: slot.count,
                since,
            })
        }
    }

    /// The pages of a waiting group; `None` where `handle` is stale or names no group.
    #[must_use]
    pub fn pages(&self, handle: Handle) -> Option<Pages<'_>> {
        let slot = self.slab.waiting(handle)?;
        if slot.has(flag::UNRECOVERABLE) {
            return None;
        }
        Some(Pages::of(&self.slab, slot.link, handle.slot, slot.count))
    }

    /// The chain of partial pages that `page` belongs to, or [`NIL`].
    pub(super) fn find_chain(&self, place: u32, page: &PageRequest, by_rid: bool) -> u32 {
        let of_pasid = page.pasid.map_or(NO_PASID, Pasid::get);
        let mut index = self.devices.at(place).open;
        while index != NIL {
            let slot = self.slab.at(index);
            let same_space = slot.pasid == of_pasid && slot.has(flag::BY_RID) == by_rid;
            // The kernel compares the index alone.
            if slot.group == page.group.0 && (same_space || !self.policy.strict) {
                break;
            }
            index = self.slab.links(index).next;
        }
        index
    }

    /// Keeps a partial page at the end of its chain.
    pub(super) fn collect(&mut self, place: u32, index: u32, page: &PageRequest) {
        let by_rid = self.slab.at(index).has(flag::BY_RID);
        let chain = self.find_chain(place, page, by_rid);
        let slot = self.slab.at_mut(index);
        slot.state = State::Page;
        if chain == NIL {
            slot.domain_or_tail = index;
            self.devices.open(&mut self.slab, place, index);
            self.arm(place);
        } else {
            let head = self.slab.at_mut(chain);
            head.count += 1;
            let tail = core::mem::replace(&mut head.domain_or_tail, index);
            self.slab.at_mut(tail).link = index;
        }
    }

    /// The last page of a group: takes the partial ones over and queues the group.
    #[inline]
    pub(super) fn complete(&mut self, place: u32, index: u32, page: &PageRequest) -> Reported {
        if self.devices.at(place).open != NIL {
            let by_rid = self.slab.at(index).has(flag::BY_RID);
            let chain = self.find_chain(place, page, by_rid);
            if chain != NIL {
                self.devices.unopen(&mut self.slab, place, chain);
                let partial = self.slab.at(chain).count;
                let slot = self.slab.at_mut(index);
                slot.link = chain;
                slot.count = partial + 1;
            }
        }
        self.enqueue(place, index)
    }

    /// Frees the chain that starts at `index`, in no list any more; returns how many pages.
    pub(super) fn free_chain(&mut self, place: u32, mut index: u32) -> u64 {
        let mut pages = 0;
        while index != NIL {
            let next = self.slab.at(index).link;
            self.put(place, index);
            pages += 1;
            index = next;
        }
        pages
    }

    /// Discards a chain of partial pages.
    pub(super) fn drop_chain(&mut self, place: u32, chain: u32) -> u64 {
        self.devices.unopen(&mut self.slab, place, chain);
        // Counted first: the device's place may go with its last page.
        let losses = Losses {
            discarded: u64::from(self.slab.at(chain).count),
            ..Losses::default()
        };
        self.lose(place, losses);
        self.free_chain(place, chain)
    }

    /// Discards every chain of the device at `place`.
    pub(super) fn drop_chains(&mut self, place: u32) -> u64 {
        let mut pages = 0;
        loop {
            let head = self.devices.at(place).open;
            if head == NIL {
                return pages;
            }
            pages += self.drop_chain(place, head);
        }
    }
}
