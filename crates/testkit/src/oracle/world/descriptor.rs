//! The descriptor of a fault queue: read, write, poll.

use super::errno::EBADF;
use super::{Branch, NOW, Name, Queue, World};
use iopf::resolve::{ANSWER, BadAddress, RECORD, ReadError, WriteError};
use std::fmt::Write as _;

/// `ESPIPE`, which is for a position alone where the model does not say it.
const ESPIPE: i64 = -29;

/// `POLLIN | POLLRDNORM` and `POLLOUT`.
const READABLE: i64 = 0x41;
const WRITABLE: i64 = 4;

impl World {
    fn queue(&mut self, name: Name) -> Option<&mut Queue> {
        self.queues.get_mut(&name).filter(|queue| queue.open)
    }

    pub(super) fn read(&mut self, name: Name, bytes: u32, good: u32) -> i64 {
        let (bytes, good) = (bytes as usize, good as usize);
        let Some(queue) = self.queues.get_mut(&name).filter(|queue| queue.open) else {
            return EBADF;
        };
        let before = queue.forward.held();
        let mut buffer = vec![0; good.min(bytes)];
        let read = queue.forward.read(&self.engine, bytes, |offset, record| {
            let room = buffer.get_mut(offset..offset + RECORD).ok_or(BadAddress)?;
            room.copy_from_slice(record);
            Ok(())
        });
        let taken = *read.as_ref().unwrap_or(&0);
        let records = &buffer[..taken];
        for record in records.chunks_exact(RECORD) {
            write_record(&mut self.line, record);
        }
        self.classify_read(name, before.0, bytes, good, &read);
        self.classify_cookies(name, &buffer[..taken]);
        match read {
            Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Err(error) => -i64::from(error.errno()),
        }
    }

    fn classify_read(
        &mut self,
        name: Name,
        unread: usize,
        bytes: usize,
        good: usize,
        read: &Result<usize, ReadError>,
    ) {
        let shut = !self.open;
        let Some(queue) = self.queues.get_mut(&name) else {
            return;
        };
        let left = queue.forward.held().0;
        let hits = &mut self.hits;
        hits.hit_if(shut, Branch::AfterShut);
        match *read {
            Err(ReadError::WrongSize) if unread > 0 => hits.hit(Branch::ReadSizeFull),
            Err(ReadError::WrongSize) => hits.hit(Branch::ReadSizeEmpty),
            Err(ReadError::TooSmall) if bytes == 0 => hits.hit(Branch::ReadZero),
            Err(ReadError::TooSmall) => hits.hit(Branch::ReadTooSmall),
            Err(ReadError::BadAddress(_)) if good >= RECORD => hits.hit(Branch::ReadFaultMiddle),
            Err(ReadError::BadAddress(_)) => hits.hit(Branch::ReadFaultFirst),
            Err(ReadError::NoCookie) => {}
            Ok(0) => hits.hit(Branch::ReadEmpty),
            Ok(done) => {
                hits.hit_if(unread - left > 1, Branch::ReadSeveral);
                hits.hit_if(queue.failed, Branch::ReadAfterFault);
                queue.failed = false;
                if left > 0 {
                    hits.hit(if done == bytes {
                        Branch::ReadFull
                    } else if good < bytes {
                        // Or too little room: which of the two came first is not looked at.
                        Branch::ReadFaultHidden
                    } else {
                        Branch::ReadShort
                    });
                }
            }
        }
        queue.failed |= matches!(read, Err(ReadError::BadAddress(_)));
        let pushed_back = left > 0 && !matches!(read, Err(ReadError::WrongSize));
        queue.restored |= pushed_back;
    }

    fn classify_cookies(&mut self, name: Name, records: &[u8]) {
        let Some(queue) = self.queues.get_mut(&name) else {
            return;
        };
        for record in records.chunks_exact(RECORD) {
            let cookie = word(record, 36);
            // Once a group: by its last page.
            if word(record, 0) & 2 == 0 {
                continue;
            }
            self.hits.hit_if(cookie == 0, Branch::CookieZero);
            self.hits.hit(if cookie > queue.highest {
                Branch::CookieNew
            } else {
                Branch::CookieAgain
            });
            queue.highest = queue.highest.max(cookie);
            let denied = queue.dead.remove(&cookie);
            self.hits.hit_if(denied, Branch::CookieOfDenied);
            queue.spared.remove(&cookie);
        }
    }

    pub(super) fn at_position(&mut self, name: Name, written: bool) -> i64 {
        if self.queue(name).is_none() {
            return EBADF;
        }
        self.hits.hit(if written {
            Branch::WritePosition
        } else {
            Branch::ReadPosition
        });
        ESPIPE
    }

    pub(super) fn write(
        &mut self,
        name: Name,
        bytes: u32,
        good: u32,
        answers: &[(u32, u32)],
    ) -> i64 {
        let (bytes, good) = (bytes as usize, good as usize);
        let Some(queue) = self.queues.get_mut(&name).filter(|queue| queue.open) else {
            return EBADF;
        };
        let cookies: Vec<u32> = queue.forward.unanswered().collect();
        let words = answers.iter().flat_map(|(cookie, code)| [*cookie, *code]);
        let mut buffer: Vec<u8> = words.flat_map(u32::to_ne_bytes).collect();
        buffer.resize(bytes, 0);
        buffer.truncate(good);
        let written = queue.forward.write(NOW, &mut self.engine, bytes, |offset| {
            let answer = buffer.get(offset..).and_then(<[u8]>::first_chunk);
            answer.copied().ok_or(BadAddress)
        });
        self.classify_write(name, bytes, good, answers, &cookies, &written);
        match written {
            Ok(bytes) => i64::try_from(bytes).unwrap_or(i64::MAX),
            Err(error) => -i64::from(error.errno()),
        }
    }

    fn classify_write(
        &mut self,
        name: Name,
        bytes: usize,
        good: usize,
        answers: &[(u32, u32)],
        cookies: &[u32],
        written: &Result<usize, WriteError>,
    ) {
        let shut = !self.open;
        let Some(queue) = self.queues.get_mut(&name) else {
            return;
        };
        let hits = &mut self.hits;
        hits.hit_if(shut, Branch::AfterShut);
        let done = *written.as_ref().unwrap_or(&0);
        let mut waiting = cookies.to_vec();
        for (cookie, code) in answers.iter().take(done / ANSWER) {
            hits.hit(if *code == 0 {
                Branch::WriteSuccess
            } else {
                Branch::WriteInvalid
            });
            hits.hit_if(queue.spared.remove(cookie), Branch::WriteCookieKept);
            hits.hit_if(waiting.first() != Some(cookie), Branch::WriteAnyOrder);
            waiting.retain(|other| other != cookie);
        }
        hits.hit_if(done > ANSWER, Branch::WriteSeveral);
        let next = answers.get(done / ANSWER).copied().unwrap_or_default();
        let known = waiting.contains(&next.0);
        match *written {
            Err(WriteError::WrongSize) => hits.hit(Branch::WriteSize),
            Err(WriteError::BadCode) => {
                hits.hit(Branch::WriteBadCode);
                hits.hit_if(next.1 == 2, Branch::WriteFailure);
                hits.hit_if(!known, Branch::WriteBadBoth);
                if known {
                    queue.spared.insert(next.0);
                }
            }
            Err(WriteError::UnknownCookie) => {
                hits.hit(Branch::WriteUnknown);
                let zero = next.0 == 0 && !waiting.is_empty();
                hits.hit_if(zero, Branch::WriteZero);
                hits.hit_if(queue.dead.contains(&next.0), Branch::WriteDead);
            }
            Err(WriteError::BadAddress(_)) => hits.hit(Branch::WriteFaultFirst),
            Ok(0) => hits.hit(Branch::WriteNothing),
            Ok(done) if done < bytes => hits.hit(if done + ANSWER > good {
                Branch::WriteFaultHidden
            } else {
                Branch::WriteStops
            }),
            Ok(_) => {}
        }
    }

    pub(super) fn poll(&mut self, name: Name) -> i64 {
        let Some(queue) = self.queues.get_mut(&name).filter(|queue| queue.open) else {
            return EBADF;
        };
        let readable = queue.forward.is_readable(&self.engine);
        let (_, unanswered) = queue.forward.held();
        self.hits.hit(Branch::PollOut);
        self.hits.hit_if(readable, Branch::PollIn);
        self.hits
            .hit_if(!readable && unanswered > 0, Branch::PollReadOnly);
        WRITABLE | if readable { READABLE } else { 0 }
    }

    pub(super) fn edge(&mut self, name: Name) -> i64 {
        let Some(queue) = self.queues.get_mut(&name).filter(|queue| queue.open) else {
            return EBADF;
        };
        let readable = queue.forward.is_readable(&self.engine);
        let woken = std::mem::take(&mut queue.woken);
        self.hits.hit_if(woken && readable, Branch::EdgeSeen);
        self.hits.hit_if(woken && !readable, Branch::EdgeEmptied);
        self.hits.hit_if(!woken && readable, Branch::EdgeNotAgain);
        let restored = !woken && readable && queue.restored;
        self.hits.hit_if(restored, Branch::EdgeNotAfterRestore);
        i64::from(woken && readable)
    }
}

/// The 32-bit number at `at`.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// ` r:` and a record as it lies in memory: device, flags, PASID, group, perm, reserved, address,
/// length, cookie.
fn write_record(line: &mut String, record: &[u8]) {
    let addr = u64::from_ne_bytes(std::array::from_fn(|i| record[24 + i]));
    // Writing to a string does not fail.
    let _ = write!(
        line,
        " r:d{},{:#x},{},{},{},{},{addr:#x},{},{}",
        word(record, 4),
        word(record, 0),
        word(record, 8),
        word(record, 12),
        word(record, 16),
        word(record, 20),
        word(record, 32),
        word(record, 36)
    );
}
