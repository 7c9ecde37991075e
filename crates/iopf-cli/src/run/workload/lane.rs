//! One copy after another, in one address space, through one device.

use crate::run::machine::TestResult;
use crate::run::rng::Rng;
use endpoint::{Completion, Device, Job, JobId, Op, Status, Via};
use iopf::{Access, Gpa, Iova, Rid};
use std::collections::BTreeMap;
use std::sync::Arc;
use testkit::{Backing, Mm, Ram};

/// Takes mappings away from everybody who might use them.
pub(crate) trait Kernel: Send + Sync {
    /// Unmaps and flushes; the frames that come back belong to nobody.
    fn unmap(&self, mm: &Mm, at: Iova, pages: u64) -> TestResult<Vec<Gpa>>;

    /// Whether the device's requests stall where a page is missing; otherwise it asks for pages.
    fn stalls(&self, _: Rid) -> bool {
        false
    }
}

/// What all lanes together came to.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) pages: u64,
    pub(crate) done: u64,
    pub(crate) invalid: u64,
    pub(crate) unexpected: u64,
    pub(crate) first_unexpected: Option<String>,
    pub(crate) compared: u64,
    pub(crate) wrong: u64,
    pub(crate) poisoned: u64,
    pub(crate) damaged: u64,
    /// Jobs of each device that ended with and without success.
    pub(crate) ended: BTreeMap<Rid, [u64; 2]>,
}

#[derive(Debug)]
pub(crate) struct Running {
    id: JobId,
    seed: u64,
    from: u64,
    to: u64,
    len: u32,
    pages: u64,
    /// Looks at the lane before its target is unmapped under the copy; `None`: never.
    disturb_in: Option<u64>,
    disturbed: bool,
}

pub(crate) struct Lane {
    device: Arc<Device>,
    mm: Arc<Mm>,
    ram: Arc<Ram>,
    kernel: Arc<dyn Kernel>,
    /// Requests leave as they are, and stall where a page is missing.
    stalls: bool,
    source: Iova,
    target: Iova,
    rng: Rng,
    running: Option<Running>,
    poisoned: Vec<Gpa>,
}

/// A page nobody owns looks like this.
const POISON: [u8; 4096] = [0xa5; 4096];
/// The longest copy in pages, a page less than a region.
const LONGEST: u64 = 24;

impl Lane {
    pub(crate) fn new(
        device: &Arc<Device>,
        mm: &Arc<Mm>,
        kernel: Arc<dyn Kernel>,
        base: Iova,
        seed: u64,
    ) -> Self {
        Self {
            device: device.clone(),
            mm: mm.clone(),
            ram: mm.ram().clone(),
            stalls: kernel.stalls(device.rid()),
            kernel,
            source: base,
            target: Iova(base.0 + (1 << 23)),
            rng: Rng::new(seed),
            running: None,
            poisoned: Vec::new(),
        }
    }

    pub(crate) fn rid(&self) -> Rid {
        self.device.rid()
    }

    pub(crate) fn running(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Maps two regions that nobody has touched and copies one to the other.
    pub(crate) fn start(&mut self) -> TestResult<JobId> {
        let pages = 1 + self.rng.below(LONGEST);
        let (from, to) = (self.rng.below(4096), self.rng.below(4096));
        let len = u32::try_from(pages * 4096 - self.rng.below(4096))?;
        let seed = self.rng.next();
        let disturb = self.rng.below(4) == 0;
        // At the next look, soon or late: how fast this thread looks differs a lot.
        let disturb_in = disturb.then(|| {
            let most = 1 << (4 * self.rng.below(3));
            self.rng.below(most)
        });
        let room = pages + 1;
        self.mm
            .mmap(self.source, room, Access::READ, Backing::Pattern(seed));
        self.mm.mmap(self.target, room, Access::RW, Backing::Zero);
        // Requests without ATS find what the IOTLB holds; if they do not stall, they cannot fault and go on.
        let touched = self.rng.below(4) == 0;
        if touched {
            self.touch(room)?;
        }
        let op = Op::Copy {
            from: Iova(self.source.0 + from),
            to: Iova(self.target.0 + to),
            len,
        };
        let mut job = Job::new(Some(self.mm.pasid()), op);
        if touched || self.stalls {
            job.via = Via::Untranslated;
        }
        let id = self.device.submit(job)?;
        self.running = Some(Running {
            id,
            seed,
            from,
            to,
            len,
            pages: room,
            disturb_in: disturb_in.filter(|_| !touched),
            disturbed: false,
        });
        Ok(id)
    }

    /// Makes every page of both regions present, as a CPU that uses them would.
    fn touch(&self, pages: u64) -> TestResult<()> {
        for page in 0..pages {
            for (base, access) in [(self.source, Access::READ), (self.target, Access::WRITE)] {
                let at = Iova(base.0 + page * 4096);
                self.mm
                    .fault(at, access)
                    .map_err(|_| "out of guest memory")?;
            }
        }
        Ok(())
    }

    /// Perhaps unmaps the target while the copy runs.
    pub(crate) fn disturb(&mut self, totals: &mut Totals) -> TestResult<()> {
        let Some(running) = &mut self.running else {
            return Ok(());
        };
        match &mut running.disturb_in {
            None => Ok(()),
            Some(0) => {
                running.disturb_in = None;
                running.disturbed = true;
                let pages = running.pages;
                self.release(self.target, pages, totals)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }

    /// Takes note of the end of a copy, and looks at every byte.
    pub(crate) fn finish(
        &mut self,
        completion: &Completion,
        totals: &mut Totals,
    ) -> TestResult<()> {
        let Some(running) = self.running.take().filter(|r| r.id == completion.id) else {
            return Err("a copy ended that nobody had started".into());
        };
        totals.pages += running.pages - 1;
        let ok = completion.status == Status::Done;
        let ended = totals.ended.entry(self.device.rid()).or_default();
        ended[usize::from(!ok)] += 1;
        // What was poisoned before had a whole copy's time to be damaged.
        self.inspect(totals);
        match completion.status {
            Status::Done => totals.done += 1,
            Status::Invalid(_) if running.disturbed && !self.stalls => totals.invalid += 1,
            Status::Blocked(_) if running.disturbed && self.stalls => totals.invalid += 1,
            other => {
                totals.unexpected += 1;
                let first = &mut totals.first_unexpected;
                first.get_or_insert_with(|| format!(", first {other:?}"));
            }
        }
        if ok && !running.disturbed {
            self.compare(&running, totals)?;
        }
        self.release(self.source, running.pages, totals)?;
        if !running.disturbed {
            self.release(self.target, running.pages, totals)?;
        }
        Ok(())
    }

    fn compare(&self, running: &Running, totals: &mut Totals) -> TestResult<()> {
        let mut bytes = vec![0; usize::try_from(running.pages * 4096)?];
        self.mm
            .read(self.target, &mut bytes)
            .map_err(|_| "the target is gone")?;
        let pattern = Backing::Pattern(running.seed);
        let copied = running.to..running.to + u64::from(running.len);
        let source = self.source.0 + running.from;
        for (offset, byte) in (0u64..).zip(&bytes) {
            let expected = if copied.contains(&offset) {
                pattern.byte(source + (offset - running.to))
            } else {
                0
            };
            totals.wrong += u64::from(*byte != expected);
        }
        totals.compared += bytes.len() as u64;
        Ok(())
    }

    fn release(&mut self, at: Iova, pages: u64, totals: &mut Totals) -> TestResult<()> {
        let frames = self.kernel.unmap(&self.mm, at, pages)?;
        for frame in &frames {
            self.ram.write(*frame, &POISON);
        }
        totals.poisoned += frames.len() as u64;
        self.poisoned.extend(frames);
        Ok(())
    }

    /// Looks at the poison, and gives the pages back.
    fn inspect(&mut self, totals: &mut Totals) {
        for frame in self.poisoned.drain(..) {
            let mut bytes = [0; 4096];
            self.ram.read(frame, &mut bytes);
            totals.damaged += u64::from(bytes != POISON);
            self.ram.free(frame);
        }
    }

    /// Looks at the last poison.
    pub(crate) fn end(&mut self, totals: &mut Totals) -> TestResult<()> {
        self.inspect(totals);
        match self.running {
            Some(_) => Err("a copy is still under way".into()),
            None => Ok(()),
        }
    }
}
