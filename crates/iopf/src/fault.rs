//! Faults, recoverable and not, and the answers to them.

use crate::{Access, Gpa, Iova, Pasid};

/// A fault, whichever road it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Recoverable: a device waits for its group to be answered.
    PageRequest(PageRequest),
    /// Not recoverable: the transaction is gone, only the record of it is left.
    Unrecoverable(Unrecoverable),
}

/// The index a device gives to a page request group. PCIe has 9 bits; Linux carries 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupIndex(pub u32);

/// One page that a device asks for.
///
/// Linux `include/linux/iommu.h`, `struct iommu_fault_page_request`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRequest {
    /// The address space, where the device named one.
    pub pasid: Option<Pasid>,
    /// The group this page belongs to.
    pub group: GroupIndex,
    /// The page's address.
    pub addr: Iova,
    /// What the device wants to do there.
    pub access: Access,
    /// Last of its group: the device now waits for an answer.
    pub last: bool,
    /// The answer must carry the PASID (`IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID`).
    pub response_needs_pasid: bool,
    /// What the device wants back unchanged, where the wire carries such a thing.
    pub private_data: [u64; 2],
}

/// Everything that is known of a fault nobody can resume.
///
/// The set of Linux's former `struct iommu_fault_unrecoverable`: a reason, three optional fields
/// (an absent one is "not valid"), and the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Unrecoverable {
    /// Why, in the architecture's own numbers.
    pub reason: Reason,
    /// The address space, where valid.
    pub pasid: Option<Pasid>,
    /// What the transaction wanted to do.
    pub access: Access,
    /// The address it asked for, where valid.
    pub addr: Option<Iova>,
    /// The table or descriptor whose fetch failed, where valid.
    pub fetch_addr: Option<Gpa>,
}

/// A fault reason in the numbers of the architecture that recorded it. Any number is a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason(pub u32);

/// The answer to a page request group.
///
/// The meaning, not the wire code: PCIe PRI and iommufd number these differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Response {
    /// Resolved: the device may retry.
    Success,
    /// Not resolvable: the device must not retry this access.
    Invalid,
    /// Catastrophic: the device must stop sending page requests.
    Failure,
}
