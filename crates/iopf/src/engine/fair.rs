//! Whose turn it is: the order in which devices have their groups delivered.

use super::Handle;
use super::device::Devices;
use super::slab::{NIL, Slab, State, flag};
use alloc::collections::VecDeque;

/// The delivery order.
///
/// Fair: a ring of devices that have something to deliver, each for as many groups as its share,
/// then the next. So a group at the head of its device's own queue waits for at most one turn of
/// each other device. Otherwise: first come, first served, as a work queue does.
#[derive(Debug)]
pub(super) enum Order {
    /// Places in the device table, each at most once.
    Ring(VecDeque<u32>),
    /// Groups as they came; those answered meanwhile are skipped, and swept out when they are most
    /// of it, for whoever answers by the handles of the reports and never polls.
    Arrival(VecDeque<Handle>),
}

impl Order {
    pub(super) fn new(strict: bool) -> Self {
        if strict {
            Self::Ring(VecDeque::new())
        } else {
            Self::Arrival(VecDeque::new())
        }
    }

    /// Entries, those to be skipped included.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Ring(ring) => ring.len(),
            Self::Arrival(queue) => queue.len(),
        }
    }

    /// Whether nobody waits to be delivered, for certain.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Ring(ring) => ring.is_empty(),
            Self::Arrival(queue) => queue.is_empty(),
        }
    }

    /// The device at `place` leaves. If it comes back, it comes back last.
    pub(super) fn forget(&mut self, devices: &mut Devices, place: u32) {
        if let Self::Ring(ring) = self {
            ring.retain(|other| *other != place);
            devices.at_mut(place).in_ring = false;
        }
    }

    /// `handle` of the device at `place` became ready.
    #[inline]
    pub(super) fn push(&mut self, devices: &mut Devices, slab: &Slab, place: u32, handle: Handle) {
        let device = devices.at_mut(place);
        if device.ready == NIL {
            device.ready = handle.slot;
        }
        match self {
            Self::Ring(ring) => {
                if !device.in_ring {
                    device.in_ring = true;
                    device.turn = device.share;
                    ring.push_back(place);
                }
            }
            Self::Arrival(queue) => {
                if queue.len() > 2 * slab.used() as usize + 64 {
                    queue.retain(|other| slab.waiting(*other).is_some());
                }
                queue.push_back(handle);
            }
        }
    }

    /// The next group to deliver, marked as delivered.
    pub(super) fn pop(&mut self, devices: &mut Devices, slab: &mut Slab) -> Option<u32> {
        match self {
            Self::Ring(ring) => loop {
                let place = *ring.front()?;
                let device = devices.at_mut(place);
                let slot = device.ready;
                if slot == NIL {
                    device.in_ring = false;
                    ring.pop_front();
                    continue;
                }
                deliver(devices, slab, place, slot);
                let device = devices.at_mut(place);
                device.turn = device.turn.saturating_sub(1);
                if device.ready == NIL {
                    device.in_ring = false;
                    ring.pop_front();
                } else if device.turn == 0 {
                    device.turn = device.share;
                    ring.rotate_left(1);
                }
                return Some(slot);
            },
            Self::Arrival(queue) => loop {
                let handle = queue.pop_front()?;
                let Some(slot) = slab.waiting(handle) else {
                    continue;
                };
                if !slot.has(flag::DELIVERED) {
                    let place = slot.device;
                    deliver(devices, slab, place, handle.slot);
                    return Some(handle.slot);
                }
            },
        }
    }
}

fn deliver(devices: &mut Devices, slab: &mut Slab, place: u32, index: u32) {
    let device = devices.at_mut(place);
    let slot = slab.at_mut(index);
    slot.flags |= flag::DELIVERED;
    if device.ready == index {
        device.ready = slab.links(index).next;
    }
}

/// The waiting slot at `index` is about to leave its device's list, delivered or not.
#[inline]
pub(super) fn withdraw(devices: &mut Devices, slab: &Slab, index: u32) {
    let slot = slab.at(index);
    debug_assert_eq!(slot.state, State::Waiting, "only waiting slots are queued");
    if slot.has(flag::DELIVERED) {
        return;
    }
    let device = devices.at_mut(slot.device);
    if device.ready == index {
        device.ready = slab.links(index).next;
    }
}
