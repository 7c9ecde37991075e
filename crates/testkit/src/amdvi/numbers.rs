//! AMD-Vi in plain numbers, for the side that plays the operating system.
//!
//! Register offsets, bits and commands as Linux `drivers/iommu/amd/amd_iommu_types.h` and `iommu.c`
//! (`build_*`) have them. Deliberately not those of `iommu_wire`: a scripted guest is the second author
//! that the models are checked against.

/// Device table base address, 64 bits.
pub const DEVICE_TABLE: u64 = 0x00;
/// Command buffer base address, 64 bits.
pub const COMMAND_BASE: u64 = 0x08;
/// Event log base address, 64 bits.
pub const EVENT_BASE: u64 = 0x10;
/// Control, 64 bits.
pub const CONTROL: u64 = 0x18;
/// Extended features, 64 bits.
pub const FEATURES: u64 = 0x30;
/// PPR log base address, 64 bits.
pub const PPR_BASE: u64 = 0x38;
/// Command buffer head, 64 bits.
pub const COMMAND_HEAD: u64 = 0x2000;
/// Command buffer tail, 64 bits.
pub const COMMAND_TAIL: u64 = 0x2008;
/// Event log head, 64 bits.
pub const EVENT_HEAD: u64 = 0x2010;
/// Event log tail, 64 bits.
pub const EVENT_TAIL: u64 = 0x2018;
/// Status, 64 bits.
pub const STATUS: u64 = 0x2020;
/// PPR log head, 64 bits.
pub const PPR_HEAD: u64 = 0x2030;
/// PPR log tail, 64 bits.
pub const PPR_TAIL: u64 = 0x2038;

/// Bits of the control register.
pub mod control {
    /// IommuEn
    pub const IOMMU: u64 = 1 << 0;
    /// EventLogEn
    pub const EVENT_LOG: u64 = 1 << 2;
    /// EventIntEn
    pub const EVENT_INT: u64 = 1 << 3;
    /// InvTimeOut: how long a device may take to answer an invalidation; 4 is a second.
    pub const INV_TIMEOUT: u64 = 7 << 5;
    /// One second of [`INV_TIMEOUT`].
    pub const INV_TIMEOUT_1S: u64 = 4 << 5;
    /// Coherent
    pub const COHERENT: u64 = 1 << 10;
    /// CmdBufEn
    pub const COMMANDS: u64 = 1 << 12;
    /// PPRLogEn
    pub const PPR_LOG: u64 = 1 << 13;
    /// PPRIntEn
    pub const PPR_INT: u64 = 1 << 14;
    /// PPREn
    pub const PPR: u64 = 1 << 15;
    /// GTEn
    pub const GUEST: u64 = 1 << 16;
    /// PprAutoRspEn
    pub const PPR_AUTO_RESPONSE: u64 = 1 << 39;
    /// EPHEn
    pub const ENHANCED_PPR: u64 = 1 << 45;
}

/// Bits of the status register.
pub mod status {
    /// EventOverflow
    pub const EVENT_OVERFLOW: u32 = 1 << 0;
    /// EventLogInt
    pub const EVENT_INT: u32 = 1 << 1;
    /// EventLogRun
    pub const EVENT_RUN: u32 = 1 << 3;
    /// CmdBufRun
    pub const COMMANDS_RUN: u32 = 1 << 4;
    /// PprOverflow
    pub const PPR_OVERFLOW: u32 = 1 << 5;
    /// PprInt
    pub const PPR_INT: u32 = 1 << 6;
    /// PprLogRun
    pub const PPR_RUN: u32 = 1 << 7;
}

/// PPRSup, in the extended features.
pub const FEATURE_PPR: u64 = 1 << 1;
/// GTSup, in the extended features.
pub const FEATURE_GUEST: u64 = 1 << 4;
/// EPHSup, in the extended features.
pub const FEATURE_ENHANCED_PPR: u64 = 1 << 50;

/// Device table entry, first word: valid (V).
pub const DTE_V: u64 = 1 << 0;
/// Device table entry, first word: translation information valid (TV).
pub const DTE_TV: u64 = 1 << 1;
/// Device table entry, first word: page requests allowed (PPR).
pub const DTE_PPR: u64 = 1 << 52;
/// Device table entry, first word: requests without a PASID are those of PASID 0 (GIoV).
pub const DTE_GIOV: u64 = 1 << 54;
/// Device table entry, first word: guest tables (GV).
pub const DTE_GV: u64 = 1 << 55;
/// Device table entry, first word: reads allowed (IR).
pub const DTE_IR: u64 = 1 << 61;
/// Device table entry, first word: writes allowed (IW).
pub const DTE_IW: u64 = 1 << 62;
/// Device table entry, second word: device TLB (I).
pub const DTE_I: u64 = 1 << 32;
/// Device table entry, second word: only the first I/O page fault is logged (SE).
pub const DTE_SE: u64 = 1 << 33;
/// Device table entry, second word: no I/O page fault is logged (SA).
pub const DTE_SA: u64 = 1 << 34;

/// A guest CR3 table entry: valid.
pub const GCR3_VALID: u64 = 1;

/// A command of 128 bits.
pub type Command = [u64; 2];

/// Waits for everything before it, then stores `data` at `addr`, a multiple of 8.
#[must_use]
pub const fn completion_wait(addr: u64, data: u64) -> Command {
    [1 << 60 | addr & 0x000f_ffff_ffff_fff8 | 1, data]
}

/// The device table entry of a device.
#[must_use]
pub const fn invalidate_device(rid: u16) -> Command {
    [2 << 60 | rid as u64, 0]
}

/// `2^order` pages of a domain, or of a PASID in it; 52 is everything, with directory entries.
#[must_use]
pub fn invalidate_pages(domain: u16, pasid: Option<u32>, addr: u64, order: u8) -> Command {
    let low = 3 << 60 | u64::from(domain) << 32 | u64::from(pasid.unwrap_or(0));
    // PDE: what is cached of directory entries goes too.
    [low, sized(addr, order) | guest(pasid) | 1 << 1]
}

/// A device TLB: `2^order` pages, of a PASID or of requests without one; 52 is everything.
#[must_use]
pub fn invalidate_device_tlb(rid: u16, pasid: Option<u32>, addr: u64, order: u8) -> Command {
    let pasid_bits = u64::from(pasid.unwrap_or(0));
    let low = 4 << 60
        | u64::from(rid)
        | (pasid_bits >> 8 & 0xff) << 16
        | QUEUE_DEPTH << 24
        | u64::from(rid) << 32
        | (pasid_bits & 0xff) << 48;
    [low, sized(addr, order) | guest(pasid)]
}

/// How many invalidations a device takes at once.
const QUEUE_DEPTH: u64 = 32;

/// The answer to a page request group. `code` is PCIe's: 0 success, 1 invalid, 0xf failure.
#[must_use]
pub fn complete_ppr(rid: u16, pasid: Option<u32>, group: u32, code: u8) -> Command {
    let low = 7 << 60 | u64::from(rid) | u64::from(pasid.unwrap_or(0)) << 32;
    let tag = u64::from(group & 0x1ff) | u64::from(code & 0xf) << 12;
    [low, tag << 32 | guest(pasid)]
}

/// Everything.
#[must_use]
pub const fn invalidate_all() -> Command {
    [8 << 60, 0]
}

/// GN: the PASID is valid.
fn guest(pasid: Option<u32>) -> u64 {
    u64::from(pasid.is_some()) << 2
}

/// An address whose size is told by its lowest zero bit, with S where it is more than a page.
fn sized(addr: u64, order: u8) -> u64 {
    if order >= 52 {
        return 0x7fff_ffff_ffff_f000 | 1;
    }
    let base = addr & !0xfff;
    if order == 0 {
        return base;
    }
    let block = (4096u64 << order) - 1;
    // All ones below the highest bit of the block, which is zero.
    base & !block | block >> 1 & !0xfff | 1
}

#[cfg(test)]
mod tests;
