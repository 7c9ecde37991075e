//! Reading before polling, while faults come one close upon another.

use super::watch::Ready;

/// Turns closer together than this, in nanoseconds, are taken for a device that is busy asking.
const SOON: u64 = 20_000;

/// Reads without a poll in a row at most: other queues and commands come in between.
const IN_A_ROW: u8 = 15;

/// Polled turns after a read that brought nothing, before the next is tried.
const PATIENCE: u8 = 64;

/// Which queue to read first, if any.
///
/// A poll that would find the queue readable is a system call for nothing, and so is a read that
/// brings nothing. The last turns say which is likely.
#[derive(Debug, Default)]
pub(super) struct Haste {
    queue: Option<u8>,
    in_a_row: u8,
    patience: u8,
}

impl Haste {
    /// The queue to read before a poll.
    #[inline]
    pub(super) fn queue(&self) -> Option<u8> {
        self.queue
    }

    /// A read without a poll was made, so long after the turn before. Whether it brought something:
    /// if not, poll.
    #[inline]
    pub(super) fn came(&mut self, brought: bool, nanos: u64) -> bool {
        self.in_a_row += 1;
        if !brought {
            self.patience = PATIENCE;
        }
        if !brought || nanos > SOON || self.in_a_row >= IN_A_ROW {
            self.queue = None;
        }
        brought
    }

    /// A poll was made, in a turn that began so long after the one before; this was ready, and whether
    /// it brought something.
    #[inline]
    pub(super) fn polled(&mut self, ready: Ready, brought: bool, nanos: u64) {
        self.in_a_row = 0;
        self.queue = None;
        if self.patience > 0 {
            self.patience -= 1;
        } else if brought && nanos <= SOON && !ready.commands {
            self.queue = ready.only_queue();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ready = Ready {
        queues: 1 << 3,
        commands: false,
        due: false,
        polled: true,
    };

    #[test]
    fn a_queue_is_read_first_after_two_turns_close_together_and_no_longer_than_that() {
        let mut haste = Haste::default();
        haste.polled(ONE, true, SOON + 1);
        assert_eq!(haste.queue(), None);
        haste.polled(ONE, true, SOON);
        assert_eq!(haste.queue(), Some(3));
        assert!(haste.came(true, SOON));
        assert_eq!(haste.queue(), Some(3));
        assert!(haste.came(true, SOON + 1));
        assert_eq!(haste.queue(), None);
    }

    #[test]
    fn several_queues_commands_and_a_queue_that_brings_nothing_are_polled_for() {
        let mut haste = Haste::default();
        haste.polled(ONE, false, 0);
        assert_eq!(haste.queue(), None);
        for ready in [
            Ready { queues: 3, ..ONE },
            Ready { queues: 0, ..ONE },
            Ready {
                commands: true,
                ..ONE
            },
        ] {
            haste.polled(ready, true, 0);
            assert_eq!(haste.queue(), None, "{ready:?}");
        }
    }

    #[test]
    fn every_16th_turn_polls() {
        let mut haste = Haste::default();
        haste.polled(ONE, true, 0);
        for _ in 0..IN_A_ROW {
            assert_eq!(haste.queue(), Some(3));
            assert!(haste.came(true, 0));
        }
        assert_eq!(haste.queue(), None);
        haste.polled(ONE, true, 0);
        assert_eq!(haste.queue(), Some(3));
    }

    #[test]
    fn a_read_in_vain_is_not_tried_again_for_64_turns() {
        let mut haste = Haste::default();
        haste.polled(ONE, true, 0);
        assert!(!haste.came(false, 0));
        for _ in 0..PATIENCE {
            haste.polled(ONE, true, 0);
            assert_eq!(haste.queue(), None);
        }
        haste.polled(ONE, true, 0);
        assert_eq!(haste.queue(), Some(3));
    }
}
