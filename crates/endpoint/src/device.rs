//! The function itself: joins the queue, the device TLB, the IOMMU's ports and memory.

mod access;
mod pages;

use crate::MAX_GROUPS;
use crate::Via;
use crate::atc::Atc;
use crate::job::{Broken, Completion, GroupAnswer, Job, JobId, OnFault, Refused, Stats, Status};
use crate::queue::{Active, Limits, Missing, Queue};
use access::Attempt;
use iopf::{Access, GroupIndex, Iova, Pasid, Response, Rid};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use viommu_api::{Ats, Endpoint, Invalidation, PhysicalMemory, Pri, Resume, StallTag, Translate};

/// The IOMMU in front of a device, service by service.
#[derive(Clone)]
pub struct Ports {
    /// Takes memory requests.
    pub translate: Arc<dyn Translate>,
    /// Takes translation requests.
    pub ats: Arc<dyn Ats>,
    /// Takes page requests.
    pub pri: Arc<dyn Pri>,
    /// The IOMMU of a host, for [`Via::Host`](crate::Via::Host): what translates the requests of a
    /// physical device that the guest was given, with tables of the host's own. Whoever implements it
    /// also tells the guest of what is the guest's own mistake.
    pub host: Option<Arc<dyn Translate>>,
}

impl Ports {
    /// One IOMMU that offers all three.
    #[must_use]
    pub fn of<I: Translate + Ats + Pri + 'static>(iommu: Arc<I>) -> Self {
        Self {
            translate: iommu.clone(),
            ats: iommu.clone(),
            pri: iommu,
            host: None,
        }
    }

    /// The same, with a host's IOMMU beside it.
    #[must_use]
    pub fn with_host(self, host: Arc<dyn Translate>) -> Self {
        Self {
            host: Some(host),
            ..self
        }
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ports")
    }
}

/// How a function tells its driver of something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signals {
    /// By MSI-X.
    #[default]
    Messages,
    /// By its pin, or not at all where it has none: without MSI-X.
    ///
    /// For guests that have the IOMMU translate the addresses of messages, as Linux does on arm64
    /// (`iommu_dma_prepare_msi`), in front of VMMs that send a function's messages without asking the
    /// IOMMU, as QEMU does.
    Pin,
}

/// The sizes and times of a device.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Page requests that may be outstanding, the "Outstanding Page Request Allocation";
    /// 0 turns the page request interface off. Linux allocates 32 or 64.
    pub allocation: u32,
    /// Pages in one group at most; brought down to `allocation`.
    pub group_pages: u32,
    /// Answers have the PASID of their group ("PRG Response PASID Required"). Without, the index
    /// alone says which group an answer is for. Linux asks for it on VT-d, and on AMD-Vi it gives
    /// none (`amd_iommu_complete_ppr`), whatever the function asks for.
    pub answers_by_pasid: bool,
    /// How the function around the device tells its driver of something.
    pub signals: Signals,
    /// Jobs accepted and not yet collected.
    pub jobs: usize,
    /// Bytes that one job may move.
    pub max_len: u32,
    /// Entries of the device TLB.
    pub atc_entries: usize,
    /// How long a group waits for its answer.
    pub timeout: Duration,
    /// How often a job asks again for a page that was answered Success and is still missing.
    pub attempts: u32,
    /// The wait before the second such retry; it doubles up to 1024-fold.
    pub backoff: Duration,
    /// Pieces of up to 4 KiB that one step moves.
    pub quantum: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            allocation: 64,
            group_pages: 16,
            answers_by_pasid: true,
            signals: Signals::Messages,
            jobs: 64,
            max_len: 16 << 20,
            atc_entries: 256,
            timeout: Duration::from_secs(10),
            attempts: 1000,
            backoff: Duration::from_micros(1),
            quantum: 16,
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Something was done; step again.
    Worked,
    /// Nothing to do before the given time, or before something happens.
    Idle(Option<Duration>),
}

/// A PCIe function that does DMA.
///
/// Submit a [`Job`] with [`submit`](Self::submit), call [`step`](Self::step) until it is idle, and
/// collect with [`poll_completion`](Self::poll_completion). It may be used from several threads; a
/// job is stepped by one at a time.
///
/// Promises: never more page requests outstanding than [`Config::allocation`]; a group index is not
/// used again before its group was answered, or forgotten in a reset; each job ends exactly once; when
/// [`invalidate`](Endpoint::invalidate) returns, no access uses what it named. A test may break some
/// of them on purpose: [`Broken`](crate::Broken), [`set_deaf`](Device::set_deaf) and
/// [`flood`](Device::flood).
///
/// No lock is held across a call to the IOMMU, so the IOMMU may call back from inside one; only
/// [`Translate::with_translation`]'s closure, which touches memory, must not meet an invalidation of
/// its own thread.
pub struct Device {
    rid: Rid,
    config: Config,
    ports: Ports,
    memory: Arc<dyn PhysicalMemory>,
    atc: RwLock<Atc>,
    queue: Mutex<Queue>,
    bus_master: AtomicBool,
    ats: AtomicBool,
    pasid: AtomicBool,
    deaf: AtomicBool,
    /// Moves with every reset, under the lock of the queue.
    resets: AtomicU64,
    /// How often the device TLB was to be emptied, and how often of these it was seen to.
    flushes: AtomicU64,
    flushed: AtomicU64,
}

/// A job under way, and how many resets there had been when it was taken up.
#[derive(Clone, Copy)]
struct Turn<'a> {
    job: &'a Job,
    resets: u64,
}

impl<'a> Turn<'a> {
    fn of(active: &'a Active, resets: u64) -> Self {
        let job = &active.job;
        Self { job, resets }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("rid", &self.rid)
            .finish_non_exhaustive()
    }
}

impl Device {
    /// The function `rid` behind `ports`, with physical memory `memory`.
    #[must_use]
    pub fn new(rid: Rid, config: Config, ports: Ports, memory: Arc<dyn PhysicalMemory>) -> Self {
        let limits = Limits {
            jobs: config.jobs,
            max_len: config.max_len,
            allocation: config.allocation,
            by_pasid: config.answers_by_pasid,
            timeout: config.timeout,
            attempts: config.attempts,
            backoff: config.backoff,
        };
        Self {
            rid,
            config,
            ports,
            memory,
            atc: RwLock::new(Atc::new(config.atc_entries)),
            queue: Mutex::new(Queue::new(limits)),
            bus_master: AtomicBool::new(true),
            ats: AtomicBool::new(true),
            pasid: AtomicBool::new(true),
            deaf: AtomicBool::new(false),
            resets: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
        }
    }

    /// The requester ID of this function.
    #[must_use]
    pub fn rid(&self) -> Rid {
        self.rid
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a job.
    ///
    /// # Errors
    /// When it is empty, too long, wraps around, no slot is free, or it wants a host that is not
    /// there.
    pub fn submit(&self, job: Job) -> Result<JobId, Refused> {
        if job.via == Via::Host && self.ports.host.is_none() {
            return Err(Refused::NoHost);
        }
        self.queue().handle_submit(job)
    }

    /// The next job that ended.
    #[must_use]
    pub fn poll_completion(&self) -> Option<Completion> {
        self.queue().poll_completion()
    }

    /// The next page request group that is over. The last 4096 are kept.
    #[must_use]
    pub fn poll_answer(&self) -> Option<GroupAnswer> {
        self.queue().poll_answer()
    }

    /// Jobs that have not ended.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queue().pending()
    }

    /// Groups of an address space that wait for an answer.
    #[must_use]
    pub fn outstanding(&self, pasid: Option<Pasid>) -> usize {
        self.queue().outstanding(pasid)
    }

    /// Translations in its TLB.
    #[must_use]
    pub fn cached(&self) -> usize {
        self.tidy();
        self.atc().len()
    }

    /// What it has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.queue().stats
    }

    /// Cancels the jobs of an address space. A job whose group is outstanding ends when the group
    /// is answered, as PCIe asks of a function that stops using a PASID.
    pub fn abort(&self, pasid: Option<Pasid>) {
        self.queue().abort(pasid);
    }

    /// Cancels every job at once, forgets every translation and every group: a reset of the function.
    /// A piece of up to 4 KiB that is being moved may still arrive.
    pub fn reset(&self) {
        {
            let mut queue = self.queue();
            self.resets.fetch_add(1, Ordering::SeqCst);
            queue.reset();
        }
        self.forget_translations();
    }

    /// Empties the device TLB, without waiting for an access that is under way: what it moves may have
    /// to come from the very client whose register access this is.
    fn forget_translations(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
    }

    /// Does what [`forget_translations`](Self::forget_translations) asked for; returns the count up to
    /// which the device TLB is emptied, for those who use it to compare with.
    fn tidy(&self) -> u64 {
        let flushes = self.flushes.load(Ordering::SeqCst);
        if self.flushed.load(Ordering::SeqCst) != flushes {
            let mut atc = self.atc.write().unwrap_or_else(PoisonError::into_inner);
            atc.clear();
            self.flushed.fetch_max(flushes, Ordering::SeqCst);
        }
        flushes
    }

    /// Lets it send requests or not; it may from the start. Jobs that need to send one end with
    /// [`Status::BusMasterOff`] while it may not.
    pub fn set_bus_master(&self, on: bool) {
        self.bus_master.store(on, Ordering::SeqCst);
    }

    /// Lets it ask for translations or not; it may from the start. While it may not, its TLB is empty
    /// and the requests of [`Via::Ats`] leave untranslated, those of jobs under way too.
    pub fn set_ats(&self, on: bool) {
        self.ats.store(on, Ordering::SeqCst);
        if !on {
            self.forget_translations();
        }
    }

    /// Lets it use PASIDs or not; it may from the start. While it may not, its TLB holds nothing of
    /// theirs, and jobs that have one end with [`Status::PasidOff`].
    pub fn set_pasid(&self, on: bool) {
        self.pasid.store(on, Ordering::SeqCst);
        if !on {
            self.forget_translations();
        }
    }

    /// What keeps a job from sending a request now, if anything does.
    fn held(&self, turn: Turn<'_>) -> Option<Status> {
        if self.resets.load(Ordering::SeqCst) == turn.resets {
            self.switched_off(turn.job.pasid, turn.job.broken)
        } else {
            Some(Status::Aborted)
        }
    }

    /// The switch that keeps requests like this from being sent now, if one does.
    pub(crate) fn switched_off(&self, pasid: Option<Pasid>, broken: Broken) -> Option<Status> {
        let off = |switch: &AtomicBool| !switch.load(Ordering::SeqCst);
        if off(&self.bus_master) && !broken.without_bus_master {
            Some(Status::BusMasterOff)
        } else if off(&self.pasid) && pasid.is_some() {
            Some(Status::PasidOff)
        } else {
            None
        }
    }

    /// Makes it ignore invalidations from now on, or obey them again: a broken device.
    pub fn set_deaf(&self, deaf: bool) {
        self.deaf.store(deaf, Ordering::SeqCst);
    }

    /// Does one bounded amount of work at time `now`, measured from any fixed start.
    pub fn step(&self, now: Duration) -> Step {
        let (taken, resets) = {
            let mut queue = self.queue();
            let taken = queue.take(now);
            match taken {
                Some(active) => (active, self.resets.load(Ordering::SeqCst)),
                None => return Step::Idle(queue.poll_timeout()),
            }
        };
        self.run(taken, resets, now);
        Step::Worked
    }

    fn run(&self, mut active: Active, resets: u64, now: Duration) {
        for _ in 0..self.config.quantum {
            if active.done >= active.job.op.len() {
                return self.queue().finish(active, Status::Done);
            }
            if let Some(status) = self.held(Turn::of(&active, resets)) {
                return self.queue().finish(active, status);
            }
            let piece = active.job.piece(active.done);
            let turn = Turn {
                job: &active.job,
                resets,
            };
            match self.attempt(turn, piece, &active.ignored, &mut active.data) {
                Attempt::Moved => {
                    active.done += piece.len;
                    active.attempts = 0;
                    active.failed = None;
                    active.ignored.clear();
                    self.queue().stats.bytes += piece.len;
                }
                Attempt::Raced => break,
                Attempt::Missing(at, access) => {
                    return self.miss(active, resets, (at, access), now);
                }
                Attempt::Stalled(tag, at, access) => {
                    return self.queue().stall(active, tag, (at, access));
                }
                Attempt::Failed(status, failed) => {
                    active.failed = failed;
                    return self.queue().finish(active, status);
                }
            }
        }
        if active.done >= active.job.op.len() {
            self.queue().finish(active, Status::Done);
        } else {
            self.queue().put_back(active);
        }
    }

    /// The pages a job misses from where it stands, as many as one group may hold.
    fn missing(&self, active: &Active, resets: u64) -> Missing {
        let turn = Turn::of(active, resets);
        let credits = self.queue().credits();
        let limit = self
            .config
            .group_pages
            .clamp(1, MAX_GROUPS)
            .min(credits.max(1));
        let limit = usize::try_from(limit).unwrap_or(1);
        let mut pages: Vec<(Iova, Access)> = Vec::new();
        let mut done = active.done;
        for _ in 0..limit * 2 {
            if done >= active.job.op.len() || pages.len() >= limit {
                break;
            }
            let piece = active.job.piece(done);
            let sides = [
                (piece.from, active.job.read_access()),
                (piece.to, active.job.write_access()),
            ];
            for (side, access) in sides {
                let Some(at) = side else { continue };
                let page = Iova(at.0 & !0xfff);
                let known = pages.contains(&(page, access));
                if !known && pages.len() < limit && !self.present(turn, at, access) {
                    pages.push((page, access));
                }
            }
            done += piece.len;
        }
        Missing { pages }
    }

    /// A job has no translation for `missed`: ends it, or requests what it misses.
    fn miss(&self, mut active: Active, resets: u64, missed: (Iova, Access), now: Duration) {
        let (at, access) = missed;
        active.failed = Some(missed);
        if active.refused.contains(&(Iova(at.0 & !0xfff), access)) {
            return self.queue().finish(active, Status::Invalid(at));
        }
        if active.job.on_fault == OnFault::Stop {
            return self.queue().finish(active, Status::NoTranslation(at));
        }
        let pasid = active.job.pasid;
        let missing = if self.pri_enabled() {
            self.missing(&active, resets)
        } else {
            Missing {
                pages: vec![missed],
            }
        };
        // The job is parked before the first message leaves: the answer may overtake us.
        let parked = self.queue().park(active, &missing, now);
        let Some((group, pages)) = parked else { return };
        self.send(pasid, group, &pages);
    }
}

impl Endpoint for Device {
    fn invalidate(&self, invalidation: &Invalidation) {
        self.queue().stats.invalidations += 1;
        if self.deaf.load(Ordering::SeqCst) {
            return;
        }
        let mut atc = self.atc.write().unwrap_or_else(PoisonError::into_inner);
        atc.invalidate(invalidation);
    }

    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response) {
        self.queue().handle_response(pasid, group, response, false);
    }

    fn resume(&self, tag: StallTag, how: Resume) {
        self.queue().handle_resume(tag, how);
    }
}

#[cfg(test)]
mod tests;
