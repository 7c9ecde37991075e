//! A host's IOMMU in front of the guest's: what it refuses, and how the guest is told.
//!
//! The host of a VM has tables of its own for a device that the guest drives. Where they know
//! nothing of an address, what the host's IOMMU gives as a reason is about the host's tables. The
//! fault enters the engine with that reason; the resolver is *inject*: it forwards the plain fact and
//! the access, and the unit finds the reason in the guest's own tables. The host's IOMMU is a VT-d
//! unit, whatever the guest's is: neither needs to know of the other.

use super::arch::{Serve, Unit};
use super::event::{Event, Events, Hex};
use iommu_walk::vtd::{self, Failure};
use iommu_walk::{TableMem, Unreachable, Updates};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, GuestId, Policy, Tick};
use iopf::resolve::{Attempt, Inject, Injected, Injector, NotQueued, serve};
use iopf::{Dma, DmaKind, Fault, Gpa, GroupIndex, Response, Rid, Unrecoverable};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use viommu::vtd::Config;
use viommu_api::{Blocked, Translate};

/// The host's own tables: every function is there, and no page is.
///
/// Scalable mode: a root entry for bus 0, a context entry for each function, a PASID directory with
/// one table, whose entry 0 (RID_PASID) is an empty second stage. No other PASID is there.
///
/// Intel VT-d, "Scalable-Mode Root Entry", "Scalable-Mode Context Entry", "Scalable-Mode PASID
/// Directory Entry" and "Scalable-Mode PASID Table Entry".
#[derive(Clone, Copy, Debug)]
struct Empty;

const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
const DIRECTORY: u64 = 0x4000;
const PASIDS: u64 = 0x5000;
const PAGES: u64 = 0x6000;
const END: u64 = 0x7000;

impl TableMem for Empty {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        if !(ROOT..END).contains(&at.0) {
            return Err(Unreachable(at));
        }
        Ok(match at.0 {
            // Lower half and upper half of the context table, each present.
            ROOT => CONTEXTS | 1,
            0x1008 => (CONTEXTS + 0x1000) | 1,
            // Four words a function: PASIDs enabled (bit 3), a directory of 128 entries at most.
            CONTEXTS..DIRECTORY if at.0 & 0x1f == 0 => DIRECTORY | 1 << 3 | 1,
            DIRECTORY => PASIDS | 1,
            // Second stage (PGTT 010b), 48 bits (AW 010b), domain 1.
            PASIDS => PAGES | 0b010 << 6 | 0b010 << 2 | 1,
            0x5008 => 1,
            _ => 0,
        })
    }
}

/// The host's half: its tables, the engine, and the way to the guest.
pub(super) struct Host<X: Serve> {
    unit: vtd::Unit,
    engine: Mutex<Engine>,
    guest: Mutex<Injector<Tell<X>>>,
    events: Arc<Events>,
    /// Kinds of fault that were shown: who, the host's reason, the guest's reason.
    told: Mutex<HashSet<(Rid, u32, Option<u32>)>>,
}

/// The guest's unit, as a place to inject.
struct Tell<X: Serve> {
    unit: Arc<Unit<X>>,
    /// What the guest's tables said to the last fault.
    failure: Option<X::Failure>,
}

impl<X: Serve> Inject for Tell<X> {
    fn fault(&mut self, access: &Attempt) -> Injected {
        let DeviceId(rid) = access.device;
        self.failure = self.unit.tell(&Dma {
            requester: Rid::from_pci((rid & 0xffff) as u16),
            pasid: access.pasid,
            kind: DmaKind::Untranslated,
            addr: access.addr,
            access: access.access,
        });
        match self.failure {
            Some(_) => Injected::Told,
            None => Injected::Vanished,
        }
    }

    /// The functions served here send their page requests to the guest's unit themselves.
    fn page_request(&mut self, _: &Attempt, _: GroupIndex, _: bool) -> Result<(), NotQueued> {
        Err(NotQueued(Response::Invalid))
    }
}

/// The host's unit.
fn host_unit() -> Result<vtd::Unit, String> {
    let (cap, ecap) = Config::default().registers().map_err(|e| e.to_string())?;
    // Scalable mode is said in the low bits of the root table address.
    let rtaddr = ROOT | 1 << 10;
    Ok(vtd::Unit::new(cap.into_bits(), ecap.into_bits(), 52).with_rtaddr(rtaddr))
}

/// What the host's own tables say.
fn refused(unit: &vtd::Unit, dma: &Dma) -> Option<Failure> {
    vtd::translate(unit, &Empty, dma, &mut Updates::new(), &mut ()).err()
}

impl<X: Serve> Host<X> {
    pub(super) fn new(
        guest: Arc<Unit<X>>,
        functions: &[Rid],
        events: Arc<Events>,
    ) -> Result<Self, String> {
        let unit = host_unit()?;
        let mut engine = Engine::new(Policy::default());
        for rid in functions {
            let id = DeviceId(rid.0);
            let config = DeviceConfig {
                user_pasid_table: true,
                guest: Some(GuestId(0)),
                ..DeviceConfig::default()
            };
            let nested = Attachment {
                nested: true,
                ..Attachment::new(DomainId(0))
            };
            engine.add_device(id, config).map_err(|e| e.to_string())?;
            engine.attach(id, None, nested).map_err(|e| e.to_string())?;
        }
        Ok(Self {
            unit,
            engine: Mutex::new(engine),
            guest: Mutex::new(Injector::new(Tell {
                unit: guest,
                failure: None,
            })),
            events,
            told: Mutex::default(),
        })
    }

    /// A transaction that the host's IOMMU refuses.
    fn meet(&self, dma: &Dma) {
        let Some(host) = refused(&self.unit, dma) else {
            return;
        };
        let fault = Fault::Unrecoverable(Unrecoverable {
            reason: host.cause.reason(),
            pasid: dma.pasid,
            access: dma.access,
            addr: Some(dma.addr),
            fetch_addr: host.entry_addr,
        });
        let elapsed = self.events.elapsed().as_nanos();
        let now = Tick(u64::try_from(elapsed).unwrap_or(u64::MAX));
        // One at a time, in this order: the engine holds no more than the one fault.
        let mut guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        let mut engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        guest.guest().failure = None;
        let id = DeviceId(dma.requester.0);
        if engine.report(now, id, &fault).is_err() {
            return;
        }
        serve(&mut engine, now, &mut *guest, 1);
        let host_code = host.cause.reason().0;
        let guest_code = guest.guest().failure.as_ref().map(|f| X::reason(f).code);
        drop(engine);
        drop(guest);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.insert((dma.requester, host_code, guest_code)) {
            self.events.say(Event::HostFault {
                device: dma.requester.to_string(),
                access: dma.access.to_string(),
                address: Hex(dma.addr.0),
                host_code,
                host_name: host.cause.code(),
                guest_code,
            });
        }
    }
}

impl<X: Serve> Translate for Host<X> {
    /// Refuses everything, since the host's tables are empty.
    fn with_translation(
        &self,
        dma: &Dma,
        _: u64,
        _: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        self.meet(dma);
        Err(Blocked::aborted(dma.addr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iopf::{Access, Iova, Pasid};

    #[test]
    fn the_hosts_tables_know_functions_and_nothing_else() {
        for (pasid, code) in [
            // SSL.2: an entry without rights. SPD.2: no PASID directory entry.
            (None, 0x79),
            (Pasid::new(3), 0x59),
            (Pasid::new(0x1000), 0x51),
        ] {
            for requester in [Rid(0x20), Rid(0xf8)] {
                let dma = Dma {
                    requester,
                    pasid,
                    kind: DmaKind::Untranslated,
                    addr: Iova(0x1000),
                    access: Access::READ,
                };
                let failure = refused(&host_unit().unwrap(), &dma).unwrap();
                assert_eq!(failure.cause.reason().0, code, "{pasid:?} {requester}");
            }
        }
    }
}
