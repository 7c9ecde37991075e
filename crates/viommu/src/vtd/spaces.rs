//! VT-d's tables, as the shared device reads them through the context and PASID caches.

use super::cache::{ConfigCache, Moment};
use super::{Failure, Vtd, VtdUnit};
use crate::arch::Tables;
use crate::iotlb::{Habits, Pages, Scope, Source, Stage, Tag};
use crate::memo::Memo;
use crate::translate::asked_of_pcie;
use iommu_walk::vtd::{
    self as walk, AddressSpace, Applied, Cause, Context, Switches, Translate, Unit,
};
use iommu_walk::{Outcome, TableMem, TableMemMut, Translation, Updates};
use iommu_wire::vtd::command::{ContextScope, IotlbScope, PasidScope, Range};
use iopf::{Access, Dma, DmaKind, Iova, Pasid};
use std::cell::RefCell;
use std::thread::LocalKey;

/// A configuration that is not in the caches yet.
#[derive(Debug)]
pub struct Fresh {
    moment: Moment,
    context: Context,
    space: AddressSpace,
}

thread_local! {
    static MEMO: RefCell<Memo<Vtd>> = const { RefCell::new(Memo::NEW) };
}

impl Tables for Vtd {
    type Walk = Unit;
    type Space = AddressSpace;
    type Failure = Failure;
    type Cache = ConfigCache;
    type Fresh = Fresh;

    #[inline]
    fn enabled(walk: &Unit) -> bool {
        walk.enabled()
    }

    const CUT: Option<u64> = Some(0xfee0_0000);

    #[inline]
    fn special(dma: &Dma) -> bool {
        dma.pasid.is_none() && walk::in_interrupt_range(dma.addr)
    }

    #[inline]
    fn translate<M: TableMem>(
        unit: &Unit,
        mem: &M,
        dma: &Dma,
        updates: &mut Updates,
    ) -> Result<Outcome, Failure> {
        walk::translate(unit, mem, dma, updates, &mut ())
    }

    fn translated<M: TableMem>(
        unit: &Unit,
        cache: &ConfigCache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Translation, Failure> {
        match cache.context(dma.requester) {
            Some(context) => walk::translated(unit, context, dma),
            None => {
                let context = walk::read_context(unit, mem, dma, &mut ())?;
                walk::translated(unit, &context, dma)
            }
        }
    }

    #[inline]
    fn known<'a>(_: &Unit, cache: &'a ConfigCache, dma: &Dma) -> Option<&'a AddressSpace> {
        match cache.context(dma.requester)? {
            // A PASID has no place in legacy mode; the walk of the context says so.
            Context::Legacy(space) => dma.pasid.is_none().then_some(space),
            context @ Context::Scalable(_) => admitted(cache, context, dma),
        }
    }

    fn configure<M: TableMemMut>(
        unit: &Unit,
        cache: &ConfigCache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Fresh, Failure> {
        let moment = cache.moment();
        let context = match cache.context(dma.requester) {
            Some(context) => *context,
            None => walk::read_context(unit, mem, dma, &mut ())?,
        };
        let space = match admitted(cache, &context, dma) {
            Some(space) => *space,
            None => walk::read_space(unit, &context, mem, dma, &mut ())?,
        };
        Ok(Fresh {
            moment,
            context,
            space,
        })
    }

    #[inline]
    fn space(fresh: &Fresh) -> &AddressSpace {
        &fresh.space
    }

    fn keep(cache: &mut ConfigCache, dma: &Dma, fresh: &Fresh) {
        let Fresh {
            moment,
            context,
            space,
        } = fresh;
        cache.insert(*moment, dma.requester, dma.pasid, context, space);
    }

    fn forget_all(cache: &mut ConfigCache) {
        cache.forget_contexts(ContextScope::Global);
        cache.forget_pasids(PasidScope::Global);
    }

    #[inline]
    fn walk<M: TableMem>(
        unit: &Unit,
        space: &AddressSpace,
        mem: &M,
        dma: &Dma,
        updates: &mut Updates,
    ) -> Result<Outcome, Failure> {
        walk::walk(unit, space, mem, dma, updates, &mut ())
    }

    fn apply<M: TableMemMut>(
        _: &Unit,
        mem: &M,
        _: &Dma,
        updates: &Updates,
        hidden: bool,
    ) -> Applied {
        walk::apply(updates, mem, hidden)
    }

    #[cold]
    fn contended<M: TableMem>(_: &Unit, _: &M, _: &Dma, hidden: bool) -> Failure {
        let mut failure = Failure::new(Cause::FirstUpdateFailed);
        failure.hidden = hidden;
        failure
    }

    #[inline]
    fn hides(space: &AddressSpace) -> bool {
        space.switches.contains(Switches::FAULTS_HIDDEN)
    }

    fn hidden(failure: &Failure) -> bool {
        failure.hidden
    }

    fn source(space: &AddressSpace, pasid: Option<Pasid>) -> Source {
        let stage = match space.translate {
            Translate::First(_) => Stage::First,
            Translate::PassThrough | Translate::Second(_) => Stage::Second,
            Translate::Nested { .. } => Stage::Nested,
        };
        let switches = space.switches;
        let mut rights = Access::RW.union(Access::EXEC);
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
            habits: Habits::empty(),
        }
    }

    /// "Implicit Invalidation on Page Requests".
    fn page_request<M: TableMem>(
        unit: &Unit,
        mem: &M,
        dma: &Dma,
    ) -> Result<Option<Scope>, Failure> {
        if !unit.enabled() {
            return Err(Failure::new(Cause::Disabled));
        }
        let space = walk::page_request(unit, mem, dma.requester, dma.pasid, &mut ())?;
        Ok(Some(implied(&space, dma.addr)))
    }

    #[inline]
    fn asked(dma: &Dma) -> Option<Access> {
        asked_of_pcie(dma)
    }

    fn memo() -> &'static LocalKey<RefCell<Memo<Self>>> {
        &MEMO
    }
}

/// The cached PASID table entry, unless the context keeps the request out: then the walk is to
/// say why.
#[inline]
fn admitted<'a>(cache: &'a ConfigCache, context: &Context, dma: &Dma) -> Option<&'a AddressSpace> {
    let Context::Scalable(context) = context else {
        return None;
    };
    let pasid = dma.pasid.is_none_or(|pasid| {
        context.pasid_enabled && pasid.get() < context.pasids && pasid != context.rid_pasid
    });
    let kind = dma.kind == DmaKind::Untranslated || context.switches.contains(Switches::DEVICE_TLB);
    if !(pasid && kind) {
        return None;
    }
    cache.space(dma.requester, dma.pasid)
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

const fn pages(range: Range) -> Pages {
    Pages {
        addr: range.addr,
        size_shift: range.size_shift,
    }
}

impl<A> VtdUnit<A> {
    /// The bits that a domain ID has. An invalidation's others are ignored.
    fn domain_bits(&self) -> u16 {
        u16::MAX >> (16 - self.cap().domain_bits())
    }

    /// Forgets contexts.
    pub(super) fn forget_contexts(&self, scope: ContextScope) {
        let bits = self.domain_bits();
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
        self.translator
            .forget_configuration(|cache| cache.forget_contexts(scope));
    }

    /// Forgets PASID table entries.
    pub(super) fn forget_pasids(&self, scope: PasidScope) {
        let bits = self.domain_bits();
        let scope = match scope {
            PasidScope::Global => scope,
            PasidScope::Domain(domain) => PasidScope::Domain(domain & bits),
            PasidScope::Pasid(domain, pasid) => PasidScope::Pasid(domain & bits, pasid),
        };
        self.translator
            .forget_configuration(|cache| cache.forget_pasids(scope));
    }

    /// Forgets translations by domain.
    pub(super) fn forget_translations(&self, scope: IotlbScope) {
        let bits = self.domain_bits();
        let input_bits = self.cap().max_guest_width();
        self.translator.forget(match scope {
            IotlbScope::Global => Scope::Global,
            IotlbScope::Domain(domain) => Scope::Domain(domain & bits),
            // Bits beyond MGAW are ignored. No software sets them, so coarse will do.
            IotlbScope::Pages(domain, of) if of.range.addr.0 >> input_bits != 0 => {
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
        let domain = domain & self.domain_bits();
        self.translator.forget(match range {
            None => Scope::Pasid(domain, pasid),
            Some(range) => Scope::PasidPages(domain, pasid, pages(range)),
        });
    }
}
