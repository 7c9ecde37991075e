//! SMMUv3's tables, as the shared device reads them through the configuration caches.

use super::Smmuv3;
use super::cache::{ConfigCache, Moment};
use crate::arch::Tables;
use crate::iotlb::{Habits, Scope, Source, Stage, Tag};
use crate::memo::Memo;
use crate::translate::RETRIES;
use iommu_walk::smmuv3::{
    self as walk, Applied, Cause, Detail, Failure, Override, Space, Stream, Substream, Switches,
    Unit as Walk,
};
use iommu_walk::{Outcome, TableMem, TableMemMut, Translation, Updates};
use iopf::{Access, Dma, DmaKind, Pasid};
use std::cell::RefCell;
use std::thread::LocalKey;

/// Configuration that is not in the caches yet.
#[derive(Debug)]
pub struct Fresh {
    moment: Moment,
    space: Space,
}

thread_local! {
    static MEMO: RefCell<Memo<Smmuv3>> = const { RefCell::new(Memo::NEW) };
}

impl Tables for Smmuv3 {
    type Walk = Walk;
    type Space = Space;
    type Failure = Failure;
    type Cache = ConfigCache;
    type Fresh = Fresh;

    #[inline]
    fn enabled(walk: &Walk) -> bool {
        walk.enabled()
    }

    /// A message is a write like any other, and the tables say where it goes.
    const CUT: Option<u64> = None;

    #[inline]
    fn special(_: &Dma) -> bool {
        false
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
        cache: &ConfigCache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Translation, Failure> {
        let stream = if unit.checks_translated() {
            Some(stream(unit, cache, mem, dma)?)
        } else {
            None
        };
        walk::translated(unit, stream.as_ref(), dma)
    }

    #[inline]
    fn known<'a>(_: &Walk, cache: &'a ConfigCache, dma: &Dma) -> Option<&'a Space> {
        let space = cache.space(dma.requester, dma.pasid)?;
        let admitted =
            dma.kind == DmaKind::Untranslated || walk::admit(&space.stream, dma.kind).is_ok();
        admitted.then_some(space)
    }

    fn configure<M: TableMemMut>(
        unit: &Walk,
        cache: &ConfigCache,
        mem: &M,
        dma: &Dma,
    ) -> Result<Fresh, Failure> {
        let moment = cache.moment();
        let stream = stream(unit, cache, mem, dma)?;
        let refused = |cause| Failure::with(cause, detail_of(&stream, dma));
        walk::admit(&stream, dma.kind).map_err(refused)?;
        let context = match stream.substream(unit, dma.pasid).map_err(refused)? {
            Substream::None => None,
            Substream::Number(number) => Some(context(unit, &stream, mem, dma, number)?),
        };
        let space = Space { stream, context };
        Ok(Fresh { moment, space })
    }

    #[inline]
    fn space(fresh: &Fresh) -> &Space {
        &fresh.space
    }

    fn keep(cache: &mut ConfigCache, dma: &Dma, fresh: &Fresh) {
        cache.insert(fresh.moment, dma.requester, dma.pasid, &fresh.space);
    }

    fn forget_all(cache: &mut ConfigCache) {
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
        _: bool,
    ) -> Applied {
        match walk::apply(updates, mem, Detail::empty()) {
            Applied::Failed(mut failure) => {
                failure.detail = detail(unit, mem, dma);
                Applied::Failed(failure)
            }
            done => done,
        }
    }

    #[cold]
    fn contended<M: TableMem>(unit: &Walk, mem: &M, dma: &Dma, _: bool) -> Failure {
        Failure::with(Cause::FirstUpdateFailed, detail(unit, mem, dma))
    }

    /// What keeps a fault from the guest depends on the fault: the failure says it.
    fn hides(_: &Space) -> bool {
        false
    }

    fn hidden(failure: &Failure) -> bool {
        failure.hidden
    }

    /// VMID, ASID and stages are the tag. What no stage translates has a tag that no page has: stage 1,
    /// without an ASID.
    #[inline]
    fn source(space: &Space, _: Option<Pasid>) -> Source {
        let stream = &space.stream;
        let second = space.second().is_some();
        let (tag, mut habits) = match &space.context {
            Some(context) => {
                let stage = if second { Stage::Nested } else { Stage::First };
                let asid = Pasid::truncate(u32::from(context.asid()));
                let tag = Tag::new(stream.vmid(), Some(asid), stage);
                (tag, of_context(context.switches()))
            }
            None if second => (
                Tag::new(stream.vmid(), None, Stage::Second),
                Habits::empty(),
            ),
            None => (Tag::new(0, None, Stage::First), Habits::empty()),
        };
        match stream.privilege() {
            Override::Incoming => {}
            Override::Clear => habits |= Habits::USER,
            Override::Set => habits |= Habits::PRIVILEGED,
        }
        match stream.instruction() {
            Override::Incoming => {}
            Override::Clear => habits |= Habits::DATA,
            Override::Set => habits |= Habits::INSTRUCTION,
        }
        Source {
            tag,
            user: ALL,
            supervisor: ALL,
            habits,
        }
    }

    /// A global page is every address space's of its VMID.
    #[inline]
    fn tag(source: &Source, translation: &Translation) -> Tag {
        match source.global() {
            Some(tag) if translation.global => tag,
            _ => source.tag,
        }
    }

    /// Any request may be asked that the queue takes. No translation is forgotten: one that lacks a right
    /// is walked again anyway.
    fn page_request<M: TableMem>(_: &Walk, _: &M, _: &Dma) -> Result<Option<Scope>, Failure> {
        Ok(None)
    }

    /// A read of instructions asks to execute and for nothing else; what writes reads none.
    #[inline]
    fn asked(dma: &Dma) -> Option<Access> {
        let said = match dma.pasid {
            Some(_) => dma.access,
            // Privilege and execution travel with a substream.
            None => dma.access.difference(Access::PRIV.union(Access::EXEC)),
        };
        let privilege = said.intersection(Access::PRIV);
        let reads = dma.access.intersects(Access::READ.union(Access::EXEC));
        Some(privilege.union(if dma.access.contains(Access::WRITE) {
            if reads { Access::RW } else { Access::WRITE }
        } else if said.contains(Access::EXEC) {
            Access::EXEC
        } else {
            Access::READ
        }))
    }

    fn memo() -> &'static LocalKey<RefCell<Memo<Self>>> {
        &MEMO
    }
}

const ALL: Access = Access::RW.union(Access::EXEC);

/// How a context descriptor has requests looked at.
#[inline]
fn of_context(switches: Switches) -> Habits {
    let mut habits = Habits::GLOBAL;
    habits.set(
        Habits::GLOBAL_SET,
        switches.contains(Switches::OWN_ASID_SET),
    );
    habits.set(
        Habits::LOWER_TAGS,
        switches.contains(Switches::LOWER_TOP_BYTE_IGNORED),
    );
    habits.set(
        Habits::UPPER_TAGS,
        switches.contains(Switches::UPPER_TOP_BYTE_IGNORED),
    );
    habits
}

/// The stream table entry of a request.
#[inline]
fn stream<M: TableMem>(
    unit: &Walk,
    cache: &ConfigCache,
    mem: &M,
    dma: &Dma,
) -> Result<Stream, Failure> {
    match cache.stream(dma.requester) {
        Some(stream) => Ok(*stream),
        None => walk::read_stream(unit, mem, dma.requester, &mut ()),
    }
}

/// The context descriptor of a request. Where stage 2 translates its address, access flags are set there.
fn context<M: TableMemMut>(
    unit: &Walk,
    stream: &Stream,
    mem: &M,
    dma: &Dma,
    number: u32,
) -> Result<walk::Context, Failure> {
    let mut updates = Updates::new();
    for _ in 0..RETRIES {
        updates.clear();
        let context = walk::read_context(unit, stream, mem, dma, number, &mut updates, &mut ())?;
        if updates.is_empty() {
            return Ok(context);
        }
        match walk::apply(&updates, mem, detail_of(stream, dma)) {
            Applied::Done => return Ok(context),
            Applied::Retry => {}
            Applied::Failed(failure) => return Err(failure),
        }
    }
    Err(Failure::with(
        Cause::IpaUpdateFailed,
        detail_of(stream, dma),
    ))
}

/// What an event of a request needs, from the stream table as it is now.
#[cold]
fn detail<M: TableMem>(unit: &Walk, mem: &M, dma: &Dma) -> Detail {
    let read = walk::read_stream(unit, mem, dma.requester, &mut ());
    read.map_or_else(|failure| failure.detail, |stream| detail_of(&stream, dma))
}

/// The same, from its stream table entry.
#[cold]
fn detail_of(stream: &Stream, dma: &Dma) -> Detail {
    let space = Space {
        stream: *stream,
        context: None,
    };
    space.detail(dma.access, dma.pasid)
}
