//! What the kernel should do: iommufd's objects and the mock device's driver around an engine with
//! [`Policy::linux`] and fault queues that are [`Forward`]s.
//!
//! Source: Linux 7.3 `drivers/iommu/iommufd/{selftest,device,hw_pagetable,main,eventq}.c`.
//!
//! A step comes to one line: what the call returned (a negative error number where it failed), the
//! records it read (`r:`), and the answers the devices got meanwhile (`a:`), in their order.

mod attach;
mod classify;
mod descriptor;
mod objects;
mod viommu;

use super::hits::{Branch, Hits};
use super::step::{Name, Object, Page, Step, Table};
use classify::{Outstanding, Partial, Seen};
use iopf::engine::{
    Answer, By, DeviceId, DomainId, Engine, Group, Pages, Policy, Refused, Reported, Stray, Tick,
    Verdict, Why,
};
use iopf::resolve::{Decision, Forward, Resolver, serve};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use objects::Ids;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The model has no clock: nothing in the kernel falls due.
const NOW: Tick = Tick(0);

/// Error numbers of Linux, as a call returns them.
pub(super) mod errno {
    pub(in super::super) const ENOENT: i64 = -2;
    pub(in super::super) const E2BIG: i64 = -7;
    pub(in super::super) const EBADF: i64 = -9;
    pub(in super::super) const ENOMEM: i64 = -12;
    pub(in super::super) const EBUSY: i64 = -16;
    pub(in super::super) const EEXIST: i64 = -17;
    pub(in super::super) const EINVAL: i64 = -22;
    pub(in super::super) const EMFILE: i64 = -24;
    pub(in super::super) const EOPNOTSUPP: i64 = -95;
}

/// What a call came to.
enum Came {
    /// To a number.
    To(i64),
    /// The script uses a name twice: nothing was called.
    Taken,
}

use Came::{Taken, To};

/// A mock device.
#[derive(Debug)]
struct Device {
    /// Its object ID in the kernel, which says when it goes if everything is closed.
    id: u32,
    /// The ID of its other half, which says nothing.
    other: u32,
    pasids: bool,
    /// By PASID; 0 is the function.
    attached: BTreeMap<u32, Attached>,
}

/// An attachment. Each has a domain of its own, as in the kernel each has a handle.
#[derive(Clone, Copy, Debug)]
struct Attached {
    domain: DomainId,
    table: Table,
}

/// A fault queue.
#[derive(Debug)]
struct Queue {
    id: u32,
    forward: Forward,
    /// Its descriptor is open.
    open: bool,
    /// Something came since epoll was asked.
    woken: bool,
    /// A group was pushed back since something came.
    restored: bool,
    /// The highest cookie ever given, and those whose group a detach denied.
    highest: u32,
    dead: BTreeSet<u32>,
    /// Cookies that were written with a bad code.
    spared: BTreeSet<u32>,
    /// The next read has a group whose copy failed.
    failed: bool,
}

/// Page tables that the script made.
#[derive(Clone, Copy, Debug)]
struct Tables {
    id: u32,
    pasids: bool,
    parent: bool,
    on: Option<Table>,
    queue: Option<Name>,
}

/// A virtual IOMMU.
#[derive(Debug)]
struct Viommu {
    id: u32,
    /// The tables its nested ones stand on.
    parent: Name,
    /// Numbers of devices.
    devices: BTreeMap<Name, u32>,
}

/// The model. Plays steps, and counts what it hits.
#[derive(Debug)]
pub struct World {
    engine: Engine,
    /// `/dev/iommu` is open.
    open: bool,
    ids: Ids,
    devices: BTreeMap<Name, Device>,
    queues: BTreeMap<Name, Queue>,
    tables: BTreeMap<Name, Tables>,
    viommus: BTreeMap<Name, Viommu>,
    /// The object ID of the tables that the kernel made for the I/O address space.
    auto: Option<u32>,
    domains: u32,
    /// The queue of each domain that has one.
    served: BTreeMap<DomainId, Name>,
    /// How domains ended: by a replace, or else a detach.
    ended: BTreeMap<DomainId, bool>,
    partials: Vec<Partial>,
    outstanding: Vec<Outstanding>,
    line: String,
    hits: Hits,
}

impl Default for World {
    fn default() -> Self {
        Self::new(Policy::linux())
    }
}

impl World {
    /// A world without anything, whose engine plays by `policy`.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            engine: Engine::new(policy),
            open: false,
            ids: Ids::default(),
            devices: BTreeMap::new(),
            queues: BTreeMap::new(),
            tables: BTreeMap::new(),
            viommus: BTreeMap::new(),
            auto: None,
            domains: 0,
            served: BTreeMap::new(),
            ended: BTreeMap::new(),
            partials: Vec::new(),
            outstanding: Vec::new(),
            line: String::new(),
            hits: Hits::default(),
        }
    }

    /// What was hit so far.
    #[must_use]
    pub fn hits(&self) -> &Hits {
        &self.hits
    }

    /// Plays a step; its line.
    pub fn play(&mut self, step: &Step) -> String {
        self.line.clear();
        let came = self.step(step);
        self.drain();
        let failed = !matches!(came, To(0..));
        self.hits.step(step.kind(), failed);
        let mut line = match came {
            To(number) => number.to_string(),
            Taken => "taken".to_owned(),
        };
        line += &self.line;
        line
    }

    /// The devices that there are.
    pub(super) fn devices(&self) -> Vec<Name> {
        self.devices.keys().copied().collect()
    }

    /// The PASIDs of a device that are attached; 0 is the function.
    pub(super) fn attached(&self, device: Name) -> Vec<u32> {
        let attached = self.devices.get(&device).map(|device| &device.attached);
        attached
            .into_iter()
            .flat_map(|all| all.keys().copied())
            .collect()
    }

    /// Devices and PASIDs (0: the function) whose page requests go to a queue with a reader.
    pub(super) fn served(&self) -> Vec<(Name, u32)> {
        let read = |attached: &Attached| {
            let queue = self.served.get(&attached.domain);
            queue.is_some_and(|name| self.queues.get(name).is_some_and(|queue| queue.open))
        };
        let spaces = |(name, device): (&Name, &Device)| {
            let name = *name;
            let spaces = device
                .attached
                .iter()
                .filter(|(_, attached)| read(attached));
            spaces.map(|(pasid, _)| (name, *pasid)).collect::<Vec<_>>()
        };
        self.devices.iter().flat_map(spaces).collect()
    }

    /// The tables that were made.
    pub(super) fn made(&self) -> Vec<Name> {
        self.tables.keys().copied().collect()
    }

    /// Queues whose descriptor is open.
    pub(super) fn open_queues(&self) -> Vec<Name> {
        let open = self.queues.iter().filter(|(_, queue)| queue.open);
        open.map(|(name, _)| *name).collect()
    }

    /// Queues that hold groups and whose descriptor is open.
    pub(super) fn busy_queues(&self) -> Vec<Name> {
        let held = |queue: &Queue| queue.open && queue.forward.held() != (0, 0);
        let busy = self.queues.iter().filter(|(_, queue)| held(queue));
        busy.map(|(name, _)| *name).collect()
    }

    /// Cookies that a queue's user may answer.
    pub(super) fn cookies(&self, queue: Name) -> Vec<u32> {
        let queue = self.queues.get(&queue);
        queue
            .into_iter()
            .flat_map(|queue| queue.forward.unanswered())
            .collect()
    }

    fn step(&mut self, step: &Step) -> Came {
        match *step {
            Step::Open => return self.open(),
            Step::Read(queue, bytes, good) => return To(self.read(queue, bytes, good)),
            Step::ReadAt(queue, _) | Step::WriteAt(queue, _) => {
                let written = matches!(step, Step::WriteAt(..));
                return To(self.at_position(queue, written));
            }
            Step::Write(queue, bytes, good, ref answers) => {
                return To(self.write(queue, bytes, good, answers));
            }
            Step::Poll(queue) => return To(self.poll(queue)),
            Step::Edge(queue) => return To(self.edge(queue)),
            Step::Close(queue) => return To(self.close(queue)),
            _ if !self.open => return To(errno::EBADF),
            _ => {}
        }
        match *step {
            Step::Device(name, pasids) => self.device(name, pasids),
            Step::Fault(name) => self.fault(name),
            Step::FaultWrong(wrong) => To(self.fault_wrong(wrong)),
            Step::Hwpt(name, device, base, flags, queue) => {
                self.hwpt(name, device, base, flags, queue)
            }
            Step::Viommu(name, device, parent) => self.viommu(name, device, parent),
            Step::Vdevice(name, device, number) => To(self.vdevice(name, device, number)),
            Step::Attach(device, pasid, table) => To(self.attach(device, pasid, table)),
            Step::Replace(device, pasid, table) => To(self.replace(device, pasid, table)),
            Step::Detach(device, pasid) => To(self.detach(device, pasid)),
            Step::Page(page) => To(self.page(&page)),
            Step::Discard(device) => To(self.discard(device)),
            Step::Destroy(object) => To(match object {
                Object::Device(name) => self.destroy_device(name),
                Object::Fault(name) => self.destroy_fault(name),
                Object::Table(name) => self.destroy_tables(name),
                Object::Viommu(name) => self.destroy_viommu(name),
            }),
            // The others need no /dev/iommu.
            _ => To(self.shut()),
        }
    }

    fn page(&mut self, page: &Page) -> i64 {
        if !self.devices.contains_key(&page.device) {
            return errno::ENOENT;
        }
        let domain = self.classify_handler(page);
        let request = PageRequest {
            pasid: space(page.pasid),
            group: GroupIndex(page.group),
            addr: Iova(page.addr),
            access: Access::from_bits_truncate(page.perm),
            last: page.last,
            response_needs_pasid: page.needs_pasid,
            // What the answer is told apart by, and how the page found its handler.
            private_data: [page.addr, domain.map_or(u64::MAX, |of| of.0.into())],
        };
        let id = device(page.device);
        let room = self.engine.policy().max_pages();
        if page.no_memory {
            let (held, _) = self.engine.pages_held();
            self.engine
                .set_max_pages(u32::try_from(held).unwrap_or(room));
        }
        let reported = self.engine.report(NOW, id, &Fault::PageRequest(request));
        self.engine.set_max_pages(room);
        match reported {
            Ok(Reported::Collected) => {
                self.hits.hit(Branch::Collected);
                self.partials.push(Partial {
                    device: page.device,
                    group: page.group,
                });
                0
            }
            Ok(Reported::Queued(_)) => {
                self.deliver(page);
                0
            }
            Ok(Reported::Answered(answer, Why::NoRoom)) => {
                self.classify_no_memory(page);
                self.tell(&answer, true);
                0
            }
            Err(Refused::NoRoom(_)) => {
                self.hits.hit(Branch::NoMemoryPartial);
                errno::ENOMEM
            }
            Ok(Reported::Answered(answer, _)) => {
                self.classify_refusal(page);
                self.tell(&answer, page.last);
                errno::EINVAL
            }
            // With the kernel's policy there is no other refusal; with the stricter one there is.
            Ok(Reported::Judged(_)) | Err(_) => errno::EINVAL,
        }
    }

    /// What was reported as complete goes to its queue.
    fn deliver(&mut self, page: &Page) {
        let mut router = Router {
            queues: &mut self.queues,
            served: &self.served,
            seen: Vec::new(),
        };
        serve(&mut self.engine, NOW, &mut router, usize::MAX);
        let seen = router.seen;
        for seen in seen {
            self.classify_group(page, &seen);
        }
    }

    fn discard(&mut self, name: Name) -> i64 {
        if !self.devices.contains_key(&name) {
            return errno::ENOENT;
        }
        let devices: BTreeSet<_> = self.partials.drain(..).map(|page| page.device).collect();
        self.hits.hit(match devices.len() {
            0 => Branch::DiscardNone,
            1 => Branch::DiscardSome,
            _ => Branch::DiscardSeveral,
        });
        self.engine.discard_partial();
        0
    }

    /// The answers that are to be sent, into the line.
    fn drain(&mut self) {
        while let Some(answer) = self.engine.poll_answer() {
            self.tell(&answer, true);
        }
    }

    fn tell(&mut self, answer: &Answer, last: bool) {
        let [addr, _] = answer.private_data;
        if answer.by != By::Report {
            self.classify_answer(addr);
        }
        let code = match answer.response {
            Response::Success => 0,
            Response::Invalid => 1,
            Response::Failure => 2,
        };
        let flags = u8::from(answer.pasid.is_some())
            | u8::from(last) << 1
            | u8::from(answer.needs_pasid) << 2;
        let pasid = answer.pasid.map_or(0, Pasid::get);
        // Writing to a string does not fail.
        let _ = write!(
            self.line,
            " a:d{},{pasid},{},{code},{flags:#x},{addr:#x}",
            answer.device.0, answer.group.0
        );
    }
}

/// The engine's number of a device.
fn device(name: Name) -> DeviceId {
    DeviceId(name.into())
}

/// The address space under a PASID of the script.
fn space(pasid: u32) -> Option<Pasid> {
    (pasid != 0).then(|| Pasid::truncate(pasid))
}

/// Takes each group to the queue of its tables, as each domain of iommufd has its handler.
struct Router<'a> {
    queues: &'a mut BTreeMap<Name, Queue>,
    served: &'a BTreeMap<DomainId, Name>,
    seen: Vec<Seen>,
}

impl Resolver for Router<'_> {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        let name = self.served.get(&group.domain);
        let Some(queue) = name.and_then(|name| self.queues.get_mut(name)) else {
            // A queue outlives the tables that name it.
            return Decision::Refuse;
        };
        queue.woken = true;
        queue.restored = false;
        self.seen.push(Seen {
            domain: group.domain,
            pages: pages
                .clone()
                .map(|page| (page.pasid, page.private_data[1]))
                .collect(),
            read: queue.open,
        });
        queue.forward.group(group, pages)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Unhandled
    }
}

#[cfg(test)]
mod tests;
