//! Flood control of the host's log: a budget for each device and each guest.
//!
//! A line is written while both budgets last; the rest of the interval is a suppressed run, and
//! every run ends in one line with the exact count.

use crate::Unrecoverable;
use crate::engine::{DeviceId, GuestId};
use alloc::collections::{BTreeMap, VecDeque};

/// Lines of one budget in one interval, as Linux `printk_ratelimited` has it.
const BURST: u32 = 10;

/// The interval of a budget, in nanoseconds: 5 s, as Linux has it.
const INTERVAL: u64 = 5_000_000_000;

/// Lines kept for fetching; a line that finds no room counts as suppressed.
const ROOM: usize = 4096;

/// How loud a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Caused by a guest: below what a host logs by default.
    Debug,
    /// Caused by the host's own driver or device.
    Warning,
}

/// A line for the host's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: Level,
    /// The device it is about.
    pub device: DeviceId,
    /// The guest the device is assigned to.
    pub guest: Option<GuestId>,
    /// What to say.
    pub what: LogWhat,
}

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogWhat {
    /// A fault.
    Fault(Unrecoverable),
    /// The end of a run: so many faults of the device were not written.
    Suppressed(u64),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// A device as one owner had it: a run of the host's does not take up what a guest causes.
    Device(DeviceId, Option<GuestId>),
    Guest(GuestId),
}

#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    /// Of a device: lines not written in this interval.
    suppressed: u64,
}

/// The budgets, and the lines to fetch.
///
/// A budget is forgotten when its interval ends, so there are at most as many as devices and
/// guests that had something to say within one interval.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    budgets: BTreeMap<Key, Budget>,
    /// When budgets end. In order, because every interval has the same length.
    ends: VecDeque<(u64, Key)>,
    lines: VecDeque<LogLine>,
}

impl Flood {
    /// Writes a line about `fault`, or counts it.
    pub(crate) fn log(
        &mut self,
        now: u64,
        device: DeviceId,
        guest: Option<GuestId>,
        fault: Unrecoverable,
    ) {
        self.handle_timeout(now);
        let of_guest = guest.is_none_or(|id| self.budget(now, Key::Guest(id)).left > 0);
        let room = self.lines.len() < ROOM;
        let budget = self.budget(now, Key::Device(device, guest));
        if !(room && of_guest && budget.left > 0) {
            budget.suppressed += 1;
            return;
        }
        budget.left -= 1;
        if let Some(id) = guest {
            self.budget(now, Key::Guest(id)).left -= 1;
        }
        self.write(device, guest, LogWhat::Fault(fault));
    }

    fn budget(&mut self, now: u64, key: Key) -> &mut Budget {
        let ends = &mut self.ends;
        self.budgets.entry(key).or_insert_with(|| {
            // An interval that would end after the end of time never does: cut short, it would be
            // over at once and the budget endless.
            if let Some(end) = now.checked_add(INTERVAL) {
                ends.push_back((end, key));
            }
            Budget {
                left: BURST,
                suppressed: 0,
            }
        })
    }

    fn write(&mut self, device: DeviceId, guest: Option<GuestId>, what: LogWhat) {
        let level = if guest.is_some() {
            Level::Debug
        } else {
            Level::Warning
        };
        self.lines.push_back(LogLine {
            level,
            device,
            guest,
            what,
        });
    }

    /// When the next interval ends.
    #[inline]
    pub(crate) fn next(&self) -> Option<u64> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Ends the intervals that are over, and with them their suppressed runs.
    pub(crate) fn handle_timeout(&mut self, now: u64) {
        while let Some((end, key)) = self.ends.front().copied() {
            if end > now {
                return;
            }
            self.ends.pop_front();
            let Some(budget) = self.budgets.remove(&key) else {
                continue;
            };
            let Key::Device(device, guest) = key else {
                continue;
            };
            if budget.suppressed == 0 {
                continue;
            }
            if self.lines.len() < ROOM {
                self.write(device, guest, LogWhat::Suppressed(budget.suppressed));
            } else {
                // No room to say so: the run goes on, and its count with it.
                let next = self.budget(now, key);
                next.suppressed = budget.suppressed;
            }
        }
    }

    /// The next line.
    #[inline]
    pub(crate) fn poll(&mut self) -> Option<LogLine> {
        self.lines.pop_front()
    }
}

#[cfg(test)]
mod tests;
