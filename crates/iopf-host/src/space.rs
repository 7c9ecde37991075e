//! Address spaces of this process that devices share.
//!
//! What Linux 7.3 `drivers/iommu/iommu-sva.c` does with a process's mappings, in the process itself:
//! a page request is checked against the rights of the mapping, and the page is populated as a touch
//! would populate it (`madvise(2)`, `MADV_POPULATE_READ` and `_WRITE`, Linux 5.14).
//!
//! The mappings are those that were registered, not those of `/proc/self/maps`: of others nobody
//! here knows for how long they stay.

use crate::sys;
use iopf::resolve::{Mappings, Unmappable};
use iopf::{Access, Iova, Pasid};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use thiserror::Error;
use vm_memory::MmapRegion;

/// Bytes of a page of this host.
pub(crate) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Memory of this process, and what a device may do with it.
#[derive(Clone, Debug)]
pub struct Area {
    /// The memory. An area keeps it mapped.
    pub memory: Arc<MmapRegion>,
    /// Where the device sees it, in whole pages.
    pub iova: Iova,
    /// What the device may do.
    pub rights: Access,
}

impl Area {
    /// The device sees `memory` where the process does: shared virtual addressing.
    #[must_use]
    pub fn shared(memory: Arc<MmapRegion>, rights: Access) -> Self {
        let iova = Iova(memory.as_ptr().addr() as u64);
        Self {
            memory,
            iova,
            rights,
        }
    }

    /// The offset of the page around `addr` in the memory, in bytes; `None` where it is outside.
    #[must_use]
    pub fn page(&self, addr: Iova) -> Option<usize> {
        let offset = usize::try_from(addr.0.checked_sub(self.iova.0)?).ok()?;
        (offset < self.memory.size()).then(|| offset - offset % page_size())
    }

    /// The last address, if the area ends inside the address space and begins at a page.
    fn last(&self) -> Option<u64> {
        let aligned = self.iova.0.is_multiple_of(page_size() as u64);
        let more = u64::try_from(self.memory.size()).ok()?.checked_sub(1)?;
        self.iova.0.checked_add(more).filter(|_| aligned)
    }
}

/// An area was not added; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AddAreaError {
    /// It does not begin at a page, or ends outside the 64-bit address space.
    #[error("no area can be at {0}")]
    Misplaced(Iova),
    /// Another area lies there.
    #[error("an area at {0} is in the way")]
    Overlap(Iova),
}

/// The address spaces of this process by PASID, each with its areas.
///
/// As a [`Mappings`] it makes an [`AddressSpace`](iopf::resolve::AddressSpace) of real memory.
/// Populating may read from a disk: let a worker of its own do it where that matters.
///
/// A page that is populated is not pinned. Whoever maps it into an IOMMU pins it.
#[derive(Debug, Default)]
pub struct Space {
    areas: HashMap<Pasid, BTreeMap<u64, Area>>,
}

impl Space {
    /// No address spaces.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an area to the address space of `pasid`, which is made where it is missing.
    ///
    /// # Errors
    /// [`AddAreaError`].
    pub fn add(&mut self, pasid: Pasid, area: Area) -> Result<(), AddAreaError> {
        let last = area.last().ok_or(AddAreaError::Misplaced(area.iova))?;
        let areas = self.areas.entry(pasid).or_default();
        if let Some((start, below)) = areas.range(..=last).next_back()
            && below.last().is_none_or(|end| end >= area.iova.0)
        {
            return Err(AddAreaError::Overlap(Iova(*start)));
        }
        areas.insert(area.iova.0, area);
        Ok(())
    }

    /// Takes away the area that begins at `iova`. What was populated stays so for this process;
    /// that no device reaches it any more is the caller's part.
    pub fn remove(&mut self, pasid: Pasid, iova: Iova) -> Option<Area> {
        let areas = self.areas.get_mut(&pasid)?;
        let area = areas.remove(&iova.0)?;
        if areas.is_empty() {
            self.areas.remove(&pasid);
        }
        Some(area)
    }

    /// The area around `addr`.
    #[must_use]
    pub fn area(&self, pasid: Pasid, addr: Iova) -> Option<&Area> {
        let areas = self.areas.get(&pasid)?;
        let (_, area) = areas.range(..=addr.0).next_back()?;
        area.page(addr).map(|_| area)
    }
}

impl Mappings for Space {
    fn rights(&self, pasid: Pasid, addr: Iova) -> Option<Access> {
        self.area(pasid, addr).map(|area| area.rights)
    }

    fn populate(&mut self, pasid: Pasid, addr: Iova, access: Access) -> Result<(), Unmappable> {
        let area = self.area(pasid, addr).ok_or(Unmappable(addr))?;
        let offset = area.page(addr).ok_or(Unmappable(addr))?;
        let write = access.contains(Access::WRITE);
        sys::populate(&area.memory, offset, page_size(), write).map_err(|_| Unmappable(addr))
    }
}

#[cfg(test)]
mod tests;
