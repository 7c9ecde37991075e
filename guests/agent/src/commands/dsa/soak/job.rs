//! What the device is given to do, and whether what it did can be.

use super::slot::{Change, Changed, PAGE, Rights, Slot};
use super::witness::stale;
use crate::commands::dsa::queue::{Descriptor, Record, flag, op};
use crate::reply::{Done, Failure};
use crate::sys::Memory;
use std::ops::Range;

/// What the device does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Writes this value.
    Fill(u64),
    /// Reads, for the processor to look at.
    Copy,
    /// Reads, and looks for itself whether each word is this value.
    Check(u64),
    /// Reads, and looks for itself whether everything is as the processor wrote it elsewhere.
    Compare,
}

/// Every kind of work, for the summary.
pub(super) const NAMES: [&str; 4] = ["fill", "copy", "check", "compare"];

impl Work {
    /// Its place in [`NAMES`].
    pub(super) fn index(self) -> usize {
        match self {
            Self::Fill(_) => 0,
            Self::Copy => 1,
            Self::Check(_) => 2,
            Self::Compare => 3,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::Fill(_))
    }
}

/// A descriptor under way.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) work: Work,
    /// Pages of the slot.
    pub(super) pages: Range<usize>,
    /// What these pages held when the device was told.
    before: Vec<u64>,
    rights: Rights,
    /// What happened to the slot meanwhile.
    pub(super) raced: Option<Changed>,
}

/// Status codes of DSA; bit 7 says that it was a write.
const SUCCESS: u8 = 1;
const REFUSED: u8 = 0x04;
const WRITE: u8 = 0x80;

/// What a copy's memory holds before.
const NOTHING: u64 = 0xdead_dead_dead_dead;

impl Job {
    /// Prepares work on some pages of a slot; `aside` is memory of this job's own, as long as them.
    pub(super) fn new(work: Work, slot: &Slot, pages: Range<usize>, aside: &Memory) -> Self {
        let before = slot.now[pages.clone()].to_vec();
        match work {
            Work::Copy => aside.set_words(0, pages.len() * PAGE, NOTHING),
            Work::Compare => {
                for (page, value) in before.iter().enumerate() {
                    aside.set_words(page * PAGE, PAGE, *value);
                }
            }
            Work::Fill(_) | Work::Check(_) => {}
        }
        Self {
            work,
            pages,
            before,
            rights: slot.rights,
            raced: None,
        }
    }

    /// As the device takes it.
    pub(super) fn descriptor(&self, slot: &Slot, aside: &Memory) -> Descriptor {
        let at = slot.address(self.pages.start);
        let (operation, first, second) = match self.work {
            Work::Fill(value) => (op::FILL, value, at),
            Work::Copy => (op::MOVE, at, aside.address()),
            Work::Check(value) => (op::COMPARE_PATTERN, at, value),
            Work::Compare => (op::COMPARE, at, aside.address()),
        };
        Descriptor {
            operation,
            flags: flag::BLOCK_ON_FAULT,
            first,
            second,
            size: u32::try_from(self.pages.len() * PAGE).unwrap_or(0),
        }
    }

    /// What each word of a page of the slot may be while the job is under way.
    pub(super) fn now(&self, slot: &Slot, page: usize) -> Vec<u64> {
        match self.work {
            Work::Fill(value) if self.pages.contains(&page) => vec![slot.now[page], value],
            _ => vec![slot.now[page]],
        }
    }

    /// Whether the record can be.
    ///
    /// # Errors
    /// Where it cannot; the text says why.
    pub(super) fn judge(&self, record: &Record, slot: &Slot) -> Done {
        let start = slot.address(self.pages.start);
        let inside = start..start + (self.pages.len() * PAGE) as u64;
        let write = self.work.writes();
        let refusal = REFUSED | if write { WRITE } else { 0 };
        let at_once = self.rights == Rights::None || (write && self.rights == Rights::ReadOnly);
        let refused = record.status == refusal && inside.contains(&record.fault);
        let fits = if at_once {
            refused && record.completed == 0 && record.fault == start
        } else {
            let may_refuse = match &self.raced {
                Some(Changed { change, .. }) => {
                    change.refuses() && (write || *change != Change::Protect)
                }
                None => false,
            };
            (record.status == SUCCESS && record.result == 0) || (may_refuse && refused)
        };
        if fits {
            return Ok(());
        }
        let kind = match (self.work, record.status) {
            // The device found something else than what was there.
            (Work::Check(_) | Work::Compare, SUCCESS) => "stale: ",
            // It got through where it had no right to be.
            (_, SUCCESS) if at_once => "stale: ",
            _ => "",
        };
        Err(Failure::new(format!(
            "{kind}{:x?} of {:?} pages at {start:#x} with {:?}: {record}; meanwhile {:?}",
            self.work,
            self.pages.len(),
            self.rights,
            self.raced.as_ref().map(|raced| raced.change),
        )))
    }

    /// Whether `page`, one of the slot's, has lost what it had.
    fn lost(&self, page: usize) -> bool {
        let raced = self.raced.as_ref();
        raced.is_some_and(|raced| raced.lost.contains(&page))
    }

    /// What a copy brought can have been there.
    ///
    /// # Errors
    /// Where a word was not there from when the device was told to when it was done.
    pub(super) fn brought(&self, record: &Record, slot: &Slot, aside: &Memory) -> Done {
        let whole = self.pages.len() * PAGE;
        let len = match record.status {
            SUCCESS => whole,
            _ => whole.min(usize::try_from(record.completed).unwrap_or(whole)) & !7,
        };
        for at in (0..whole).step_by(8) {
            let (page, found) = (self.pages.start + at / PAGE, aside.word(at));
            let mut allowed = vec![NOTHING];
            if at < len {
                allowed = vec![self.before[at / PAGE]];
                if self.lost(page) {
                    allowed.push(slot.now[page]);
                }
            }
            if !allowed.contains(&found) {
                let at = slot.address(self.pages.start) + at as u64;
                return Err(stale("the device read", at, found, &allowed));
            }
        }
        Ok(())
    }

    /// What each word of a page of the slot may be now that the job has ended with this status.
    pub(super) fn left(&self, status: u8, slot: &Slot, page: usize) -> Vec<u64> {
        let now = slot.now[page];
        let Work::Fill(value) = self.work else {
            return vec![now];
        };
        let at_once = self.rights != Rights::All;
        if !self.pages.contains(&page) || at_once {
            return vec![now];
        }
        if status == SUCCESS && !self.lost(page) {
            return vec![value];
        }
        vec![now, value]
    }

    /// Pages that moved away in mid-job hold what they held, or what the device had written by then.
    pub(super) fn moved(&self) -> Done {
        let Some(witness) = self.raced.as_ref().and_then(|raced| raced.moved.as_ref()) else {
            return Ok(());
        };
        for (index, before) in self.before.iter().enumerate() {
            let mut allowed = vec![*before];
            if let Work::Fill(value) = self.work {
                allowed.push(value);
            }
            let words = witness.page(self.pages.start + index);
            if let Some(found) = words.iter().find(|word| !allowed.contains(word)) {
                let at = index as u64;
                return Err(stale("in a page that moved, page", at, *found, &allowed));
            }
        }
        witness.check()
    }
}

#[cfg(test)]
mod tests {
    use super::super::slot::Kind;
    use super::*;

    fn slot() -> Slot {
        let mut slot = Slot::new(Kind::Small, 4).unwrap();
        slot.stamp(0..4, 10);
        slot
    }

    fn aside() -> Memory {
        Memory::anonymous(4 * PAGE).unwrap()
    }

    fn refused(status: u8, fault: u64) -> Record {
        Record {
            status,
            fault,
            ..Record::SUCCESS
        }
    }

    #[test]
    fn a_copy_that_brings_what_was_given_up_before_is_stale() {
        let (mut slot, aside) = (slot(), aside());
        slot.change(Change::GiveUp, 1..2, 0).unwrap();
        let job = Job::new(Work::Copy, &slot, 0..3, &aside);
        for (page, value) in [(0, 10), (1, 0), (2, 10)] {
            aside.set_words(page * PAGE, PAGE, value);
        }
        assert_eq!(job.brought(&Record::SUCCESS, &slot, &aside), Ok(()));
        aside.set_words(PAGE + 8, 8, 10);
        let error = job.brought(&Record::SUCCESS, &slot, &aside).unwrap_err();
        assert!(
            error.text.starts_with("stale: the device read: 0xa"),
            "{error:?}"
        );
    }

    #[test]
    fn a_copy_may_bring_either_when_pages_are_given_up_meanwhile_but_nothing_else() {
        let (mut slot, aside) = (slot(), aside());
        let mut job = Job::new(Work::Copy, &slot, 0..4, &aside);
        job.raced = Some(slot.change(Change::GiveUp, 1..2, 0).unwrap());
        aside.set_words(0, 4 * PAGE, 10);
        assert_eq!(job.brought(&Record::SUCCESS, &slot, &aside), Ok(()));
        aside.set_words(PAGE, 64, 0);
        assert_eq!(job.brought(&Record::SUCCESS, &slot, &aside), Ok(()));
        for (at, value) in [(0, 0), (PAGE, 11), (3 * PAGE, NOTHING)] {
            let kept = aside.word(at);
            aside.set_words(at, 8, value);
            assert!(job.brought(&Record::SUCCESS, &slot, &aside).is_err());
            aside.set_words(at, 8, kept);
        }
    }

    #[test]
    fn a_fill_leaves_its_value_or_zeros_where_pages_were_lost_meanwhile() {
        let (mut slot, aside) = (slot(), aside());
        let mut job = Job::new(Work::Fill(12), &slot, 1..3, &aside);
        assert_eq!(
            (job.now(&slot, 0), job.now(&slot, 1)),
            (vec![10], vec![10, 12])
        );
        assert_eq!(job.left(SUCCESS, &slot, 0), [10]);
        assert_eq!(job.left(SUCCESS, &slot, 1), [12]);
        job.raced = Some(slot.change(Change::GiveUp, 2..4, 0).unwrap());
        assert_eq!(job.left(SUCCESS, &slot, 1), [12]);
        assert_eq!(job.left(SUCCESS, &slot, 2), [0, 12]);
        assert_eq!(job.left(SUCCESS, &slot, 3), [0]);
    }

    #[test]
    fn who_has_no_rights_is_refused_at_once_and_success_is_stale() {
        let (mut slot, aside) = (slot(), aside());
        slot.change(Change::Protect, 0..4, 0).unwrap();
        let job = Job::new(Work::Fill(12), &slot, 1..3, &aside);
        let start = slot.address(1);
        let record = Record {
            completed: 0,
            ..refused(0x84, start)
        };
        assert_eq!(job.judge(&record, &slot), Ok(()));
        let error = job.judge(&Record::SUCCESS, &slot).unwrap_err().text;
        assert!(error.starts_with("stale: Fill(c)"), "{error}");
        assert!(job.judge(&refused(0x84, start + 4096), &slot).is_err());
        let read = Job::new(Work::Copy, &slot, 1..3, &aside);
        assert_eq!(read.judge(&Record::SUCCESS, &slot), Ok(()));
        assert!(read.judge(&refused(0x04, start), &slot).is_err());
    }

    #[test]
    fn a_refusal_in_mid_job_needs_a_change_that_refuses() {
        let (mut slot, aside) = (slot(), aside());
        let mut job = Job::new(Work::Copy, &slot, 0..4, &aside);
        let record = refused(0x04, slot.address(2));
        assert!(job.judge(&record, &slot).is_err());
        job.raced = Some(slot.change(Change::Protect, 0..4, 0).unwrap());
        assert!(job.judge(&record, &slot).is_err(), "it may still be read");
        slot.open().unwrap();
        job.raced = Some(slot.change(Change::Close, 0..4, 0).unwrap());
        assert_eq!(job.judge(&record, &slot), Ok(()));
        assert!(
            job.judge(&refused(0x22, 0), &slot).is_err(),
            "a lost answer"
        );
    }

    #[test]
    fn a_comparison_that_fails_is_stale() {
        let (slot, aside) = (slot(), aside());
        let job = Job::new(Work::Check(10), &slot, 0..4, &aside);
        let differs = Record {
            result: 1,
            ..Record::SUCCESS
        };
        let error = job.judge(&differs, &slot).unwrap_err().text;
        assert!(error.starts_with("stale: Check(a)"), "{error}");
    }

    #[test]
    fn a_page_that_moved_keeps_what_it_had_or_was_given_before() {
        let (mut slot, aside) = (slot(), aside());
        let mut job = Job::new(Work::Fill(12), &slot, 1..2, &aside);
        job.raced = Some(slot.change(Change::Move, 0..4, 0).unwrap());
        assert_eq!(job.moved(), Ok(()));
        let mut other = Job::new(Work::Fill(12), &slot, 1..2, &aside);
        slot.stamp(0..4, 13);
        other.raced = Some(slot.change(Change::Move, 0..4, 0).unwrap());
        assert!(other.moved().is_err(), "it never held 13");
    }
}
