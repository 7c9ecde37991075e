//! Shared virtual addressing: a process's mappings decide.
//!
//! The rules of Linux 7.3 `drivers/iommu/iommu-sva.c`, `iommu_sva_handle_mm` and
//! `iommu_sva_handle_iopf`.

use super::{Decision, Resolver};
use crate::engine::{Group, Pages, Stray, Verdict};
use crate::{Access, Iova, Pasid, Response};

/// Nothing can be mapped there now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no page can be mapped at {0}")]
pub struct Unmappable(pub Iova);

/// What [`AddressSpace`] must know of processes and their mappings.
pub trait Mappings {
    /// What the mapping around `addr` in the address space of `pasid` allows; `None`: no mapping,
    /// or no such address space.
    fn rights(&self, pasid: Pasid, addr: Iova) -> Option<Access>;

    /// Makes the page around `addr` present for `access`, which `rights` allowed.
    ///
    /// # Errors
    /// [`Unmappable`]: no memory, an I/O error, beyond the end of a file.
    fn populate(&mut self, pasid: Pasid, addr: Iova, access: Access) -> Result<(), Unmappable>;
}

/// Resolves page requests from mappings: no PASID, no mapping or a right that is missing is
/// INVALID; otherwise the page is populated. The first error of a group is its answer, and its
/// remaining pages are left alone. Unrecoverable faults are logged.
#[derive(Debug)]
pub struct AddressSpace<M>(pub M);

impl<M: Mappings> AddressSpace<M> {
    fn page(&mut self, pasid: Option<Pasid>, addr: Iova, access: Access) -> Response {
        let asked = access & (Access::RW | Access::EXEC);
        let Some(pasid) = pasid else {
            return Response::Invalid;
        };
        match self.0.rights(pasid, addr) {
            Some(rights) if rights.contains(asked) => {}
            _ => return Response::Invalid,
        }
        match self.0.populate(pasid, addr, asked) {
            Ok(()) => Response::Success,
            Err(Unmappable(_)) => Response::Invalid,
        }
    }
}

impl<M: Mappings> Resolver for AddressSpace<M> {
    fn group(&mut self, _: &Group, pages: Pages<'_>) -> Decision {
        for page in pages {
            let response = self.page(page.pasid, page.addr, page.access);
            if response != Response::Success {
                return Decision::Answer(response);
            }
        }
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}
