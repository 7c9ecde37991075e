//! How bytes get to memory and back: through the device TLB, or without it.

use super::{Device, Turn};
use crate::atc::{Atc, Space};
use crate::job::{Piece, Status};
use crate::{Op, Via};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{PoisonError, RwLockReadGuard};
use viommu_api::{AtsCompletion, Blocked, Ending, StallTag, Translate};

/// How one attempt to move a piece ended.
pub(super) enum Attempt {
    Moved,
    /// The device TLB lost a race against invalidations; try again later.
    Raced,
    Missing(Iova, Access),
    /// The IOMMU holds it under this name.
    Stalled(StallTag, Iova, Access),
    /// With the access that failed, where that is known.
    Failed(Status, Option<(Iova, Access)>),
}

/// Why a translation is not in the device TLB.
enum Miss {
    Absent,
    Raced,
    Failed(Status),
    /// No request may be sent.
    Held(Status),
}

/// Attempts to use a translation before an invalidation takes it away again.
const RACES: u32 = 8;

impl Device {
    /// Moves one piece, from memory to `data` or to memory or both. The accesses `ignored` are left
    /// out: they read zeros, and write nothing.
    pub(super) fn attempt(
        &self,
        turn: Turn<'_>,
        piece: Piece,
        ignored: &[(Iova, Access)],
        data: &mut Vec<u8>,
    ) -> Attempt {
        let job = turn.job;
        let mut buffer = [0u8; 4096];
        let len = usize::try_from(piece.len)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let buffer = &mut buffer[..len];
        let left_out = |at, access| ignored.contains(&(at, access));
        if let Some(from) = piece.from
            && !left_out(from, job.read_access())
        {
            let read = &mut |pa, offset: usize, n: usize| {
                let part = buffer.get_mut(span(offset, n)).unwrap_or_default();
                self.memory.read(pa, part).map_err(|e| e.at)
            };
            match self.access(turn, from, piece.len, job.read_access(), read) {
                Attempt::Moved => {}
                other => return other,
            }
        }
        let Some(to) = piece.to else {
            data.extend_from_slice(buffer);
            return Attempt::Moved;
        };
        if matches!(job.op, Op::Touch { .. }) {
            return self.touch(turn, to);
        }
        if left_out(to, job.write_access()) {
            return Attempt::Moved;
        }
        if let Op::Write { to: base, data } = &job.op {
            let start = usize::try_from(to.0.wrapping_sub(base.0)).unwrap_or(usize::MAX);
            let source = data.get(start..).and_then(|rest| rest.get(..len));
            buffer.copy_from_slice(source.unwrap_or(&[0; 4096][..len]));
        }
        let buffer = &*buffer;
        let write = &mut |pa, offset: usize, n: usize| {
            let part = buffer.get(span(offset, n)).unwrap_or_default();
            self.memory.write(pa, part).map_err(|e| e.at)
        };
        self.access(turn, to, piece.len, job.write_access(), write)
    }

    /// Gets the translation for a write, and leaves memory alone.
    fn touch(&self, turn: Turn<'_>, at: Iova) -> Attempt {
        let access = turn.job.write_access();
        if self.via(turn) != Via::Ats || self.cached_for(turn.job.pasid, at, access) {
            return Attempt::Moved;
        }
        match self.fill(turn, at, access) {
            Ok(()) => Attempt::Moved,
            Err(Miss::Raced) => Attempt::Raced,
            Err(Miss::Absent) => Attempt::Missing(at, access),
            Err(Miss::Failed(status)) => Attempt::Failed(status, Some((at, access))),
            Err(Miss::Held(status)) => Attempt::Failed(status, None),
        }
    }

    /// Makes one access of `len` bytes within a 4 KiB page; `each` moves the bytes.
    fn access(
        &self,
        turn: Turn<'_>,
        at: Iova,
        len: u64,
        access: Access,
        each: &mut dyn FnMut(Gpa, usize, usize) -> Result<(), Gpa>,
    ) -> Attempt {
        let (job, via) = (turn.job, self.via(turn));
        let kind = match via {
            Via::Untranslated => DmaKind::Untranslated,
            Via::Translated => DmaKind::Translated,
            Via::Host => DmaKind::Untranslated,
            Via::Ats => return self.access_through_atc(turn, at, len, access, each),
        };
        let liar = job
            .broken
            .requester
            .filter(|_| job.via == Via::Untranslated);
        let dma = Dma {
            requester: liar.unwrap_or(self.rid),
            pasid: job.pasid,
            kind,
            addr: at,
            access,
        };
        match (via, &self.ports.host) {
            (Via::Host, Some(host)) => self.memory_request(turn, &**host, &dma, len, each),
            (Via::Host, None) => Attempt::Failed(Status::Blocked(at), Some((at, access))),
            _ => self.memory_request(turn, &*self.ports.translate, &dma, len, each),
        }
    }

    fn memory_request(
        &self,
        turn: Turn<'_>,
        port: &dyn Translate,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, usize, usize) -> Result<(), Gpa>,
    ) -> Attempt {
        let mut offset = 0usize;
        let (mut error, mut held) = (None, None);
        let outcome = port.with_translation(dma, len, &mut |pa, n| {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            // Looked at once more with the translation in hand: a function that was reset before its
            // IOMMU was must not use what the IOMMU says afterwards.
            held = held.or_else(|| self.held(turn));
            if error.is_none() && held.is_none() {
                error = each(pa, offset, n).err();
            }
            offset = offset.saturating_add(n);
        });
        match (outcome, error) {
            (Err(Blocked { at, end }), _) => match end {
                Ending::Aborted => {
                    self.queue().stats.blocked += 1;
                    Attempt::Failed(Status::Blocked(at), Some((at, dma.access)))
                }
                Ending::Ignored => Attempt::Moved,
                Ending::Stalled(tag) => Attempt::Stalled(tag, at, dma.access),
            },
            (Ok(()), Some(at)) => {
                Attempt::Failed(Status::BusError(at), Some((dma.addr, dma.access)))
            }
            (Ok(()), None) => held.map_or(Attempt::Moved, |status| Attempt::Failed(status, None)),
        }
    }

    fn access_through_atc(
        &self,
        turn: Turn<'_>,
        at: Iova,
        len: u64,
        access: Access,
        each: &mut dyn FnMut(Gpa, usize, usize) -> Result<(), Gpa>,
    ) -> Attempt {
        let space = space_of(turn.job.pasid, access);
        for _ in 0..RACES {
            let flushes = self.tidy();
            let (hit, epoch) = {
                let atc = self.atc();
                (atc.lookup(space, at), atc.epoch())
            };
            let Some(hit) = hit.filter(|hit| grants(hit.perms, access)) else {
                match self.fill(turn, at, access) {
                    Ok(()) | Err(Miss::Raced) => continue,
                    Err(Miss::Held(status)) => return Attempt::Failed(status, None),
                    Err(Miss::Absent) => return Attempt::Missing(at, access),
                    Err(Miss::Failed(status)) => {
                        return Attempt::Failed(status, Some((at, access)));
                    }
                }
            };
            self.queue().stats.atc_hits += 1;
            let mut stale = false;
            // The lock is taken where memory is touched and nowhere else: an invalidation waits for
            // the access and not for the IOMMU, which may be waiting for the invalidation.
            let mut guarded = |pa, offset, n| {
                let atc = self.atc();
                stale |= atc.epoch() != epoch || self.flushes.load(Ordering::SeqCst) != flushes;
                if stale { Ok(()) } else { each(pa, offset, n) }
            };
            // A translated request says nothing of its PASID; few IOMMUs would take it.
            let dma = Dma {
                requester: self.rid,
                pasid: None,
                kind: DmaKind::Translated,
                addr: Iova(hit.pa.0),
                access,
            };
            let port = &*self.ports.translate;
            let attempt = self.memory_request(turn, port, &dma, len, &mut guarded);
            if !stale {
                return match attempt {
                    Attempt::Failed(Status::BusError(pa), _) => {
                        Attempt::Failed(Status::BusError(pa), Some((at, access)))
                    }
                    attempt => attempt,
                };
            }
        }
        Attempt::Raced
    }

    pub(super) fn atc(&self) -> RwLockReadGuard<'_, Atc> {
        self.atc.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the addresses of a job reach memory at the moment.
    fn via(&self, turn: Turn<'_>) -> Via {
        match turn.job.via {
            Via::Ats if !self.ats.load(Ordering::SeqCst) => Via::Untranslated,
            via => via,
        }
    }

    /// Asks the IOMMU for a translation and keeps it.
    fn fill(&self, turn: Turn<'_>, at: Iova, access: Access) -> Result<(), Miss> {
        let pasid = turn.job.pasid;
        // The switches are looked at after the epoch: each of them empties the TLB once it has moved,
        // so what is asked for here is not kept if one moves meanwhile.
        let flushes = self.tidy();
        let epoch = self.atc().epoch();
        if let Some(status) = self.held(turn) {
            return Err(Miss::Held(status));
        }
        if !self.ats.load(Ordering::SeqCst) {
            return Err(Miss::Raced);
        }
        self.queue().stats.translation_requests += 1;
        let page = Iova(at.0 & !0xfff);
        let dma = Dma {
            requester: self.rid,
            pasid,
            kind: DmaKind::Translation {
                no_write: !access.contains(Access::WRITE),
            },
            addr: page,
            access: access | Access::READ,
        };
        // No lock is held here: the walk may take its time, and invalidations must not wait for it.
        match self.ports.ats.translation_request(&dma) {
            AtsCompletion::Success { granted, .. } if grants(granted.perms, access) => {
                let mut atc = self.atc.write().unwrap_or_else(PoisonError::into_inner);
                let kept = self.flushes.load(Ordering::SeqCst) == flushes
                    && atc.insert(epoch, space_of(pasid, access), page, granted);
                if kept { Ok(()) } else { Err(Miss::Raced) }
            }
            AtsCompletion::Success { .. } => Err(Miss::Absent),
            AtsCompletion::UnsupportedRequest => Err(Miss::Failed(Status::UnsupportedRequest(at))),
            AtsCompletion::CompleterAbort => Err(Miss::Failed(Status::CompleterAbort(at))),
        }
    }

    fn cached_for(&self, pasid: Option<Pasid>, at: Iova, access: Access) -> bool {
        self.tidy();
        let atc = self.atc();
        atc.lookup(space_of(pasid, access), at)
            .is_some_and(|hit| grants(hit.perms, access))
    }

    /// Whether a page is at hand, asking for its translation where it is not.
    pub(super) fn present(&self, turn: Turn<'_>, at: Iova, access: Access) -> bool {
        // A failure is left for the access itself to meet.
        self.cached_for(turn.job.pasid, at, access)
            || !matches!(self.fill(turn, at, access), Err(Miss::Absent))
    }
}

/// Where a part of a piece lies; a part that reaches further than memory does lies nowhere.
fn span(offset: usize, len: usize) -> Range<usize> {
    offset..offset.saturating_add(len)
}

fn space_of(pasid: Option<Pasid>, access: Access) -> Space {
    Space {
        pasid,
        privileged: access.contains(Access::PRIV),
    }
}

fn grants(perms: Access, access: Access) -> bool {
    perms.contains(access - Access::PRIV)
}
