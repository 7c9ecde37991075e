//! Which address space a requester's transactions use: the hit side of the context and PASID caches.

use super::table::{Key, Table};
use super::{Epoch, Tag, epoch::History};
use iopf::{Pasid, Rid};

/// What a hit needs to know of a requester and PASID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The address space whose entries of the IOTLB serve it.
    pub tag: Tag,
    /// 16 bits that the model gives a meaning, for example "passes through" or "may not execute".
    pub attributes: u16,
}

/// A bounded table from requester and PASID to [`Source`], read without writing.
///
/// It accelerates the model's own context and PASID caches and has no meaning of its own: the model
/// clears it whenever either cache loses an entry, and fills it again from what those caches still
/// hold. Fills obey the same rule as those of the IOTLB: an [`Epoch`] is taken first.
#[derive(Debug)]
pub struct Sources {
    table: Table,
    history: History,
}

impl Sources {
    /// A table for at least `entries` pairs of requester and PASID.
    #[must_use]
    pub fn new(entries: usize) -> Self {
        Self {
            table: Table::new(entries),
            history: History::new(),
        }
    }

    /// The entry of `requester` and `pasid`.
    #[inline]
    #[must_use]
    pub fn lookup(&self, requester: Rid, pasid: Option<Pasid>) -> Option<Source> {
        let value = self.table.get(key(requester, pasid))?;
        Some(Source {
            tag: Tag(value >> 16),
            attributes: (value & 0xffff) as u16,
        })
    }

    /// The point in history to hand to [`Self::insert`]; take it before the context and PASID
    /// caches are read.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.history.now()
    }

    /// Remembers an entry, unless the table was cleared since `epoch`. Says whether it did.
    pub fn insert(
        &self,
        epoch: Epoch,
        requester: Rid,
        pasid: Option<Pasid>,
        source: Source,
    ) -> bool {
        let value = source.tag.0 << 16 | u64::from(source.attributes);
        self.table.insert(key(requester, pasid), value, || {
            self.history.unchanged(epoch, |_| true)
        })
    }

    /// Forgets everything.
    pub fn clear(&self) {
        let _open = self.history.open(0);
        self.table.remove_if(|_| true);
    }
}

fn key(requester: Rid, pasid: Option<Pasid>) -> Key {
    let pasid = pasid.map_or(0, |pasid| 1 << 20 | u64::from(pasid.get()));
    Key(pasid, u64::from(requester.0))
}
