//! Commands of ours that wait for a reply. No I/O.

use crate::codec::{Command, Errno};

/// The number of posted writes, which want no reply. QEMU still answers one that it could not do.
pub(crate) const POSTED: u16 = u16::MAX;

#[derive(Debug)]
enum State {
    /// Somebody waits.
    Waiting,
    /// Answered, not yet fetched.
    Answered(Result<Vec<u8>, Errno>),
    /// Nobody waits any more; the reply may still come.
    Abandoned,
}

#[derive(Debug)]
struct Slot {
    id: u16,
    command: Command,
    state: State,
}

/// The table of outstanding commands.
///
/// Promised: at most `limit` at a time, abandoned ones included; a reply is taken once.
#[derive(Debug)]
pub(crate) struct Requests {
    slots: Vec<Slot>,
    next: u16,
    limit: u16,
    /// Posted writes whose failure has not been reported.
    posted: u64,
}

impl Requests {
    pub(crate) const fn new(limit: u16) -> Self {
        Self {
            slots: Vec::new(),
            next: 0,
            limit,
            posted: 0,
        }
    }

    /// A number for a command, or `None` when too many are outstanding.
    pub(crate) fn issue(&mut self, command: Command) -> Option<u16> {
        if self.slots.len() >= usize::from(self.limit) {
            return None;
        }
        // There are more numbers than slots, so this ends.
        while self.next == POSTED || self.slots.iter().any(|slot| slot.id == self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.slots.push(Slot {
            id,
            command,
            state: State::Waiting,
        });
        Some(id)
    }

    /// A posted write goes out.
    pub(crate) const fn post(&mut self) {
        self.posted += 1;
    }

    /// Takes a reply.
    pub(crate) fn answer(
        &mut self,
        id: u16,
        command: Command,
        result: Result<&[u8], Errno>,
    ) -> Answer {
        if id == POSTED {
            if command != Command::DMA_WRITE || self.posted == 0 {
                return Answer::Unasked;
            }
            self.posted -= 1;
            return Answer::Posted;
        }
        let Some(at) = self.slots.iter().position(|slot| slot.id == id) else {
            return Answer::Unasked;
        };
        let slot = &mut self.slots[at];
        if slot.command != command {
            return Answer::Unasked;
        }
        match slot.state {
            State::Answered(_) => return Answer::Unasked,
            State::Waiting => slot.state = State::Answered(result.map(<[u8]>::to_vec)),
            State::Abandoned => drop(self.slots.swap_remove(at)),
        }
        Answer::Asked
    }

    /// The answer to `id`, if it came.
    pub(crate) fn take(&mut self, id: u16) -> Option<Result<Vec<u8>, Errno>> {
        let at = self
            .slots
            .iter()
            .position(|slot| slot.id == id && matches!(slot.state, State::Answered(_)))?;
        match self.slots.swap_remove(at).state {
            State::Answered(result) => Some(result),
            State::Waiting | State::Abandoned => None,
        }
    }

    /// Nobody waits for `id` any more. `sent`: a reply may still come.
    pub(crate) fn abandon(&mut self, id: u16, sent: bool) {
        let Some(at) = self.slots.iter().position(|slot| slot.id == id) else {
            return;
        };
        if sent && matches!(self.slots[at].state, State::Waiting) {
            self.slots[at].state = State::Abandoned;
        } else {
            self.slots.swap_remove(at);
        }
    }
}

/// What a reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Somebody asked.
    Asked,
    /// A posted write failed.
    Posted,
    /// Nobody asked.
    Unasked,
}

#[cfg(test)]
mod tests;
