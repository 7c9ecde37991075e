//! The configuration caches: stream table entries and context descriptors.
//!
//! Spec: IHI 0070, "Configuration structure invalidation". What is in here is used, however old, until the
//! guest invalidates it; what failed never gets in. Level 1 descriptors are not cached: Leaf changes
//! nothing.

use iommu_walk::smmuv3::{Space, Stream};
use iopf::{Pasid, Rid};
use rustc_hash::FxBuildHasher;
use std::collections::HashMap;

/// Entries of each kind that are held at most. A cache may forget at any time.
const MOST: usize = 4096;

/// The point in the history of invalidations at which something was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(u64);

/// Both caches.
#[derive(Debug, Default)]
pub struct ConfigCache {
    streams: HashMap<u32, Stream, FxBuildHasher>,
    /// Context descriptors with their streams, by stream and substream.
    spaces: HashMap<(u32, u32), Space, FxBuildHasher>,
    /// Grows with each invalidation.
    invalidations: u64,
}

/// A SubstreamID is below 2^20, so none has this number.
const NO_SUBSTREAM: u32 = u32::MAX;

fn key(stream: Rid, substream: Option<Pasid>) -> (u32, u32) {
    (stream.0, substream.map_or(NO_SUBSTREAM, Pasid::get))
}

impl ConfigCache {
    /// What is to be handed to [`Self::insert`]; take it before the tables are read.
    pub(super) const fn moment(&self) -> Moment {
        Moment(self.invalidations)
    }

    /// The entry of a stream.
    #[inline]
    pub(super) fn stream(&self, stream: Rid) -> Option<&Stream> {
        self.streams.get(&stream.0)
    }

    /// The entry of a stream with the context descriptor of a substream.
    #[inline]
    pub(super) fn space(&self, stream: Rid, substream: Option<Pasid>) -> Option<&Space> {
        self.spaces.get(&key(stream, substream))
    }

    /// Remembers what was read from the tables since `moment`, unless something was invalidated
    /// meanwhile.
    pub(super) fn insert(
        &mut self,
        moment: Moment,
        stream: Rid,
        substream: Option<Pasid>,
        space: &Space,
    ) {
        if self.invalidations != moment.0 {
            return;
        }
        if self.streams.len() >= MOST || self.spaces.len() >= MOST {
            self.streams.clear();
            self.spaces.clear();
        }
        self.streams.insert(stream.0, space.stream);
        self.spaces.insert(key(stream, substream), *space);
    }

    /// Forgets an aligned range of 2^`bits` streams, and their context descriptors.
    pub(super) fn forget_streams(&mut self, first: Rid, bits: u8) {
        self.invalidations += 1;
        let of = |stream: u32| u64::from(stream ^ first.0) >> (bits & 63) == 0;
        self.streams.retain(|&stream, _| !of(stream));
        self.spaces.retain(|&(stream, _), _| !of(stream));
    }

    /// Forgets a stream's context descriptor of this index. The first is that of requests without a
    /// substream, too.
    pub(super) fn forget_context(&mut self, stream: Rid, index: Pasid) {
        self.invalidations += 1;
        self.spaces.remove(&key(stream, Some(index)));
        if index == Pasid::default() {
            self.spaces.remove(&key(stream, None));
        }
    }

    /// Forgets a stream's context descriptors.
    pub(super) fn forget_contexts(&mut self, stream: Rid) {
        self.invalidations += 1;
        self.spaces.retain(|&(of, _), _| of != stream.0);
    }

    /// Forgets everything.
    pub(super) fn forget_all(&mut self) {
        self.invalidations += 1;
        self.streams.clear();
        self.spaces.clear();
    }
}

#[cfg(test)]
mod tests;
