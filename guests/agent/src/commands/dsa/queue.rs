//! A work queue as a process has it: a portal, descriptors, completion records.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, "Descriptor Formats";
//! Linux's `include/uapi/linux/idxd.h`.

use crate::reply::{Context as _, Failure};
use crate::sys::{Mapping, Memory, Width};
use std::fmt;
use std::fs::File;
use std::time::{Duration, Instant};

/// Flags of a descriptor.
pub(super) mod flag {
    /// Wait for pages of the buffers.
    pub(in super::super) const BLOCK_ON_FAULT: u32 = 1 << 1;
    pub(super) const RECORD_VALID: u32 = 1 << 2;
    pub(super) const REQUEST_RECORD: u32 = 1 << 3;
}

/// Operations.
pub(super) mod op {
    pub(in super::super) const NOOP: u8 = 0;
    pub(in super::super) const BATCH: u8 = 1;
    pub(in super::super) const MOVE: u8 = 3;
    pub(in super::super) const FILL: u8 = 4;
    pub(in super::super) const COMPARE: u8 = 5;
    pub(in super::super) const COMPARE_PATTERN: u8 = 6;
}

/// How long a descriptor may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A descriptor, without where its record goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Descriptor {
    pub(super) operation: u8,
    pub(super) flags: u32,
    /// Source, pattern, or descriptor list.
    pub(super) first: u64,
    /// Destination, second source, or pattern to compare with.
    pub(super) second: u64,
    /// Bytes, or descriptors.
    pub(super) size: u32,
}

impl Descriptor {
    /// Its 64 bytes.
    pub(super) fn bytes(&self, record: u64) -> [u8; 64] {
        let flags = self.flags | flag::RECORD_VALID | flag::REQUEST_RECORD;
        let head = flags | u32::from(self.operation) << 24;
        let mut bytes = [0; 64];
        bytes[4..8].copy_from_slice(&head.to_le_bytes());
        bytes[8..16].copy_from_slice(&record.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.second.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.size.to_le_bytes());
        bytes
    }
}

/// A completion record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) status: u8,
    pub(super) result: u8,
    pub(super) completed: u32,
    pub(super) fault: u64,
}

impl Record {
    /// One of success that has nothing else to say.
    pub(super) const SUCCESS: Self = Self {
        status: 1,
        result: 0,
        completed: 0,
        fault: 0,
    };

    fn read(memory: &Memory, at: usize) -> Self {
        let bytes = memory.read(at, 16);
        let (mut completed, mut fault) = ([0; 4], [0; 8]);
        completed.copy_from_slice(&bytes[4..8]);
        fault.copy_from_slice(&bytes[8..16]);
        Self {
            status: bytes[0],
            result: bytes[1],
            completed: u32::from_le_bytes(completed),
            fault: u64::from_le_bytes(fault),
        }
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "status={:#04x} result={} completed={:#x} fault={:#x}",
            self.status, self.result, self.completed, self.fault
        )
    }
}

/// An open work queue. Opening it binds this process's address space to the device.
#[derive(Debug)]
pub(super) struct Queue {
    portal: Mapping,
    records: Memory,
    _file: File,
}

impl Queue {
    pub(super) fn open(path: &str) -> Result<Self, Failure> {
        let file = File::options().read(true).write(true).open(path);
        let file = file.context(path)?;
        let portal = Mapping::new(&file, 0, 4096).context("the portal")?;
        let records = Memory::anonymous(4096)?;
        // Touched, so that the device finds it.
        records.set(0, 0);
        Ok(Self {
            portal,
            records,
            _file: file,
        })
    }

    /// Stores a descriptor to the portal. A processor has MOVDIR64B for that; an emulated one may not,
    /// and the device takes it in eight parts too.
    pub(super) fn store(&self, bytes: &[u8; 64]) -> Result<(), Failure> {
        let (words, _) = bytes.as_chunks::<8>();
        for (at, word) in (0..).step_by(8).zip(words) {
            self.portal
                .write(at, Width::Eight, u64::from_le_bytes(*word))?;
        }
        Ok(())
    }

    /// Submits a descriptor and waits for its completion record, which is the `n`-th of the page.
    pub(super) fn run(&self, descriptor: &Descriptor) -> Result<Record, Failure> {
        self.records.write(0, &[0; 32]);
        self.store(&descriptor.bytes(self.records.address()))?;
        wait(&self.records, 0)
    }

    /// Submits a descriptor whose completion record is the `n`-th of the page; at most 128 have room.
    pub(super) fn submit(&self, n: usize, descriptor: &Descriptor) -> Result<(), Failure> {
        let at = n * 32;
        self.records.write(at, &[0; 32]);
        self.store(&descriptor.bytes(self.records.address() + at as u64))
    }

    /// The `n`-th completion record, if it is there.
    pub(super) fn poll(&self, n: usize) -> Option<Record> {
        let at = n * 32;
        (self.records.byte(at) != 0).then(|| Record::read(&self.records, at))
    }

    /// Submits a descriptor and does not wait for anything.
    pub(super) fn leave(&self, descriptor: &Descriptor) -> Result<(), Failure> {
        self.store(&descriptor.bytes(self.records.address()))
    }
}

/// Waits for the completion record at `at`.
pub(super) fn wait(memory: &Memory, at: usize) -> Result<Record, Failure> {
    let deadline = Instant::now() + PATIENCE;
    while memory.byte(at) == 0 {
        if Instant::now() > deadline {
            let timed_out = Failure::from(rustix::io::Errno::TIMEDOUT);
            return Err(timed_out.at("no completion record"));
        }
        std::thread::yield_now();
    }
    Ok(Record::read(memory, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_the_literal_bytes_of_struct_dsa_hw_desc() {
        let descriptor = Descriptor {
            operation: op::MOVE,
            flags: flag::BLOCK_ON_FAULT,
            first: 0x7fff_0000_1000,
            second: 0x7fff_0000_2008,
            size: 0x2000,
        };
        let mut expected = [0; 64];
        expected[..40].copy_from_slice(&[
            0, 0, 0, 0, 0x0e, 0, 0, 3, // flags BOF, CRAV, RCR; DSA_OPCODE_MEMMOVE
            0x20, 0x30, 0, 0, 0, 0, 0, 0, // completion_addr
            0x00, 0x10, 0, 0, 0xff, 0x7f, 0, 0, // src_addr
            0x08, 0x20, 0, 0, 0xff, 0x7f, 0, 0, // dst_addr
            0x00, 0x20, 0, 0, 0, 0, 0, 0, // xfer_size, int_handle
        ]);
        assert_eq!(descriptor.bytes(0x3020), expected);
    }
}
