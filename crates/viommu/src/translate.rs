//! From a request to memory, through the caches.
//!
//! A hit is one look-up in the [`Iotlb`], without a lock. A miss reads what the cache of configuration
//! entries holds, walks the rest, and fills the caches in, unless the guest invalidated something
//! meanwhile.

use crate::arch::Tables;
use crate::iotlb::{Aim, Epoch, Hit, Iotlb, Mapping, Need, Scope, Source};
use crate::memo::{self, Edition};
use iommu_walk::{Applied, Outcome, TableMem, TableMemMut, Translation, Updates};
use iopf::{Access, Dma, DmaKind, Gpa, Iova};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How often a walk is done again because the guest changed an entry under it.
pub(crate) const RETRIES: u32 = 8;

/// Where a request goes, and the size of the page that this holds for, as a power of two.
// Two words with a niche, so that an `Option` of it comes back in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) pa: Gpa,
    page_shift: NonZeroU8,
}

impl Target {
    #[inline]
    const fn new(pa: Gpa, page_shift: u8) -> Self {
        let page_shift = match NonZeroU8::new(page_shift) {
            Some(shift) => shift,
            None => NonZeroU8::MIN,
        };
        Self { pa, page_shift }
    }

    #[inline]
    pub(crate) const fn of(hit: Hit, addr: Iova) -> Self {
        Self::new(hit.output(addr), hit.page_shift())
    }

    /// How much of `left` bytes from `addr` on lies in the page.
    #[inline]
    pub(crate) fn part<X: Tables>(&self, addr: Iova, left: u64) -> u64 {
        if left <= 0x1000 - (addr.0 & 0xfff) {
            // Whatever the page's size is.
            return left;
        }
        let page = 1u64 << (self.page_shift.get() & 63);
        let part = (page - (addr.0 & (page - 1))).min(left);
        match X::CUT.and_then(|cut| cut.checked_sub(addr.0)) {
            Some(before @ 1..) => part.min(before),
            _ => part,
        }
    }
}

/// A request that may be in the IOTLB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Aimed<'a> {
    aim: Aim<'a>,
    need: Need,
}

/// What a translation depends on.
#[derive(Debug)]
pub(crate) struct Translator<X: Tables> {
    /// No other translator of this process has it.
    number: u64,
    on: AtomicBool,
    /// Moves with every change of what is behind the lock but a filling of the caches.
    generation: AtomicU64,
    shared: RwLock<Shared<X>>,
    /// `None`: nothing is cached, configuration neither.
    iotlb: Option<Iotlb>,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Behind one lock, since a miss needs both.
#[derive(Debug)]
struct Shared<X: Tables> {
    walk: X::Walk,
    cache: X::Cache,
}

impl<X: Tables> Translator<X> {
    /// Caches empty; `iotlb_entries` of 0 is no cache at all.
    pub(crate) fn new(walk: X::Walk, iotlb_entries: usize) -> Self {
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            on: AtomicBool::new(X::enabled(&walk)),
            generation: AtomicU64::new(0),
            shared: RwLock::new(Shared {
                walk,
                cache: X::Cache::default(),
            }),
            iotlb: (iotlb_entries > 0).then(|| Iotlb::new(iotlb_entries)),
        }
    }

    // Nothing panics while the lock is held; if it did, what it guards would still be whole.
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, Shared<X>> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, Shared<X>> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a change that makes what threads remember out of date.
    fn change(&self) -> RwLockWriteGuard<'_, Shared<X>> {
        let shared = self.write();
        // Threads take copies under the lock, so none has one that is half changed.
        self.generation.fetch_add(1, Ordering::SeqCst);
        shared
    }

    #[inline]
    fn edition(&self) -> Edition {
        Edition {
            translator: self.number,
            generation: self.generation.load(Ordering::SeqCst),
        }
    }

    /// The unit as walks see it.
    pub(crate) fn walk(&self) -> X::Walk {
        self.read().walk
    }

    /// Takes over what the registers say to walks.
    ///
    /// What the caches hold stays. Requests under way may still see the old state when this
    /// returns; wait for them.
    pub(crate) fn configure(&self, walk: X::Walk) {
        let mut shared = self.change();
        shared.walk = walk;
        self.on.store(X::enabled(&walk), Ordering::SeqCst);
    }

    /// All of a look-up that depends on the request alone: to be done before its session is opened.
    /// `None`: only a walk can serve it.
    #[inline]
    pub(crate) fn aim(&self, dma: &Dma) -> Option<Aimed<'_>> {
        let iotlb = self.iotlb.as_ref()?;
        if dma.kind != DmaKind::Untranslated {
            return None;
        }
        if X::special(dma) {
            return None;
        }
        Some(Aimed {
            aim: iotlb.aim(dma.requester, dma.pasid, dma.addr),
            need: Need::new(X::asked(dma)?),
        })
    }

    /// Serves a request from the caches, if they can.
    #[inline(always)]
    pub(crate) fn hit(&self, aimed: &Aimed<'_>) -> Option<Hit> {
        if !self.on.load(Ordering::SeqCst) {
            return None;
        }
        aimed.aim.look_for(aimed.need)
    }

    /// Translates an untranslated or translated request by walking, and fills the caches. `None`: it
    /// failed, and `failed` has what the guest's tables, or what the caches still hold of them, call
    /// for.
    // A `Result` would copy the failure at each return, and each copy waits for the one before.
    #[inline]
    pub(crate) fn miss<M: TableMemMut>(
        &self,
        mem: &M,
        dma: &Dma,
        failed: &mut Option<X::Failure>,
    ) -> Option<Target> {
        let iotlb = self.iotlb.as_ref();
        // Before anything that the result depends on is read.
        let epoch = iotlb.map(Iotlb::epoch);
        let remembered = memo::with::<X, _>(|memo| {
            let walk = memo.walk(self.edition())?;
            let (Some(iotlb), Some(epoch), true) = (iotlb, epoch, X::enabled(walk)) else {
                return Some(bare::<X, _>(walk, mem, dma, failed));
            };
            let ordinary = dma.kind == DmaKind::Untranslated && !X::special(dma);
            let space = memo.space(dma.requester, dma.pasid).filter(|_| ordinary)?;
            Some(serve::<X, _>(walk, space, iotlb, epoch, mem, dma, failed))
        });
        match remembered.flatten() {
            Some(found) => found,
            None => self.look_up(mem, dma, failed),
        }
    }

    /// Takes over what this thread may remember.
    fn note(&self, shared: &Shared<X>, dma: &Dma, space: Option<&X::Space>) {
        memo::with::<X, _>(|memo| {
            memo.renew(self.edition(), &shared.walk);
            if let Some(space) = space
                && dma.kind == DmaKind::Untranslated
            {
                memo.add(dma.requester, dma.pasid, space);
            }
        });
    }

    /// A miss of which this thread does not remember enough.
    #[inline(never)]
    fn look_up<M: TableMemMut>(
        &self,
        mem: &M,
        dma: &Dma,
        failed: &mut Option<X::Failure>,
    ) -> Option<Target> {
        let shared = self.read();
        match &self.iotlb {
            Some(iotlb) if X::enabled(&shared.walk) => {
                match self.through(shared, iotlb, mem, dma, failed) {
                    Ok(found) => found,
                    Err(failure) => {
                        *failed = Some(failure);
                        None
                    }
                }
            }
            _ => {
                self.note(&shared, dma, None);
                bare::<X, _>(&shared.walk, mem, dma, failed)
            }
        }
    }

    /// Through the caches.
    #[inline]
    fn through<M: TableMemMut>(
        &self,
        shared: RwLockReadGuard<'_, Shared<X>>,
        iotlb: &Iotlb,
        mem: &M,
        dma: &Dma,
        failed: &mut Option<X::Failure>,
    ) -> Result<Option<Target>, X::Failure> {
        let Shared { walk, cache } = &*shared;
        // Before anything that the result depends on is read.
        let epoch = iotlb.epoch();
        if dma.kind == DmaKind::Translated {
            let translation = X::translated(walk, cache, mem, dma)?;
            return Ok(Some(target(&Outcome::Memory(translation), dma)));
        }
        if X::special(dma) {
            return Ok(bare::<X, _>(walk, mem, dma, failed));
        }
        if let Some(space) = X::known(walk, cache, dma) {
            self.note(&shared, dma, Some(space));
            return Ok(serve::<X, _>(walk, space, iotlb, epoch, mem, dma, failed));
        }
        let fresh = X::configure(walk, cache, mem, dma)?;
        let space = X::space(&fresh);
        let found = serve::<X, _>(walk, space, iotlb, epoch, mem, dma, failed);
        drop(shared);
        X::keep(&mut self.write().cache, dma, &fresh);
        Ok(found)
    }

    /// Answers a translation request. It goes through the cache of configuration entries, but neither
    /// uses nor fills the IOTLB.
    ///
    /// # Errors
    /// As for [`Self::miss`].
    pub(crate) fn ats<M: TableMemMut>(&self, mem: &M, dma: &Dma) -> Result<Outcome, X::Failure> {
        let shared = self.read();
        let Shared { walk, cache } = &*shared;
        if self.iotlb.is_none() || !X::enabled(walk) {
            return without_caches::<X, _, _>(walk, mem, dma, owned);
        }
        if let Some(space) = X::known(walk, cache, dma) {
            // What the configuration forbids of a translation request, the walk finds again.
            return walked::<X, _, _>(walk, space, mem, dma, owned);
        }
        let fresh = X::configure(walk, cache, mem, dma)?;
        let result = walked::<X, _, _>(walk, X::space(&fresh), mem, dma, owned);
        drop(shared);
        X::keep(&mut self.write().cache, dma, &fresh);
        result
    }

    /// Checks a page request, without the caches, and forgets the translations that it is about, where
    /// the architecture has it so: software may grant more without saying so.
    ///
    /// # Errors
    /// As for [`Tables::page_request`].
    pub(crate) fn page_request<M: TableMem>(&self, mem: &M, dma: &Dma) -> Result<(), X::Failure> {
        if let Some(scope) = X::page_request(&self.walk(), mem, dma)? {
            self.forget(scope);
        }
        Ok(())
    }

    /// Has configuration entries forgotten.
    pub(crate) fn forget_configuration(&self, forget: impl FnOnce(&mut X::Cache)) {
        if let Some(iotlb) = &self.iotlb {
            forget(&mut self.change().cache);
            iotlb.clear_sources();
        }
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        self.forget_configuration(X::forget_all);
        self.forget(Scope::Global);
    }

    /// Forgets translations.
    pub(crate) fn forget(&self, scope: Scope) {
        if let Some(iotlb) = &self.iotlb {
            iotlb.invalidate(scope);
        }
    }
}

/// Without any cache.
#[inline(never)]
fn bare<X: Tables, M: TableMemMut>(
    walk: &X::Walk,
    mem: &M,
    dma: &Dma,
    failed: &mut Option<X::Failure>,
) -> Option<Target> {
    without_caches::<X, _, _>(walk, mem, dma, |outcome| match outcome {
        Ok(outcome) => Some(target(outcome, dma)),
        Err(failure) => {
            *failed = Some(*failure);
            None
        }
    })
}

/// Translates without any cache, and hands what comes out to `end` where it lies.
#[inline(always)]
fn without_caches<X: Tables, M: TableMemMut, T>(
    walk: &X::Walk,
    mem: &M,
    dma: &Dma,
    end: impl FnOnce(Result<&Outcome, &X::Failure>) -> T,
) -> T {
    let mut updates = Updates::new();
    for _ in 0..RETRIES {
        let outcome = X::translate(walk, mem, dma, &mut updates);
        if updates.is_empty() {
            return end(outcome.as_ref());
        }
        // Of a walk that failed, what hides it is known by its failure.
        let hidden = outcome.as_ref().err().is_some_and(X::hidden);
        match X::apply(walk, mem, dma, &updates, hidden) {
            Applied::Done => return end(outcome.as_ref()),
            Applied::Retry => {}
            Applied::Failed(failure) => {
                return end(Err(outcome.as_ref().err().unwrap_or(&failure)));
            }
        }
    }
    end(Err(&X::contended(walk, mem, dma, false)))
}

/// Translates in an address space that is known, and fills the IOTLB.
#[inline(never)]
fn serve<X: Tables, M: TableMemMut>(
    walk: &X::Walk,
    space: &X::Space,
    iotlb: &Iotlb,
    epoch: Epoch,
    mem: &M,
    dma: &Dma,
    failed: &mut Option<X::Failure>,
) -> Option<Target> {
    let source = X::source(space, dma.pasid);
    // A known source is what the look-up before this one went by, and it found nothing.
    let known = iotlb.knows(dma.requester, dma.pasid, &source);
    let elsewhere = if known {
        None
    } else {
        cached::<X>(iotlb, &source, dma)
    };
    let found = elsewhere.or_else(|| {
        walked::<X, _, _>(walk, space, mem, dma, |outcome| match outcome {
            Ok(outcome) => {
                if let Outcome::Memory(translation) = outcome {
                    let (tag, place) =
                        (X::tag(&source, translation), source.habits.place(dma.addr));
                    if translation.cut_from > 0 {
                        iotlb.cut(translation.cut_from);
                    }
                    iotlb.insert(epoch, tag, place, &mapping(translation));
                }
                Some(target(outcome, dma))
            }
            Err(failure) => {
                *failed = Some(*failure);
                None
            }
        })
    })?;
    if !known {
        iotlb.insert_source(epoch, dma.requester, dma.pasid, &source);
    }
    Some(found)
}

/// Walks the page tables, sets accessed and dirty bits, and hands what comes out to `end` where it
/// lies.
#[inline(always)]
fn walked<X: Tables, M: TableMemMut, T>(
    walk: &X::Walk,
    space: &X::Space,
    mem: &M,
    dma: &Dma,
    end: impl FnOnce(Result<&Outcome, &X::Failure>) -> T,
) -> T {
    let mut updates = Updates::new();
    let hidden = X::hides(space);
    for _ in 0..RETRIES {
        updates.clear();
        let outcome = X::walk(walk, space, mem, dma, &mut updates);
        if updates.is_empty() {
            return end(outcome.as_ref());
        }
        match X::apply(walk, mem, dma, &updates, hidden) {
            Applied::Done => return end(outcome.as_ref()),
            Applied::Retry => {}
            Applied::Failed(failure) => {
                return end(Err(outcome.as_ref().err().unwrap_or(&failure)));
            }
        }
    }
    end(Err(&X::contended(walk, mem, dma, hidden)))
}

fn owned<F: Copy>(outcome: Result<&Outcome, &F>) -> Result<Outcome, F> {
    outcome.copied().map_err(|failure| *failure)
}

/// What the IOTLB has for an address space that is known only now: another requester's page, or one
/// from before a configuration entry was forgotten.
#[inline]
fn cached<X: Tables>(iotlb: &Iotlb, source: &Source, dma: &Dma) -> Option<Target> {
    let hit = source.leaves(iotlb.lookup_source(source, dma.addr)?);
    let serves = hit.serves(X::asked(dma)?);
    serves.then(|| Target::of(hit, dma.addr))
}

#[inline]
fn target(outcome: &Outcome, dma: &Dma) -> Target {
    match outcome {
        Outcome::Memory(translation) => Target::new(translation.pa, translation.page_shift),
        Outcome::InterruptRange => Target::new(Gpa(dma.addr.0), 12),
    }
}

/// What a request of PCIe asks of a cached page; see [`Tables::asked`]. A zero-length read is for a walk
/// to judge.
#[inline]
pub(crate) fn asked_of_pcie(dma: &Dma) -> Option<Access> {
    let mut access = dma.access;
    if dma.pasid.is_none() {
        // Privilege and execution travel with a PASID.
        access.remove(Access::PRIV);
        if access.contains(Access::EXEC) {
            access = access.difference(Access::EXEC).union(Access::READ);
        }
    }
    access.intersects(RWX).then_some(access)
}

const RWX: Access = Access::RW.union(Access::EXEC);

fn mapping(translation: &Translation) -> Mapping {
    let mask = (1u64 << (translation.page_shift & 63)) - 1;
    Mapping {
        page: Gpa(translation.pa.0 & !mask),
        page_shift: translation.page_shift,
        user: translation.rights.user,
        supervisor: translation.rights.privileged,
        dirty: translation.dirty,
    }
}
