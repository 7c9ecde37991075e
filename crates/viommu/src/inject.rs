//! Faults that the host met and the guest is to hear of.

use crate::arch::{Arch, Ram};
use crate::unit::Unit;
use iopf::resolve::{Attempt, Inject, Injected, NotQueued};
use iopf::{Dma, DmaKind, GroupIndex, PageRequest, Response, Rid};
use std::sync::Arc;
use viommu_api::{PageRequestOutcome, Pri};

/// A unit as a place to inject faults.
///
/// The host's reason never gets here: the unit walks the guest's own tables and tells what it finds
/// there, with the reason that makes sense to the guest. The low 16 bits of a
/// [`DeviceId`](iopf::engine::DeviceId) are the requester ID that the guest knows the device by.
#[derive(Debug)]
pub struct Injection<X: Arch, A>(Arc<Unit<X, A>>);

impl<X: Arch, A> Injection<X, A> {
    /// Injects into `unit`.
    pub const fn new(unit: Arc<Unit<X, A>>) -> Self {
        Self(unit)
    }
}

fn requester(attempt: &Attempt) -> Rid {
    Rid(attempt.device.0)
}

impl<X: Arch, A: Ram> Inject for Injection<X, A> {
    fn fault(&mut self, attempt: &Attempt) -> Injected {
        let dma = Dma {
            requester: requester(attempt),
            pasid: attempt.pasid,
            kind: DmaKind::Untranslated,
            addr: attempt.addr,
            access: attempt.access,
        };
        match self.0.tell(&dma) {
            Some(_) => Injected::Told,
            None => Injected::Vanished,
        }
    }

    fn page_request(
        &mut self,
        attempt: &Attempt,
        group: GroupIndex,
        last: bool,
    ) -> Result<(), NotQueued> {
        let request = PageRequest {
            pasid: attempt.pasid,
            group,
            addr: attempt.addr,
            access: attempt.access,
            last,
            response_needs_pasid: attempt.pasid.is_some(),
            private_data: [0; 2],
        };
        match self.0.page_request(requester(attempt), &request) {
            PageRequestOutcome::Queued => Ok(()),
            PageRequestOutcome::Answered(response) => Err(NotQueued(response)),
            // Of a page that is not the last of its group; nobody waits for this answer.
            PageRequestOutcome::Dropped => Err(NotQueued(Response::Invalid)),
        }
    }
}
