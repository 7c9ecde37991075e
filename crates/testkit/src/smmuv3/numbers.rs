//! SMMUv3 in plain numbers, for the side that plays the operating system.
//!
//! Register offsets, bits and commands as Linux `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.h` has them
//! (`arm_smmu_make_cmd_*`); CMD_STALL_TERM, which Linux does not use, from IHI 0070. Deliberately not those
//! of `iommu_wire`: a scripted guest is the second author that the models are checked against.

/// `ARM_SMMU_IDR0`, 32 bits.
pub const IDR0: u64 = 0x00;
/// `ARM_SMMU_IDR1`, 32 bits.
pub const IDR1: u64 = 0x04;
/// `ARM_SMMU_IDR3`, 32 bits.
pub const IDR3: u64 = 0x0c;
/// `ARM_SMMU_IDR5`, 32 bits.
pub const IDR5: u64 = 0x14;
/// `ARM_SMMU_CR0`, 32 bits; its acknowledgement is the register after it.
pub const CR0: u64 = 0x20;
/// `ARM_SMMU_CR1`, 32 bits.
pub const CR1: u64 = 0x28;
/// `ARM_SMMU_CR2`, 32 bits.
pub const CR2: u64 = 0x2c;
/// `ARM_SMMU_GBPA`, 32 bits.
pub const GBPA: u64 = 0x44;
/// `ARM_SMMU_IRQ_CTRL`, 32 bits; its acknowledgement is the register after it.
pub const IRQ_CTRL: u64 = 0x50;
/// `ARM_SMMU_GERROR`, 32 bits.
pub const GERROR: u64 = 0x60;
/// `ARM_SMMU_GERRORN`, 32 bits.
pub const GERRORN: u64 = 0x64;
/// `ARM_SMMU_GERROR_IRQ_CFG0`, 64 bits; the data and the attributes follow.
pub const GERROR_IRQ_CFG0: u64 = 0x68;
/// `ARM_SMMU_STRTAB_BASE`, 64 bits.
pub const STRTAB_BASE: u64 = 0x80;
/// `ARM_SMMU_STRTAB_BASE_CFG`, 32 bits.
pub const STRTAB_BASE_CFG: u64 = 0x88;
/// `ARM_SMMU_CMDQ_BASE`, 64 bits.
pub const CMDQ_BASE: u64 = 0x90;
/// `ARM_SMMU_CMDQ_PROD`, 32 bits.
pub const CMDQ_PROD: u64 = 0x98;
/// `ARM_SMMU_CMDQ_CONS`, 32 bits.
pub const CMDQ_CONS: u64 = 0x9c;
/// `ARM_SMMU_EVTQ_BASE`, 64 bits.
pub const EVTQ_BASE: u64 = 0xa0;
/// `ARM_SMMU_EVTQ_IRQ_CFG0`, 64 bits.
pub const EVTQ_IRQ_CFG0: u64 = 0xb0;
/// `ARM_SMMU_PRIQ_BASE`, 64 bits.
pub const PRIQ_BASE: u64 = 0xc0;
/// `ARM_SMMU_PRIQ_IRQ_CFG0`, 64 bits.
pub const PRIQ_IRQ_CFG0: u64 = 0xd0;
/// `ARM_SMMU_EVTQ_PROD`, 32 bits, in page 1.
pub const EVTQ_PROD: u64 = 0x1_00a8;
/// `ARM_SMMU_EVTQ_CONS`, 32 bits, in page 1.
pub const EVTQ_CONS: u64 = 0x1_00ac;
/// `ARM_SMMU_PRIQ_PROD`, 32 bits, in page 1.
pub const PRIQ_PROD: u64 = 0x1_00c8;
/// `ARM_SMMU_PRIQ_CONS`, 32 bits, in page 1.
pub const PRIQ_CONS: u64 = 0x1_00cc;

/// Bits of `IDR0`.
pub mod idr0 {
    /// Stage 2.
    pub const S2P: u32 = 1 << 0;
    /// Stage 1.
    pub const S1P: u32 = 1 << 1;
    /// The SMMU sees what caches hold.
    pub const COHACC: u32 = 1 << 4;
    /// HTTU: hardware updates access flags and dirty state.
    pub const HTTU_ACCESS_DIRTY: u32 = 2 << 6;
    /// Device TLBs.
    pub const ATS: u32 = 1 << 10;
    /// ASIDs of 16 bits.
    pub const ASID16: u32 = 1 << 12;
    /// Interrupts as messages.
    pub const MSI: u32 = 1 << 13;
    /// Page requests.
    pub const PRI: u32 = 1 << 16;
    /// Tables of context descriptors of two levels.
    pub const CD2L: u32 = 1 << 19;
    /// STALL_MODEL: 0 is that software may choose.
    pub const STALL_MODEL: u32 = 3 << 24;
    /// Stream tables of two levels.
    pub const TWO_LEVELS: u32 = 1 << 27;
}

/// Bits of `CR0`.
pub mod cr0 {
    /// Translation.
    pub const SMMUEN: u32 = 1 << 0;
    /// The PRI queue.
    pub const PRIQEN: u32 = 1 << 1;
    /// The Event queue.
    pub const EVTQEN: u32 = 1 << 2;
    /// The Command queue.
    pub const CMDQEN: u32 = 1 << 3;
    /// Translated requests are looked at.
    pub const ATSCHK: u32 = 1 << 4;
}

/// `CR2`: requests of StreamIDs without an entry are recorded.
pub const CR2_RECINVSID: u32 = 1 << 1;
/// `CR2`: no part in the processors' TLB maintenance.
pub const CR2_PTM: u32 = 1 << 2;
/// `GBPA`: the write counts.
pub const GBPA_UPDATE: u32 = 1 << 31;
/// `GBPA`: everything is aborted while translation is off.
pub const GBPA_ABORT: u32 = 1 << 20;

/// Bits of `GERROR`.
pub mod gerror {
    /// The Command queue stands still.
    pub const CMDQ: u32 = 1 << 0;
    /// An event could not be written.
    pub const EVTQ_ABORT: u32 = 1 << 2;
    /// A page request could not be written.
    pub const PRIQ_ABORT: u32 = 1 << 3;
}

/// Why the Command queue stands still: `CMDQ_CONS_ERR`.
pub mod cerror {
    /// A command is not one.
    pub const ILLEGAL: u32 = 1;
    /// A command could not be read.
    pub const ABORT: u32 = 2;
    /// A device did not answer an invalidation, which a CMD_SYNC found.
    pub const ATC_INV: u32 = 3;
}

/// Stream table entry, word 0: valid.
pub const STE_V: u64 = 1;
/// Stream table entry, word 0: Config.
pub const STE_CONFIG: u64 = 7 << 1;
/// Config: requests pass.
pub const CONFIG_BYPASS: u64 = 4 << 1;
/// Config: stage 1.
pub const CONFIG_FIRST: u64 = 5 << 1;
/// Config: stage 2.
pub const CONFIG_SECOND: u64 = 6 << 1;
/// Config: both.
pub const CONFIG_NESTED: u64 = 7 << 1;
/// Stream table entry, word 0: context descriptors in tables of 64 KiB, two levels (`S1FMT_64K_L2`).
pub const STE_CONTEXTS_64K: u64 = 2 << 4;
/// Stream table entry, word 0: how many bits the substreams have, `S1CDMax`.
pub const STE_CDMAX: u64 = 0x1f << 59;
/// Stream table entry, word 1: what requests without a substream get, `S1DSS`.
pub const STE_DSS: u64 = 3;
/// `S1DSS`: nothing.
pub const DSS_TERMINATE: u64 = 0;
/// `S1DSS`: they pass stage 1 by.
pub const DSS_BYPASS: u64 = 1;
/// `S1DSS`: context descriptor 0.
pub const DSS_SSID0: u64 = 2;
/// Stream table entry, word 1: no stalls, `S1STALLD`.
pub const STE_NO_STALLS: u64 = 1 << 27;
/// Stream table entry, word 1: device TLBs, EATS.
pub const STE_EATS: u64 = 3 << 28;
/// EATS: translation requests are served in full.
pub const EATS_TRANS: u64 = 1 << 28;
/// Stream table entry, word 1: SHCFG, as the request says.
pub const STE_SHCFG: u64 = 1 << 44;
/// Stream table entry, word 2: the size of the input, `S2T0SZ`.
pub const STE_S2T0SZ: u64 = 0x3f << 32;
/// Stream table entry, word 2: where the walk starts, `S2SL0`.
pub const STE_S2SL0: u64 = 3 << 38;
/// Stream table entry, word 2: the granule, `S2TG`.
pub const STE_S2TG: u64 = 3 << 46;
/// Stream table entry, word 2: the size of the output, `S2PS`.
pub const STE_S2PS: u64 = 7 << 48;
/// Stream table entry, word 2: VMSAv8-64.
pub const STE_S2AA64: u64 = 1 << 51;
/// Stream table entry, word 2: big-endian tables.
pub const STE_S2ENDI: u64 = 1 << 52;
/// Stream table entry, word 2: no tables of stage 1 in device memory.
pub const STE_S2PTW: u64 = 1 << 54;
/// Stream table entry, word 2: faults of stage 2 stall.
pub const STE_S2S: u64 = 1 << 57;
/// Stream table entry, word 2: faults of stage 2 are recorded.
pub const STE_S2R: u64 = 1 << 58;

/// Context descriptor, word 0: the size of the input.
pub const CD_T0SZ: u64 = 0x3f;
/// Context descriptor, word 0: the granule.
pub const CD_TG0: u64 = 3 << 6;
/// Context descriptor, word 0: the lower range is off.
pub const CD_EPD0: u64 = 1 << 14;
/// Context descriptor, word 0: big-endian tables.
pub const CD_ENDI: u64 = 1 << 15;
/// Context descriptor, word 0: the upper range is off.
pub const CD_EPD1: u64 = 1 << 30;
/// Context descriptor, word 0: valid.
pub const CD_V: u64 = 1 << 31;
/// Context descriptor, word 0: the size of the output.
pub const CD_IPS: u64 = 7 << 32;
/// Context descriptor, word 0: VMSAv8-64.
pub const CD_AA64: u64 = 1 << 41;
/// Context descriptor, word 0: hardware takes note of writes.
pub const CD_HD: u64 = 1 << 42;
/// Context descriptor, word 0: hardware sets access flags.
pub const CD_HA: u64 = 1 << 43;
/// Context descriptor, word 0: faults stall.
pub const CD_S: u64 = 1 << 44;
/// Context descriptor, word 0: faults are recorded.
pub const CD_R: u64 = 1 << 45;
/// Context descriptor, word 0: what faults is aborted; without, it reads zeros.
pub const CD_A: u64 = 1 << 46;
/// Context descriptor, word 0: the ASID is not the processors'.
pub const CD_ASET: u64 = 1 << 47;

/// A command of 128 bits.
pub type Command = [u64; 2];

/// Everything about a stream: its entry alone.
#[must_use]
pub const fn cfgi_ste(stream: u32) -> Command {
    [0x03 | (stream as u64) << 32, 1]
}

/// Every stream.
#[must_use]
pub const fn cfgi_all() -> Command {
    [0x04, 31]
}

/// A context descriptor; `leaf`: and not what leads to it.
#[must_use]
pub const fn cfgi_cd(stream: u32, substream: u32, leaf: bool) -> Command {
    let substream = (substream as u64 & 0xf_ffff) << 12;
    [0x05 | substream | (stream as u64) << 32, leaf as u64]
}

/// Every context descriptor of a stream.
#[must_use]
pub const fn cfgi_cd_all(stream: u32) -> Command {
    [0x06 | (stream as u64) << 32, 0]
}

/// All translations of an ASID, of VMID 0.
#[must_use]
pub const fn tlbi_asid(asid: u16) -> Command {
    [0x11 | (asid as u64) << 48, 0]
}

/// `(num + 1) << scale` pages of 4 KiB of an ASID, at any level; `num` and `scale`
/// up to 31.
#[must_use]
pub const fn tlbi_range(asid: u16, at: u64, num: u8, scale: u8) -> Command {
    let range = (num as u64 & 31) << 12 | (scale as u64 & 31) << 20;
    // TG: 4 KiB.
    [0x12 | range | (asid as u64) << 48, at & !0xfff | 1 << 10]
}

/// One page of an ASID.
#[must_use]
pub const fn tlbi_va(asid: u16, at: u64) -> Command {
    [0x12 | (asid as u64) << 48, at & !0xfff]
}

/// All translations of a VMID, both stages.
#[must_use]
pub const fn tlbi_vmid(vmid: u16) -> Command {
    [0x28 | (vmid as u64) << 32, 0]
}

/// Stage 2 of one page of a VMID.
#[must_use]
pub const fn tlbi_ipa(vmid: u16, at: u64) -> Command {
    [0x2a | (vmid as u64) << 32, at & 0x000f_ffff_ffff_f000]
}

/// All translations of everybody but hypervisors.
#[must_use]
pub const fn tlbi_all() -> Command {
    [0x30, 0]
}

/// `2^order` pages of 4 KiB in a device TLB, of a substream or of requests without one; 52 is everything.
#[must_use]
pub fn atc_inv(stream: u32, substream: Option<u32>, at: u64, order: u8) -> Command {
    [
        0x40 | named(substream) | u64::from(stream) << 32,
        at & !0xfff | u64::from(order & 0x3f),
    ]
}

/// The answer to a page request group. `code`: 0 Response Failure, 1 Invalid Request, 2 Success.
#[must_use]
pub fn pri_resp(stream: u32, substream: Option<u32>, group: u32, code: u8) -> Command {
    [
        0x41 | named(substream) | u64::from(stream) << 32,
        u64::from(group & 0x1ff) | u64::from(code & 3) << 12,
    ]
}

/// `CMDQ_RESUME_0_RESP_TERM`: a read gives zeros, a write goes nowhere.
pub const RESUME_TERMINATE: u8 = 0;
/// `CMDQ_RESUME_0_RESP_RETRY`
pub const RESUME_RETRY: u8 = 1;
/// `CMDQ_RESUME_0_RESP_ABORT`
pub const RESUME_ABORT: u8 = 2;

/// Lets a stalled request go.
#[must_use]
pub const fn resume(stream: u32, tag: u16, how: u8) -> Command {
    [
        0x44 | (how as u64 & 3) << 12 | (stream as u64) << 32,
        tag as u64,
    ]
}

/// Aborts all requests of a stream that are stalled.
#[must_use]
pub const fn stall_term(stream: u32) -> Command {
    [0x45 | (stream as u64) << 32, 0]
}

/// Waits for everything before it, and says nothing.
#[must_use]
pub const fn sync() -> Command {
    [0x46 | MEMORY, 0]
}

/// Waits for everything before it, then stores the 32 bits `data` at `addr`.
#[must_use]
pub const fn sync_to(addr: u64, data: u32) -> Command {
    [0x46 | 1 << 12 | MEMORY | (data as u64) << 32, addr & !3]
}

/// Inner shareable, write-back.
const MEMORY: u64 = 3 << 22 | 0xf << 24;

/// SSV and the substream.
fn named(substream: Option<u32>) -> u64 {
    substream.map_or(0, |substream| {
        1 << 11 | u64::from(substream & 0xf_ffff) << 12
    })
}

#[cfg(test)]
mod tests;
