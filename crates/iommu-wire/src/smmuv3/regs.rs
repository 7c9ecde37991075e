//! The register file: offsets, and the fields of each register.
//!
//! Source: IHI 0070, "Register formats" (the Non-secure registers). Linux `arm-smmu-v3.h`, QEMU
//! `hw/arm/smmuv3-internal.h` and FreeBSD `smmu_reg.h` spell the same facts.
//! Not covered: address translation operations (ATOS), Secure, Realm and Root registers, further command
//! queues (ECMDQ), device permission tables, memory partitioning, performance monitors.

mod id;
mod queue;

use bitfield_struct::bitfield;
pub use id::{Aidr, Idr0, Idr1, Idr3, Idr5, StallModel, size_bits};
use iopf::Gpa;
pub use queue::{CommandError, Consumer, Index, MessageAddress, MessageConfig, QueueBase};

/// Byte offsets of the registers. Those of 64 bits say so.
pub mod offset {
    /// SMMU_IDR0: [`Idr0`](super::Idr0).
    pub const IDR0: u64 = 0x0000;
    /// SMMU_IDR1: [`Idr1`](super::Idr1).
    pub const IDR1: u64 = 0x0004;
    /// SMMU_IDR2: where the ATOS page lies.
    pub const IDR2: u64 = 0x0008;
    /// SMMU_IDR3: [`Idr3`](super::Idr3).
    pub const IDR3: u64 = 0x000c;
    /// SMMU_IDR4: the implementation's own.
    pub const IDR4: u64 = 0x0010;
    /// SMMU_IDR5: [`Idr5`](super::Idr5).
    pub const IDR5: u64 = 0x0014;
    /// SMMU_IIDR: who made it.
    pub const IIDR: u64 = 0x0018;
    /// SMMU_AIDR: [`Aidr`](super::Aidr).
    pub const AIDR: u64 = 0x001c;
    /// SMMU_CR0: [`Cr0`](super::Cr0).
    pub const CR0: u64 = 0x0020;
    /// SMMU_CR0ACK: [`Cr0`](super::Cr0), once it has taken effect.
    pub const CR0ACK: u64 = 0x0024;
    /// SMMU_CR1: [`Cr1`](super::Cr1).
    pub const CR1: u64 = 0x0028;
    /// SMMU_CR2: [`Cr2`](super::Cr2).
    pub const CR2: u64 = 0x002c;
    /// SMMU_STATUSR: the dormant hint in bit 0.
    pub const STATUSR: u64 = 0x0040;
    /// SMMU_GBPA: [`Gbpa`](super::Gbpa).
    pub const GBPA: u64 = 0x0044;
    /// SMMU_AGBPA: the implementation's own.
    pub const AGBPA: u64 = 0x0048;
    /// SMMU_IRQ_CTRL: [`IrqCtrl`](super::IrqCtrl).
    pub const IRQ_CTRL: u64 = 0x0050;
    /// SMMU_IRQ_CTRLACK: [`IrqCtrl`](super::IrqCtrl), once it has taken effect.
    pub const IRQ_CTRLACK: u64 = 0x0054;
    /// SMMU_GERROR: [`Gerror`](super::Gerror).
    pub const GERROR: u64 = 0x0060;
    /// SMMU_GERRORN: [`Gerror`](super::Gerror), as software acknowledges it.
    pub const GERRORN: u64 = 0x0064;
    /// SMMU_GERROR_IRQ_CFG0, 64 bits: [`MessageAddress`](super::MessageAddress).
    pub const GERROR_IRQ_CFG0: u64 = 0x0068;
    /// SMMU_GERROR_IRQ_CFG1: data of the message.
    pub const GERROR_IRQ_CFG1: u64 = 0x0070;
    /// SMMU_GERROR_IRQ_CFG2: [`MessageConfig`](super::MessageConfig).
    pub const GERROR_IRQ_CFG2: u64 = 0x0074;
    /// SMMU_STRTAB_BASE, 64 bits: [`StrtabBase`](super::StrtabBase).
    pub const STRTAB_BASE: u64 = 0x0080;
    /// SMMU_STRTAB_BASE_CFG: [`StrtabBaseCfg`](super::StrtabBaseCfg).
    pub const STRTAB_BASE_CFG: u64 = 0x0088;
    /// SMMU_CMDQ_BASE, 64 bits: [`QueueBase`](super::QueueBase).
    pub const CMDQ_BASE: u64 = 0x0090;
    /// SMMU_CMDQ_PROD, moved by software: [`Index`](super::Index).
    pub const CMDQ_PROD: u64 = 0x0098;
    /// SMMU_CMDQ_CONS, moved by hardware: [`Consumer`](super::Consumer).
    pub const CMDQ_CONS: u64 = 0x009c;
    /// SMMU_EVENTQ_BASE, 64 bits: [`QueueBase`](super::QueueBase).
    pub const EVENTQ_BASE: u64 = 0x00a0;
    /// SMMU_EVENTQ_IRQ_CFG0, 64 bits: [`MessageAddress`](super::MessageAddress).
    pub const EVENTQ_IRQ_CFG0: u64 = 0x00b0;
    /// SMMU_EVENTQ_IRQ_CFG1: data of the message.
    pub const EVENTQ_IRQ_CFG1: u64 = 0x00b8;
    /// SMMU_EVENTQ_IRQ_CFG2: [`MessageConfig`](super::MessageConfig).
    pub const EVENTQ_IRQ_CFG2: u64 = 0x00bc;
    /// SMMU_PRIQ_BASE, 64 bits: [`QueueBase`](super::QueueBase).
    pub const PRIQ_BASE: u64 = 0x00c0;
    /// SMMU_PRIQ_IRQ_CFG0, 64 bits: [`MessageAddress`](super::MessageAddress).
    pub const PRIQ_IRQ_CFG0: u64 = 0x00d0;
    /// SMMU_PRIQ_IRQ_CFG1: data of the message.
    pub const PRIQ_IRQ_CFG1: u64 = 0x00d8;
    /// SMMU_PRIQ_IRQ_CFG2: [`MessageConfig`](super::MessageConfig).
    pub const PRIQ_IRQ_CFG2: u64 = 0x00dc;
    /// First of the CoreSight identification registers, ID_REGS: PIDR4.
    pub const ID_REGS: u64 = 0x0fd0;
    /// Last of them: CIDR3.
    pub const ID_REGS_LAST: u64 = 0x0ffc;
    /// Page 1.
    pub const PAGE_1: u64 = 0x1_0000;
    /// SMMU_EVENTQ_PROD, moved by hardware: [`Index`](super::Index). On page 1.
    pub const EVENTQ_PROD: u64 = 0x1_00a8;
    /// SMMU_EVENTQ_CONS, moved by software: [`Index`](super::Index). On page 1.
    pub const EVENTQ_CONS: u64 = 0x1_00ac;
    /// SMMU_PRIQ_PROD, moved by hardware: [`Index`](super::Index). On page 1.
    pub const PRIQ_PROD: u64 = 0x1_00c8;
    /// SMMU_PRIQ_CONS, moved by software: [`Index`](super::Index). On page 1.
    pub const PRIQ_CONS: u64 = 0x1_00cc;
}

/// Bytes of the register window: two pages of 64 KiB.
pub const WINDOW: u64 = 0x2_0000;

/// SMMU_CR0 and SMMU_CR0ACK.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr0 {
    /// `[0]` SMMUEN: requests are translated.
    pub smmuen: bool,
    /// `[1]` PRIQEN: page requests are queued.
    pub priqen: bool,
    /// `[2]` EVENTQEN: events are queued.
    pub eventqen: bool,
    /// `[3]` CMDQEN: commands are consumed.
    pub cmdqen: bool,
    /// `[4]` ATSCHK: translated requests are checked against the stream table.
    pub atschk: bool,
    #[bits(1)]
    _res5: u8,
    /// `[8:6]` VMW: TLB invalidations leave as many low bits of the VMID out of account.
    #[bits(3)]
    pub vmw: u8,
    #[bits(1)]
    _res9: u8,
    /// `[10]` DPT_WALK_EN
    pub dpt_walk_en: bool,
    #[bits(21)]
    _res11: u32,
}

/// SMMU_CR1: memory attributes of tables and queues.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr1 {
    /// `[1:0]` QUEUE_IC
    #[bits(2)]
    pub queue_ic: u8,
    /// `[3:2]` QUEUE_OC
    #[bits(2)]
    pub queue_oc: u8,
    /// `[5:4]` QUEUE_SH
    #[bits(2)]
    pub queue_sh: u8,
    /// `[7:6]` TABLE_IC
    #[bits(2)]
    pub table_ic: u8,
    /// `[9:8]` TABLE_OC
    #[bits(2)]
    pub table_oc: u8,
    /// `[11:10]` TABLE_SH
    #[bits(2)]
    pub table_sh: u8,
    #[bits(20)]
    _res12: u32,
}

impl Cr1 {
    /// The fields that SMMUEN guards.
    pub const TABLES: u32 = 0xfc0;
    /// The fields that the queues' enable bits guard.
    pub const QUEUES: u32 = 0x03f;
}

/// SMMU_CR2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Cr2 {
    /// `[0]` E2H: the hypervisor's translations have ASIDs.
    pub e2h: bool,
    /// `[1]` RECINVSID: C_BAD_STREAMID is recorded.
    pub recinvsid: bool,
    /// `[2]` PTM: broadcast TLB maintenance is ignored.
    pub ptm: bool,
    /// `[3]` REC_CFG_ATS: configuration errors of ATS and PRI are recorded.
    pub rec_cfg_ats: bool,
    #[bits(28)]
    _res4: u32,
}

/// SMMU_GBPA: what becomes of requests while SMMUEN is 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gbpa {
    /// `[3:0]` MemAttr
    #[bits(4)]
    pub mem_attr: u8,
    /// `[4]` MTCFG
    pub mtcfg: bool,
    #[bits(3)]
    _res5: u8,
    /// `[11:8]` ALLOCCFG
    #[bits(4)]
    pub alloccfg: u8,
    /// `[13:12]` SHCFG
    #[bits(2)]
    pub shcfg: u8,
    #[bits(2)]
    _res14: u8,
    /// `[17:16]` PRIVCFG
    #[bits(2)]
    pub privcfg: u8,
    /// `[19:18]` INSTCFG
    #[bits(2)]
    pub instcfg: u8,
    /// `[20]` ABORT: they are aborted, and no event is recorded.
    pub abort: bool,
    #[bits(10)]
    _res21: u16,
    /// `[31]` Update: set by software with what it writes, cleared by hardware once that is in effect.
    pub update: bool,
}

/// SMMU_IRQ_CTRL and SMMU_IRQ_CTRLACK.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct IrqCtrl {
    /// `[0]` GERROR_IRQEN
    pub gerror: bool,
    /// `[1]` PRIQ_IRQEN
    pub priq: bool,
    /// `[2]` EVENTQ_IRQEN
    pub eventq: bool,
    #[bits(29)]
    _res3: u32,
}

/// SMMU_GERROR and SMMU_GERRORN. An error is active while its bits differ.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Gerror {
    /// `[0]` CMDQ_ERR: the Command queue stands still; SMMU_CMDQ_CONS.ERR says why.
    pub cmdq_err: bool,
    #[bits(1)]
    _res1: u8,
    /// `[2]` EVENTQ_ABT_ERR: a record could not be written.
    pub eventq_abt_err: bool,
    /// `[3]` PRIQ_ABT_ERR: a page request could not be written.
    pub priq_abt_err: bool,
    /// `[4]` MSI_CMDQ_ABT_ERR: the message of a CMD_SYNC was aborted.
    pub msi_cmdq_abt_err: bool,
    /// `[5]` MSI_EVENTQ_ABT_ERR
    pub msi_eventq_abt_err: bool,
    /// `[6]` MSI_PRIQ_ABT_ERR
    pub msi_priq_abt_err: bool,
    /// `[7]` MSI_GERROR_ABT_ERR: raises no interrupt.
    pub msi_gerror_abt_err: bool,
    /// `[8]` SFM_ERR: the unit has failed.
    pub sfm_err: bool,
    /// `[9]` CMDQP_ERR
    pub cmdqp_err: bool,
    /// `[10]` DPT_ERR
    pub dpt_err: bool,
    #[bits(21)]
    _res11: u32,
}

/// SMMU_STRTAB_BASE.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct StrtabBase {
    #[bits(6)]
    _res0: u8,
    /// `[55:6]` ADDR, in units of 64 bytes. A table is aligned to its size all the same.
    #[bits(50)]
    pub addr: u64,
    #[bits(6)]
    _res56: u8,
    /// `[62]` RA: a hint.
    pub ra: bool,
    #[bits(1)]
    _res63: u8,
}

impl StrtabBase {
    /// ADDR as an address.
    #[must_use]
    pub const fn base(self) -> Gpa {
        Gpa(self.addr() << 6)
    }
}

/// SMMU_STRTAB_BASE_CFG.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct StrtabBaseCfg {
    /// `[5:0]` LOG2SIZE: the table has `2^n` entries.
    #[bits(6)]
    pub log2size: u8,
    /// `[10:6]` SPLIT: StreamID bits of the second level: 6, 8 or 10; else it counts as 6.
    #[bits(5)]
    pub split: u8,
    #[bits(5)]
    _res11: u8,
    /// `[17:16]` FMT: 0 linear, 1 two levels; else it counts as 0.
    #[bits(2)]
    pub fmt: u8,
    #[bits(14)]
    _res18: u16,
}

#[cfg(test)]
mod tests;
