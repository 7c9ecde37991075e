//! What the fault descriptor carries: page requests out, answers in.
//!
//! Source: Linux `include/uapi/linux/iommufd.h`, `struct iommu_hwpt_pgfault` and
//! `struct iommu_hwpt_page_response`; for the bit that has no name there, `include/linux/iommu.h`.
//! Fields are in the machine's own byte order.

use iommufd_bindings::{iommu_hwpt_page_response, iommu_hwpt_pgfault};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Response};
use std::mem::offset_of;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// One page request.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RawFault {
    /// [`RawFault::PASID_VALID`], [`RawFault::LAST_PAGE`], [`RawFault::NEEDS_PASID`], and whatever
    /// else a kernel may set.
    pub flags: u32,
    /// The iommufd object of the device. In an IOMMU group of several devices it is the one that
    /// was attached first, whoever asked.
    pub dev_id: u32,
    /// The address space, with `PASID_VALID`.
    pub pasid: u32,
    /// The page request group's index. Not unique among the groups that wait.
    pub grpid: u32,
    /// What the device wants to do: the bits of [`Access`].
    pub perm: u32,
    /// Zero today.
    pub reserved: u32,
    /// The page's address.
    pub addr: u64,
    /// How many bytes the device expects to need, a hint; 0: it gave none.
    pub length: u32,
    /// Names the group until it is answered; then the kernel gives the number out again.
    pub cookie: u32,
}

const _: () = assert!(
    size_of::<RawFault>() == 40
        && size_of::<RawFault>() == size_of::<iommu_hwpt_pgfault>()
        && offset_of!(RawFault, dev_id) == offset_of!(iommu_hwpt_pgfault, dev_id)
        && offset_of!(RawFault, pasid) == offset_of!(iommu_hwpt_pgfault, pasid)
        && offset_of!(RawFault, grpid) == offset_of!(iommu_hwpt_pgfault, grpid)
        && offset_of!(RawFault, perm) == offset_of!(iommu_hwpt_pgfault, perm)
        && offset_of!(RawFault, addr) == offset_of!(iommu_hwpt_pgfault, addr)
        && offset_of!(RawFault, length) == offset_of!(iommu_hwpt_pgfault, length)
        && offset_of!(RawFault, cookie) == offset_of!(iommu_hwpt_pgfault, cookie)
);

impl RawFault {
    /// `IOMMU_PGFAULT_FLAGS_PASID_VALID`: [`pasid`](Self::pasid) means something.
    pub const PASID_VALID: u32 = 1;
    /// `IOMMU_PGFAULT_FLAGS_LAST_PAGE`: the last of its group.
    pub const LAST_PAGE: u32 = 2;
    /// Not part of the uAPI, and set on VT-d and AMD: the kernel's own
    /// `IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID`. An answer by cookie needs none.
    pub const NEEDS_PASID: u32 = 4;

    /// Whether it is the last of its group.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        self.flags & Self::LAST_PAGE != 0
    }

    /// Whether it has bits that the uAPI does not name, among the flags or the rights.
    #[must_use]
    pub const fn has_unnamed_bits(&self) -> bool {
        let named = Self::PASID_VALID | Self::LAST_PAGE;
        self.flags & !named != 0 || self.perm & !(Access::all().bits() as u32) != 0
    }

    /// Whether the PASID it names has at most 20 bits.
    pub(crate) const fn pasid_fits(&self) -> bool {
        self.flags & Self::PASID_VALID == 0 || self.pasid <= Pasid::MAX.get()
    }

    /// What it asks for. Bits without a name are left out, a PASID has its low 20 bits.
    ///
    /// `private_data` is the caller's: an answer of the engine brings back that of the last page.
    #[must_use]
    #[inline]
    pub fn request(&self, private_data: [u64; 2]) -> PageRequest {
        let [perm, ..] = self.perm.to_le_bytes();
        let has_pasid = self.flags & Self::PASID_VALID != 0;
        PageRequest {
            pasid: has_pasid.then(|| Pasid::truncate(self.pasid)),
            group: GroupIndex(self.grpid),
            addr: Iova(self.addr),
            access: Access::from_bits_truncate(perm),
            last: self.is_last(),
            response_needs_pasid: self.flags & Self::NEEDS_PASID != 0,
            private_data,
        }
    }
}

/// The one answer to a group.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct RawAnswer {
    /// The group.
    pub cookie: u32,
    /// [`RawAnswer::SUCCESS`] or [`RawAnswer::INVALID`]; the kernel takes nothing else.
    pub code: u32,
}

const _: () = assert!(
    size_of::<RawAnswer>() == 8
        && size_of::<RawAnswer>() == size_of::<iommu_hwpt_page_response>()
        && offset_of!(RawAnswer, code) == offset_of!(iommu_hwpt_page_response, code)
);

impl RawAnswer {
    /// `IOMMUFD_PAGE_RESP_SUCCESS`: the device may retry.
    pub const SUCCESS: u32 = 0;
    /// `IOMMUFD_PAGE_RESP_INVALID`: the device must not retry.
    pub const INVALID: u32 = 1;

    /// An answer to the group of `cookie`. [`Response::Failure`] cannot be said; INVALID stops the
    /// device too.
    #[must_use]
    pub const fn new(cookie: u32, response: Response) -> Self {
        let code = match response {
            Response::Success => Self::SUCCESS,
            Response::Invalid | Response::Failure => Self::INVALID,
        };
        Self { cookie, code }
    }
}

#[cfg(test)]
mod tests;
