//! Where a group ends, and what is none.

use crate::record::RawFault;
use iopf::PageRequest;

/// A page request group as it was read, in the order the pages came.
#[derive(Clone, Copy, Debug)]
pub struct FaultGroup<'a> {
    partial: &'a [RawFault],
    last: &'a RawFault,
}

/// Pages that are no group: no last page among them, pages of different devices, or a PASID of more
/// than 20 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{pages} pages of device {dev_id} are no group")]
pub struct Malformed {
    /// The device of the first page.
    pub dev_id: u32,
    /// How many pages.
    pub pages: usize,
    /// What they were answered INVALID by. 0 is a cookie like any other: the kernel gives it once
    /// somebody has answered it (`docs/oracle.md`).
    pub cookie: u32,
}

/// What is at the start of a read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct First {
    /// How many pages share the first one's cookie, up to and with the last page of a group.
    pub(super) pages: usize,
    /// How many of them have bits without a name.
    pub(super) unnamed_bits: u64,
    /// Whether they may be a group.
    pub(super) sound: bool,
}

/// `None`: nothing is there.
pub(super) fn first(read: &[RawFault]) -> Option<First> {
    let head = read.first()?;
    let mut first = First::default();
    let mut sound = true;
    for page in read {
        if page.cookie != head.cookie {
            break;
        }
        first.pages += 1;
        first.unnamed_bits += u64::from(page.has_unnamed_bits());
        sound &= page.dev_id == head.dev_id && page.pasid_fits();
        if page.is_last() {
            first.sound = sound;
            break;
        }
    }
    Some(first)
}

/// Whether it is a group of one page.
#[inline]
pub(super) fn is_whole(page: &RawFault) -> bool {
    page.is_last() && page.pasid_fits()
}

impl<'a> FaultGroup<'a> {
    /// A group of one page.
    #[inline]
    pub(super) fn of(page: &'a RawFault) -> Self {
        Self {
            partial: &[],
            last: page,
        }
    }

    pub(super) fn new(pages: &'a [RawFault]) -> Option<Self> {
        let (last, partial) = pages.split_last()?;
        Some(Self { partial, last })
    }

    /// Answer it by this number, once. It may be given to another group as soon as this one is
    /// answered, by us or, at a detach, by the kernel.
    #[must_use]
    pub fn cookie(&self) -> u32 {
        self.last.cookie
    }

    /// The iommufd object of the device. See [`RawFault::dev_id`].
    #[must_use]
    pub fn dev_id(&self) -> u32 {
        self.last.dev_id
    }

    /// How many pages, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "it has a last page")]
    pub fn len(&self) -> usize {
        self.partial.len() + 1
    }

    /// The last page, with the caller's own data.
    #[must_use]
    #[inline]
    pub fn last(&self, private_data: [u64; 2]) -> PageRequest {
        self.last.request(private_data)
    }

    /// The pages before it. The PASID of each is its own: the kernel puts pages of different
    /// PASIDs into one group.
    #[inline]
    pub fn partial(&self) -> impl ExactSizeIterator<Item = PageRequest> + use<'a> {
        self.partial.iter().map(|page| page.request([0; 2]))
    }

    /// The records.
    pub fn raw(&self) -> impl Iterator<Item = &'a RawFault> + use<'a> {
        self.partial.iter().chain(Some(self.last))
    }
}

impl Malformed {
    #[cold]
    pub(super) fn new(pages: &[RawFault]) -> Self {
        let (dev_id, cookie) = pages
            .first()
            .map_or((0, 0), |page| (page.dev_id, page.cookie));
        Self {
            dev_id,
            pages: pages.len(),
            cookie,
        }
    }
}
