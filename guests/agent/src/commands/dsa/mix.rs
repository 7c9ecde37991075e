//! Mixed traffic for as long as it is told: the device copies between buffers whose pages come, go and
//! change hands, while another thread maps, unmaps and forks.
//!
//! The process knows what every byte has to be. A translation that the device kept too long would bring
//! a byte that was there before, or put one where it no longer belongs.

use super::queue::{Descriptor, Queue, Record, flag, op};
use super::{check, scenarios::fault};
use crate::reply::{Done, Failure, Reply};
use crate::sys::{Memory, fork_and_end};
use rustix::mm::{Advice, MprotectFlags};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const BUFFERS: usize = 12;
const SIZE: usize = 64 << 10;
/// Bytes of one descriptor at most.
const MOST: usize = 24 << 10;
/// Every so many descriptors each byte of each buffer is looked at.
const INSPECTION: u64 = 256;

/// Numbers from a seed: xorshift64.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed | 1 << 63)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `bound`, which is not 0.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 16).unwrap_or(usize::MAX) % bound
    }
}

/// A buffer, and what has to be in it.
struct Buffer {
    memory: Memory,
    expected: Vec<u8>,
}

impl Buffer {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            memory: Memory::anonymous(SIZE)?,
            expected: vec![0; SIZE],
        })
    }

    /// Looks at a part of it.
    fn inspect(&self, from: usize, to: usize) -> Done {
        let different = (from..to).find(|at| self.memory.byte(*at) != self.expected[*at]);
        let Some(at) = different else { return Ok(()) };
        Err(Failure::new(format!(
            "stale or lost: {:#x} at {at:#x} of {:#x}, expected {:#x}",
            self.memory.byte(at),
            self.memory.address(),
            self.expected[at]
        )))
    }

    /// Changes what is behind it.
    fn disturb(&mut self, random: &mut Random) -> Done {
        match random.below(6) {
            0 => {
                self.memory.advise(Advice::LinuxDontNeed)?;
                self.expected.fill(0);
            }
            1 => {
                self.memory.replace()?;
                self.expected.fill(0);
            }
            2 => {
                let (at, byte) = (random.below(SIZE), random.next().to_le_bytes()[0]);
                self.memory.set(at, byte);
                self.expected[at] = byte;
            }
            // Rights that go and come again take translations away too.
            3 => {
                self.memory.protect(MprotectFlags::READ)?;
                self.memory
                    .protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// What was done.
#[derive(Default)]
struct Counts {
    descriptors: u64,
    bytes: u64,
    refused: u64,
}

/// Runs for so many seconds with numbers from `seed`.
pub(super) fn mix(queue: &Queue, seconds: u64, seed: u64, out: &mut Reply<'_>) -> Done {
    let (stop, forks, maps) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (stop, forks, maps) = (&stop, &forks, &maps);
    let counts = std::thread::scope(|scope| {
        let neighbour = scope.spawn(move || disturb(stop, forks, maps, seed));
        let counts = traffic(queue, seconds, seed);
        stop.store(true, Ordering::SeqCst);
        let disturbed = neighbour.join();
        disturbed.map_err(|_| Failure::new("the other thread ended early"))??;
        counts
    })?;
    out.line(format_args!(
        "descriptors={} bytes={} refused={} forks={} maps={} wrong=0",
        counts.descriptors,
        counts.bytes,
        counts.refused,
        forks.load(Ordering::SeqCst),
        maps.load(Ordering::SeqCst)
    ));
    Ok(())
}

/// Descriptors, one after the other, each checked.
fn traffic(queue: &Queue, seconds: u64, seed: u64) -> Result<Counts, Failure> {
    let mut random = Random::new(seed);
    let mut buffers = Vec::new();
    for _ in 0..BUFFERS {
        buffers.push(Buffer::new()?);
    }
    let mut counts = Counts::default();
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let (first, mut second) = (random.below(BUFFERS), random.below(BUFFERS - 1));
        second += usize::from(second >= first);
        for index in [first, second] {
            buffers[index].disturb(&mut random)?;
        }
        one(
            queue,
            &mut buffers,
            (first, second),
            &mut random,
            &mut counts,
        )
        .map_err(|failure| failure.at(format_args!("descriptor {}", counts.descriptors)))?;
        counts.descriptors += 1;
        if counts.descriptors.is_multiple_of(INSPECTION) {
            for buffer in &buffers {
                buffer.inspect(0, SIZE)?;
            }
        }
    }
    for buffer in &buffers {
        buffer.inspect(0, SIZE)?;
    }
    Ok(counts)
}

/// One descriptor from one buffer to another.
fn one(
    queue: &Queue,
    buffers: &mut [Buffer],
    (first, second): (usize, usize),
    random: &mut Random,
    counts: &mut Counts,
) -> Done {
    let len = 1 + random.below(MOST);
    let (from, to) = (random.below(SIZE - len), random.below(SIZE - len));
    let source = buffers[first].expected[from..from + len].to_vec();
    let target = &mut buffers[second];
    let size = u32::try_from(len).unwrap_or(u32::MAX);
    let (at, kind) = (target.memory.address() + to as u64, random.below(8));
    let moved = Descriptor {
        operation: op::MOVE,
        flags: flag::BLOCK_ON_FAULT,
        first: buffers[first].memory.address() + from as u64,
        second: at,
        size,
    };
    let target = &mut buffers[second];
    match kind {
        0 => {
            // Not writable: refused at the first byte, and nothing changes.
            target.memory.protect(MprotectFlags::READ)?;
            let record = queue.run(&moved)?;
            target
                .memory
                .protect(MprotectFlags::READ | MprotectFlags::WRITE)?;
            check("read-only", &record, &fault(0x84, 0, at))?;
            counts.refused += 1;
        }
        1 => {
            let pattern = random.next();
            let fill = Descriptor {
                operation: op::FILL,
                first: pattern,
                ..moved
            };
            check("fill", &queue.run(&fill)?, &Record::SUCCESS)?;
            let bytes = pattern.to_le_bytes().into_iter().cycle();
            let into = &mut target.expected[to..to + len];
            into.iter_mut().zip(bytes).for_each(|(to, byte)| *to = byte);
            counts.bytes += len as u64;
        }
        _ => {
            check("move", &queue.run(&moved)?, &Record::SUCCESS)?;
            target.expected[to..to + len].copy_from_slice(&source);
            counts.bytes += len as u64;
        }
    }
    target.inspect(to.saturating_sub(64), (to + len + 64).min(SIZE))
}

/// Maps, unmaps and forks until it is told to stop.
fn disturb(stop: &AtomicBool, forks: &AtomicU64, maps: &AtomicU64, seed: u64) -> Done {
    let mut random = Random::new(!seed);
    while !stop.load(Ordering::SeqCst) {
        let len = (1 + random.below(256)) * 4096;
        let memory = Memory::anonymous(len)?;
        memory.set(random.below(len), 1);
        if random.below(4) == 0 {
            // Every page of this process becomes shared with the child, until it has ended.
            fork_and_end()?;
            forks.fetch_add(1, Ordering::SeqCst);
        }
        drop(memory);
        maps.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(random.next() % 4));
    }
    Ok(())
}
