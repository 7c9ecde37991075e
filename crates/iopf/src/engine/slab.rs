//! Where pages live while the engine holds them: fixed-size slots in chunks, linked by index.
//!
//! A chunk is never moved or given back, so growth copies nothing and memory is the high-water
//! mark of pages held, rounded up to one chunk.

use super::Handle;
use alloc::{boxed::Box, vec::Vec};

/// "No slot": ends every list.
pub(super) const NIL: u32 = u32::MAX;

/// The PASID of a request that named none. Real ones have 20 bits.
pub(super) const NO_PASID: u32 = u32::MAX;

const SHIFT: u32 = 10;
const CHUNK: usize = 1 << SHIFT;

/// What a slot is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// On the free list.
    #[default]
    Free,
    /// A page before its group's last one, or a page inside a complete group.
    Page,
    /// A complete group, or an unrecoverable fault: somebody owes it an answer or a verdict.
    Waiting,
    /// Answered, and not yet fetched.
    Answered,
}

/// Bits of [`Slot::flags`].
pub(super) mod flag {
    pub(in super::super) const NEEDS_PASID: u8 = 1;
    pub(in super::super) const UNRECOVERABLE: u8 = 1 << 1;
    /// Found its handler at the function's own attachment though it named a PASID.
    pub(in super::super) const BY_RID: u8 = 1 << 2;
    pub(in super::super) const NESTED: u8 = 1 << 3;
    pub(in super::super) const DELIVERED: u8 = 1 << 4;
    pub(in super::super) const DEQUEUED: u8 = 1 << 5;
    pub(in super::super) const ADDR: u8 = 1 << 6;
    pub(in super::super) const FETCH: u8 = 1 << 7;
}

/// One page, and where it is the last of its group, the group.
///
/// An unrecoverable fault keeps its fetch address and reason in `private`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) addr: u64,
    pub(super) private: [u64; 2],
    /// When the group became complete; for a chain of partial pages, when it began.
    pub(super) at: u64,
    pub(super) generation: u32,
    pub(super) device: u32,
    pub(super) group: u32,
    pub(super) pasid: u32,
    /// Of what waits: the attachment's domain. In the first page of a chain: its last page.
    pub(super) domain_or_tail: u32,
    /// Page to page inside a chain; in a complete group, its first partial page.
    pub(super) link: u32,
    /// Pages of the chain or group.
    pub(super) count: u32,
    pub(super) access: u8,
    pub(super) flags: u8,
    pub(super) state: State,
    pub(super) answer: u8,
}

// The promise of 128 bytes a pending page starts here.
const _: () = assert!(size_of::<Slot>() == 64 && size_of::<Links>() == 8);

/// A slot's neighbours: waiting groups of the device, chains of the device, free list, answers.
///
/// They lie apart from the slots, because a list is changed through slots that are of no interest
/// otherwise: eight bytes of each stay in the cache, 64 would not.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Links {
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl Slot {
    pub(super) fn has(&self, bits: u8) -> bool {
        self.flags & bits == bits
    }
}

/// The slots.
#[derive(Debug)]
pub(super) struct Slab {
    chunks: Vec<Box<[Slot; CHUNK]>>,
    links: Vec<Box<[Links; CHUNK]>>,
    free: u32,
    /// The next slot to be taken, off the free list, and its generation, which is ahead of what the
    /// slot says; a slot of [`NIL`]: not chosen.
    next: Handle,
    /// Slots below this index were used before.
    fresh: u32,
    used: u32,
    max: u32,
}

impl Slab {
    pub(super) fn new(max: u32) -> Self {
        Self {
            chunks: Vec::new(),
            links: Vec::new(),
            free: NIL,
            next: Handle {
                slot: NIL,
                generation: 0,
            },
            fresh: 0,
            used: 0,
            max,
        }
    }

    /// There are `max` slots at most from now on.
    pub(super) fn set_max(&mut self, max: u32) {
        self.max = max;
    }

    /// Slots in use.
    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// Slots that memory was taken for.
    pub(super) fn capacity(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// A slot to fill, or `None` at the limit or without memory. Its generation is kept.
    pub(super) fn take(&mut self) -> Option<u32> {
        let Handle { slot, generation } = self.peek()?;
        self.at_mut(slot).generation = generation;
        self.next.slot = NIL;
        self.used += 1;
        Some(slot)
    }

    /// What the next slot to be taken will be known by, or `None` at the limit or without memory.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<Handle> {
        if self.used >= self.max {
            return None;
        }
        if self.next.slot == NIL {
            self.choose_next()?;
        }
        Some(self.next)
    }

    /// Whether `handle` was [`peek`](Self::peek)ed at last, and its slot not taken.
    pub(super) fn is_next(&self, handle: Handle) -> bool {
        self.next == handle
    }

    /// What was [`peek`](Self::peek)ed at is stale from now on, as if the slot had been taken and
    /// given back.
    #[inline]
    pub(super) fn skip(&mut self) {
        if self.next.generation < u32::MAX {
            self.next.generation += 1;
        } else {
            // Retired: see `put`.
            self.next.slot = NIL;
        }
    }

    fn choose_next(&mut self) -> Option<()> {
        let slot = if self.free == NIL {
            if self.fresh == NIL {
                return None;
            }
            if self.fresh as usize >= self.capacity() {
                self.grow()?;
            }
            self.fresh += 1;
            self.fresh - 1
        } else {
            let slot = self.free;
            self.free = self.links(slot).next;
            slot
        };
        let generation = self.at(slot).generation;
        self.next = Handle { slot, generation };
        Some(())
    }

    #[cold]
    fn grow(&mut self) -> Option<()> {
        let (slots, links) = (chunk()?, chunk()?);
        self.chunks.try_reserve(1).ok()?;
        self.links.try_reserve(1).ok()?;
        self.chunks.push(slots);
        self.links.push(links);
        Some(())
    }

    /// Gives a slot back; handles to it are stale from now on.
    pub(super) fn put(&mut self, index: u32) {
        let free = self.free;
        let slot = self.at_mut(index);
        slot.state = State::Free;
        // A slot that ran out of generations is retired: reuse would bring old handles back.
        if slot.generation < u32::MAX {
            slot.generation += 1;
            self.links_mut(index).next = free;
            self.free = index;
        }
        self.used -= 1;
    }

    /// The slot at `index`, which is one of ours.
    #[inline]
    pub(super) fn at(&self, index: u32) -> &Slot {
        &self.chunks[(index >> SHIFT) as usize][index as usize % CHUNK]
    }

    /// The slot at `index`, which is one of ours.
    #[inline]
    pub(super) fn at_mut(&mut self, index: u32) -> &mut Slot {
        &mut self.chunks[(index >> SHIFT) as usize][index as usize % CHUNK]
    }

    /// The neighbours of the slot at `index`, which is one of ours.
    #[inline]
    pub(super) fn links(&self, index: u32) -> Links {
        self.links[(index >> SHIFT) as usize][index as usize % CHUNK]
    }

    /// The neighbours of the slot at `index`, which is one of ours.
    #[inline]
    pub(super) fn links_mut(&mut self, index: u32) -> &mut Links {
        &mut self.links[(index >> SHIFT) as usize][index as usize % CHUNK]
    }

    /// What `handle` names, if that still waits.
    #[inline]
    pub(super) fn waiting(&self, handle: Handle) -> Option<&Slot> {
        let chunk = self.chunks.get((handle.slot >> SHIFT) as usize)?;
        let slot = &chunk[handle.slot as usize % CHUNK];
        (slot.generation == handle.generation && slot.state == State::Waiting).then_some(slot)
    }
}

/// A chunk of anything, without a detour over the stack; `None` without memory.
fn chunk<T: Clone + Default>() -> Option<Box<[T; CHUNK]>> {
    let mut chunk = Vec::new();
    chunk.try_reserve_exact(CHUNK).ok()?;
    chunk.resize(CHUNK, T::default());
    chunk.into_boxed_slice().try_into().ok()
}

/// The ends of a list through [`Links`].
#[derive(Clone, Copy, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    pub(super) tail: u32,
}

impl List {
    pub(super) const EMPTY: Self = Self {
        head: NIL,
        tail: NIL,
    };

    #[inline]
    pub(super) fn push(&mut self, slab: &mut Slab, index: u32) {
        let tail = self.tail;
        *slab.links_mut(index) = Links {
            prev: tail,
            next: NIL,
        };
        if tail == NIL {
            self.head = index;
        } else {
            slab.links_mut(tail).next = index;
        }
        self.tail = index;
    }

    #[inline]
    pub(super) fn unlink(&mut self, slab: &mut Slab, index: u32) {
        let Links { prev, next } = slab.links(index);
        if prev == NIL {
            self.head = next;
        } else {
            slab.links_mut(prev).next = next;
        }
        if next == NIL {
            self.tail = prev;
        } else {
            slab.links_mut(next).prev = prev;
        }
    }
}

#[cfg(test)]
mod tests;
