//! Which branch a page, a group or an answer went through: for the table of hits alone.

use super::{Attached, Branch, DomainId, Name, Page, Pasid, World};

/// A partial page that the engine keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Partial {
    pub(super) device: Name,
    pub(super) group: u32,
}

/// A group that waits for its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outstanding {
    device: Name,
    group: u32,
    /// The address of its last page.
    addr: u64,
    pages: usize,
}

/// A group as a queue got it: its pages' PASIDs, and the domain each page came by.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) domain: DomainId,
    pub(super) pages: Vec<(Option<Pasid>, u64)>,
    pub(super) read: bool,
}

impl World {
    /// The domain whose handler a page finds, by the rules of `find_fault_handler`.
    pub(super) fn classify_handler(&mut self, page: &Page) -> Option<DomainId> {
        let attached = &self.devices.get(&page.device)?.attached;
        let own = attached.get(&page.pasid).copied();
        let function = attached.get(&0).copied();
        let served = |attached: &Attached| self.is_served(attached);
        let (branch, handler) = match own {
            Some(own) if page.pasid != 0 && served(&own) => (Branch::HandlerOfPasid, Some(own)),
            Some(own) if served(&own) => (Branch::HandlerOfFunction, Some(own)),
            Some(_) if page.pasid != 0 => (Branch::PasidNotServed, None),
            Some(_) => (Branch::FunctionNotServed, None),
            None if page.pasid == 0 => (Branch::FunctionDetached, None),
            None => match function.filter(|function| self.is_nested(function)) {
                Some(function) if served(&function) => (Branch::HandlerByFallback, Some(function)),
                Some(_) => (Branch::FunctionNotServed, None),
                None => (Branch::NoFallback, None),
            },
        };
        self.hits.hit(branch);
        handler.map(|handler| handler.domain)
    }

    fn kept(&self, page: &Page) -> bool {
        let mut partials = self.partials.iter();
        partials.any(|kept| kept.device == page.device && kept.group == page.group)
    }

    pub(super) fn classify_refusal(&mut self, page: &Page) {
        let kept = self.kept(page);
        self.hits.hit(if page.last {
            Branch::RefusedLast
        } else {
            Branch::RefusedPartial
        });
        self.hits
            .hit_if(page.last && kept, Branch::StaleAfterRefusal);
    }

    /// The group ends here, and its partial pages with it.
    pub(super) fn classify_no_memory(&mut self, page: &Page) {
        let kept = self.kept(page);
        self.hits.hit(Branch::NoMemoryLast);
        self.hits.hit_if(kept, Branch::NoMemoryDrops);
        self.partials
            .retain(|kept| kept.device != page.device || kept.group != page.group);
    }

    pub(super) fn classify_group(&mut self, page: &Page, seen: &Seen) {
        let of_this = |kept: &Partial| kept.device == page.device && kept.group == page.group;
        self.partials.retain(|kept| !of_this(kept));
        let others = self.partials.iter().any(|kept| kept.device == page.device);
        let count = seen.pages.len();
        let pasid = seen.pages.last().and_then(|(pasid, _)| *pasid);
        let ended = |by: &u64| {
            let by = u32::try_from(*by).ok()?;
            self.ended.get(&DomainId(by)).copied()
        };
        let stale = |replaced: bool| {
            let mut pages = seen.pages.iter();
            pages.any(|(_, by)| ended(by) == Some(replaced))
        };
        let (detached, replaced) = (stale(false), stale(true));
        let mut waiting = self.outstanding.iter();
        let twice = waiting.any(|other| other.device == page.device && other.group == page.group);
        let hits = &mut self.hits;
        hits.hit(Branch::HandlerTook);
        hits.hit(Branch::Delivered);
        hits.hit(if count == 1 {
            Branch::GroupOfOne
        } else {
            Branch::GroupOfMany
        });
        let two = seen.pages.iter().any(|(of, _)| *of != pasid);
        hits.hit_if(two, Branch::GroupOfTwoPasids);
        hits.hit_if(others, Branch::OthersStay);
        hits.hit_if(twice, Branch::SameIndexTwice);
        hits.hit_if(detached, Branch::StaleAfterDetach);
        hits.hit_if(replaced, Branch::StaleAfterReplace);
        hits.hit_if(!seen.read, Branch::QueueWithoutReader);
        debug_assert!(
            !self.ended.contains_key(&seen.domain),
            "its handler is attached"
        );
        self.outstanding.push(Outstanding {
            device: page.device,
            group: page.group,
            addr: page.addr,
            pages: count,
        });
    }

    pub(super) fn classify_answer(&mut self, addr: u64) {
        let found = self.outstanding.iter().position(|group| group.addr == addr);
        let group = found.map(|index| self.outstanding.swap_remove(index));
        let many = group.is_some_and(|group| group.pages > 1);
        self.hits.hit_if(many, Branch::OneAnswer);
    }
}
