//! The portals behind BAR 2: stores become descriptors.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0, "Portals
//! (BAR2)". A real portal takes one store of 64 bytes and nothing else. A guest under emulation has
//! no such store, and what is one in the guest may come in parts; so here the parts of a 64-byte
//! slot are collected, and its last byte completes it. A slot with a gap is discarded then, as the
//! specification has it for anything that is not a store of 64 bytes.

use super::WQS;
use super::descriptor::RawDescriptor;
use std::collections::BTreeMap;

/// Bytes of a portal's page.
const PAGE: u64 = 4096;
/// Portals of a work queue: unlimited and limited, for MSI-X and for interrupt message storage.
const PORTALS: u64 = 4;
/// Portals that exist: without interrupt message storage only the first two do.
const EXISTING: u64 = 2;
const SLOT: u64 = RawDescriptor::SIZE as u64;

/// Bytes of the region.
pub(super) const SIZE: u64 = PAGE * PORTALS * WQS as u64;

#[derive(Clone, Debug)]
struct Slot {
    bytes: [u8; RawDescriptor::SIZE],
    /// Bit `n` set: byte `n` was stored.
    filled: u64,
}

/// The slots that are not complete, at most [`SIZE`]` / 64 / 2` of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Portals {
    slots: BTreeMap<u64, Slot>,
}

impl Portals {
    /// Takes a store of any length and alignment; `each` gets the descriptors it completes, with
    /// the number of their work queue.
    pub(super) fn write(
        &mut self,
        mut at: u64,
        mut data: &[u8],
        each: &mut dyn FnMut(usize, RawDescriptor),
    ) {
        while !data.is_empty() && at < SIZE {
            let start = usize::try_from(at % SLOT).unwrap_or(0);
            let len = data.len().min(RawDescriptor::SIZE - start);
            let (part, rest) = data.split_at(len);
            if at / PAGE % PORTALS < EXISTING {
                let wq = usize::try_from(at / PAGE / PORTALS).unwrap_or(usize::MAX);
                if let Some(descriptor) = self.store(at / SLOT, start, part) {
                    each(wq, descriptor);
                }
            }
            (at, data) = (at + len as u64, rest);
        }
    }

    fn store(&mut self, slot: u64, start: usize, part: &[u8]) -> Option<RawDescriptor> {
        let entry = self.slots.entry(slot).or_insert(Slot {
            bytes: [0; RawDescriptor::SIZE],
            filled: 0,
        });
        entry.bytes[start..start + part.len()].copy_from_slice(part);
        let stored = u64::MAX >> (RawDescriptor::SIZE - part.len());
        entry.filled |= stored << start;
        if start + part.len() < RawDescriptor::SIZE {
            return None;
        }
        let complete = self.slots.remove(&slot)?;
        (complete.filled == u64::MAX).then(|| RawDescriptor::from_bytes(&complete.bytes))
    }

    /// Forgets what was stored so far to the work queues of `set`, one bit each.
    pub(super) fn forget(&mut self, set: u64) {
        self.slots
            .retain(|slot, _| set >> (slot * SLOT / PAGE / PORTALS) & 1 == 0);
    }

    /// Forgets what was stored so far.
    pub(super) fn reset(&mut self) {
        self.slots.clear();
    }
}

#[cfg(test)]
mod tests;
