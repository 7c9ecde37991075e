//! What a process does to its memory while a device works on it.

use super::queue::{Descriptor, Record, flag, op, wait};
use super::{Stage, check};
use crate::reply::{Context as _, Done, Failure};
use crate::sys::{Memory, Sharing, forked};
use rustix::mm::{Advice, MprotectFlags};
use std::fs::{self, File};
use std::io::Read as _;

type Scenario = fn(&mut Stage<'_, '_>) -> Done;

/// Every scenario, by name.
pub(super) const ALL: &[(&str, Scenario)] = &[
    ("operations", operations),
    ("anonymous", anonymous),
    ("stop", stop),
    ("tmpfs", tmpfs),
    ("file", file),
    ("fork", fork),
    ("huge", huge),
    ("dontneed", dontneed),
    ("read-only", read_only),
    ("unmapped", unmapped),
    ("record", record),
    ("large", large),
    ("page", super::page::page),
    ("kill", kill),
];

pub(super) const PAGE: usize = 4096;
pub(super) const PAGE_U32: u32 = 4096;

/// A copy whose missing pages are waited for.
pub(super) fn copy(from: u64, to: u64, size: u32) -> Descriptor {
    Descriptor {
        operation: op::MOVE,
        flags: flag::BLOCK_ON_FAULT,
        first: from,
        second: to,
        size,
    }
}

/// The same, but without waiting.
fn impatient(descriptor: Descriptor) -> Descriptor {
    Descriptor {
        flags: 0,
        ..descriptor
    }
}

/// Bytes that tell where they are.
pub(super) fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| u8::try_from(at * 7 % 251).unwrap_or(0))
        .collect()
}

/// Touched memory with a pattern in it.
pub(super) fn source(len: usize) -> Result<Memory, Failure> {
    let memory = small_pages(len)?;
    memory.write(0, &pattern(len));
    Ok(memory)
}

/// Untouched memory of pages of 4 KiB.
pub(super) fn small_pages(len: usize) -> Result<Memory, Failure> {
    let memory = Memory::anonymous(len)?;
    // A kernel without huge pages does not know the advice, and needs none.
    let _ = memory.advise(Advice::LinuxNoHugepage);
    Ok(memory)
}

pub(super) fn same(what: &str, memory: &Memory, expected: &[u8]) -> Done {
    let found = memory.read(0, expected.len());
    let different = found.iter().zip(expected).position(|(a, b)| a != b);
    different.map_or(Ok(()), |at| {
        Err(Failure::new(format!(
            "{what}: {:#x} at {at:#x}, expected {:#x}",
            found[at], expected[at]
        )))
    })
}

/// The fault of a write, or of a read, at an address.
pub(super) fn fault(status: u8, completed: u32, at: u64) -> Record {
    Record {
        status,
        result: 0,
        completed,
        fault: at,
    }
}

/// Each operation, on memory that is there.
fn operations(stage: &mut Stage<'_, '_>) -> Done {
    let from = source(4 * PAGE)?;
    let to = source(4 * PAGE)?;
    let noop = Descriptor::default();
    check("no-op", &noop.operation, &op::NOOP)?;
    stage.expect("no-op", &noop, Record::SUCCESS)?;
    let fill = Descriptor {
        operation: op::FILL,
        first: u64::from_le_bytes(*b"abcdefgh"),
        second: to.address() + 1,
        size: 3 * PAGE_U32,
        ..noop
    };
    stage.expect("fill", &fill, Record::SUCCESS)?;
    let expected: Vec<u8> = b"abcdefgh".iter().copied().cycle().take(3 * PAGE).collect();
    check("filled", &to.read(1, 3 * PAGE), &expected)?;
    check("around", &(to.byte(0), to.byte(3 * PAGE + 1)), &{
        let before = pattern(4 * PAGE);
        (before[0], before[3 * PAGE + 1])
    })?;
    let matches = Descriptor {
        operation: op::COMPARE_PATTERN,
        first: to.address() + 1,
        second: u64::from_le_bytes(*b"abcdefgh"),
        size: 3 * PAGE_U32,
        ..noop
    };
    stage.expect("compare pattern", &matches, Record::SUCCESS)?;
    let moved = impatient(copy(from.address(), to.address(), 4 * PAGE_U32));
    stage.expect("move", &moved, Record::SUCCESS)?;
    let compare = Descriptor {
        operation: op::COMPARE,
        ..moved
    };
    stage.expect("compare", &compare, Record::SUCCESS)?;
    to.set(0x2345, to.byte(0x2345) ^ 1);
    let different = Record {
        result: 1,
        completed: 0x2345,
        ..Record::SUCCESS
    };
    stage.expect("compare, different", &compare, different)?;
    batch(stage, &from, &to)
}

/// Sixteen copies in one submission, one of which cannot be done.
fn batch(stage: &mut Stage<'_, '_>, from: &Memory, to: &Memory) -> Done {
    let list = source(PAGE)?;
    let records = source(PAGE)?;
    records.write(0, &[0; PAGE]);
    let gone = small_pages(PAGE)?.unmap();
    for n in 0..16usize {
        let (at, n) = (n * 64, n as u64);
        let to = if n == 9 { gone } else { to.address() + n * 64 };
        let one = impatient(copy(from.address() + n * 64, to, 64));
        let bytes = one.bytes(records.address() + n * 32);
        list.write(at, &bytes);
    }
    let all = Descriptor {
        operation: op::BATCH,
        first: list.address(),
        size: 16,
        ..Descriptor::default()
    };
    let expected = Record {
        status: 5,
        completed: 16,
        ..Record::SUCCESS
    };
    stage.expect("batch", &all, expected)?;
    for n in 0..16 {
        let expected = if n == 9 {
            fault(0x83, 0, gone)
        } else {
            Record::SUCCESS
        };
        check("one of the batch", &wait(&records, n * 32)?, &expected)?;
    }
    Ok(())
}

/// Neither side was ever touched: reads find zeros, writes find a page.
fn anonymous(stage: &mut Stage<'_, '_>) -> Done {
    let from = source(8 * PAGE)?;
    let to = small_pages(8 * PAGE)?;
    let moved = copy(from.address(), to.address(), 8 * PAGE_U32);
    stage.expect("onto untouched memory", &moved, Record::SUCCESS)?;
    same("copied", &to, &pattern(8 * PAGE))?;
    let nothing = small_pages(2 * PAGE)?;
    let moved = copy(nothing.address(), to.address(), 2 * PAGE_U32);
    stage.expect("from untouched memory", &moved, Record::SUCCESS)?;
    same("zeros", &to, &[0; 2 * PAGE])
}

/// Without waiting, the record says how far it came.
fn stop(stage: &mut Stage<'_, '_>) -> Done {
    let to = small_pages(3 * PAGE)?;
    let fill = Descriptor {
        operation: op::FILL,
        first: !0,
        second: to.address() + 16,
        size: 2 * PAGE_U32,
        ..Descriptor::default()
    };
    let nowhere = fault(0x83, 0, fill.second);
    stage.expect("a fill of untouched memory", &fill, nowhere)?;
    to.set(0, 7);
    let next = fault(0x83, PAGE_U32 - 16, to.address() + PAGE as u64);
    stage.expect("one page was touched", &fill, next)?;
    check("the rest", &to.read(PAGE, 16), &vec![0; 16])?;
    // "To resume the operation": the process touches the page and submits the rest.
    let rest = Descriptor {
        second: next.fault,
        size: 2 * PAGE_U32 - next.completed,
        ..fill
    };
    to.set(PAGE, 0);
    to.set(2 * PAGE, 0);
    stage.expect("the rest of it", &rest, Record::SUCCESS)?;
    check("filled", &to.read(16, 2 * PAGE), &vec![0xff; 2 * PAGE])
}

/// Pages of a file that was never read, in memory of its own file system.
fn tmpfs(stage: &mut Stage<'_, '_>) -> Done {
    let name = "/tmp/dsa";
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(name)
        .context(name)?;
    file.set_len(4 * PAGE as u64)?;
    let shared = Memory::of_file(&file, 4 * PAGE, Sharing::Shared)?;
    let from = source(4 * PAGE)?;
    let moved = copy(from.address(), shared.address(), 4 * PAGE_U32);
    stage.expect("into a shared mapping", &moved, Record::SUCCESS)?;
    check("the file", &fs::read(name)?, &pattern(4 * PAGE))?;
    let private = Memory::of_file(&file, 4 * PAGE, Sharing::Private)?;
    let zeros = small_pages(4 * PAGE)?;
    let moved = copy(zeros.address(), private.address(), 4 * PAGE_U32);
    stage.expect("into a private mapping", &moved, Record::SUCCESS)?;
    same("the mapping", &private, &[0; 4 * PAGE])?;
    check(
        "the file is as it was",
        &fs::read(name)?,
        &pattern(4 * PAGE),
    )?;
    fs::remove_file(name)?;
    Ok(())
}

/// Pages of a file on the root file system: this program's own.
fn file(stage: &mut Stage<'_, '_>) -> Done {
    let name = "/proc/self/exe";
    let mut file = File::open(name).context(name)?;
    let mut expected = vec![0; 16 * PAGE];
    file.read_exact(&mut expected)?;
    let mapped = Memory::of_file(&file, 16 * PAGE, Sharing::Private)?;
    let to = small_pages(16 * PAGE)?;
    let moved = copy(mapped.address(), to.address(), 16 * PAGE_U32);
    stage.expect("from a file", &moved, Record::SUCCESS)?;
    same("the file's bytes", &to, &expected)
}

/// After a fork both processes share their pages until one of them, or the device, writes.
fn fork(stage: &mut Stage<'_, '_>) -> Done {
    let to = small_pages(2 * PAGE)?;
    let from = source(2 * PAGE)?;
    let moved = copy(from.address(), to.address(), 2 * PAGE_U32);
    stage.expect("before the fork", &moved, Record::SUCCESS)?;
    let name = "/tmp/dsa-fork";
    let channel = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(name)
        .context(name)?;
    channel.set_len(PAGE as u64)?;
    let talk = Memory::of_file(&channel, PAGE, Sharing::Shared)?;
    let child = forked(|| {
        // The device has written to the parent's page by now; this one is a copy from before.
        while talk.byte(0) == 0 {
            std::thread::yield_now();
        }
        let kept = to.read(0, 2 * PAGE) == pattern(2 * PAGE);
        // Nor does what this process writes reach the parent.
        to.write(0, &[0x55; 16]);
        if kept { 0 } else { 1 }
    })?;
    let fill = Descriptor {
        operation: op::FILL,
        flags: flag::BLOCK_ON_FAULT,
        first: u64::from_le_bytes([0xaa; 8]),
        second: to.address(),
        size: PAGE_U32,
    };
    stage.expect("after the fork", &fill, Record::SUCCESS)?;
    talk.set(0, 1);
    let child = child.wait()?;
    fs::remove_file(name)?;
    check("the child saw what was there before", &child, &0)?;
    let mut expected = pattern(2 * PAGE);
    expected[..PAGE].fill(0xaa);
    same("the parent sees what the device wrote", &to, &expected)
}

/// One huge page comes for the first byte of it that the device asks for.
fn huge(stage: &mut Stage<'_, '_>) -> Done {
    const HUGE: usize = 2 << 20;
    let to = Memory::aligned(HUGE)?;
    to.advise(Advice::LinuxHugepage)
        .context("asking for huge pages")?;
    let from = source(64 * PAGE)?;
    let moved = copy(from.address(), to.address() + PAGE as u64, 64 * PAGE_U32);
    stage.expect("into a huge page", &moved, Record::SUCCESS)?;
    check("copied", &to.read(PAGE, 64 * PAGE), &pattern(64 * PAGE))?;
    check("before it", &to.read(0, PAGE), &vec![0; PAGE])?;
    let kilobytes = huge_kilobytes(to.address())?;
    stage.out.line(format_args!("huge: {kilobytes} kB"));
    check("huge pages there", &kilobytes, &2048)
}

/// Huge pages in the mapping at an address, in KiB.
fn huge_kilobytes(address: u64) -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/smaps")?;
    let start = format!("{address:x}-");
    let lines = text.lines().skip_while(|line| !line.starts_with(&start));
    let line = lines
        .into_iter()
        .find_map(|line| line.strip_prefix("AnonHugePages:"))
        .ok_or_else(|| Failure::new("no such mapping"))?;
    crate::args::number("AnonHugePages", line.trim().trim_end_matches(" kB"))
}

/// Pages that were given up come back as zeros, not as what the device remembers.
fn dontneed(stage: &mut Stage<'_, '_>) -> Done {
    let to = small_pages(4 * PAGE)?;
    let from = source(4 * PAGE)?;
    let moved = copy(from.address(), to.address(), 4 * PAGE_U32);
    for round in 0..8 {
        stage.expect("onto memory", &moved, Record::SUCCESS)?;
        same("copied", &to, &pattern(4 * PAGE))?;
        to.advise(Advice::LinuxDontNeed)?;
        if round % 2 == 1 {
            let zeros = Descriptor {
                operation: op::COMPARE_PATTERN,
                flags: flag::BLOCK_ON_FAULT,
                first: to.address(),
                second: 0,
                size: 4 * PAGE_U32,
            };
            stage.expect("given up", &zeros, Record::SUCCESS)?;
        }
    }
    Ok(())
}

/// What may only be read is not written, whether the device waits or not.
fn read_only(stage: &mut Stage<'_, '_>) -> Done {
    let to = source(2 * PAGE)?;
    let from = source(2 * PAGE)?;
    to.protect(MprotectFlags::READ)?;
    let moved = copy(from.address(), to.address(), 2 * PAGE_U32);
    stage.expect("to read-only memory", &moved, fault(0x84, 0, to.address()))?;
    let hasty = impatient(moved);
    stage.expect("without waiting", &hasty, fault(0x83, 0, to.address()))?;
    let back = copy(to.address(), from.address(), 2 * PAGE_U32);
    stage.expect("from read-only memory", &back, Record::SUCCESS)?;
    to.protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
    stage.expect("writable again", &moved, Record::SUCCESS)
}

/// What is not there stays so.
fn unmapped(stage: &mut Stage<'_, '_>) -> Done {
    let memory = source(2 * PAGE)?;
    let gone = source(2 * PAGE)?;
    let warm = copy(memory.address(), gone.address(), 2 * PAGE_U32);
    stage.expect("while it is there", &warm, Record::SUCCESS)?;
    let gone = gone.unmap();
    stage.expect("to unmapped memory", &warm, fault(0x84, 0, gone))?;
    let hasty = impatient(warm);
    stage.expect("without waiting", &hasty, fault(0x83, 0, gone))?;
    let from = copy(gone, memory.address(), 2 * PAGE_U32);
    stage.expect("from unmapped memory", &from, fault(0x04, 0, gone))?;
    stage.expect("without waiting", &impatient(from), fault(0x03, 0, gone))?;
    let closed = small_pages(PAGE)?;
    closed.protect(MprotectFlags::empty())?;
    let from = copy(closed.address(), memory.address(), PAGE_U32);
    let refused = fault(0x04, 0, closed.address());
    stage.expect("from memory without rights", &from, refused)?;
    // No user address: the kernel's half.
    let kernel = copy(0xffff_8880_0000_0000, memory.address(), PAGE_U32);
    let refused = fault(0x04, 0, 0xffff_8880_0000_0000);
    stage.expect("from the kernel's half", &kernel, refused)
}

/// The completion record's own page is missing: the device waits for it in any case.
fn record(stage: &mut Stage<'_, '_>) -> Done {
    let records = small_pages(PAGE)?;
    let noop = Descriptor::default();
    stage.queue.store(&noop.bytes(records.address() + 32))?;
    let record = wait(&records, 32)?;
    stage
        .out
        .line(format_args!("onto an untouched page: {record}"));
    check("its record", &record, &Record::SUCCESS)
}

/// More pages than the device may ask for at a time.
fn large(stage: &mut Stage<'_, '_>) -> Done {
    let to = small_pages(12 << 20)?;
    let fill = Descriptor {
        operation: op::FILL,
        flags: flag::BLOCK_ON_FAULT,
        first: u64::from_le_bytes(*b"12345678"),
        second: to.address(),
        size: 12 << 20,
    };
    stage.expect("12 MiB of untouched memory", &fill, Record::SUCCESS)?;
    let wrong = (0..to.len()).find(|at| to.byte(*at) != b"12345678"[at % 8]);
    check("the first wrong byte", &wrong, &None)
}

/// Ends without a word while the device is in the middle of its memory.
fn kill(stage: &mut Stage<'_, '_>) -> Done {
    let to = small_pages(12 << 20)?;
    let fill = Descriptor {
        operation: op::FILL,
        flags: flag::BLOCK_ON_FAULT,
        first: !0,
        second: to.address(),
        size: 12 << 20,
    };
    for _ in 0..4 {
        stage.queue.leave(&fill)?;
    }
    while to.byte(0) == 0 {
        std::thread::yield_now();
    }
    stage.out.line("the device is at work");
    let me = rustix::process::getpid();
    rustix::process::kill_process(me, rustix::process::Signal::KILL)?;
    Err(Failure::new("still alive"))
}
