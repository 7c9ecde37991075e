//! Queues and the messages they send.
//!
//! Source: IHI 0070, "SMMU circular queues", "SMMU_CMDQ_BASE" and its siblings, "Command queue errors".

use bitfield_struct::bitfield;
use iopf::Gpa;

/// SMMU_CMDQ_BASE, SMMU_EVENTQ_BASE, SMMU_PRIQ_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct QueueBase {
    /// `[4:0]` LOG2SIZE: the queue has `2^n` entries; more than the unit can do counts as its most.
    #[bits(5)]
    pub log2size: u8,
    /// `[55:5]` ADDR, in units of 32 bytes. A queue is aligned to its size all the same.
    #[bits(51)]
    pub addr: u64,
    #[bits(6)]
    _res56: u8,
    /// `[62]` RA, WA: a hint.
    pub hint: bool,
    #[bits(1)]
    _res63: u8,
}

impl QueueBase {
    /// Where a queue of `2^log2size` entries of `bytes` each begins.
    #[must_use]
    pub const fn base(self, log2size: u8, bytes: u64) -> Gpa {
        // At most 2^19 entries of 32 bytes.
        let size = bytes << (log2size & 0x1f);
        let align = if size < 32 { 32 } else { size };
        Gpa((self.addr() << 5) & !(align - 1))
    }
}

/// SMMU_CMDQ_PROD, SMMU_EVENTQ_PROD, SMMU_EVENTQ_CONS and so on: an index, and the wrap bit above it,
/// whose place depends on the size of the queue.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Index {
    /// `[19:0]` WR or RD, with its wrap bit.
    #[bits(20)]
    pub at: u32,
    #[bits(11)]
    _res20: u16,
    /// `[31]` OVFLG of a producer index, OVACKFLG of a consumer index; of output queues only. Entries
    /// were lost while the two differ.
    pub overflow: bool,
}

/// ERR of SMMU_CMDQ_CONS. Any seven bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommandError(pub u8);

impl CommandError {
    /// CERROR_NONE
    pub const NONE: Self = Self(0);
    /// CERROR_ILL: the command is illegal.
    pub const ILL: Self = Self(1);
    /// CERROR_ABT: the command could not be read.
    pub const ABT: Self = Self(2);
    /// CERROR_ATC_INV_SYNC: a device did not complete an invalidation before this CMD_SYNC.
    pub const ATC_INV_SYNC: Self = Self(3);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// SMMU_CMDQ_CONS.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Consumer {
    /// `[19:0]` RD, with its wrap bit.
    #[bits(20)]
    pub at: u32,
    #[bits(4)]
    _res20: u8,
    /// `[30:24]` ERR
    #[bits(7, default = CommandError::NONE)]
    pub error: CommandError,
    #[bits(1)]
    _res31: u8,
}

/// SMMU_GERROR_IRQ_CFG0 and its siblings: where a message goes.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct MessageAddress {
    #[bits(2)]
    _res0: u8,
    /// `[55:2]` ADDR, in units of 4 bytes; 0: no message.
    #[bits(54)]
    pub addr: u64,
    _res56: u8,
}

/// SMMU_GERROR_IRQ_CFG2 and its siblings: how a message goes.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct MessageConfig {
    /// `[3:0]` MemAttr
    #[bits(4)]
    pub mem_attr: u8,
    /// `[5:4]` SH
    #[bits(2)]
    pub sh: u8,
    #[bits(25)]
    _res6: u32,
    /// `[31]` LO, of SMMU_PRIQ_IRQ_CFG2: only for the last of a group.
    pub last_only: bool,
}
