//! A process address space: what the guest's kernel knows of it, and its page table.
//!
//! The policy is that of `iommu_sva_handle_mm()` in Linux `drivers/iommu/iommu-sva.c`: no VMA, or
//! a right the VMA does not give, is an error; otherwise the page is there afterwards. The page table is
//! the processor's own, which the IOMMU walks as well.

use crate::paging::{PageTable, Processor};
use crate::ram::{FRAME, OutOfMemory, Ram};
use iopf::{Access, Gpa, Iova, Pasid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What fills a page when it is touched first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Anonymous memory: zeros.
    Zero,
    /// A file whose byte at each address is told by [`Backing::byte`] from this seed.
    Pattern(u64),
}

impl Backing {
    /// The byte that a fresh page holds at virtual address `at`.
    #[must_use]
    pub fn byte(self, at: u64) -> u8 {
        match self {
            Self::Zero => 0,
            Self::Pattern(seed) => {
                let word = (at >> 3).wrapping_add(seed);
                let mixed = word.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mixed = mixed ^ (mixed >> 29);
                mixed.to_le_bytes()[(at & 7) as usize]
            }
        }
    }

    fn fill(self, at: u64, page: &mut [u8; 4096]) {
        if let Self::Pattern(_) = self {
            for (i, byte) in page.iter_mut().enumerate() {
                *byte = self.byte(at + i as u64);
            }
        }
    }
}

/// Rights of a mapping, as `mmap()` takes them.
pub type Prot = Access;

#[derive(Clone, Copy, Debug)]
struct Vma {
    end: u64,
    prot: Prot,
    backing: Backing,
}

/// The access is not one the address space allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentationFault;

#[derive(Debug, Default)]
struct Inner {
    vmas: BTreeMap<u64, Vma>,
    pages: BTreeMap<u64, Gpa>,
    faults: u64,
    gone: bool,
}

/// An address space that a PASID names.
#[derive(Debug)]
pub struct Mm {
    pasid: Pasid,
    ram: Arc<Ram>,
    processor: Processor,
    table: PageTable,
    inner: Mutex<Inner>,
}

impl Mm {
    /// An empty one of an x86-64 processor, with page tables of 4 or 5 levels.
    ///
    /// # Errors
    /// Without a frame for the page table.
    pub fn new(ram: &Arc<Ram>, pasid: Pasid, levels: u8) -> Result<Self, OutOfMemory> {
        Self::of(Processor::X86, ram, pasid, levels)
    }

    /// An empty one of any processor; Arm's has page tables of 4 levels.
    ///
    /// # Errors
    /// Without a frame for the page table.
    pub fn of(
        processor: Processor,
        ram: &Arc<Ram>,
        pasid: Pasid,
        levels: u8,
    ) -> Result<Self, OutOfMemory> {
        Ok(Self {
            pasid,
            ram: ram.clone(),
            processor,
            table: PageTable::new(ram, processor.format(), levels)?,
            inner: Mutex::new(Inner::default()),
        })
    }

    /// The PASID.
    #[must_use]
    pub fn pasid(&self) -> Pasid {
        self.pasid
    }

    /// The memory its pages come from.
    #[must_use]
    pub fn ram(&self) -> &Arc<Ram> {
        &self.ram
    }

    /// The page table, for those who want to spoil it.
    #[must_use]
    pub fn table(&self) -> &PageTable {
        &self.table
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises memory at `at`, which is not there before somebody touches it.
    pub fn mmap(&self, at: Iova, pages: u64, prot: Prot, backing: Backing) {
        let start = at.0 & !(FRAME - 1);
        let end = start.saturating_add(pages.saturating_mul(FRAME));
        let vma = Vma { end, prot, backing };
        self.inner().vmas.insert(start, vma);
    }

    /// Makes the page around `at` present for `access`.
    ///
    /// # Errors
    /// When no mapping covers it or the mapping forbids the access, or no frame is left.
    pub fn fault(&self, at: Iova, access: Access) -> Result<(), SegmentationFault> {
        let mut inner = self.inner();
        inner.faults += 1;
        self.populate(&mut inner, at, access).map(drop)
    }

    fn populate(
        &self,
        inner: &mut Inner,
        at: Iova,
        access: Access,
    ) -> Result<Gpa, SegmentationFault> {
        if inner.gone {
            return Err(SegmentationFault);
        }
        let (_, vma) = inner
            .vmas
            .range(..=at.0)
            .next_back()
            .filter(|(_, vma)| at.0 < vma.end)
            .ok_or(SegmentationFault)?;
        let vma = *vma;
        if !vma.prot.contains(access - Access::PRIV) {
            return Err(SegmentationFault);
        }
        let page = at.0 & !(FRAME - 1);
        if let Some(frame) = inner.pages.get(&page) {
            let slot = self.table.slot(Iova(page), 1);
            // Present, but perhaps with fewer rights than the mapping gives by now.
            let absent = |slot: &Gpa| !self.table.is_present(self.ram.load(*slot));
            if let Some(slot) = slot.filter(absent) {
                self.ram
                    .store(slot, frame.0 | self.processor.page(vma.prot));
            }
            return Ok(*frame);
        }
        let frame = self.ram.frame().map_err(|_| SegmentationFault)?;
        let mut bytes = [0; 4096];
        vma.backing.fill(page, &mut bytes);
        self.ram.write(frame, &bytes);
        self.table
            .map(Iova(page), frame, self.processor.page(vma.prot), 1)
            .map_err(|_| SegmentationFault)?;
        inner.pages.insert(page, frame);
        Ok(frame)
    }

    /// Takes mappings away and returns their frames, which must not be used again before the
    /// IOTLB and the device TLBs have been told. Whole mappings only.
    #[must_use]
    pub fn unmap(&self, at: Iova) -> Vec<Gpa> {
        let mut inner = self.inner();
        let start = at.0 & !(FRAME - 1);
        let Some(vma) = inner.vmas.remove(&start) else {
            return Vec::new();
        };
        self.drop_pages(&mut inner, start, vma.end)
    }

    /// Takes the pages of a mapping away but not the mapping (`MADV_DONTNEED`).
    #[must_use]
    pub fn discard(&self, at: Iova, pages: u64) -> Vec<Gpa> {
        let start = at.0 & !(FRAME - 1);
        let end = start.saturating_add(pages.saturating_mul(FRAME));
        let mut inner = self.inner();
        self.drop_pages(&mut inner, start, end)
    }

    fn drop_pages(&self, inner: &mut Inner, start: u64, end: u64) -> Vec<Gpa> {
        let gone: Vec<(u64, Gpa)> = inner
            .pages
            .range(start..end)
            .map(|(k, v)| (*k, *v))
            .collect();
        for (page, _) in &gone {
            self.table.unmap(Iova(*page));
            inner.pages.remove(page);
        }
        gone.into_iter().map(|(_, frame)| frame).collect()
    }

    /// Changes the rights of a whole mapping; pages that are present follow. The IOTLB and the
    /// device TLBs must be told when rights shrink.
    pub fn protect(&self, at: Iova, prot: Prot) {
        let mut inner = self.inner();
        let start = at.0 & !(FRAME - 1);
        let Some(vma) = inner.vmas.get_mut(&start) else {
            return;
        };
        vma.prot = prot;
        let end = vma.end;
        for (page, frame) in inner.pages.range(start..end) {
            if let Some(slot) = self.table.slot(Iova(*page), 1) {
                self.ram.store(slot, frame.0 | self.processor.page(prot));
            }
        }
    }

    /// The process ends: everything is an error from now on. Returns the frames it had.
    #[must_use]
    pub fn exit(&self) -> Vec<Gpa> {
        let mut inner = self.inner();
        inner.gone = true;
        inner.vmas.clear();
        self.drop_pages(&mut inner, 0, u64::MAX)
    }

    /// Pages that are present.
    #[must_use]
    pub fn present(&self) -> usize {
        self.inner().pages.len()
    }

    /// Page faults taken on behalf of devices.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.inner().faults
    }

    /// What the mapping around `at` allows; `None` where there is none.
    #[must_use]
    pub fn rights(&self, at: Iova) -> Option<Prot> {
        let inner = self.inner();
        let (_, vma) = inner.vmas.range(..=at.0).next_back()?;
        (at.0 < vma.end).then_some(vma.prot)
    }

    /// Where `at` lies and what its mapping allows, if the page is present.
    #[must_use]
    pub fn translate(&self, at: Iova) -> Option<(Gpa, Prot)> {
        let inner = self.inner();
        let (_, vma) = inner.vmas.range(..=at.0).next_back()?;
        let frame = inner.pages.get(&(at.0 & !(FRAME - 1)))?;
        (at.0 < vma.end).then_some((Gpa(frame.0 | (at.0 & (FRAME - 1))), vma.prot))
    }

    /// Whether the page around `at` is present.
    #[must_use]
    pub fn is_present(&self, at: Iova) -> bool {
        self.inner().pages.contains_key(&(at.0 & !(FRAME - 1)))
    }

    /// The CPU reads, page by page; missing pages are made present.
    ///
    /// # Errors
    /// As [`Mm::fault`].
    pub fn read(&self, at: Iova, into: &mut [u8]) -> Result<(), SegmentationFault> {
        let mut inner = self.inner();
        let mut done = 0;
        while done < into.len() {
            let here = at.0.wrapping_add(done as u64);
            let frame = self.populate(&mut inner, Iova(here), Access::READ)?;
            let offset = here & (FRAME - 1);
            let room = usize::try_from(FRAME - offset).unwrap_or(0);
            let len = (into.len() - done).min(room);
            self.ram
                .read(Gpa(frame.0 + offset), &mut into[done..done + len]);
            done += len;
        }
        Ok(())
    }

    /// The CPU writes, page by page; missing pages are made present.
    ///
    /// # Errors
    /// As [`Mm::fault`].
    pub fn write(&self, at: Iova, from: &[u8]) -> Result<(), SegmentationFault> {
        let mut inner = self.inner();
        let mut done = 0;
        while done < from.len() {
            let here = at.0.wrapping_add(done as u64);
            let frame = self.populate(&mut inner, Iova(here), Access::WRITE)?;
            let offset = here & (FRAME - 1);
            let room = usize::try_from(FRAME - offset).unwrap_or(0);
            let len = (from.len() - done).min(room);
            self.ram
                .write(Gpa(frame.0 + offset), &from[done..done + len]);
            done += len;
        }
        Ok(())
    }
}
