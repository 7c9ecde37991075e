//! From a request to memory, through the caches.
//!
//! A hit is one look-up in the [`Iotlb`], without a lock. A miss reads what the context and PASID
//! caches hold, walks the rest, and fills the caches in, unless the guest invalidated something
//! meanwhile.

use super::cache::{ConfigCache, Moment};
use super::config::Config;
use super::memo::{self, Edition};
use crate::iotlb::{Aim, Epoch, Hit, Iotlb, Mapping, Need, Pages, Scope, Source, Stage, Tag};
use iommu_walk::vtd::{
    self as walk, AddressSpace, Applied, Context, Failure, Outcome, Switches, Translate,
    Translation, Unit,
};
use iommu_walk::{TableMem, TableMemMut, Updates};
use iommu_wire::vtd::command::{ContextScope, IotlbScope, PasidScope, Range};
use iommu_wire::vtd::regs::{Cap, Ecap, RootTableAddress};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid};
use std::num::NonZeroU8;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How often a walk is done again because the guest changed an entry under it.
const RETRIES: u32 = 8;

/// Where a request goes, and the size of the page that this holds for, as a power of two.
// Two words with a niche, so that an `Option` of it comes back in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) pa: Gpa,
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
    pub(super) const fn of(hit: Hit, addr: Iova) -> Self {
        Self::new(hit.output(addr), hit.page_shift())
    }

    /// How much of `left` bytes from `addr` on lies in the page.
    #[inline]
    pub(super) fn part(&self, addr: Iova, left: u64) -> u64 {
        if left <= 0x1000 - (addr.0 & 0xfff) {
            // Whatever the page's size is.
            return left;
        }
        let page = 1u64 << (self.page_shift.get() & 63);
        let part = (page - (addr.0 & (page - 1))).min(left);
        // A page may hold the interrupt range, whose addresses are no part of it: hardware looks at
        // each transaction, and none is longer than 4 KiB.
        match INTERRUPTS.checked_sub(addr.0) {
            Some(before @ 1..) => part.min(before),
            _ => part,
        }
    }
}

/// Where the interrupt range begins ("Interrupt Address Range").
const INTERRUPTS: u64 = 0xfee0_0000;

/// A request that may be in the IOTLB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aimed<'a> {
    aim: Aim<'a>,
    need: Need,
}

/// What a translation depends on.
#[derive(Debug)]
pub(super) struct Translator {
    /// No other translator of this process has it.
    number: u64,
    /// The bits that a domain ID has, and how many a second-stage input address has. An
    /// invalidation's others are ignored.
    domain_bits: u16,
    input_bits: u8,
    on: AtomicBool,
    /// Moves with every change of what is behind the lock but a filling of the caches.
    generation: AtomicU64,
    shared: RwLock<Shared>,
    /// `None`: nothing is cached, contexts neither.
    iotlb: Option<Iotlb>,
}

static NUMBERS: AtomicU64 = AtomicU64::new(1);

/// Behind one lock, since a miss needs both.
#[derive(Debug)]
struct Shared {
    unit: Unit,
    config: ConfigCache,
}

impl Translator {
    /// Translation off, caches empty.
    pub(super) fn new(cap: Cap, ecap: Ecap, config: &Config) -> Self {
        let unit = Unit::new(cap.into_bits(), ecap.into_bits(), config.host_width);
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            domain_bits: u16::MAX >> (16 - cap.domain_bits()),
            input_bits: cap.max_guest_width(),
            on: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            shared: RwLock::new(Shared {
                unit: unit.with_enabled(false),
                config: ConfigCache::default(),
            }),
            iotlb: (config.iotlb_entries > 0).then(|| Iotlb::new(config.iotlb_entries)),
        }
    }

    // Nothing panics while the lock is held; if it did, what it guards would still be whole.
    #[inline]
    fn read(&self) -> RwLockReadGuard<'_, Shared> {
        self.shared.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn write(&self) -> RwLockWriteGuard<'_, Shared> {
        self.shared.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a change that makes what threads remember out of date.
    fn change(&self) -> RwLockWriteGuard<'_, Shared> {
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
    pub(super) fn unit(&self) -> Unit {
        self.read().unit
    }

    /// Takes over the root table pointer and whether translation is on.
    ///
    /// What the caches hold stays. Requests under way may still see the old state when this
    /// returns; wait for them.
    pub(super) fn configure(&self, root: RootTableAddress, on: bool) {
        let mut shared = self.change();
        shared.unit = shared.unit.with_rtaddr(root.into_bits()).with_enabled(on);
        self.on.store(on, Ordering::SeqCst);
    }

    /// All of a look-up that depends on the request alone: to be done before its session is opened.
    /// `None`: only a walk can serve it.
    #[inline]
    pub(super) fn aim(&self, dma: &Dma) -> Option<Aimed<'_>> {
        let iotlb = self.iotlb.as_ref()?;
        if dma.kind != DmaKind::Untranslated {
            return None;
        }
        if dma.pasid.is_none() && walk::in_interrupt_range(dma.addr) {
            return None;
        }
        Some(Aimed {
            aim: iotlb.aim(dma.requester, dma.pasid, dma.addr),
            need: Need::new(asked(dma)?),
        })
    }

    /// Serves a request from the caches, if they can.
    #[inline(always)]
    pub(super) fn hit(&self, aimed: &Aimed<'_>) -> Option<Hit> {
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
    pub(super) fn miss<M: TableMemMut>(
        &self,
        mem: &M,
        dma: &Dma,
        failed: &mut Option<Failure>,
    ) -> Option<Target> {
        let iotlb = self.iotlb.as_ref();
        // Before anything that the result depends on is read.
        let epoch = iotlb.map(Iotlb::epoch);
        let remembered = memo::with(|memo| {
            let unit = memo.unit(self.edition())?;
            let (Some(iotlb), Some(epoch), true) = (iotlb, epoch, unit.enabled()) else {
                return Some(bare(unit, mem, dma, failed));
            };
            let ordinary = dma.kind == DmaKind::Untranslated
                && (dma.pasid.is_some() || !walk::in_interrupt_range(dma.addr));
            let space = memo.space(dma.requester, dma.pasid).filter(|_| ordinary)?;
            Some(serve(unit, space, iotlb, epoch, mem, dma, failed))
        });
        match remembered.flatten() {
            Some(found) => found,
            None => self.look_up(mem, dma, failed),
        }
    }

    /// Takes over what this thread may remember.
    fn note(&self, shared: &Shared, dma: &Dma, space: Option<&AddressSpace>) {
        memo::with(|memo| {
            memo.renew(self.edition(), &shared.unit);
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
        failed: &mut Option<Failure>,
    ) -> Option<Target> {
        let shared = self.read();
        match &self.iotlb {
            Some(iotlb) if shared.unit.enabled() => {
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
                bare(&shared.unit, mem, dma, failed)
            }
        }
    }

    /// Through the caches.
    #[inline]
    fn through<M: TableMemMut>(
        &self,
        shared: RwLockReadGuard<'_, Shared>,
        iotlb: &Iotlb,
        mem: &M,
        dma: &Dma,
        failed: &mut Option<Failure>,
    ) -> Result<Option<Target>, Failure> {
        let unit = &shared.unit;
        // Before anything that the result depends on is read.
        let epoch = iotlb.epoch();
        if dma.kind == DmaKind::Translated {
            let translation = match shared.config.context(dma.requester) {
                Some(context) => walk::translated(unit, context, dma)?,
                None => {
                    let context = walk::read_context(unit, mem, dma, &mut ())?;
                    walk::translated(unit, &context, dma)?
                }
            };
            return Ok(Some(target(&Outcome::Memory(translation), dma)));
        }
        if dma.pasid.is_none() && walk::in_interrupt_range(dma.addr) {
            // No table is read.
            let outcome = walk::translate(unit, mem, dma, &mut Updates::new(), &mut ())?;
            return Ok(Some(target(&outcome, dma)));
        }
        if let Some(space) = shared.known(dma) {
            self.note(&shared, dma, Some(space));
            return Ok(serve(unit, space, iotlb, epoch, mem, dma, failed));
        }
        let fresh = shared.configuration(mem, dma)?;
        let found = serve(unit, &fresh.space, iotlb, epoch, mem, dma, failed);
        drop(shared);
        self.remember(dma, &fresh);
        Ok(found)
    }

    /// Puts into the caches what was read from the tables.
    fn remember(&self, dma: &Dma, fresh: &Fresh) {
        let Fresh {
            moment,
            context,
            space,
        } = fresh;
        self.write()
            .config
            .insert(*moment, dma.requester, dma.pasid, context, space);
    }

    /// Answers a translation request. It goes through the context and PASID caches, but neither
    /// uses nor fills the IOTLB.
    ///
    /// # Errors
    /// As for [`Self::miss`].
    pub(super) fn ats<M: TableMemMut>(&self, mem: &M, dma: &Dma) -> Result<Outcome, Failure> {
        let shared = self.read();
        if self.iotlb.is_none() || !shared.unit.enabled() {
            return without_caches(&shared.unit, mem, dma, owned);
        }
        if let Some(space) = shared.known(dma) {
            // What the context forbids of a translation request, the walk finds again.
            return walked(&shared.unit, space, mem, dma, owned);
        }
        let fresh = shared.configuration(mem, dma)?;
        let result = walked(&shared.unit, &fresh.space, mem, dma, owned);
        drop(shared);
        self.remember(dma, &fresh);
        result
    }

    /// Checks a page request, without the caches, and forgets the translations that it is about
    /// ("Implicit Invalidation on Page Requests"): software may grant more without saying so.
    ///
    /// # Errors
    /// As for [`iommu_walk::vtd::page_request`].
    pub(super) fn page_request<M: TableMem>(&self, mem: &M, dma: &Dma) -> Result<(), Failure> {
        let unit = self.unit();
        if !unit.enabled() {
            return Err(Failure::new(walk::Cause::Disabled));
        }
        let space = walk::page_request(&unit, mem, dma.requester, dma.pasid, &mut ())?;
        self.forget(implied(&space, dma.addr));
        Ok(())
    }

    /// Forgets contexts.
    pub(super) fn forget_contexts(&self, scope: ContextScope) {
        let bits = self.domain_bits;
        let scope = match scope {
            ContextScope::Global => scope,
            ContextScope::Domain(domain) => ContextScope::Domain(domain & bits),
            ContextScope::Device {
                domain,
                source,
                function_mask,
            } => ContextScope::Device {
                domain: domain & bits,
                source,
                function_mask,
            },
        };
        if let Some(iotlb) = &self.iotlb {
            self.change().config.forget_contexts(scope);
            iotlb.clear_sources();
        }
    }

    /// Forgets PASID table entries.
    pub(super) fn forget_pasids(&self, scope: PasidScope) {
        let bits = self.domain_bits;
        let scope = match scope {
            PasidScope::Global => scope,
            PasidScope::Domain(domain) => PasidScope::Domain(domain & bits),
            PasidScope::Pasid(domain, pasid) => PasidScope::Pasid(domain & bits, pasid),
        };
        if let Some(iotlb) = &self.iotlb {
            self.change().config.forget_pasids(scope);
            iotlb.clear_sources();
        }
    }

    /// Forgets translations by domain.
    pub(super) fn forget_translations(&self, scope: IotlbScope) {
        let bits = self.domain_bits;
        self.forget(match scope {
            IotlbScope::Global => Scope::Global,
            IotlbScope::Domain(domain) => Scope::Domain(domain & bits),
            // Bits beyond MGAW are ignored. No software sets them, so coarse will do.
            IotlbScope::Pages(domain, of) if of.range.addr.0 >> self.input_bits != 0 => {
                Scope::Domain(domain & bits)
            }
            IotlbScope::Pages(domain, of) => Scope::DomainPages(domain & bits, pages(of.range)),
        });
    }

    /// Forgets translations of a PASID, all of them or those in a range.
    pub(super) fn forget_pasid_translations(
        &self,
        domain: u16,
        pasid: Pasid,
        range: Option<Range>,
    ) {
        let domain = domain & self.domain_bits;
        self.forget(match range {
            None => Scope::Pasid(domain, pasid),
            Some(range) => Scope::PasidPages(domain, pasid, pages(range)),
        });
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        self.forget_contexts(ContextScope::Global);
        self.forget_pasids(PasidScope::Global);
        self.forget(Scope::Global);
    }

    fn forget(&self, scope: Scope) {
        if let Some(iotlb) = &self.iotlb {
            iotlb.invalidate(scope);
        }
    }
}

const fn pages(range: Range) -> Pages {
    Pages {
        addr: range.addr,
        size_shift: range.size_shift,
    }
}

/// What a page request for `addr` in `space` invalidates by itself.
fn implied(space: &AddressSpace, addr: Iova) -> Scope {
    let domain = space.domain.0;
    let page = Pages {
        addr,
        size_shift: 12,
    };
    match (&space.translate, space.pasid) {
        (Translate::Nested { .. }, _) => Scope::Domain(domain),
        (Translate::First(_), Some(pasid)) => Scope::PasidPages(domain, pasid, page),
        _ => Scope::DomainPages(domain, page),
    }
}

/// Without any cache.
#[inline(never)]
fn bare<M: TableMemMut>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    failed: &mut Option<Failure>,
) -> Option<Target> {
    without_caches(unit, mem, dma, |outcome| match outcome {
        Ok(outcome) => Some(target(outcome, dma)),
        Err(failure) => {
            *failed = Some(*failure);
            None
        }
    })
}

/// Translates without any cache, and hands what comes out to `end` where it lies.
#[inline(always)]
fn without_caches<M: TableMemMut, T>(
    unit: &Unit,
    mem: &M,
    dma: &Dma,
    end: impl FnOnce(Result<&Outcome, &Failure>) -> T,
) -> T {
    let mut updates = Updates::new();
    for _ in 0..RETRIES {
        let outcome = walk::translate(unit, mem, dma, &mut updates, &mut ());
        if updates.is_empty() {
            return end(outcome.as_ref());
        }
        // Of a walk that failed, FPD is known by its failure.
        let hidden = outcome.as_ref().err().is_some_and(|f| f.hidden);
        match walk::apply(&updates, mem, hidden) {
            Applied::Done => return end(outcome.as_ref()),
            Applied::Retry => {}
            Applied::Failed(failure) => {
                return end(Err(outcome.as_ref().err().unwrap_or(&failure)));
            }
        }
    }
    end(Err(&contended()))
}

/// The guest keeps changing the entry whose accessed or dirty bit is due.
#[cold]
fn contended() -> Failure {
    Failure::new(walk::Cause::FirstUpdateFailed)
}

/// A configuration that is not in the caches yet.
struct Fresh {
    moment: Moment,
    context: Context,
    space: AddressSpace,
}

impl Shared {
    /// The address space of a request, where the caches have all of the way to it.
    #[inline]
    fn known(&self, dma: &Dma) -> Option<&AddressSpace> {
        match self.config.context(dma.requester)? {
            // A PASID has no place in legacy mode; the walk of the context says so.
            Context::Legacy(space) => dma.pasid.is_none().then_some(space),
            context @ Context::Scalable(_) => self.admitted(context, dma),
        }
    }

    /// The cached PASID table entry, unless the context keeps the request out: then the walk is to
    /// say why.
    #[inline]
    fn admitted(&self, context: &Context, dma: &Dma) -> Option<&AddressSpace> {
        let Context::Scalable(context) = context else {
            return None;
        };
        let pasid = dma.pasid.is_none_or(|pasid| {
            context.pasid_enabled && pasid.get() < context.pasids && pasid != context.rid_pasid
        });
        let kind =
            dma.kind == DmaKind::Untranslated || context.switches.contains(Switches::DEVICE_TLB);
        if !(pasid && kind) {
            return None;
        }
        self.config.space(dma.requester, dma.pasid)
    }

    /// Reads what the caches do not have.
    fn configuration<M: TableMem>(&self, mem: &M, dma: &Dma) -> Result<Fresh, Failure> {
        let unit = &self.unit;
        let moment = self.config.moment();
        let context = match self.config.context(dma.requester) {
            Some(context) => *context,
            None => walk::read_context(unit, mem, dma, &mut ())?,
        };
        let space = match self.admitted(&context, dma) {
            Some(space) => *space,
            None => walk::read_space(unit, &context, mem, dma, &mut ())?,
        };
        Ok(Fresh {
            moment,
            context,
            space,
        })
    }
}

/// Translates in an address space that is known, and fills the IOTLB.
#[inline(never)]
fn serve<M: TableMemMut>(
    unit: &Unit,
    space: &AddressSpace,
    iotlb: &Iotlb,
    epoch: Epoch,
    mem: &M,
    dma: &Dma,
    failed: &mut Option<Failure>,
) -> Option<Target> {
    let source = source(space, dma.pasid);
    // A known source is what the look-up before this one went by, and it found nothing.
    let known = iotlb.knows(dma.requester, dma.pasid, &source);
    let elsewhere = if known {
        None
    } else {
        cached(iotlb, &source, dma)
    };
    let found = elsewhere.or_else(|| {
        walked(unit, space, mem, dma, |outcome| match outcome {
            Ok(outcome) => {
                if let Outcome::Memory(translation) = outcome {
                    let mapping = mapping(translation);
                    iotlb.insert(epoch, source.tag, dma.addr, &mapping);
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
fn walked<M: TableMemMut, T>(
    unit: &Unit,
    space: &AddressSpace,
    mem: &M,
    dma: &Dma,
    end: impl FnOnce(Result<&Outcome, &Failure>) -> T,
) -> T {
    let mut updates = Updates::new();
    let hidden = space.switches.contains(Switches::FAULTS_HIDDEN);
    for _ in 0..RETRIES {
        updates.clear();
        let outcome = walk::walk(unit, space, mem, dma, &mut updates, &mut ());
        if updates.is_empty() {
            return end(outcome.as_ref());
        }
        match walk::apply(&updates, mem, hidden) {
            Applied::Done => return end(outcome.as_ref()),
            Applied::Retry => {}
            Applied::Failed(failure) => {
                return end(Err(outcome.as_ref().err().unwrap_or(&failure)));
            }
        }
    }
    let mut failure = contended();
    failure.hidden = hidden;
    end(Err(&failure))
}

fn owned(outcome: Result<&Outcome, &Failure>) -> Result<Outcome, Failure> {
    outcome.copied().map_err(|failure| *failure)
}

/// What the IOTLB has for an address space that is known only now: another requester's page, or one
/// from before a context was forgotten.
#[inline]
fn cached(iotlb: &Iotlb, source: &Source, dma: &Dma) -> Option<Target> {
    let hit = iotlb.lookup_tag(source.tag, dma.addr)?;
    let access = asked(dma)?;
    let rights = if access.contains(Access::PRIV) {
        source.supervisor
    } else {
        source.user
    };
    let serves = rights.contains(access.intersection(RWX)) && hit.serves(access);
    serves.then(|| Target::of(hit, dma.addr))
}

#[inline]
fn target(outcome: &Outcome, dma: &Dma) -> Target {
    match outcome {
        Outcome::Memory(translation) => Target::new(translation.pa, translation.page_shift),
        Outcome::InterruptRange => Target::new(Gpa(dma.addr.0), 12),
    }
}

/// The rights that a cached page must have to serve a request; `None` for a zero-length read, which
/// only a walk can judge.
#[inline]
fn asked(dma: &Dma) -> Option<Access> {
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

/// What the configuration says of the requests of a requester and `pasid`, for a hit.
fn source(space: &AddressSpace, pasid: Option<Pasid>) -> Source {
    let stage = match space.translate {
        Translate::First(_) => Stage::First,
        Translate::PassThrough | Translate::Second(_) => Stage::Second,
        Translate::Nested { .. } => Stage::Nested,
    };
    let switches = space.switches;
    let mut rights = RWX;
    rights.set(Access::EXEC, switches.contains(Switches::EXECUTE));
    // Without a PASID a request shows no privilege; where the context entry gives it one, only the
    // walk knows.
    let odd = pasid.is_none() && switches.contains(Switches::RID_PRIVILEGED);
    let privileged =
        !switches.contains(Switches::SCALABLE) || switches.contains(Switches::SUPERVISOR);
    Source {
        tag: Tag::new(space.domain.0, space.pasid, stage),
        user: if odd { Access::empty() } else { rights },
        supervisor: if privileged { rights } else { Access::empty() },
    }
}

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
