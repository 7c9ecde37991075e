//! Who serves which device.

use super::Serving;
use hashbrown::HashMap;
use iopf::engine::DeviceId;
use rustc_hash::FxBuildHasher;

/// Where a device stands in the table. It is another's once the device has left.
pub(super) type Place = usize;

/// The devices of a pump.
#[derive(Debug, Default)]
pub(super) struct Devices {
    places: Vec<Option<Serving>>,
    by_id: HashMap<DeviceId, Place, FxBuildHasher>,
}

impl Devices {
    pub(super) fn add(&mut self, id: DeviceId, serving: Serving) {
        let free = self.places.iter().position(Option::is_none);
        let place = free.unwrap_or(self.places.len());
        match free {
            Some(place) => self.places[place] = Some(serving),
            None => self.places.push(Some(serving)),
        }
        self.by_id.insert(id, place);
    }

    pub(super) fn remove(&mut self, id: DeviceId) {
        if let Some(place) = self.by_id.remove(&id) {
            self.places[place] = None;
        }
    }

    /// Empties the table; who was in it.
    pub(super) fn clear(&mut self) -> Vec<DeviceId> {
        self.places.clear();
        self.by_id.drain().map(|(id, _)| id).collect()
    }

    pub(super) fn place(&self, id: DeviceId) -> Option<Place> {
        self.by_id.get(&id).copied()
    }

    #[inline]
    pub(super) fn at(&mut self, place: Place) -> Option<&mut Serving> {
        self.places.get_mut(place)?.as_mut()
    }
}
