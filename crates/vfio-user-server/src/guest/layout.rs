//! From the maps of all connections to one list of segments.

use super::file::{Backing, Key};
use crate::codec::MapAccess;
use crate::socket::ByMessage;
use std::collections::BTreeMap;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap, GuestRegionMmap};

/// `<asm-generic/mman-common.h>` and `<linux/mman.h>`, as vm-memory takes them.
const PROT_READ: i32 = 1;
const PROT_WRITE: i32 = 2;
const MAP_SHARED: i32 = 0x01;
const MAP_NORESERVE: i32 = 0x4000;

/// One range of one connection.
#[derive(Clone, Debug)]
pub(super) struct Mapping {
    pub(super) base: u64,
    pub(super) len: u64,
    pub(super) access: MapAccess,
    /// The file, and where in it the range begins; `None`: by messages.
    pub(super) file: Option<(Backing, u64)>,
    /// Of two ranges in one place, the greater counts.
    pub(super) age: u64,
}

/// How a segment is reached.
#[derive(Clone, Debug)]
pub(super) enum Reach {
    Memory(Arc<GuestRegionMmap<()>>),
    Messages(Arc<dyn ByMessage>),
}

/// A piece of the guest's memory.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub(super) base: u64,
    pub(super) len: u64,
    pub(super) access: MapAccess,
    /// The file and the place in it.
    source: Option<(Key, u64)>,
    pub(super) reach: Reach,
}

/// The guest's memory: segments by address, none overlapping.
#[derive(Debug, Default)]
pub(super) struct Layout(Vec<Segment>);

/// A part of the address space while it is put together.
#[derive(Clone, Debug)]
struct Piece<'a> {
    end: u64,
    mapping: &'a Mapping,
    link: &'a Arc<dyn ByMessage>,
}

impl Piece<'_> {
    /// The file, and the place in it of `at`.
    fn source(&self, at: u64) -> Option<(Key, u64)> {
        let (backing, offset) = self.mapping.file.as_ref()?;
        Some((backing.key, offset + (at - self.mapping.base)))
    }

    /// `next`, which begins at `at`, goes on where this piece, which begins at `base`, ends.
    fn goes_on(&self, base: u64, next: &Piece<'_>, at: u64) -> bool {
        let adjacent = self.end == at && self.mapping.access == next.mapping.access;
        adjacent
            && match (self.source(base), next.source(at)) {
                (Some((key, offset)), Some((next_key, next_offset))) => {
                    key == next_key && offset + (at - base) == next_offset
                }
                (None, None) => Arc::ptr_eq(self.link, next.link),
                _ => false,
            }
    }
}

impl Layout {
    /// Puts the maps of all connections together; memory that `old` has mapped is taken from there.
    ///
    /// # Errors
    /// The kernel's reason for not mapping a file.
    pub(super) fn of<'a>(
        maps: impl Iterator<Item = (&'a Mapping, &'a Arc<dyn ByMessage>)>,
        old: &Self,
    ) -> Result<Self, i32> {
        let mut maps: Vec<_> = maps.collect();
        maps.sort_unstable_by_key(|(mapping, _)| mapping.age);
        let mut pieces: BTreeMap<u64, Piece<'a>> = BTreeMap::new();
        for (mapping, link) in maps {
            paint(&mut pieces, mapping, link);
        }
        let mut runs: Vec<(u64, Piece<'a>)> = Vec::new();
        for (at, piece) in pieces {
            match runs.last_mut() {
                Some((base, run)) if run.goes_on(*base, &piece, at) => run.end = piece.end,
                _ => runs.push((at, piece)),
            }
        }
        let segments = runs.iter().map(|(base, run)| segment(*base, run, old));
        segments.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The segment around `address` that allows `access`, and how many of `len` bytes are in it.
    pub(super) fn find(
        &self,
        address: u64,
        len: usize,
        access: MapAccess,
    ) -> Option<(&Segment, usize)> {
        let after = self.0.partition_point(|segment| segment.base <= address);
        let segment = self.0.get(after.checked_sub(1)?)?;
        let rest = segment.len.checked_sub(address - segment.base)?;
        if rest == 0 || !segment.access.contains(access) {
            return None;
        }
        Some((
            segment,
            usize::try_from(rest).map_or(len, |rest| rest.min(len)),
        ))
    }

    /// The segments that can be read and written in place, where they differ from those of `old`.
    pub(super) fn changed(&self, old: &Self) -> Option<GuestMemoryMmap<()>> {
        let (new, old) = (self.memory(), old.memory());
        let same = new.len() == old.len() && new.iter().zip(&old).all(|(n, o)| Arc::ptr_eq(n, o));
        // Segments are sorted and don't overlap, so this can't fail.
        (!same).then(|| GuestMemoryMmap::from_arc_regions(new).unwrap_or_default())
    }

    fn memory(&self) -> Vec<Arc<GuestRegionMmap<()>>> {
        let writable = self.0.iter().filter(|segment| segment.access.is_all());
        writable
            .filter_map(|segment| match &segment.reach {
                Reach::Memory(region) => Some(Arc::clone(region)),
                Reach::Messages(_) => None,
            })
            .collect()
    }
}

/// Puts a mapping over what is there.
fn paint<'a>(
    pieces: &mut BTreeMap<u64, Piece<'a>>,
    mapping: &'a Mapping,
    link: &'a Arc<dyn ByMessage>,
) {
    let (base, end) = (mapping.base, mapping.base + mapping.len);
    if let Some((_, before)) = pieces.range_mut(..base).next_back()
        && before.end > base
    {
        let rest = before.clone();
        before.end = base;
        pieces.insert(base, rest);
    }
    while let Some((&at, _)) = pieces.range(base..end).next() {
        if let Some(piece) = pieces.remove(&at)
            && piece.end > end
        {
            pieces.insert(end, piece);
        }
    }
    pieces.insert(base, Piece { end, mapping, link });
}

fn segment(base: u64, run: &Piece<'_>, old: &Layout) -> Result<Segment, i32> {
    let len = run.end - base;
    let access = run.mapping.access;
    let source = run.source(base);
    let reach = match (&run.mapping.file, source) {
        (Some((backing, _)), Some((_, offset))) => {
            let there = old.0.binary_search_by_key(&base, |segment| segment.base);
            let known = there.ok().map(|at| &old.0[at]).filter(|segment| {
                (segment.len, segment.access, segment.source) == (len, access, source)
            });
            match known {
                Some(segment) => segment.reach.clone(),
                None => Reach::Memory(Arc::new(map(base, len, access, backing, offset)?)),
            }
        }
        _ => Reach::Messages(Arc::clone(run.link)),
    };
    Ok(Segment {
        base,
        len,
        access,
        source,
        reach,
    })
}

fn map(
    base: u64,
    len: u64,
    access: MapAccess,
    backing: &Backing,
    offset: u64,
) -> Result<GuestRegionMmap<()>, i32> {
    const EINVAL: i32 = 22;
    // A range for writing only is mapped like the others: x86 has no such pages.
    let prot = if access.contains(MapAccess::WRITE) {
        PROT_READ | PROT_WRITE
    } else {
        PROT_READ
    };
    let size = usize::try_from(len).map_err(|_| EINVAL)?;
    let file = FileOffset::from_arc(Arc::clone(&backing.file), offset);
    let region = MmapRegionBuilder::new(size)
        .with_mmap_prot(prot)
        .with_mmap_flags(MAP_SHARED | MAP_NORESERVE)
        .with_file_offset(file)
        .build()
        .map_err(|error| match error {
            vm_memory::mmap::MmapRegionError::Mmap(error) => error.raw_os_error().unwrap_or(EINVAL),
            _ => EINVAL,
        })?;
    GuestRegionMmap::new(region, GuestAddress(base)).ok_or(EINVAL)
}
