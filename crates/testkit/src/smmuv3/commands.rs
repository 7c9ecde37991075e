//! The Command queue, as `arm_smmu_cmdq_issue_cmdlist()` and `arm_smmu_cmdq_skip_err()` of Linux
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c` use it.

use super::hardware::Hardware;
use super::numbers::{
    CMDQ_BASE, CMDQ_CONS, CMDQ_PROD, Command, GERROR, GERRORN, cerror, cr0, gerror, sync, sync_to,
};
use crate::driver::QueueError;
use crate::ram::{OutOfMemory, Ram};
use iopf::Gpa;

/// log2 of the commands in the ring: a frame's.
const LOG2: u32 = 8;
const DEPTH: u32 = 1 << LOG2;
/// Looks at the queue before a submission counts as lost.
const PATIENCE: u32 = 2_000_000;

#[derive(Debug)]
pub(crate) struct Commands {
    base: Gpa,
    /// The producer's index, with its wrap bit.
    prod: u32,
}

impl Commands {
    /// Allocates the ring, tells the SMMU where it is, and switches it on.
    pub(crate) fn new(hw: &Hardware, ram: &Ram) -> Result<Self, OutOfMemory> {
        let commands = Self {
            base: ram.frame()?,
            prod: 0,
        };
        commands.place(hw, commands.base);
        Ok(commands)
    }

    /// The base register, and the consumer's index beside the producer's. The queue must be off.
    fn place(&self, hw: &Hardware, base: Gpa) {
        // RA, and the size.
        let register = 1 << 62 | base.0 | u64::from(LOG2);
        hw.mmio.write64(CMDQ_BASE, register);
        hw.mmio.write32(CMDQ_PROD, self.prod);
        hw.mmio.write32(CMDQ_CONS, self.prod);
    }

    fn slot(&self, index: u32) -> Gpa {
        Gpa(self.base.0 + u64::from(index % DEPTH) * 16)
    }

    fn put(&self, ram: &Ram, index: u32, [low, high]: &Command) {
        let at = self.slot(index);
        ram.store(Gpa(at.0 + 8), *high);
        ram.store(at, *low);
    }

    /// Queues `commands`, and does not wait for them: for what needs no CMD_SYNC.
    pub(crate) fn post(
        &mut self,
        hw: &Hardware,
        ram: &Ram,
        commands: &[Command],
    ) -> Result<(), QueueError> {
        let count = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        if count > DEPTH {
            return Err(QueueError::TooMany);
        }
        let room = |commands: &Self| {
            let cons = hw.mmio.read32(CMDQ_CONS);
            let used = commands.prod.wrapping_sub(cons) & (2 * DEPTH - 1);
            used + count <= DEPTH
        };
        self.wait(hw, ram, room)?;
        for (index, command) in (self.prod..).zip(commands) {
            self.put(ram, index, command);
        }
        self.prod = (self.prod + count) % (2 * DEPTH);
        hw.mmio.write32(CMDQ_PROD, self.prod);
        Ok(())
    }

    /// Queues `commands` and a CMD_SYNC behind them, and waits for it: it stores 0 where it lies.
    pub(crate) fn submit(
        &mut self,
        hw: &Hardware,
        ram: &Ram,
        commands: &[Command],
    ) -> Result<(), QueueError> {
        let count = u32::try_from(commands.len()).unwrap_or(u32::MAX);
        if count >= DEPTH {
            return Err(QueueError::TooMany);
        }
        let end = self.slot(self.prod + count);
        let mut all = commands.to_vec();
        all.push(sync_to(end.0, 0));
        self.post(hw, ram, &all)?;
        self.wait(hw, ram, |_| ram.load32(end) == 0)
    }

    /// Waits until something is so. An error of the queue on the way is told, and does not end the wait.
    fn wait(&self, hw: &Hardware, ram: &Ram, so: impl Fn(&Self) -> bool) -> Result<(), QueueError> {
        let mut error = None;
        for look in 0..PATIENCE {
            if so(self) {
                return error.map_or(Ok(()), Err);
            }
            if look % 64 == 0 {
                error = self.check(hw, ram).or(error);
            } else {
                std::thread::yield_now();
            }
        }
        Err(error.unwrap_or(QueueError::Stuck))
    }

    /// Gets the queue going again where a command has stopped it. An illegal one becomes a CMD_SYNC. One
    /// that could not be read lies in the wrong place: the queue goes where it belongs.
    pub(crate) fn check(&self, hw: &Hardware, ram: &Ram) -> Option<QueueError> {
        let known = hw.mmio.read32(GERRORN);
        if (hw.mmio.read32(GERROR) ^ known) & gerror::CMDQ == 0 {
            return None;
        }
        let cons = hw.mmio.read32(CMDQ_CONS);
        let error = match cons >> 24 & 0x7f {
            cerror::ATC_INV => QueueError::DeviceTimeout,
            cerror::ABORT => {
                hw.switch(cr0::CMDQEN, 0);
                self.place(hw, self.base);
                hw.mmio.write32(CMDQ_CONS, cons & (2 * DEPTH - 1));
                hw.switch(0, cr0::CMDQEN);
                QueueError::Invalid
            }
            _ => {
                self.put(ram, cons % DEPTH, &sync());
                QueueError::Invalid
            }
        };
        hw.mmio.write32(GERRORN, known ^ gerror::CMDQ);
        Some(error)
    }

    /// Tells the SMMU that the queue lies elsewhere, as a guest with a bug would.
    pub(crate) fn misplace(&self, hw: &Hardware, base: Gpa) {
        hw.switch(cr0::CMDQEN, 0);
        self.place(hw, base);
        hw.switch(0, cr0::CMDQEN);
    }
}
