//! AMD-Vi's tables, as the shared device reads them through the device table cache.

use super::Amdvi;
use super::cache::{DeviceCache, Moment};
use crate::arch::Tables;
use crate::iotlb::{Habits, Scope, Source, Stage, Tag};
use crate::memo::Memo;
use crate::translate::asked_of_pcie;
use iommu_walk::amdvi::{
    self as walk, Applied, Cause, Detail, Failure, Space, Switches, Unit as Walk,
};
use iommu_walk::{Outcome, TableMem, TableMemMut, Translation, Updates};
use iopf::{Access, Dma, Pasid};
use std::cell::RefCell;
use std::thread::LocalKey;

/// A device table entry that is not in the cache yet.
#[derive(Debug)]
pub struct Fresh {
    moment: Moment,
    space: Space,
}

thread_local! {
    static MEMO: RefCell<Memo<Amdvi>> = const { RefCell::new(Memo::NEW) };
}

impl Tables for Amdvi {
    type Walk = Walk;
    type Space = Space;
    type Failure = Failure;
    type Cache = DeviceCache;
    type Fresh = Fresh;

    #[inline]
    fn enabled(walk: &Walk) -> bool {
        walk.enabled()
    }

    const CUT: Option<u64> = Some(0xfee0_0000);

    #[inline]
    fn special(dma: &Dma) -> bool {
        walk::in_special_range(dma.addr)
    }

    #[inline]
    fn translate<M: TableMem>(
        unit: &Walk,
        mem: &M,
        dma: &Dma,
        updates: &mut Updates,
    ) -> Result<Outcome, Failure> {
        walk::translate(unit, mem, dma, updates, &mut ())
    }

    fn translated<M: TableMem>(
        unit: &Walk,
        cache: &DeviceCache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Translation, Failure> {
        match cache.get(dma.requester) {
            Some(space) => walk::translated(unit, space, dma),
            None => {
                let space = walk::read_space(unit, mem, dma, &mut ())?;
                walk::translated(unit, &space, dma)
            }
        }
    }

    #[inline]
    fn known<'a>(_: &Walk, cache: &'a DeviceCache, dma: &Dma) -> Option<&'a Space> {
        cache.get(dma.requester)
    }

    fn configure<M: TableMemMut>(
        unit: &Walk,
        cache: &DeviceCache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Fresh, Failure> {
        let moment = cache.moment();
        let space = walk::read_space(unit, mem, dma, &mut ())?;
        Ok(Fresh { moment, space })
    }

    #[inline]
    fn space(fresh: &Fresh) -> &Space {
        &fresh.space
    }

    fn keep(cache: &mut DeviceCache, dma: &Dma, fresh: &Fresh) {
        cache.insert(fresh.moment, dma.requester, fresh.space);
    }

    fn forget_all(cache: &mut DeviceCache) {
        cache.forget_all();
    }

    #[inline]
    fn walk<M: TableMem>(
        unit: &Walk,
        space: &Space,
        mem: &M,
        dma: &Dma,
        updates: &mut Updates,
    ) -> Result<Outcome, Failure> {
        walk::walk(unit, space, mem, dma, updates, &mut ())
    }

    fn apply<M: TableMemMut>(
        unit: &Walk,
        mem: &M,
        dma: &Dma,
        updates: &Updates,
        hidden: bool,
    ) -> Applied {
        match walk::apply(updates, mem, Detail::default(), hidden) {
            Applied::Failed(mut failure) => {
                let guest = failure.cause == Cause::GuestUpdateFailed;
                failure.detail = detail(unit, mem, dma, guest);
                Applied::Failed(failure)
            }
            done => done,
        }
    }

    #[cold]
    fn contended<M: TableMem>(unit: &Walk, mem: &M, dma: &Dma, hidden: bool) -> Failure {
        let guest = detail(unit, mem, dma, true).pasid.is_some();
        let cause = if guest {
            Cause::GuestUpdateFailed
        } else {
            Cause::HostUpdateFailed
        };
        let mut failure = Failure::with(cause, detail(unit, mem, dma, guest));
        failure.hidden = hidden;
        failure
    }

    #[inline]
    fn hides(space: &Space) -> bool {
        space.switches().contains(Switches::FAULTS_HIDDEN)
    }

    fn hidden(failure: &Failure) -> bool {
        failure.hidden
    }

    /// Domain, PASID and stage are the tag; IR and IW are the requester's own.
    ///
    /// Two kinds of requester have tags that no other has: those without a valid entry, whose domain is
    /// nobody's, and those with EX, whose requests in the exclusion range are not translated while
    /// others of their domain are.
    fn source(space: &Space, pasid: Option<Pasid>) -> Source {
        let domain = space.domain().0;
        let switches = space.switches();
        let (tag, rights) = if !switches.contains(Switches::VALID) {
            let all = Access::RW.union(Access::EXEC);
            (Tag::new(0, None, Stage::First), all)
        } else {
            let tag = match space.guest_pasid(pasid) {
                Some(pasid) if space.host().is_some() => {
                    Tag::new(domain, Some(pasid), Stage::Nested)
                }
                Some(pasid) => Tag::new(domain, Some(pasid), Stage::First),
                None if switches.contains(Switches::EXCLUSION) => {
                    Tag::new(domain, None, Stage::Nested)
                }
                None => Tag::new(domain, None, Stage::Second),
            };
            // A request that no table is for is a fault, and no translation of its domain serves it.
            let rights = if has_tables(space, pasid) {
                space.rights()
            } else {
                Access::empty()
            };
            (tag, rights)
        };
        Source {
            tag,
            user: rights,
            supervisor: rights,
            habits: Habits::empty(),
        }
    }

    /// No translation is forgotten: one that lacks a right is walked again anyway.
    fn page_request<M: TableMem>(
        unit: &Walk,
        mem: &M,
        dma: &Dma,
    ) -> Result<Option<Scope>, Failure> {
        if !unit.enabled() {
            return Err(Failure::with(Cause::Disabled, Detail::default()));
        }
        walk::page_request(unit, mem, dma.requester, dma.pasid, &mut ())?;
        Ok(None)
    }

    #[inline]
    fn asked(dma: &Dma) -> Option<Access> {
        asked_of_pcie(dma)
    }

    fn memo() -> &'static LocalKey<RefCell<Memo<Self>>> {
        &MEMO
    }
}

/// Whether a valid device table entry has tables for requests with this PASID: it translates (TV), and
/// its guest CR3 table reaches as far.
#[inline]
fn has_tables(space: &Space, pasid: Option<Pasid>) -> bool {
    let covered = match (pasid, space.guest()) {
        (Some(pasid), Some(guest)) => pasid.get() >> (9 * guest.levels.min(3)) == 0,
        (Some(_), None) => false,
        (None, _) => true,
    };
    covered && space.switches().contains(Switches::TRANSLATING)
}

/// What an event of a request needs, from the device table as it is now.
#[cold]
fn detail<M: TableMem>(unit: &Walk, mem: &M, dma: &Dma, guest: bool) -> Detail {
    let read = walk::read_space(unit, mem, dma, &mut ());
    let mut detail = read.map_or_else(|failure| failure.detail, |space| space.detail(dma.pasid));
    if !guest {
        // A host table is the domain's, not the PASID's.
        detail.pasid = None;
    }
    detail
}
