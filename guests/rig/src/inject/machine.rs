//! Devices of the kernel's that are assigned to a guest with a VT-d unit, all in this process.

use crate::oracle::{NEEDS_PASID, NOT_LAST, RETURN, Responses};
use crate::{Outcome, ensure};
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy};
use iopf::resolve::Injector;
use iopf::{Iova, Pasid, Rid};
use iopf_host::pump::{PumpCounts, Stopped};
use iopf_host::selftest::{MockDevice, Tables};
use iopf_host::{
    Device as _, Errno, FaultFd, FaultQueue, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd,
    Pump, PumpHandle, Refused, Shared, Stage1, Vdevice, Viommu, ViommuKind,
};
use iopf_rig::join::{self, Answers};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use testkit::vtd::numbers::{PE_NXE, PE_WPE};
use testkit::vtd::tables::first_stage;
use testkit::vtd::{Guest, Setup};
use testkit::{Backing, Driver, Interrupts, Mm, Prot, Ram};
use viommu::Injection;
use viommu::mem::GuestRam;
use viommu::vtd::{Vtd, VtdUnit};
use vm_memory::GuestMemoryMmap;

type Memory = Arc<GuestMemoryMmap>;
type Unit = VtdUnit<Memory>;

/// The address space that devices name.
pub(super) const PASID: Pasid = Pasid::truncate(5);
/// Where memory starts, in each address space.
pub(super) const BASE: u64 = 0x7f00_0000_0000;
/// Mapped pages from the base on.
pub(super) const PAGES: u64 = 64;
/// How long something may take that is sure to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// `enum iommu_hwpt_pgfault_perm`: write.
const WRITE: u32 = 2;

/// The domain of the guest's first-stage tables without a PASID.
const DOMAIN: u16 = 1;

const NESTED: Attachment = Attachment {
    nested: true,
    ..Attachment::new(DomainId(1))
};

/// Address space 0 of a guest: what its devices do without a PASID.
const NONE: Pasid = Pasid::truncate(0);

/// The page at this place.
pub(super) fn page(number: u64) -> u64 {
    BASE + number * 0x1000
}

/// A device of the kernel's, and what it stands on while the guest has it.
#[derive(Debug)]
struct Host {
    id: DeviceId,
    mock: MockDevice,
    ioas: Arc<Ioas>,
    tables: Hwpt,
    _name: Vdevice,
}

impl Host {
    /// Puts it on the guest's tables.
    fn assign(&self, pump: &mut Pump<FaultFd>) -> Result<(), String> {
        for space in [None, Some(PASID)] {
            let tables = Tables::Hwpt(&self.tables);
            let kernel = || match space {
                None => self.mock.replace(tables),
                Some(pasid) => self.mock.attach_pasid(pasid, tables),
            };
            let attached = pump.attach(self.id, space, NESTED, kernel);
            attached.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Takes it off them again.
    fn withdraw(&self, pump: &mut Pump<FaultFd>) -> Result<(), String> {
        for space in [Some(PASID), None] {
            let kernel = || match space {
                None => self.mock.replace(Tables::Ioas(&self.ioas)),
                Some(pasid) => self.mock.detach_pasid(pasid),
            };
            let detached = pump.detach(self.id, space, kernel);
            detached.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Has it ask for a page.
    fn ask(&self, pasid: Option<Pasid>, group: u32, addr: u64, last: bool) -> Result<(), Refused> {
        let needs_pasid = if pasid.is_some() { NEEDS_PASID } else { 0 };
        let not_last = if last { 0 } else { NOT_LAST };
        let perm = WRITE | RETURN | needs_pasid | not_last;
        let addr = Iova(addr);
        self.mock.trigger_page_request(pasid, group, perm, addr)
    }
}

/// A guest that has come up.
pub(super) struct Booted {
    pub(super) guest: Guest,
    /// What devices reach with [`PASID`].
    pub(super) mm: Arc<Mm>,
    /// What they reach without one.
    pub(super) own: Arc<Mm>,
}

/// A host and its guest, whose devices are numbered from 0.
pub(super) struct Machine {
    ram: Arc<Ram>,
    irqs: Arc<Interrupts>,
    unit: Arc<Unit>,
    pub(super) booted: Booted,
    hosts: Vec<Arc<Host>>,
    answers: Vec<Arc<Answers>>,
    injector: Shared<Injector<Injection<Vtd, Memory>>>,
    pump: PumpHandle<FaultFd>,
    thread: JoinHandle<Result<Stopped, Errno>>,
    responses: Responses,
}

/// The requester ID by which the guest knows a device: 00:04.0 and on.
pub(super) fn rid(device: usize) -> Outcome<Rid> {
    Ok(Rid::from_pci(0x20 + u16::try_from(device)? * 8))
}

/// The guest's kernel comes up, and binds each of its devices to an address space.
fn boot(
    unit: &Arc<Unit>,
    ram: &Arc<Ram>,
    irqs: &Arc<Interrupts>,
    devices: usize,
    order: u8,
) -> Outcome<Booted> {
    let setup = Setup {
        scalable: true,
        prq_order: order,
    };
    let guest = Guest::boot(unit.clone(), ram.clone(), irqs.clone(), setup)?;
    let space = |pasid| -> Outcome<Arc<Mm>> {
        let mm = Arc::new(Mm::new(ram, pasid, 4)?);
        mm.mmap(Iova(BASE), PAGES, Prot::RW, Backing::Zero);
        Ok(mm)
    };
    let (mm, own) = (space(PASID)?, space(NONE)?);
    for device in 0..devices {
        let rid = rid(device)?;
        guest.probe(rid, true, 0)?;
        let table = own.table();
        let entry = first_stage(table.root(), table.levels(), DOMAIN, PE_NXE | PE_WPE);
        guest.set_pasid(rid, NONE, &entry)?;
        guest.bind(rid, &mm)?;
    }
    Ok(Booted { guest, mm, own })
}

impl Machine {
    /// So many devices behind one fault queue, groups that wait for `timeout` at most, and a page
    /// request queue of `4096 << order` bytes.
    pub(super) fn new(devices: usize, timeout: Duration, order: u8) -> Outcome<Self> {
        let responses = Responses::new()?;
        let ram = Arc::new(Ram::new(64 << 20)?);
        let irqs = Arc::new(Interrupts::new());
        let setup = viommu::vtd::Setup {
            config: viommu::vtd::Config::default(),
            ram: GuestRam::new(ram.memory()),
        };
        let unit = Arc::new(VtdUnit::new(setup, irqs.clone())?);

        let iommufd = Iommufd::open()?;
        let ioas = Arc::new(Ioas::new(&iommufd)?);
        let (faults, file) = FaultQueueObject::new(&iommufd)?;
        let policy = Policy::default().with_timeout(Some(timeout));
        let mut pump = Pump::new(Engine::new(policy), drop)?;
        let queue = pump.add_queue(FaultQueue::new(file))?;
        let handle = pump.handle();
        let injector = join::injector(&unit);
        let (mut hosts, mut answers, mut viommu) = (Vec::new(), Vec::new(), None);
        for device in 0..devices {
            let mock = MockDevice::new(&ioas)?;
            let number = mock.id();
            if viommu.is_none() {
                let parent = Hwpt::paging(&ioas, number, HwptFlags::NEST_PARENT, None)?;
                viommu = Some(Viommu::new(&parent, number, ViommuKind::SELFTEST)?);
            }
            let viommu = viommu.as_ref().ok_or("no virtual IOMMU")?;
            let rid = rid(device)?;
            let name = Vdevice::new(viommu, &mock, rid.0.into())?;
            let stage1 = Stage1::Selftest { iotlb: 0x0bad_beef };
            let flags = HwptFlags::PASID;
            let tables = Hwpt::nested(viommu, number, flags, &stage1, Some(&faults))?;
            let id = DeviceId(rid.0);
            let host = Host {
                id,
                mock,
                ioas: ioas.clone(),
                tables,
                _name: name,
            };
            pump.add_device(id, DeviceConfig::default(), injector.clone())?;
            ensure(pump.route(queue, number.0, id), "no route")?;
            host.assign(&mut pump)?;
            hosts.push(Arc::new(host));
            answers.push(join::join(&unit, rid, id, injector.clone(), handle.clone()));
        }
        let booted = boot(&unit, &ram, &irqs, devices, order)?;
        let thread = thread::spawn(move || pump.run());
        Ok(Self {
            ram,
            irqs,
            unit,
            booted,
            hosts,
            answers,
            injector,
            pump: handle,
            thread,
            responses,
        })
    }

    /// A device asks for these pages, in one group.
    pub(super) fn ask(
        &self,
        device: usize,
        pasid: Option<Pasid>,
        group: u32,
        pages: &[u64],
    ) -> Outcome<()> {
        for (i, addr) in pages.iter().enumerate() {
            let last = i + 1 == pages.len();
            self.hosts[device].ask(pasid, group, *addr, last)?;
        }
        Ok(())
    }

    /// The first device asks for one page, which is not the last of its group.
    pub(super) fn begin(&self, pasid: Option<Pasid>, group: u32, addr: u64) -> Outcome<()> {
        Ok(self.hosts[0].ask(pasid, group, addr, false)?)
    }

    /// How many responses the kernel's devices have got so far.
    pub(super) fn responded(&mut self) -> Outcome<usize> {
        Ok(self.responses.so_far()?.len())
    }

    /// Waits until the devices have got so many responses, all in all, while the guest does nothing.
    pub(super) fn wait(&mut self, responses: usize) -> Outcome<()> {
        self.until("response", |machine| Ok(machine.responded()? >= responses))
    }

    /// The same while the guest handles its interrupts.
    pub(super) fn serve(&mut self, responses: usize) -> Outcome<()> {
        self.until("response", |machine| {
            machine.booted.guest.service();
            Ok(machine.responded()? >= responses)
        })
    }

    /// Waits until so many page requests came into the guest's queue.
    pub(super) fn queued(&mut self, requests: u64) -> Outcome<()> {
        self.until("page request", |machine| {
            Ok(machine.unit.counters().page_requests >= requests)
        })
    }

    /// Waits until it comes true.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> Outcome<bool>,
    ) -> Outcome<()> {
        let start = Instant::now();
        while !done(self)? {
            let waited = start.elapsed();
            ensure(waited < PATIENCE, format!("no {what} in {waited:?}"))?;
            thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }

    /// What the pump has counted.
    pub(super) fn counts(&self) -> Outcome<PumpCounts> {
        Ok(self.pump.exclusive(|pump| pump.counts())?)
    }

    /// The virtual machine is reset: the host takes its first device off and puts it back, and a new
    /// guest comes up. At the last moment the device asks for the page at `addr` in group `group`, which
    /// nobody reads any more.
    pub(super) fn reset(&mut self, group: u32, addr: u64) -> Outcome<()> {
        let (host, injector) = (self.hosts[0].clone(), self.injector.clone());
        let reset = self.pump.exclusive(move |pump| {
            let asked = host.ask(Some(PASID), group, addr, true);
            asked.map_err(|error| error.to_string())?;
            host.withdraw(pump)?;
            injector.lock().forget(host.id);
            host.assign(pump)
        });
        reset??;
        self.unit.reset();
        // The interrupt of before the reset is nobody's.
        let _old = self.irqs.take();
        self.booted = boot(&self.unit, &self.ram, &self.irqs, self.hosts.len(), 4)?;
        Ok(())
    }

    /// Closes everything, and says every response that the devices got, and what the guest and the
    /// pump counted.
    pub(super) fn end(self) -> Outcome<()> {
        let counts = self.counts()?;
        let lost: u64 = self.answers.iter().map(|answers| answers.lost()).sum();
        ensure(lost == 0, format!("{lost} answers of the guest were lost"))?;
        self.pump.stop()?;
        let stopped = self.thread.join().map_err(|_| "the pump panicked")??;
        let seen = self.booted.guest.page_requests();
        let mut responses = self.responses;
        // The devices go, and would be told of what still waits.
        drop(self.hosts);
        for response in responses.so_far()? {
            println!("response {response}");
        }
        println!(
            "guest requests={} success={} invalid={} overflows={}",
            seen.requests, seen.success, seen.invalid, seen.overflows
        );
        let PumpCounts {
            late,
            strangers,
            orphaned,
            panics,
            ..
        } = counts;
        let Stopped {
            given_up,
            unwritten,
        } = stopped;
        println!(
            "pump late={late} strangers={strangers} orphaned={orphaned} panics={panics} \
             given_up={given_up} unwritten={unwritten}"
        );
        Ok(())
    }
}
