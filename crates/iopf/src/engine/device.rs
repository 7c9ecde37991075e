//! Devices on the queue, and what is attached to them.

use super::loss::{Counts, Losses, Verdicts};
use super::slab::{List, NIL, NO_PASID, Slab};
use crate::{Pasid, Response};
use alloc::collections::BTreeSet;
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

/// Where one device stands: what every report and answer touches, in one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct Device {
    pub(super) id: DeviceId,
    /// Slots in use.
    pub(super) used: u32,
    pub(super) credits: u32,
    /// Waiting groups and unrecoverable faults, oldest first.
    pub(super) waiting: List,
    /// The oldest chain of partial pages; the list's tail is in [`Rest`].
    pub(super) open: u32,
    /// The first of `waiting` that was not delivered; nor was any after it.
    pub(super) ready: u32,
    /// Groups of a row that it may have delivered, and what is left of its turn.
    pub(super) share: u16,
    pub(super) turn: u16,
    /// On the queue; a device that left stays here until its last slot is free.
    pub(super) live: bool,
    /// Stands in the ring of the delivery.
    pub(super) in_ring: bool,
    /// Stands in the list of unreported losses. Belongs to the place in the table, not its tenant.
    pub(super) dirty: bool,
    /// Has its one entry in the timer heap. As above.
    pub(super) armed: bool,
    /// The attachment used last, and its key: most devices use one.
    near: Option<(u32, Attachment)>,
    pub(super) reported: u64,
    pub(super) completed: u64,
}

const _: () = assert!(size_of::<Device>() == 64);

/// The rest of a device.
#[derive(Debug)]
pub(super) struct Rest {
    pub(super) config: DeviceConfig,
    open_tail: u32,
    /// Attachments that take page requests (the iopf reference count of Linux drivers).
    pub(super) takers: u32,
    /// Keys of its attachments.
    keys: BTreeSet<u32>,
    pub(super) late: u64,
    pub(super) losses: Losses,
    pub(super) verdicts: Verdicts,
    /// The part of `losses` that was told.
    pub(super) told: Losses,
}

impl Rest {
    fn vacant() -> Self {
        Self {
            config: DeviceConfig::default(),
            open_tail: NIL,
            takers: 0,
            keys: BTreeSet::new(),
            late: 0,
            losses: Losses::default(),
            verdicts: Verdicts::default(),
            told: Losses::default(),
        }
    }

    /// Whether `response` can be said to this device.
    pub(super) fn can_say(&self, response: Response) -> bool {
        response != Response::Failure || self.config.carries_failure
    }
}

impl Device {
    const VACANT: Self = Self {
        id: DeviceId(0),
        used: 0,
        credits: 0,
        waiting: List::EMPTY,
        open: NIL,
        ready: NIL,
        share: 1,
        turn: 0,
        live: false,
        in_ring: false,
        dirty: false,
        armed: false,
        near: None,
        reported: 0,
        completed: 0,
    };
}

/// The table of devices, and their attachments.
#[derive(Debug)]
pub(super) struct Devices {
    places: Vec<Device>,
    rest: Vec<Rest>,
    free: Vec<u32>,
    by_id: HashMap<DeviceId, u32, FxBuildHasher>,
    /// The device looked for last, and its place: faults come in runs.
    near: Option<(DeviceId, u32)>,
    /// By place and key.
    attached: HashMap<u64, Attachment, FxBuildHasher>,
    max: u32,
}

fn both(place: u32, key: u32) -> u64 {
    u64::from(place) << 32 | u64::from(key)
}

impl Devices {
    pub(super) fn new(max: u32) -> Self {
        Self {
            places: Vec::new(),
            rest: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::default(),
            near: None,
            attached: HashMap::default(),
            max,
        }
    }

    #[inline]
    pub(super) fn find(&self, id: DeviceId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    /// [`find`](Self::find), faster for the device it was called with last.
    #[inline]
    pub(super) fn find_again(&mut self, id: DeviceId) -> Option<u32> {
        if let Some((of, place)) = self.near
            && of == id
        {
            return Some(place);
        }
        self.find_anew(id)
    }

    #[inline(never)]
    fn find_anew(&mut self, id: DeviceId) -> Option<u32> {
        let place = self.find(id)?;
        self.near = Some((id, place));
        Some(place)
    }

    #[inline]
    pub(super) fn at(&self, place: u32) -> &Device {
        &self.places[place as usize]
    }

    #[inline]
    pub(super) fn at_mut(&mut self, place: u32) -> &mut Device {
        &mut self.places[place as usize]
    }

    pub(super) fn rest(&self, place: u32) -> &Rest {
        &self.rest[place as usize]
    }

    pub(super) fn rest_mut(&mut self, place: u32) -> &mut Rest {
        &mut self.rest[place as usize]
    }

    /// Everybody in the table, those who left included.
    pub(super) fn places(&self) -> core::ops::Range<u32> {
        let len = u32::try_from(self.places.len()).unwrap_or(self.max);
        0..len
    }

    /// The books of the device at `place`.
    pub(super) fn counts(&self, place: u32) -> Counts {
        let (device, rest) = (self.at(place), self.rest(place));
        Counts {
            reported: device.reported,
            completed: device.completed,
            held: u64::from(device.used),
            late: rest.late,
            losses: rest.losses,
            verdicts: rest.verdicts,
        }
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
                self.places.push(Device::VACANT);
                self.rest.push(Rest::vacant());
                place
            }
        };
        let Device { dirty, armed, .. } = *self.at(place);
        *self.at_mut(place) = Device {
            id,
            credits: config.credits,
            share: config.share.max(1),
            live: true,
            dirty,
            armed,
            ..Device::VACANT
        };
        self.rest_mut(place).config = config;
        self.by_id.insert(id, place);
        Ok(place)
    }

    /// The device leaves; its place stays taken until [`Devices::release`].
    pub(super) fn forget(&mut self, place: u32) {
        let device = self.at_mut(place);
        device.live = false;
        device.near = None;
        let id = device.id;
        self.by_id.remove(&id);
        self.near = None;
        let rest = self.rest_mut(place);
        rest.takers = 0;
        for key in core::mem::take(&mut rest.keys) {
            self.attached.remove(&both(place, key));
        }
    }

    /// Frees the place of a device that left, and returns its last counts, and what was told.
    pub(super) fn release(&mut self, place: u32) -> (Counts, Losses) {
        let counts = self.counts(place);
        let device = self.at_mut(place);
        (device.reported, device.completed) = (0, 0);
        let rest = core::mem::replace(self.rest_mut(place), Rest::vacant());
        self.free.push(place);
        (counts, rest.told)
    }

    /// Puts the chain that starts at `index` at the end of the device's chains.
    pub(super) fn open(&mut self, slab: &mut Slab, place: u32, index: u32) {
        let mut list = self.chains(place);
        list.push(slab, index);
        self.set_chains(place, list);
    }

    /// Takes the chain that starts at `index` out of the device's chains.
    pub(super) fn unopen(&mut self, slab: &mut Slab, place: u32, index: u32) {
        let mut list = self.chains(place);
        list.unlink(slab, index);
        self.set_chains(place, list);
    }

    fn chains(&self, place: u32) -> List {
        List {
            head: self.at(place).open,
            tail: self.rest(place).open_tail,
        }
    }

    fn set_chains(&mut self, place: u32, list: List) {
        self.at_mut(place).open = list.head;
        self.rest_mut(place).open_tail = list.tail;
    }

    /// The attachment under `key`.
    #[inline]
    pub(super) fn attachment(&self, place: u32, key: u32) -> Option<Attachment> {
        self.attached.get(&both(place, key)).copied()
    }

    /// How many PASIDs have attachments.
    pub(super) fn pasids(&self, place: u32) -> usize {
        let keys = &self.rest(place).keys;
        keys.len() - usize::from(keys.contains(&NO_PASID))
    }

    /// Puts an attachment under `key`, or none.
    pub(super) fn set(&mut self, place: u32, key: u32, attachment: Option<Attachment>) {
        self.at_mut(place).near = None;
        let old = match attachment {
            Some(new) => self.attached.insert(both(place, key), new),
            None => self.attached.remove(&both(place, key)),
        };
        let rest = self.rest_mut(place);
        rest.takers += u32::from(attachment.is_some_and(|new| new.page_requests));
        rest.takers -= u32::from(old.is_some_and(|old| old.page_requests));
        if attachment.is_some() {
            rest.keys.insert(key);
        } else {
            rest.keys.remove(&key);
        }
    }

    /// The attachment a page request goes to, and whether it is the function's own for want of one
    /// for the PASID. Linux `io-pgfault.c`, `find_fault_handler`.
    #[inline]
    pub(super) fn handler(&mut self, place: u32, key: u32) -> Option<(Attachment, bool)> {
        if let Some((of, near)) = self.at(place).near
            && of == key
        {
            return Some((near, false));
        }
        self.handler_anew(place, key)
    }

    #[inline(never)]
    fn handler_anew(&mut self, place: u32, key: u32) -> Option<(Attachment, bool)> {
        let (found, by_rid) = match self.attachment(place, key) {
            Some(found) => {
                if found.page_requests {
                    self.at_mut(place).near = Some((key, found));
                }
                (found, false)
            }
            None if key != NO_PASID && self.rest(place).config.user_pasid_table => {
                let own = self.attachment(place, NO_PASID);
                (own.filter(|own| own.nested)?, true)
            }
            None => return None,
        };
        found.page_requests.then_some((found, by_rid))
    }

    /// The attachment an unrecoverable fault goes to: that of its PASID, else the function's own.
    pub(super) fn judge(&self, place: u32, key: u32) -> Option<(Attachment, bool)> {
        if let Some(found) = self.attachment(place, key)
            && found.unrecoverable
        {
            return Some((found, false));
        }
        let own = self.attachment(place, NO_PASID);
        let own = own.filter(|own| own.unrecoverable)?;
        Some((own, key != NO_PASID))
    }
}

/// The key of an address space among the attachments of a device; [`NO_PASID`] is the function.
pub(super) fn key(strict: bool, pasid: Option<Pasid>) -> u32 {
    match pasid.map_or(NO_PASID, Pasid::get) {
        // IOMMU_NO_PASID is 0, so the kernel cannot tell PASID 0 from none.
        0 if !strict => NO_PASID,
        key => key,
    }
}
