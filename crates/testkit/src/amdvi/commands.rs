//! The command buffer, as `iommu_completion_wait()` of Linux `drivers/iommu/amd/iommu.c` uses it.

use super::hardware::Hardware;
use super::numbers::{
    COMMAND_BASE, COMMAND_HEAD, COMMAND_TAIL, Command, STATUS, completion_wait, control, status,
};
use crate::driver::QueueError;
use crate::ram::{OutOfMemory, Ram};
use iopf::Gpa;

/// Commands in the ring.
const DEPTH: u64 = 512;
/// Looks at the semaphore before a submission counts as lost.
const PATIENCE: u32 = 2_000_000;

#[derive(Debug)]
pub(crate) struct Commands {
    base: Gpa,
    semaphore: Gpa,
    /// What the last wait stored.
    sequence: u64,
    tail: u64,
}

impl Commands {
    /// Allocates the ring and tells the IOMMU where it is. Enabling it is the caller's part.
    pub(crate) fn new(hw: &Hardware, ram: &Ram) -> Result<Self, OutOfMemory> {
        let commands = Self {
            base: ram.frames(DEPTH * 16 / 4096)?,
            semaphore: ram.frame()?,
            sequence: 0,
            tail: 0,
        };
        hw.mmio.write64(COMMAND_BASE, commands.register());
        hw.mmio.write32(COMMAND_HEAD, 0);
        hw.mmio.write32(COMMAND_TAIL, 0);
        Ok(commands)
    }

    /// The base address register: the address, and 2^9 entries.
    fn register(&self) -> u64 {
        self.base.0 | 9 << 56
    }

    fn put(&self, ram: &Ram, index: u64, [low, high]: &Command) {
        let at = self.base.0 + index * 16;
        ram.store(Gpa(at + 8), *high);
        ram.store(Gpa(at), *low);
    }

    /// Queues `commands` and a wait behind them, and waits for it.
    pub(crate) fn submit(
        &mut self,
        hw: &Hardware,
        ram: &Ram,
        commands: &[Command],
    ) -> Result<(), QueueError> {
        let count = commands.len() as u64;
        if count + 2 > DEPTH {
            return Err(QueueError::TooMany);
        }
        for (i, command) in commands.iter().enumerate() {
            self.put(ram, (self.tail + i as u64) % DEPTH, command);
        }
        self.sequence += 1;
        let end = completion_wait(self.semaphore.0, self.sequence);
        self.put(ram, (self.tail + count) % DEPTH, &end);
        self.tail = (self.tail + count + 1) % DEPTH;
        hw.mmio.write32(COMMAND_TAIL, pointer(self.tail));

        let mut error = None;
        for look in 0..PATIENCE {
            if ram.load(self.semaphore) == self.sequence {
                return error.map_or(Ok(()), Err);
            }
            if look % 64 == 0 {
                error = self.check(hw, ram, &end).or(error);
            } else {
                std::thread::yield_now();
            }
        }
        Err(error.unwrap_or(QueueError::Stuck))
    }

    /// Gets the buffer going again where a command has stopped it. That one is overwritten with the wait.
    /// Linux only prints it, and finds its waits timed out.
    fn check(&self, hw: &Hardware, ram: &Ram, end: &Command) -> Option<QueueError> {
        if hw.mmio.read32(STATUS) & status::COMMANDS_RUN != 0 {
            return None;
        }
        let head = hw.mmio.read64(COMMAND_HEAD) >> 4 & (DEPTH - 1);
        self.put(ram, head, end);
        hw.switch(control::COMMANDS, 0);
        // A buffer in the wrong place stops at its first command: it goes where it belongs.
        if hw.mmio.read64(COMMAND_BASE) != self.register() {
            hw.mmio.write64(COMMAND_BASE, self.register());
            hw.mmio.write32(COMMAND_HEAD, pointer(head));
            hw.mmio.write32(COMMAND_TAIL, pointer(self.tail));
        }
        hw.switch(0, control::COMMANDS);
        Some(QueueError::Invalid)
    }

    /// Tells the IOMMU that the buffer lies elsewhere, as a guest with a bug would.
    pub(crate) fn misplace(&self, hw: &Hardware, base: Gpa) -> Gpa {
        hw.switch(control::COMMANDS, 0);
        hw.mmio.write64(COMMAND_BASE, base.0 | 9 << 56);
        // The base takes the pointers to its start.
        hw.mmio.write32(COMMAND_HEAD, pointer(self.tail));
        hw.mmio.write32(COMMAND_TAIL, pointer(self.tail));
        hw.switch(0, control::COMMANDS);
        Gpa(base.0 + self.tail * 16)
    }

    /// Where the next command will lie.
    pub(crate) fn next(&self) -> Gpa {
        Gpa(self.base.0 + self.tail * 16)
    }
}

/// A pointer register that says this index of the ring.
fn pointer(index: u64) -> u32 {
    u32::try_from(index % DEPTH * 16).unwrap_or(0)
}
