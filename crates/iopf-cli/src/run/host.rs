//! A device whose resolver is in this process: the engine between them, and nothing of a guest.
//!
//! The device's page requests are reported to the engine; the resolver is an address space that
//! populates its pages on demand; the answer goes back to the device, one a group. Transactions
//! that nobody can resume enter by the same door, are judged *logged*, and meet the log's budget.

use super::clock::Clock;
use endpoint::{Device, Ports};
use iopf::engine::{
    Attachment, Counts, DeviceConfig, DeviceId, DomainId, Engine, Policy, Refused, Reported, Tick,
};
use iopf::resolve::{AddressSpace, Mappings, Unmappable, serve};
use iopf::{
    Access, Dma, DmaKind, Fault, Gpa, Iova, LogLine, LogWhat, PageRequest, Pasid, Reason, Rid,
    Unrecoverable,
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use testkit::Mm;
use viommu_api::{
    Ats, AtsCompletion, Blocked, Endpoint, Granted, PageRequestOutcome, Pri, Translate,
};

/// Lines of the host's log kept. The budget of the engine is far below.
const LINES: usize = 256;

/// The reason of a transaction that met no mapping, in the numbers of this in-process "IOMMU".
const NO_MAPPING: Reason = Reason(1);

/// The host's half: engine, resolver and log.
pub(crate) struct Host {
    clock: Clock,
    rid: Rid,
    mm: Arc<Mm>,
    engine: Mutex<Engine>,
    device: OnceLock<Arc<Device>>,
    log: Mutex<Log>,
    resolver: OnceLock<Thread>,
}

#[derive(Debug, Default)]
struct Log {
    lines: Vec<String>,
    faults: u64,
    suppressed: u64,
}

/// What the host's log says, and what it leaves out.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostLog {
    pub(crate) lines: Vec<String>,
    /// Faults that got a line of their own.
    pub(crate) written: u64,
    /// Faults that are in a count only.
    pub(crate) suppressed: u64,
}

/// Deliveries served at a time, so that the engine is not held for long.
const BATCH: usize = 32;

/// The mappings of the one process, as a resolver asks for them.
struct Maps<'a>(&'a Mm);

impl Mappings for Maps<'_> {
    fn rights(&self, pasid: Pasid, addr: Iova) -> Option<Access> {
        (pasid == self.0.pasid()).then(|| self.0.rights(addr))?
    }

    fn populate(&mut self, _: Pasid, addr: Iova, access: Access) -> Result<(), Unmappable> {
        self.0.fault(addr, access).map_err(|_| Unmappable(addr))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// The host's half of `rid`, which uses the address space `mm` as its own.
    pub(crate) fn new(clock: Clock, rid: Rid, mm: Arc<Mm>) -> Result<Arc<Self>, String> {
        let mut engine = Engine::new(Policy::default());
        let id = DeviceId(rid.0);
        engine
            .add_device(id, DeviceConfig::default())
            .map_err(|e| e.to_string())?;
        engine
            .attach(id, Some(mm.pasid()), Attachment::new(DomainId(1)))
            .map_err(|e| e.to_string())?;
        Ok(Arc::new(Self {
            clock,
            rid,
            mm,
            engine: Mutex::new(engine),
            device: OnceLock::new(),
            log: Mutex::new(Log::default()),
            resolver: OnceLock::new(),
        }))
    }

    /// Makes the device.
    pub(crate) fn device(
        self: &Arc<Self>,
        config: endpoint::Config,
        memory: Arc<dyn endpoint::PhysicalMemory>,
    ) -> Arc<Device> {
        let device = self.device.get_or_init(|| {
            let ports = Ports::of(self.clone());
            Arc::new(Device::new(self.rid, config, ports, memory))
        });
        device.clone()
    }

    /// Declares that the calling thread calls [`Host::pump`], and is to be unparked for it.
    pub(crate) fn wake_this_thread(&self) {
        // A second resolver would be woken in vain only.
        let _first = self.resolver.set(thread::current());
    }

    fn report(&self, fault: &Fault) -> Result<Reported, Refused> {
        let now = self.now();
        let reported = lock(&self.engine).report(now, self.id(), fault);
        if let (Ok(Reported::Queued(_)), Some(thread)) = (&reported, self.resolver.get()) {
            thread.unpark();
        }
        reported
    }

    fn id(&self) -> DeviceId {
        DeviceId(self.rid.0)
    }

    fn now(&self) -> Tick {
        Tick(self.clock.nanos())
    }

    /// Resolves whatever the engine delivers; whether there was anything.
    pub(crate) fn pump(&self) -> bool {
        let now = self.now();
        let mut resolver = AddressSpace(Maps(&self.mm));
        let worked = serve(&mut lock(&self.engine), now, &mut resolver, BATCH) > 0;
        let now = self.now();
        lock(&self.engine).handle_timeout(now);
        self.send_answers();
        self.read_log();
        worked
    }

    fn send_answers(&self) {
        loop {
            // Not in the `while let`: the lock must be gone when the device is told.
            let answer = lock(&self.engine).poll_answer();
            let Some(answer) = answer else { return };
            if let Some(device) = self.device.get() {
                let pasid = answer.pasid.filter(|_| answer.needs_pasid);
                device.page_response(pasid, answer.group, answer.response);
            }
        }
    }

    fn read_log(&self) {
        loop {
            let line = lock(&self.engine).poll_log();
            let Some(line) = line else { return };
            let mut log = lock(&self.log);
            match line.what {
                LogWhat::Fault(_) => log.faults += 1,
                LogWhat::Suppressed(count) => log.suppressed += count,
            }
            if log.lines.len() < LINES {
                log.lines.push(self.say(&line));
            }
        }
    }

    fn say(&self, line: &LogLine) -> String {
        match line.what {
            LogWhat::Fault(fault) => {
                let at = fault.addr.map(|a| a.to_string()).unwrap_or_default();
                format!("{}: {} blocked at {at}", self.rid, fault.access)
            }
            LogWhat::Suppressed(count) => format!("{}: {count} faults suppressed", self.rid),
        }
    }

    /// Ends the run: the last suppressed run is closed, and the log is complete.
    pub(crate) fn close(&self) -> HostLog {
        let _rest = self.pump();
        let later = Tick(self.clock.nanos().saturating_add(10_000_000_000));
        lock(&self.engine).handle_timeout(later);
        self.send_answers();
        self.read_log();
        let log = lock(&self.log);
        HostLog {
            lines: log.lines.clone(),
            written: log.faults,
            suppressed: log.suppressed,
        }
    }

    /// The engine's books.
    pub(crate) fn counts(&self) -> Counts {
        lock(&self.engine).totals()
    }

    /// Pages held now, and how many memory was taken for.
    pub(crate) fn held(&self) -> (usize, usize) {
        lock(&self.engine).pages_held()
    }

    fn find(&self, dma: &Dma) -> Option<(Gpa, Access)> {
        if dma.pasid != Some(self.mm.pasid()) {
            return None;
        }
        self.mm.translate(dma.addr)
    }
}

impl Translate for Host {
    fn with_translation(
        &self,
        dma: &Dma,
        len: u64,
        each: &mut dyn FnMut(Gpa, u64),
    ) -> Result<(), Blocked> {
        if dma.kind == DmaKind::Translated {
            each(Gpa(dma.addr.0), len);
            return Ok(());
        }
        // The devices of this scenario keep within a page.
        match self.find(dma) {
            Some((pa, perms)) if perms.contains(dma.access - Access::PRIV) => {
                each(pa, len);
                Ok(())
            }
            _ => {
                let fault = Fault::Unrecoverable(Unrecoverable {
                    reason: NO_MAPPING,
                    pasid: dma.pasid,
                    access: dma.access,
                    addr: Some(dma.addr),
                    fetch_addr: None,
                });
                // Refused or not, the engine has counted it.
                let _counted = self.report(&fault);
                Err(Blocked::aborted(dma.addr))
            }
        }
    }
}

impl Ats for Host {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        let (pa, perms) = self.find(dma).unwrap_or((Gpa(0), Access::empty()));
        AtsCompletion::Success {
            granted: Granted {
                pa,
                page_shift: 12,
                perms,
            },
            global: false,
        }
    }
}

impl Pri for Host {
    fn page_request(&self, _requester: Rid, request: &PageRequest) -> PageRequestOutcome {
        match self.report(&Fault::PageRequest(*request)) {
            Ok(Reported::Answered(answer, _)) => PageRequestOutcome::Answered(answer.response),
            Ok(_) => PageRequestOutcome::Queued,
            Err(_) => PageRequestOutcome::Dropped,
        }
    }
}
