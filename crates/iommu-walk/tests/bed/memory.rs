//! Sparse memory that tables are typed into, and the requests that are sent through them.

use iommu_walk::{TableMem, TableMemMut, Unreachable};
use iopf::{Access, Dma, DmaKind, Gpa, Iova, Pasid, Rid};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Where the request goes.
pub(crate) const ADDR: u64 = 0x80_4020_1abc;

/// Zero wherever nothing was typed, nothing at all above 16 MiB.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) words: RefCell<BTreeMap<u64, u64>>,
    pub(crate) aborts: Vec<u64>,
}

impl TableMem for Memory {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        if at.0 >= 0x100_0000 || self.aborts.contains(&at.0) {
            return Err(Unreachable(at));
        }
        Ok(self.words.borrow().get(&at.0).copied().unwrap_or(0))
    }
}

impl TableMemMut for Memory {
    fn compare_exchange(&self, at: Gpa, old: u64, new: u64) -> Result<bool, Unreachable> {
        let same = self.load(at)? == old;
        if same {
            self.words.borrow_mut().insert(at.0, new);
        }
        Ok(same)
    }
}

pub(crate) fn read() -> Dma {
    Dma {
        requester: Rid(0x0028),
        pasid: None,
        kind: DmaKind::Untranslated,
        addr: Iova(ADDR),
        access: Access::READ,
    }
}

pub(crate) fn write() -> Dma {
    Dma {
        access: Access::WRITE,
        ..read()
    }
}

pub(crate) fn fetch() -> Dma {
    pasid5(Dma {
        access: Access::READ | Access::EXEC,
        ..read()
    })
}

pub(crate) fn ats() -> Dma {
    Dma {
        kind: DmaKind::Translation { no_write: false },
        ..read()
    }
}

pub(crate) fn translated() -> Dma {
    Dma {
        kind: DmaKind::Translated,
        ..read()
    }
}

pub(crate) fn pasid5(dma: Dma) -> Dma {
    Dma {
        pasid: Pasid::new(5),
        ..dma
    }
}

pub(crate) fn privileged(dma: Dma) -> Dma {
    Dma {
        access: dma.access | Access::PRIV,
        ..dma
    }
}

pub(crate) fn at(addr: u64, dma: Dma) -> Dma {
    Dma {
        addr: Iova(addr),
        ..dma
    }
}

/// Memory that cannot be written.
pub(crate) struct ReadOnly<'a>(pub(crate) &'a Memory);

impl TableMem for ReadOnly<'_> {
    fn load(&self, at: Gpa) -> Result<u64, Unreachable> {
        self.0.load(at)
    }
}

impl TableMemMut for ReadOnly<'_> {
    fn compare_exchange(&self, at: Gpa, _: u64, _: u64) -> Result<bool, Unreachable> {
        Err(Unreachable(at))
    }
}
