//! VT-d in plain numbers, for the side that plays the operating system.
//!
//! Register offsets, bits and descriptors as Linux `drivers/iommu/intel/iommu.h` and `pasid.h`
//! have them. Deliberately not those of `iommu_wire`: a scripted guest is the second author that
//! the models are checked against.

pub use crate::paging::{
    A as FS_A, D as FS_D, P as FS_P, PS as LARGE, RW as FS_RW, SS_R, SS_W, US as FS_US, XD as FS_XD,
};

/// Capability register, 64 bits.
pub const CAP: u64 = 0x08;
/// Extended capability register, 64 bits.
pub const ECAP: u64 = 0x10;
/// Global command, 32 bits.
pub const GCMD: u64 = 0x18;
/// Global status, 32 bits.
pub const GSTS: u64 = 0x1c;
/// Root table address, 64 bits.
pub const RTADDR: u64 = 0x20;
/// Fault status, 32 bits.
pub const FSTS: u64 = 0x34;
/// Fault event control, 32 bits.
pub const FECTL: u64 = 0x38;
/// Fault event data, 32 bits.
pub const FEDATA: u64 = 0x3c;
/// Fault event address, 32 bits.
pub const FEADDR: u64 = 0x40;
/// Fault event upper address, 32 bits.
pub const FEUADDR: u64 = 0x44;
/// Invalidation queue head, 64 bits.
pub const IQH: u64 = 0x80;
/// Invalidation queue tail, 64 bits.
pub const IQT: u64 = 0x88;
/// Invalidation queue address, 64 bits.
pub const IQA: u64 = 0x90;
/// Page request queue head, 64 bits.
pub const PQH: u64 = 0xc0;
/// Page request queue tail, 64 bits.
pub const PQT: u64 = 0xc8;
/// Page request queue address, 64 bits.
pub const PQA: u64 = 0xd0;
/// Page request status, 32 bits.
pub const PRS: u64 = 0xdc;
/// Page request event control, 32 bits.
pub const PECTL: u64 = 0xe0;
/// Page request event data, 32 bits.
pub const PEDATA: u64 = 0xe4;
/// Page request event address, 32 bits.
pub const PEADDR: u64 = 0xe8;
/// Page request event upper address, 32 bits.
pub const PEUADDR: u64 = 0xec;

/// Translation enable, in GCMD and GSTS.
pub const TE: u32 = 1 << 31;
/// Set root table pointer, in GCMD and GSTS.
pub const SRTP: u32 = 1 << 30;
/// Queued invalidation enable, in GCMD and GSTS.
pub const QIE: u32 = 1 << 26;
/// Scalable mode, in RTADDR.
pub const RTADDR_SMT: u64 = 1 << 10;
/// 256-bit descriptors, in IQA.
pub const IQA_DW: u64 = 1 << 11;

/// Primary fault overflow, in FSTS.
pub const PFO: u32 = 1;
/// Invalidation queue error, in FSTS.
pub const IQE: u32 = 1 << 4;
/// Invalidation completion error, in FSTS.
pub const ICE: u32 = 1 << 5;
/// Invalidation timeout error, in FSTS.
pub const ITE: u32 = 1 << 6;
/// Page request overflow, in FSTS.
pub const FSTS_PRO: u32 = 1 << 7;
/// Pending page request, in PRS.
pub const PPR: u32 = 1;
/// Page request overflow, in PRS.
pub const PRO: u32 = 2;

/// PASID entry, second word: page walks snoop.
pub const PE_PWSNP: u64 = 1 << 23;
/// PASID entry, third word: supervisor requests are served.
pub const PE_SRE: u64 = 1;
/// PASID entry, third word: execute requests are served.
pub const PE_ERE: u64 = 1 << 1;
/// PASID entry, third word: supervisors obey write protection.
pub const PE_WPE: u64 = 1 << 4;
/// PASID entry, third word: XD is honoured.
pub const PE_NXE: u64 = 1 << 5;

/// Scalable context entry: device TLB enable.
pub const CTX_DTE: u64 = 1 << 2;
/// Scalable context entry: PASID enable.
pub const CTX_PASIDE: u64 = 1 << 3;
/// Scalable context entry: page request enable.
pub const CTX_PRE: u64 = 1 << 4;

/// One invalidation queue descriptor; the second half is used where descriptors have 256 bits.
pub type Descriptor = [u64; 4];

/// Everything of the context cache.
#[must_use]
pub fn context_global() -> Descriptor {
    [0x1 | 1 << 4, 0, 0, 0]
}

/// One source ID's entry of the context cache.
#[must_use]
pub fn context_device(did: u16, sid: u16) -> Descriptor {
    let qw0 = 0x1 | 3 << 4 | u64::from(did) << 16 | u64::from(sid) << 32;
    [qw0, 0, 0, 0]
}

/// Everything of the IOTLB, with both drains.
#[must_use]
pub fn iotlb_global() -> Descriptor {
    [0x2 | 1 << 4 | 1 << 6 | 1 << 7, 0, 0, 0]
}

/// One domain of the IOTLB, with both drains.
#[must_use]
pub fn iotlb_domain(did: u16) -> Descriptor {
    let qw0 = 0x2 | 2 << 4 | 1 << 6 | 1 << 7 | u64::from(did) << 16;
    [qw0, 0, 0, 0]
}

/// `2^order` pages of a domain in the IOTLB, with both drains.
#[must_use]
pub fn iotlb_pages(did: u16, addr: u64, order: u8) -> Descriptor {
    let qw0 = 0x2 | 3 << 4 | 1 << 6 | 1 << 7 | u64::from(did) << 16;
    let qw1 = (addr & !0xfff) | u64::from(order & 0x3f);
    [qw0, qw1, 0, 0]
}

/// The PASID cache: everything.
#[must_use]
pub fn pasid_cache_global() -> Descriptor {
    [0x7 | 3 << 4, 0, 0, 0]
}

/// The PASID cache: one PASID of a domain.
#[must_use]
pub fn pasid_cache(did: u16, pasid: u32) -> Descriptor {
    let qw0 = 0x7 | 1 << 4 | u64::from(did) << 16 | u64::from(pasid) << 32;
    [qw0, 0, 0, 0]
}

/// The IOTLB: everything of a PASID that is not global.
#[must_use]
pub fn piotlb_all(did: u16, pasid: u32) -> Descriptor {
    let qw0 = 0x6 | 2 << 4 | u64::from(did) << 16 | u64::from(pasid) << 32;
    [qw0, 0, 0, 0]
}

/// The IOTLB: `2^order` pages of a PASID.
#[must_use]
pub fn piotlb_pages(did: u16, pasid: u32, addr: u64, order: u8) -> Descriptor {
    let qw0 = 0x6 | 3 << 4 | u64::from(did) << 16 | u64::from(pasid) << 32;
    let qw1 = (addr & !0xfff) | u64::from(order & 0x3f);
    [qw0, qw1, 0, 0]
}

/// A device TLB without PASID: `2^order` pages; 52 is everything.
#[must_use]
pub fn devtlb_pages(sid: u16, addr: u64, order: u8) -> Descriptor {
    let qw0 = 0x3 | u64::from(sid) << 32;
    [qw0, sized(addr, order, 1), 0, 0]
}

/// A device TLB, one PASID: `2^order` pages; 52 is everything.
#[must_use]
pub fn devtlb_pasid_pages(sid: u16, pasid: u32, addr: u64, order: u8) -> Descriptor {
    let qw0 = 0x8 | u64::from(sid) << 16 | u64::from(pasid) << 32;
    [qw0, sized(addr, order, 1 << 11), 0, 0]
}

/// An address whose size is told by its lowest zero bit, as ATS has it.
fn sized(addr: u64, order: u8, size_bit: u64) -> u64 {
    let base = addr & !0xfff;
    if order == 0 {
        return base;
    }
    let bits = 12 + u32::from(order.min(52)) - 1;
    let ones = (1u64 << bits) - 1;
    ((base | ones) & !(1u64 << bits) & !0xfff) | size_bit
}

/// The answer to a page request group. `code` is PCIe's: 0 success, 1 invalid, 0xf failure.
#[must_use]
pub fn page_group_response(rid: u16, pasid: Option<u32>, group: u32, code: u8) -> Descriptor {
    let mut qw0 = 0x9 | u64::from(code & 0xf) << 12 | u64::from(rid) << 16;
    if let Some(pasid) = pasid {
        qw0 |= 1 << 4 | u64::from(pasid) << 32;
    }
    [qw0, u64::from(group & 0x1ff) << 3, 0, 0]
}

/// Waits for everything before it, then stores `data` at `addr`; `drain` waits for page requests.
#[must_use]
pub fn wait(addr: u64, data: u32, drain: bool) -> Descriptor {
    let qw0 = 0x5 | 1 << 5 | u64::from(drain) << 7 | u64::from(data) << 32;
    [qw0, addr, 0, 0]
}

#[cfg(test)]
mod tests;
