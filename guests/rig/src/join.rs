//! Where a fault descriptor of the host meets the queue of a guest's VT-d unit.
//!
//! Groups go in through an `Injector`, which the pump serves a device by; answers come back through an
//! [`Answers`], which the unit takes for the device.

use iopf::engine::DeviceId;
use iopf::resolve::Injector;
use iopf::{GroupIndex, Pasid, Response, Rid};
use iopf_host::{FaultFile, PumpHandle, Shared};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Weak};
use std::thread;
use viommu::Injection;
use viommu::vtd::{Vtd, VtdUnit};
use viommu_api::{Endpoint, Invalidation};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

/// Answers of a guest that wait to be taken, at most: more than any device may have outstanding.
const ANSWERS: usize = 4096;

/// Takes the guest's answers for a device of the host back to the pump.
///
/// The unit calls it with a page-group response from whatever thread it is on, which may be the
/// pump's own, in the middle of an injection. So it only passes them on, to a thread of its own.
#[derive(Debug)]
pub struct Answers {
    passed_on: SyncSender<(Option<Pasid>, GroupIndex, Response)>,
    lost: AtomicU64,
}

impl Answers {
    /// Answers that found no room: a guest that floods them loses its own.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Endpoint for Answers {
    fn invalidate(&self, _: &Invalidation) {
        // The tables of this device are the host's: there it is a HWPT_INVALIDATE.
    }

    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response) {
        if self.passed_on.try_send((pasid, group, response)).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// A resolver that injects into `unit`.
pub fn injector<A>(unit: &Arc<VtdUnit<A>>) -> Shared<Injector<Injection<Vtd, A>>>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
{
    Shared::new(Injector::new(Injection::new(unit.clone())))
}

/// Puts a device of the host behind the guest's unit as `rid`, which are the low 16 bits of `id`: its
/// groups, which `injector` gives to the guest, are answered as the guest answers them. As long as
/// the result lives.
pub fn join<A, F>(
    unit: &Arc<VtdUnit<A>>,
    rid: Rid,
    id: DeviceId,
    injector: Shared<Injector<Injection<Vtd, A>>>,
    pump: PumpHandle<F>,
) -> Arc<Answers>
where
    A: GuestAddressSpace<M: GuestMemoryBackend> + Send + Sync + 'static,
    F: FaultFile + 'static,
{
    let (passed_on, answers) = sync_channel(ANSWERS);
    thread::spawn(move || {
        for (pasid, group, response) in answers {
            // A guest may answer what it was never asked.
            let handle = injector.lock().answered(id, pasid, group);
            if let Some(handle) = handle
                && pump.answer(handle, response).is_err()
            {
                return;
            }
        }
    });
    let answers = Arc::new(Answers {
        passed_on,
        lost: AtomicU64::new(0),
    });
    let endpoint: Arc<dyn Endpoint> = answers.clone();
    let endpoint: Weak<dyn Endpoint> = Arc::downgrade(&endpoint);
    unit.attach(rid, endpoint);
    answers
}
