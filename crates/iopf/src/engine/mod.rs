//! The engine: from a reported fault to its one answer.
//!
//! Semantics: Linux 7.3 `drivers/iommu/io-pgfault.c` (groups, partial pages, queue operations),
//! and where [`Policy::default`] is stricter, the table at [`Policy`].
//!
//! Not here: wire formats, file descriptors, page tables, a clock.

mod answer;
mod attach;
mod deadline;
mod device;
mod fair;
mod group;
mod loss;
mod once;
mod policy;
mod report;
mod slab;
mod whole;

pub use answer::{Answer, AnswerError, By, Verdict, VerdictError};
pub use attach::{Departed, Detached};
pub use device::{
    AddError, AttachError, Attachment, DeviceConfig, DeviceId, DomainId, GuestId, UnknownDevice,
};
pub use group::{Delivery, Group, Pages, Stray};
pub use loss::{Counts, LossReport, Losses, Verdicts};
pub use once::Decided;
pub use policy::Policy;
pub use report::{Refused, Reported, Why};

use crate::flood::{Flood, LogLine};
use alloc::collections::VecDeque;
use deadline::Timers;
use device::Devices;
use fair::Order;
use slab::{List, NIL, Slab, Slot};

/// A point in time, in nanoseconds from an origin the caller chooses. Only differences count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// Names one group, or one unrecoverable fault, from its report to its answer or verdict.
///
/// It carries a generation: once answered, a handle is stale for good, whatever group uses the
/// same memory next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    slot: u32,
    generation: u32,
}

impl Handle {
    /// The handle as a number, to travel through an interface that carries one.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        (self.generation as u64) << 32 | self.slot as u64
    }

    /// The handle a number stands for. Any number is safe: one that names nothing is stale.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = bits.to_le_bytes();
        Self {
            slot: u32::from_le_bytes([a, b, c, d]),
            generation: u32::from_le_bytes([e, f, g, h]),
        }
    }
}

/// Takes every fault of the devices on one queue to its answer or verdict.
///
/// Feed it with [`report`](Self::report) (or [`report_group`](Self::report_group), where somebody
/// else puts groups together), [`answer`](Self::answer), [`judge`](Self::judge) and
/// [`handle_timeout`](Self::handle_timeout), telling it the time; after each, drain
/// [`poll_fault`](Self::poll_fault), [`poll_answer`](Self::poll_answer),
/// [`poll_loss`](Self::poll_loss) and [`poll_log`](Self::poll_log), and call `handle_timeout` no
/// later than [`poll_timeout`](Self::poll_timeout) says. Nothing blocks, reads a clock or does
/// I/O. Time that runs backwards counts as standing still, so a time that lies too far ahead brings
/// every deadline forward for good.
///
/// Under [`Policy::default`] it promises, whatever comes in:
///
/// - a group that asked for an answer gets exactly one, by resolver, deadline, detach or removal;
/// - an unrecoverable fault gets exactly one verdict and never an answer on the wire;
/// - a refused call changes nothing but its own count;
/// - a stale handle never completes anything;
/// - a device never holds more pages than its credits, nor the engine more than the policy's;
/// - every fault is accounted for: see [`Counts`];
/// - a group at the head of its device's queue waits for at most one turn of each other device.
///
/// ```
/// use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Response};
/// use iopf::engine::{
///     Attachment, Delivery, DeviceConfig, DeviceId, DomainId, Engine, Policy, Reported, Tick,
/// };
///
/// let mut engine = Engine::new(Policy::default());
/// let device = DeviceId(7);
/// engine.add_device(device, DeviceConfig::default())?;
/// engine.attach(device, None, Attachment::new(DomainId(1)))?;
/// let page = PageRequest {
///     pasid: None,
///     group: GroupIndex(3),
///     addr: Iova(0x1000),
///     access: Access::READ,
///     last: true,
///     response_needs_pasid: false,
///     private_data: [0; 2],
/// };
/// match engine.report(Tick(0), device, &Fault::PageRequest(page))? {
///     // Given at once, this is the group's only answer: `poll_answer` will not bring it.
///     Reported::Answered(answer, why) => println!("send {answer:?}, because of {why:?}"),
///     Reported::Collected | Reported::Queued(_) | Reported::Judged(_) => {}
/// }
/// let Some(Delivery::Group(group)) = engine.poll_fault() else { panic!() };
/// engine.answer(Tick(5), group.handle, Response::Success)?;
/// let answer = engine.poll_answer().ok_or("the one answer")?;
/// assert_eq!((answer.group, answer.response), (GroupIndex(3), Response::Success));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Engine {
    policy: Policy,
    now: u64,
    slab: Slab,
    devices: Devices,
    order: Order,
    timers: Timers,
    /// Answers to fetch, oldest first.
    answers: List,
    /// Places in the device table with losses to tell.
    dirty: VecDeque<u32>,
    /// The books of devices that have left, and of reports that named no known device.
    departed: Counts,
    /// The part of the departed losses that was told.
    told: Losses,
    flood: Flood,
}

impl Engine {
    /// An engine without devices.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            now: 0,
            slab: Slab::new(policy.max_pages),
            devices: Devices::new(policy.max_devices),
            order: Order::new(policy.strict),
            timers: Timers::default(),
            answers: List::EMPTY,
            dirty: VecDeque::new(),
            departed: Counts::default(),
            told: Losses::default(),
            flood: Flood::default(),
        }
    }

    /// The rules it plays by.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// When [`handle_timeout`](Self::handle_timeout) is next due. It may turn out to be early, at
    /// most once a timeout for each device; it is never late.
    #[must_use]
    #[inline]
    pub fn poll_timeout(&self) -> Option<Tick> {
        let flood = self.flood.next();
        match (self.timers.next(), flood) {
            (Some(a), Some(b)) => Some(Tick(a.min(b))),
            (a, b) => a.or(b).map(Tick),
        }
    }

    /// The next losses to tell, a device at a time, and each loss once.
    #[must_use]
    #[inline]
    pub fn poll_loss(&mut self) -> Option<LossReport> {
        if self.dirty.is_empty() && self.departed.losses == self.told {
            return None;
        }
        self.next_loss()
    }

    fn next_loss(&mut self) -> Option<LossReport> {
        while let Some(place) = self.dirty.pop_front() {
            let device = self.devices.at_mut(place);
            device.dirty = false;
            let device = Some(device.id);
            let rest = self.devices.rest_mut(place);
            let losses = rest.losses - rest.told;
            if losses.total() > 0 {
                rest.told = rest.losses;
                return Some(LossReport { device, losses });
            }
        }
        let losses = self.departed.losses - self.told;
        self.told = self.departed.losses;
        (losses.total() > 0).then_some(LossReport {
            device: None,
            losses,
        })
    }

    /// The next line for the host's log; see [`LogLine`].
    #[must_use]
    #[inline]
    pub fn poll_log(&mut self) -> Option<LogLine> {
        self.flood.poll()
    }

    /// The books of a device on the queue.
    ///
    /// # Errors
    /// [`UnknownDevice`].
    pub fn counts(&self, id: DeviceId) -> Result<Counts, UnknownDevice> {
        let place = self.devices.find(id).ok_or(UnknownDevice(id))?;
        Ok(self.devices.counts(place))
    }

    /// The books of everything that ever came in. Takes time in the number of devices.
    #[must_use]
    pub fn totals(&self) -> Counts {
        let mut sum = self.departed;
        for place in self.devices.places() {
            sum += self.devices.counts(place);
        }
        sum
    }

    /// Pages and unrecoverable faults held now, and how many memory was taken for. Memory is
    /// kept for reuse, so the latter is the most ever held, rounded up to 1,024.
    #[must_use]
    pub fn pages_held(&self) -> (usize, usize) {
        (self.slab.used() as usize, self.slab.capacity())
    }

    /// From now on there is room for `pages` pages in all, as with [`Policy::with_max_pages`]. What is
    /// held beyond that stays.
    pub fn set_max_pages(&mut self, pages: u32) {
        self.policy = self.policy.with_max_pages(pages);
        self.slab.set_max(self.policy.max_pages);
    }

    /// How many more pages the policy has room for, whatever the devices' credits say.
    #[must_use]
    #[inline]
    pub fn room(&self) -> u32 {
        self.policy.max_pages.saturating_sub(self.slab.used())
    }

    fn advance(&mut self, now: Tick) {
        self.now = self.now.max(now.0);
    }

    /// Counts a loss of the device at `place`, and sees to it that it is told.
    fn lose(&mut self, place: u32, losses: Losses) {
        if losses.total() == 0 {
            return;
        }
        self.devices.rest_mut(place).losses += losses;
        let device = self.devices.at_mut(place);
        if !device.dirty {
            device.dirty = true;
            self.dirty.push_back(place);
        }
    }

    /// Gives back a slot of the device at `place`, and the place with the last slot of a device
    /// that left.
    #[inline]
    fn put(&mut self, place: u32, index: u32) {
        self.slab.put(index);
        let device = self.devices.at_mut(place);
        device.used -= 1;
        if device.used == 0 && !device.live {
            self.release(place);
        }
    }

    /// Closes the books of a device that left and holds nothing any more.
    #[cold]
    fn release(&mut self, place: u32) {
        let (counts, told) = self.devices.release(place);
        self.departed += counts;
        self.told += told;
    }

    /// Sees to it that the device at `place` is looked at when what came at `since` is due.
    #[inline]
    fn arm_after(&mut self, place: u32, since: u64) {
        if let Some(timeout) = self.policy.timeout {
            let deadline = since.saturating_add(timeout);
            self.timers.arm(&mut self.devices, place, deadline);
        }
    }

    /// Sees to it that the device at `place` is looked at in time.
    fn arm(&mut self, place: u32) {
        let Some(timeout) = self.policy.timeout else {
            return;
        };
        let device = self.devices.at(place);
        let since = |slab: &Slab, head: u32| {
            (head != NIL).then(|| slab.at(head).at.saturating_add(timeout))
        };
        let waiting = since(&self.slab, device.waiting.head);
        let open = since(&self.slab, device.open);
        if let Some(deadline) = waiting.into_iter().chain(open).min() {
            self.timers.arm(&mut self.devices, place, deadline);
        }
    }

    /// Answers INVALID what was not answered in time, gives up on partial pages whose last page
    /// did not come in time, and ends suppressed runs of log lines.
    pub fn handle_timeout(&mut self, now: Tick) {
        self.advance(now);
        self.flood.handle_timeout(self.now);
        let Some(timeout) = self.policy.timeout else {
            return;
        };
        while let Some(place) = self.timers.pop_due(&mut self.devices, self.now) {
            self.expire(place, timeout);
            self.arm(place);
        }
    }

    fn expire(&mut self, place: u32, timeout: u64) {
        let due = |slot: &Slot, now: u64| slot.at.saturating_add(timeout) <= now;
        loop {
            let head = self.devices.at(place).open;
            if head == NIL || !due(self.slab.at(head), self.now) {
                break;
            }
            self.drop_chain(place, head);
        }
        loop {
            let head = self.devices.at(place).waiting.head;
            if head == NIL || !due(self.slab.at(head), self.now) {
                break;
            }
            self.devices.rest_mut(place).late += 1;
            self.give_up(head, By::Deadline);
        }
    }
}

#[cfg(test)]
mod tests;
