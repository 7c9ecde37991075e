//! Whether a descriptor makes sense, and what it then means. No state.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0, "Descriptor
//! Checks" and "Descriptor Reserved Field Checking".

use super::descriptor::{Operation, RawDescriptor, flag};
use super::record::{Outcome, RawRecord, Status};
use iopf::Iova;
use zerocopy::IntoBytes;

/// What the work queue allows; it holds for a descriptor and for those of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rules {
    /// Block on fault may be asked for.
    pub(super) block_on_fault: bool,
    /// Completion interrupts may be asked for.
    pub(super) interrupts: bool,
    /// Largest transfer in bytes.
    pub(super) max_transfer: u64,
    /// Most descriptors in a batch.
    pub(super) max_batch: u32,
    /// Interrupt handles that may be used, one bit each.
    pub(super) handles: u64,
}

/// How the end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    /// Where the completion record goes.
    pub(super) record: Option<Iova>,
    /// On success too.
    pub(super) always: bool,
    /// The interrupt handle.
    pub(super) interrupt: Option<u16>,
}

/// What is to be done, all of it checked. Lengths are in bytes and not 0; no range wraps around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    Noop,
    Drain,
    Move {
        from: Iova,
        to: Iova,
        len: u32,
    },
    Fill {
        to: Iova,
        len: u32,
        pattern: [u8; 8],
    },
    Compare {
        first: Iova,
        with: With,
        len: u32,
        /// What the result has to be for the status to be success.
        expected: Option<u8>,
    },
    Batch {
        list: Iova,
        count: u32,
    },
}

/// What a buffer is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum With {
    Buffer(Iova),
    Pattern([u8; 8]),
}

/// A descriptor that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub(super) notice: Notice,
    /// Pages of its buffers are waited for.
    pub(super) block: bool,
    pub(super) work: Result<Work, Outcome>,
}

/// Looks at a descriptor.
pub(super) fn check(raw: &RawDescriptor, in_batch: bool, rules: &Rules) -> Checked {
    let flags = raw.head().flags();
    let has = |bit: u32| flags & bit != 0;
    let address = raw.record.get();
    let aligned = address.is_multiple_of(RawRecord::SIZE as u64);
    let mut notice = Notice {
        record: (has(flag::RECORD_VALID) && aligned).then_some(Iova(address)),
        always: has(flag::REQUEST_RECORD),
        interrupt: has(flag::REQUEST_INTERRUPT).then_some(raw.handle.get()),
    };
    if !rules.interrupts {
        notice.interrupt = None;
    }
    let handle_ok = |handle: u16| rules.handles.checked_shr(handle.into()).unwrap_or(0) & 1 != 0;
    let wrong_handle = notice.interrupt.is_some_and(|handle| !handle_ok(handle));
    if wrong_handle {
        notice.interrupt = None;
    }
    let work = if has(flag::RECORD_VALID) && !aligned {
        Err(Outcome::of(Status::RECORD_ALIGNMENT))
    } else {
        check_flags(raw, in_batch, rules).and_then(|()| {
            if wrong_handle {
                return Err(Outcome::of(Status::HANDLE));
            }
            meaning(raw, rules)
        })
    };
    Checked {
        notice,
        block: has(flag::BLOCK_ON_FAULT),
        work,
    }
}

/// Flags that an operation takes beyond those of [`allowed`]; `None` for an unknown operation.
fn specific(operation: Operation) -> Option<u32> {
    use flag::{BLOCK_ON_FAULT, CACHE, CHECK_RESULT, CLASS_1, CLASS_2, NO_READBACK, STRICT_ORDER};
    Some(match operation {
        Operation::NOOP => 0,
        Operation::BATCH => CLASS_1,
        Operation::DRAIN => NO_READBACK,
        Operation::MOVE => BLOCK_ON_FAULT | CACHE | STRICT_ORDER | CLASS_1 | CLASS_2,
        Operation::FILL => BLOCK_ON_FAULT | CACHE | STRICT_ORDER | CLASS_2,
        Operation::COMPARE => BLOCK_ON_FAULT | CHECK_RESULT | CLASS_1 | CLASS_2,
        Operation::COMPARE_PATTERN => BLOCK_ON_FAULT | CHECK_RESULT | CLASS_1,
        _ => return None,
    })
}

/// Flags that a descriptor may have here.
fn allowed(specific: u32, record_valid: bool, in_batch: bool, rules: &Rules) -> u32 {
    let mut allowed = specific | flag::RECORD_VALID;
    if record_valid {
        allowed |= flag::REQUEST_RECORD | flag::CLASS_RECORD;
    }
    if in_batch {
        allowed |= flag::FENCE;
    }
    if rules.interrupts {
        allowed |= flag::REQUEST_INTERRUPT;
    }
    if !rules.block_on_fault {
        allowed &= !flag::BLOCK_ON_FAULT;
    }
    allowed
}

fn check_flags(raw: &RawDescriptor, in_batch: bool, rules: &Rules) -> Result<(), Outcome> {
    let (operation, flags) = (raw.operation(), raw.head().flags());
    let top_only = matches!(operation, Operation::BATCH | Operation::DRAIN);
    let specific = specific(operation)
        .filter(|_| !(in_batch && top_only))
        .ok_or(Outcome::of(Status::OPERATION))?;
    let valid = flags & flag::RECORD_VALID != 0;
    let bad = flags & !allowed(specific, valid, in_batch, rules);
    let both = flag::RECORD_VALID | flag::REQUEST_RECORD;
    let either = flag::REQUEST_RECORD | flag::REQUEST_INTERRUPT;
    let missing = match operation {
        Operation::COMPARE | Operation::COMPARE_PATTERN => both & !flags,
        Operation::DRAIN if flags & either == 0 => either,
        _ => 0,
    };
    if bad | missing != 0 {
        return Err(Outcome {
            invalid_flags: bad | missing,
            ..Outcome::of(Status::FLAGS)
        });
    }
    let reserved = reserved(operation).iter().any(|range| {
        let bytes = raw.as_bytes().get(range.0..range.1);
        bytes.is_some_and(|bytes| bytes.iter().any(|byte| *byte != 0))
    });
    let handle = flags & flag::REQUEST_INTERRUPT == 0 && raw.handle.get() != 0;
    let record = !valid && raw.record.get() != 0;
    if reserved || handle || record {
        return Err(Outcome::of(Status::RESERVED));
    }
    Ok(())
}

/// Bytes that have to be zero, as first byte and first byte after.
const fn reserved(operation: Operation) -> &'static [(usize, usize)] {
    match operation {
        Operation::BATCH => &[(24, 32), (38, 64)],
        Operation::MOVE | Operation::FILL => &[(38, 64)],
        Operation::COMPARE | Operation::COMPARE_PATTERN => &[(38, 40), (41, 64)],
        _ => &[(16, 36), (38, 64)],
    }
}

/// What the fields mean; the flags are checked already.
fn meaning(raw: &RawDescriptor, rules: &Rules) -> Result<Work, Outcome> {
    let (first, second) = (Iova(raw.first.get()), Iova(raw.second.get()));
    let size = raw.size.get();
    let len = |buffers: &[Iova]| {
        let last = u64::from(size).wrapping_sub(1);
        let fits = u64::from(size) <= rules.max_transfer;
        let wraps = buffers.iter().any(|at| at.checked_add(last).is_none());
        if size == 0 || !fits || wraps {
            return Err(Outcome::of(Status::SIZE));
        }
        Ok(size)
    };
    let expected = (raw.head().flags() & flag::CHECK_RESULT != 0)
        .then(|| raw.specific.first().map_or(0, |byte| byte & 1));
    Ok(match raw.operation() {
        Operation::NOOP => Work::Noop,
        Operation::DRAIN => Work::Drain,
        Operation::MOVE => {
            let len = len(&[first, second])?;
            if first.0.abs_diff(second.0) < u64::from(len) {
                return Err(Outcome::of(Status::OVERLAP));
            }
            Work::Move {
                from: first,
                to: second,
                len,
            }
        }
        Operation::FILL => Work::Fill {
            to: second,
            len: len(&[second])?,
            pattern: first.0.to_le_bytes(),
        },
        Operation::COMPARE => Work::Compare {
            first,
            with: With::Buffer(second),
            len: len(&[first, second])?,
            expected,
        },
        Operation::COMPARE_PATTERN => Work::Compare {
            first,
            with: With::Pattern(second.0.to_le_bytes()),
            len: len(&[first])?,
            expected,
        },
        Operation::BATCH => {
            if !(2..=rules.max_batch).contains(&size) {
                return Err(Outcome::of(Status::COUNT));
            }
            if !first.0.is_multiple_of(RawDescriptor::SIZE as u64) {
                return Err(Outcome::of(Status::LIST_ALIGNMENT));
            }
            let bytes = u64::from(size) * RawDescriptor::SIZE as u64;
            if first.checked_add(bytes - 1).is_none() {
                return Err(Outcome::of(Status::SIZE));
            }
            Work::Batch {
                list: first,
                count: size,
            }
        }
        _ => return Err(Outcome::of(Status::OPERATION)),
    })
}
