//! A device that means harm.

use crate::run::arch::Scripted;
use crate::run::machine::Machine;
use crate::run::rng::Rng;
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use viommu_api::{Endpoint, Invalidation, Pri, Translate};

/// Hears invalidations and answers, and does not care.
struct Deaf;

impl Endpoint for Deaf {
    fn invalidate(&self, _: &Invalidation) {}
    fn page_response(&self, _: Option<Pasid>, _: GroupIndex, _: Response) {}
}

/// Sends whatever does damage.
pub(super) struct Flooder<X: Scripted> {
    machine: Arc<Machine<X>>,
    rid: Rid,
    // The unit holds endpoints weakly.
    _deaf: Arc<Deaf>,
}

/// What it sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sent {
    /// Requests that were refused.
    pub(super) faults: u64,
    /// Page requests.
    pub(super) pages: u64,
    /// Resident memory of this process, in bytes, after a tenth of the flood and at its end.
    pub(super) memory_early: Option<u64>,
    pub(super) memory_late: Option<u64>,
}

/// Requests in one burst: more than the guest's records hold.
const BURST: u64 = 300;
/// Page requests in one burst: more than the queue holds.
const GROUP: u64 = 300;
/// The flood ends here, however long the victim takes.
const MOST: u64 = 50_000_000;

impl<X: Scripted> Flooder<X> {
    pub(super) fn behind(machine: &Arc<Machine<X>>, rid: Rid) -> Self {
        let deaf = Arc::new(Deaf);
        let endpoint: Arc<dyn Endpoint> = deaf.clone();
        let endpoint: Weak<dyn Endpoint> = Arc::downgrade(&endpoint);
        machine.unit.attach(rid, endpoint);
        Self {
            machine: machine.clone(),
            rid,
            _deaf: deaf,
        }
    }

    /// Sends more of each kind than a queue holds.
    pub(super) fn burst(&self, rng: &mut Rng) -> Sent {
        let mut faults = 0;
        for _ in 0..BURST {
            faults += self.bad_request(rng);
        }
        for page in 0..GROUP {
            self.page_request(rng, page + 1 == GROUP);
        }
        Sent {
            faults,
            pages: GROUP,
            ..Sent::default()
        }
    }

    /// Goes on after what was `sent` to `least` bad requests, and further until told to calm down.
    pub(super) fn flood(&self, mut sent: Sent, seed: u64, least: u64, calm: &AtomicBool) -> Sent {
        let mut rng = Rng::new(seed);
        while sent.faults < MOST && (sent.faults < least || !calm.load(Ordering::Acquire)) {
            let burst = self.burst(&mut rng);
            sent.faults += burst.faults;
            sent.pages += burst.pages;
            if sent.memory_early.is_none() && sent.faults >= least / 10 {
                sent.memory_early = resident();
            }
        }
        sent.memory_late = resident();
        sent
    }

    /// A request of a PASID nobody bound, at an address nobody mapped.
    fn bad_request(&self, rng: &mut Rng) -> u64 {
        let pasid = 2 + u32::try_from(rng.below(62)).unwrap_or(0);
        let dma = Dma {
            requester: self.rid,
            pasid: Some(Pasid::truncate(pasid)),
            kind: DmaKind::Untranslated,
            addr: Iova(rng.next() & 0x7fff_ffff_ffff),
            access: if rng.below(2) == 0 {
                Access::READ
            } else {
                Access::WRITE
            },
        };
        let outcome = self.machine.unit.with_translation(&dma, 8, &mut |_, _| {});
        u64::from(outcome.is_err())
    }

    fn page_request(&self, rng: &mut Rng, last: bool) {
        let request = PageRequest {
            pasid: Some(Pasid::truncate(1)),
            group: GroupIndex(u32::try_from(rng.below(512)).unwrap_or(0)),
            addr: Iova(rng.next() & 0x7fff_ffff_f000),
            access: Access::READ,
            last,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        let _answer = self.machine.unit.page_request(self.rid, &request);
    }
}

/// Resident memory of this process in bytes, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(4096)
}
