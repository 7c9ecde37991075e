//! Devices on the queue, and what is attached to them.

use super::loss::{Counts, Losses};
use super::slab::{List, NIL};
use crate::{Pasid, Response};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// The caller's number for a device: a requester ID with its segment, an iommufd device ID, …
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(pub u32);

/// The caller's number for an address space that resolves faults: a domain, a page table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainId(pub u32);

/// The caller's number for the guest that owns a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestId(pub u32);

/// What a device brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceConfig {
    /// Pages and unrecoverable faults of it that the engine holds at most.
    pub credits: u32,
    /// Groups it may have delivered in a row while others wait; 0 counts as 1.
    pub share: u16,
    /// The way back to the device can say [`Response::Failure`]: PCIe PRI can, iommufd cannot.
    pub carries_failure: bool,
    /// The guest keeps the PASID table, so a PASID without an attachment of its own falls back to
    /// a nested attachment of the function (`user_pasid_table` in Linux `struct iommu_ops`).
    pub user_pasid_table: bool,
    /// The guest it is assigned to, if any.
    pub guest: Option<GuestId>,
}

impl Default for DeviceConfig {
    /// 512 credits (what a PRI function commonly has), one group a turn, a wire with FAILURE, no
    /// guest.
    fn default() -> Self {
        Self {
            credits: 512,
            share: 1,
            carries_failure: true,
            user_pasid_table: false,
            guest: None,
        }
    }
}

/// What resolves the faults of one address space of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Named in every delivery.
    pub domain: DomainId,
    /// The guest's tables are the first stage (`IOMMU_DOMAIN_NESTED`).
    pub nested: bool,
    /// It handles page requests (Linux: the domain has an `iopf_handler`).
    pub page_requests: bool,
    /// It handles unrecoverable faults (Linux: the domain has a `FAULT_HANDLER` cookie).
    pub unrecoverable: bool,
}

impl Attachment {
    /// An attachment that handles faults of both kinds and is not nested.
    #[must_use]
    pub const fn new(domain: DomainId) -> Self {
        Self {
            domain,
            nested: false,
            page_requests: true,
            unrecoverable: true,
        }
    }
}

/// A device could not be added; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// It is on the queue already (`-EBUSY`).
    #[error("device {0:?} is on the queue already")]
    AlreadyAdded(DeviceId),
    /// The policy's limit is reached; devices that left count until their answers are fetched.
    #[error("no room for a device beyond {0}")]
    Full(u32),
}

/// There is no such device on the queue; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {0:?} is not on the queue")]
pub struct UnknownDevice(pub DeviceId);

/// An attachment could not be made, replaced or removed; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// There is no such device on the queue.
    #[error(transparent)]
    UnknownDevice(#[from] UnknownDevice),
    /// That address space of the device has an attachment: replace it.
    #[error("already attached")]
    Attached,
    /// That address space of the device has no attachment.
    #[error("not attached")]
    NotAttached,
    /// The device has as many PASIDs attached as the policy allows.
    #[error("no room for a PASID beyond {0}")]
    Full(u32),
}

/// Where one device stands.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) id: DeviceId,
    pub(super) config: DeviceConfig,
    /// On the queue; a device that left stays here until its last slot is free.
    pub(super) live: bool,
    /// Slots in use.
    pub(super) used: u32,
    /// Chains of partial pages, oldest first.
    pub(super) open: List,
    /// Waiting groups and unrecoverable faults, oldest first.
    pub(super) waiting: List,
    /// The first of `waiting` that was not delivered, and how many from there on were not.
    pub(super) ready: u32,
    pub(super) undelivered: u32,
    /// What is left of its turn.
    pub(super) turn: u16,
    /// Stands in the ring of the delivery.
    pub(super) in_ring: bool,
    /// Stands in the list of unreported losses. Belongs to the place in the table, not its tenant.
    pub(super) dirty: bool,
    /// The deadline of this place's one entry in the timer heap, `u64::MAX` for none. As above.
    pub(super) armed: u64,
    /// Attachments that take page requests (the iopf reference count of Linux drivers).
    pub(super) takers: u32,
    pub(super) own: Option<Attachment>,
    pub(super) pasids: BTreeMap<u32, Attachment>,
    pub(super) counts: Counts,
    /// The part of `counts.losses` that was told.
    pub(super) told: Losses,
}

impl Device {
    fn vacant() -> Self {
        Self {
            id: DeviceId(0),
            config: DeviceConfig::default(),
            live: false,
            used: 0,
            open: List::EMPTY,
            waiting: List::EMPTY,
            ready: NIL,
            undelivered: 0,
            turn: 0,
            in_ring: false,
            dirty: false,
            armed: u64::MAX,
            takers: 0,
            own: None,
            pasids: BTreeMap::new(),
            counts: Counts::default(),
            told: Losses::default(),
        }
    }

    /// Groups of a row that this device may have delivered.
    pub(super) fn share(&self) -> u16 {
        self.config.share.max(1)
    }

    /// Whether `response` can be said to this device.
    pub(super) fn can_say(&self, response: Response) -> bool {
        response != Response::Failure || self.config.carries_failure
    }

    /// The attachment under `key`.
    pub(super) fn attachment(&self, key: Option<u32>) -> Option<&Attachment> {
        match key {
            None => self.own.as_ref(),
            Some(pasid) => self.pasids.get(&pasid),
        }
    }

    /// The attachment a page request of `pasid` goes to, and whether it is the function's own for
    /// want of one for the PASID. Linux `io-pgfault.c`, `find_fault_handler`.
    #[inline]
    pub(super) fn handler(&self, key: Option<u32>) -> Option<(Attachment, bool)> {
        let (found, by_rid) = match key {
            None => (self.own?, false),
            Some(pasid) => match self.pasids.get(&pasid) {
                Some(found) => (*found, false),
                None if self.config.user_pasid_table => (self.own.filter(|own| own.nested)?, true),
                None => return None,
            },
        };
        found.page_requests.then_some((found, by_rid))
    }

    /// The attachment an unrecoverable fault goes to: that of its PASID, else the function's own.
    pub(super) fn judge(&self, key: Option<u32>) -> Option<(Attachment, bool)> {
        let of_pasid = key.and_then(|pasid| self.pasids.get(&pasid));
        match of_pasid {
            Some(found) if found.unrecoverable => Some((*found, false)),
            _ => {
                let own = self.own.filter(|own| own.unrecoverable)?;
                Some((own, key.is_some()))
            }
        }
    }
}

/// The table of devices.
#[derive(Debug)]
pub(super) struct Devices {
    places: Vec<Device>,
    free: Vec<u32>,
    by_id: HashMap<DeviceId, u32, FxBuildHasher>,
    max: u32,
}

impl Devices {
    pub(super) fn new(max: u32) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            max,
        }
    }

    #[inline]
    pub(super) fn find(&self, id: DeviceId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    #[inline]
    pub(super) fn at(&self, place: u32) -> &Device {
        &self.places[place as usize]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: u32) -> &mut Device {
        &mut self.places[place as usize]
    }

    /// Everybody in the table, those who left included.
    pub(super) fn places(&self) -> core::ops::Range<u32> {
        let len = u32::try_from(self.places.len()).unwrap_or(self.max);
        0..len
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Device> {
        self.places.iter()
    }

    pub(super) fn add(&mut self, id: DeviceId, config: DeviceConfig) -> Result<u32, AddError> {
        if self.by_id.contains_key(&id) {
            return Err(AddError::AlreadyAdded(id));
        }
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = self.places().end;
                if place >= self.max {
                    return Err(AddError::Full(self.max));
                }
                self.places.push(Device::vacant());
                place
            }
        };
        let old = self.at(place);
        let (dirty, armed) = (old.dirty, old.armed);
        *self.at_mut(place) = Device {
            id,
            config,
            live: true,
            dirty,
            armed,
            ..Device::vacant()
        };
        self.by_id.insert(id, place);
        Ok(place)
    }

    /// The device leaves; its place stays taken until [`Devices::release`].
    pub(super) fn forget(&mut self, place: u32) {
        let device = self.at_mut(place);
        device.live = false;
        device.own = None;
        device.pasids = BTreeMap::new();
        device.takers = 0;
        let id = device.id;
        self.by_id.remove(&id);
    }

    /// Frees the place of a device that left, and returns its last counts.
    pub(super) fn release(&mut self, place: u32) -> (Counts, Losses) {
        let device = self.at_mut(place);
        let last = (core::mem::take(&mut device.counts), device.told);
        device.told = Losses::default();
        self.free.push(place);
        last
    }
}

/// The key of an address space in the table of attachments: `None` is the function itself.
pub(super) fn key(strict: bool, pasid: Option<Pasid>) -> Option<u32> {
    match pasid {
        // IOMMU_NO_PASID is 0, so the kernel cannot tell PASID 0 from none.
        Some(p) if !strict && p.get() == 0 => None,
        other => other.map(Pasid::get),
    }
}
