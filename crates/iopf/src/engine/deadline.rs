//! When the engine must look again.
//!
//! Every group of a policy has the same time to be answered, so a device's groups fall due in the
//! order they came, and one heap entry a device is enough: it is armed when the device has
//! something pending and none is armed. An entry may turn out early (its group was answered
//! meanwhile) and is then armed anew; it is never late. A device fires at most once per timeout,
//! so groups that are answered in time cost nothing here.

use super::device::Devices;
use alloc::collections::BinaryHeap;
use core::cmp::Reverse;

/// The timer heap: a deadline and a place in the device table; at most one entry a place.
#[derive(Debug, Default)]
pub(super) struct Timers(BinaryHeap<Reverse<(u64, u32)>>);

impl Timers {
    /// Sees to it that the device at `place` is looked at by `deadline`.
    #[inline]
    pub(super) fn arm(&mut self, devices: &mut Devices, place: u32, deadline: u64) {
        let device = devices.at_mut(place);
        // Time only moves forward and the timeout is fixed: what is armed is due first.
        if !device.armed {
            device.armed = true;
            self.0.push(Reverse((deadline, place)));
        }
    }

    /// The earliest entry.
    #[inline]
    pub(super) fn next(&self) -> Option<u64> {
        self.0.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// A place whose entry is due; the entry is gone.
    pub(super) fn pop_due(&mut self, devices: &mut Devices, now: u64) -> Option<u32> {
        let Reverse((deadline, place)) = *self.0.peek()?;
        if deadline > now {
            return None;
        }
        self.0.pop();
        devices.at_mut(place).armed = false;
        Some(place)
    }
}
