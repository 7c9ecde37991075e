//! An IOMMU without an architecture: a map of pages, and answers from a script.

use iopf::{Access, Dma, DmaKind, Gpa, Iova, PageRequest, Pasid, Rid};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use viommu_api::{
    Ats, AtsCompletion, Blocked, Ending, Granted, PageRequestOutcome, Pri, Translate,
};

/// Translates by a table of 4 KiB pages; what it is told to answer comes from lists.
///
/// Translated requests pass unchecked.
#[derive(Debug, Default)]
pub struct FakeIommu {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<(Option<Pasid>, u64), (Gpa, Access)>,
    completions: VecDeque<AtsCompletion>,
    outcomes: VecDeque<PageRequestOutcome>,
    endings: VecDeque<Ending>,
    requests: Vec<(Rid, PageRequest)>,
    translations: u64,
}

impl FakeIommu {
    /// An IOMMU that maps nothing and queues every page request.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Maps the page around `at`.
    pub fn map(&self, pasid: Option<Pasid>, at: Iova, to: Gpa, perms: Access) {
        let page = (Gpa(to.0 & !0xfff), perms);
        self.state().pages.insert((pasid, at.0 >> 12), page);
    }

    /// Unmaps the page around `at`. Telling the devices is the caller's business.
    pub fn unmap(&self, pasid: Option<Pasid>, at: Iova) {
        self.state().pages.remove(&(pasid, at.0 >> 12));
    }

    /// The next translation request is answered with this, whatever is mapped.
    pub fn complete_next(&self, completion: AtsCompletion) {
        self.state().completions.push_back(completion);
    }

    /// The next page request meets this outcome instead of being queued.
    pub fn outcome_next(&self, outcome: PageRequestOutcome) {
        self.state().outcomes.push_back(outcome);
    }

    /// The next untranslated request that has no page ends like this, instead of being aborted.
    pub fn end_next(&self, end: Ending) {
        self.state().endings.push_back(end);
    }

    /// Takes the page requests so far, in order.
    #[must_use]
    pub fn take_requests(&self) -> Vec<(Rid, PageRequest)> {
        std::mem::take(&mut self.state().requests)
    }

    /// Translation requests so far.
    #[must_use]
    pub fn translations(&self) -> u64 {
        self.state().translations
    }
}

impl State {
    fn find(&self, pasid: Option<Pasid>, at: Iova) -> Option<(Gpa, Access)> {
        let (base, perms) = *self.pages.get(&(pasid, at.0 >> 12))?;
        Some((Gpa(base.0 | (at.0 & 0xfff)), perms))
    }
}

impl Translate for FakeIommu {
    fn with_translation(
        &self,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        if dma.kind == DmaKind::Translated {
            each(Gpa(dma.addr.0), len);
            return Ok(());
        }
        let (mut at, mut left) = (dma.addr, len);
        while left > 0 {
            let piece = left.min(4096 - (at.0 & 0xfff));
            let found = self.state().find(dma.pasid, at);
            match found {
                Some((pa, perms)) if perms.contains(dma.access - Access::PRIV) => each(pa, piece),
                _ => {
                    let end = self.state().endings.pop_front();
                    let end = end.unwrap_or(Ending::Aborted);
                    return Err(Blocked { at, end });
                }
            }
            at = Iova(at.0.wrapping_add(piece));
            left -= piece;
        }
        Ok(())
    }
}

impl Ats for FakeIommu {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        let mut state = self.state();
        state.translations += 1;
        if let Some(completion) = state.completions.pop_front() {
            return completion;
        }
        let (pa, perms) = state
            .find(dma.pasid, dma.addr)
            .unwrap_or((Gpa(0), Access::empty()));
        AtsCompletion::Success {
            granted: Granted {
                pa,
                page_shift: 12,
                perms,
            },
            global: false,
        }
    }
}

impl Pri for FakeIommu {
    fn page_request(&self, requester: Rid, request: &PageRequest) -> PageRequestOutcome {
        let mut state = self.state();
        state.requests.push((requester, *request));
        state
            .outcomes
            .pop_front()
            .unwrap_or(PageRequestOutcome::Queued)
    }
}
