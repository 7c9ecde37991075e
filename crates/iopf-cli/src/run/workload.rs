//! Copies between untouched pages, verified: the work that scenarios give to their devices.

mod lane;

use super::arch::Scripted;
use super::args::Plan;
use super::clock::Clock;
use super::collect;
use super::latency::Histogram;
use super::machine::{Machine, TestResult};
use super::progress::Progress;
use super::report::{AnswerRow, Scenario};
use endpoint::{Device, GroupAnswer, JobId, Step};
use iopf::{Iova, Response, Rid};
pub(crate) use lane::{Kernel, Lane, Totals};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::{Driver, Mm};
use viommu_api::{Endpoint, Invalidation};

/// The device whose resolver is in this process; behind no virtual IOMMU.
pub(crate) const HOST_DEVICE: Rid = Rid(0x00f8);

/// Flushes through the guest's command queue.
pub(crate) struct Behind<X: Scripted>(pub(crate) Arc<Machine<X>>);

impl<X: Scripted> Kernel for Behind<X> {
    fn unmap(&self, mm: &Mm, at: Iova, pages: u64) -> TestResult<Vec<iopf::Gpa>> {
        Ok(self.0.guest.munmap(mm, at, pages)?)
    }

    fn stalls(&self, rid: Rid) -> bool {
        self.0.guest.stalls(rid)
    }
}

/// Flushes by telling the device.
pub(crate) struct Beside(pub(crate) Arc<Device>);

impl Kernel for Beside {
    fn unmap(&self, mm: &Mm, at: Iova, pages: u64) -> TestResult<Vec<iopf::Gpa>> {
        let frames = mm.unmap(at);
        for page in 0..pages {
            self.0.invalidate(&Invalidation {
                pasid: Some(mm.pasid()),
                global: false,
                addr: Iova(at.0 + page * 4096),
                size_shift: 12,
            });
        }
        Ok(frames)
    }
}

/// Steps devices until told to stop.
pub(crate) fn run_devices(devices: &[Arc<Device>], clock: Clock, stop: &AtomicBool) {
    let mut idle = 0u32;
    while !stop.load(Ordering::Acquire) {
        let now = clock.now();
        let mut worked = false;
        for device in devices {
            worked |= device.step(now) == Step::Worked;
        }
        idle = if worked { 0 } else { idle.saturating_add(1) };
        match idle {
            0 => {}
            1..200 => thread::yield_now(),
            _ => thread::sleep(Duration::from_micros(20)),
        }
    }
}

/// What the answers came to, by who gave them.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) took: Histogram,
    pub(crate) counts: [u64; 4],
}

impl Answers {
    fn add(&mut self, answer: &GroupAnswer) {
        self.took.add(answer.waited);
        let slot = match answer.response {
            Some(Response::Success) => 0,
            Some(Response::Invalid) => 1,
            Some(Response::Failure) => 2,
            None => 3,
        };
        self.counts[slot] += 1;
    }
}

/// What the main thread keeps book of.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) totals: Totals,
    pub(crate) by_guest: Answers,
    pub(crate) by_engine: Answers,
    /// In place of software, when a queue was full or page requests are not allowed.
    pub(crate) by_iommu: Answers,
}

impl Books {
    /// Runs copies until enough pages were copied or the time is up, and waits for the last one.
    pub(crate) fn drive(
        &mut self,
        lanes: &mut [Lane],
        devices: &[Arc<Device>],
        plan: &Plan,
        progress: &mut dyn Progress,
    ) -> TestResult<()> {
        let begun = Instant::now();
        let limit = plan.seconds.map(Duration::from_secs);
        let mut owners: BTreeMap<(Rid, JobId), usize> = BTreeMap::new();
        let mut moved = Instant::now();
        loop {
            let enough = self.totals.pages >= plan.pages
                || limit.is_some_and(|limit| begun.elapsed() >= limit);
            for (index, lane) in lanes.iter_mut().enumerate() {
                match lane.running() {
                    Some(_) => lane.disturb(&mut self.totals)?,
                    None if !enough => {
                        let id = lane.start()?;
                        owners.insert((lane.rid(), id), index);
                    }
                    None => {}
                }
            }
            let mut worked = false;
            for device in devices {
                while let Some(answer) = device.poll_answer() {
                    self.answers(device.rid(), &answer).add(&answer);
                }
                while let Some(completion) = device.poll_completion() {
                    worked = true;
                    let owner = owners.remove(&(device.rid(), completion.id));
                    if let Some(lane) = owner.and_then(|index| lanes.get_mut(index)) {
                        lane.finish(&completion, &mut self.totals)?;
                    }
                }
            }
            progress.at(plan.progress(self.totals.pages, begun.elapsed()));
            if enough && owners.is_empty() {
                return Ok(());
            }
            if worked {
                moved = Instant::now();
            } else if moved.elapsed() > PATIENCE {
                return Err("no copy has ended for 30 s".into());
            } else {
                thread::yield_now();
            }
        }
    }

    /// Notes whether the copies went as they must.
    pub(crate) fn judge(&self, scenario: &mut Scenario) {
        let totals = &self.totals;
        scenario.check(
            "every copied byte is the byte that was there",
            totals.wrong == 0 && totals.compared > 0,
            format!("{} bytes compared, {} wrong", totals.compared, totals.wrong),
        );
        scenario.check(
            "no device touches a page after its unmapping was flushed",
            totals.damaged == 0 && totals.poisoned > 0,
            format!(
                "{} pages watched, {} damaged",
                totals.poisoned, totals.damaged
            ),
        );
        scenario.check(
            "every copy ends, with success unless its target was unmapped under it",
            totals.unexpected == 0,
            format!(
                "{} done, {} lost their target, {} otherwise{}",
                totals.done,
                totals.invalid,
                totals.unexpected,
                totals.first_unexpected.as_deref().unwrap_or_default(),
            ),
        );
    }

    /// The rows of devices.
    pub(crate) fn devices(&self, devices: &[Arc<Device>], scenario: &mut Scenario) {
        for device in devices {
            let rid = device.rid();
            let by = if rid == HOST_DEVICE { "host" } else { "guest" };
            let ended = self.totals.ended.get(&rid).copied().unwrap_or_default();
            scenario.devices.push(collect::device(device, by, ended));
            scenario.stalls.extend(collect::stalls(device));
        }
    }

    /// The rows of those who answered.
    pub(crate) fn rows(&self, scenario: &mut Scenario) {
        for (by, answers) in [
            ("guest", &self.by_guest),
            ("engine", &self.by_engine),
            ("IOMMU", &self.by_iommu),
        ] {
            if answers.took.count() > 0 {
                let row = AnswerRow::new(by, answers.counts, &answers.took);
                scenario.answers.push(row);
            }
        }
    }

    fn answers(&mut self, rid: Rid, answer: &GroupAnswer) -> &mut Answers {
        if answer.at_once {
            &mut self.by_iommu
        } else if rid == HOST_DEVICE {
            &mut self.by_engine
        } else {
            &mut self.by_guest
        }
    }
}

/// How long nothing may end before the run counts as stuck.
const PATIENCE: Duration = Duration::from_secs(30);
