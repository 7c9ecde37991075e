//! Objects of iommufd that come and go.

use super::errno::{E2BIG, EBADF, EBUSY, EINVAL, EMFILE, ENOENT, EOPNOTSUPP};
use super::{Branch, Came, Device, NOW, Name, Queue, Table, Tables, Taken, To, World, device};
use crate::oracle::step::{NEST_PARENT, PASID, Wrong};
use iopf::engine::DeviceConfig;
use iopf::resolve::Forward;
use std::collections::{BTreeMap, BTreeSet};

/// Object IDs: the lowest that is free, from 1 on.
#[derive(Debug, Default)]
pub(super) struct Ids(BTreeSet<u32>);

impl Ids {
    pub(super) fn take(&mut self) -> u32 {
        let mut id = 1;
        while !self.0.insert(id) {
            id += 1;
        }
        id
    }

    pub(super) fn put(&mut self, id: u32) {
        self.0.remove(&id);
    }
}

impl World {
    pub(super) fn open(&mut self) -> Came {
        if self.open || self.queues.values().any(|queue| queue.open) {
            return Taken;
        }
        self.open = true;
        self.ids = Ids::default();
        // The I/O address space.
        self.ids.take();
        To(0)
    }

    pub(super) fn device(&mut self, name: Name, pasids: bool) -> Came {
        if self.devices.contains_key(&name) {
            return Taken;
        }
        let config = DeviceConfig {
            user_pasid_table: true,
            ..DeviceConfig::default()
        };
        if self.engine.add_device(device(name), config).is_err() {
            // No policy here has a limit that a script comes near.
            return To(EBUSY);
        }
        let (id, other) = (self.ids.take(), self.ids.take());
        self.devices.insert(
            name,
            Device {
                id,
                other,
                pasids,
                attached: BTreeMap::new(),
            },
        );
        To(self.attach(name, 0, Table::Ioas))
    }

    pub(super) fn fault(&mut self, name: Name) -> Came {
        if self.queues.contains_key(&name) {
            return Taken;
        }
        let queue = Queue {
            id: self.ids.take(),
            forward: Forward::new(self.engine.policy()),
            open: true,
            woken: false,
            restored: false,
            highest: 0,
            dead: BTreeSet::new(),
            spared: BTreeSet::new(),
            failed: false,
        };
        self.queues.insert(name, queue);
        To(0)
    }

    pub(super) fn fault_wrong(&mut self, wrong: Wrong) -> i64 {
        let (branch, errno) = match wrong {
            Wrong::Files => (Branch::AllocFiles, EMFILE),
            Wrong::Flags => (Branch::AllocFlags, EOPNOTSUPP),
            Wrong::Short => (Branch::AllocShort, EINVAL),
            Wrong::Long => (Branch::AllocLong, E2BIG),
        };
        self.hits.hit(branch);
        errno
    }

    /// `iommufd_hwpt_alloc`.
    pub(super) fn hwpt(
        &mut self,
        name: Name,
        of: Name,
        base: Table,
        flags: u32,
        queue: Option<Name>,
    ) -> Came {
        if self.tables.contains_key(&name) {
            return Taken;
        }
        if !self.devices.contains_key(&of) {
            return To(ENOENT);
        }
        let parent = flags & NEST_PARENT != 0;
        let on = match base {
            Table::Ioas => {
                if parent && queue.is_some() {
                    self.hits.hit(Branch::TablesParent);
                    return To(EOPNOTSUPP);
                }
                None
            }
            Table::Made(base) => {
                let Some(tables) = self.tables.get(&base) else {
                    return To(EINVAL);
                };
                // Nested on nested is refused before the flags are looked at.
                if tables.on.is_none() && parent {
                    return To(EOPNOTSUPP);
                }
                if !tables.parent {
                    self.hits.hit(Branch::TablesNoParent);
                    return To(EINVAL);
                }
                Some(Table::Made(base))
            }
            Table::Viommu(base) => {
                if !self.viommus.contains_key(&base) {
                    return To(EINVAL);
                }
                if parent {
                    return To(EOPNOTSUPP);
                }
                Some(Table::Viommu(base))
            }
        };
        if let Some(queue) = queue {
            if !self.queues.contains_key(&queue) {
                self.hits.hit(Branch::TablesNoQueue);
                return To(ENOENT);
            }
            self.hits.hit(match (on, flags & PASID != 0) {
                (Some(Table::Viommu(_)), _) => Branch::TablesViommu,
                (Some(_), _) => Branch::TablesNested,
                (None, true) => Branch::TablesPasid,
                (None, false) => Branch::TablesPaging,
            });
            let others = self.tables.values();
            let shared = others.filter(|other| other.queue == Some(queue)).count() > 0;
            self.hits.hit_if(shared, Branch::QueueOfMany);
        }
        let tables = Tables {
            id: self.ids.take(),
            pasids: flags & PASID != 0,
            parent,
            on,
            queue,
        };
        self.tables.insert(name, tables);
        To(0)
    }

    pub(super) fn destroy_device(&mut self, name: Name) -> i64 {
        if !self.devices.contains_key(&name) {
            return ENOENT;
        }
        self.detach_pasids(name);
        self.end_device(name, false);
        0
    }

    /// A device without PASIDs attached goes.
    fn end_device(&mut self, name: Name, at_end: bool) {
        self.end(name, 0, at_end);
        if let Some(gone) = self.devices.remove(&name) {
            self.ids.put(gone.id);
            self.ids.put(gone.other);
        }
        // The ID of its number on a virtual IOMMU stays taken: iommufd leaves a tombstone.
        for viommu in self.viommus.values_mut() {
            viommu.devices.remove(&name);
        }
        // It is there as long as it has a name.
        let _ = self.engine.remove_device(NOW, device(name));
        self.partials.retain(|page| page.device != name);
    }

    pub(super) fn destroy_fault(&mut self, name: Name) -> i64 {
        let Some(queue) = self.queues.get(&name) else {
            return ENOENT;
        };
        let used = self
            .tables
            .values()
            .any(|tables| tables.queue == Some(name));
        self.hits.hit_if(queue.open, Branch::FaultBusyOpen);
        self.hits
            .hit_if(!queue.open && used, Branch::FaultBusyTables);
        if queue.open || used {
            return EBUSY;
        }
        self.hits.hit(Branch::FaultDestroyed);
        if let Some(mut queue) = self.queues.remove(&name) {
            queue.forward.destroyed(NOW, &mut self.engine);
            self.ids.put(queue.id);
        }
        0
    }

    pub(super) fn destroy_tables(&mut self, name: Name) -> i64 {
        let Some(tables) = self.tables.get(&name) else {
            return ENOENT;
        };
        let id = tables.id;
        let attached = |device: &Device| {
            let mut all = device.attached.values();
            all.any(|attached| attached.table == Table::Made(name))
        };
        let this = Some(Table::Made(name));
        let built_upon = self.tables.values().any(|other| other.on == this)
            || self.viommus.values().any(|other| other.parent == name);
        if built_upon || self.devices.values().any(attached) {
            self.hits.hit(Branch::TableBusy);
            return EBUSY;
        }
        self.hits.hit(Branch::TableDestroyed);
        self.tables.remove(&name);
        self.ids.put(id);
        0
    }

    fn detach_pasids(&mut self, name: Name) {
        let attached = self.devices.get(&name).map(|device| &device.attached);
        let pasids: Vec<u32> = attached
            .into_iter()
            .flat_map(|all| all.keys().copied())
            .collect();
        for pasid in pasids.into_iter().filter(|pasid| *pasid != 0) {
            self.end(name, pasid, false);
        }
    }

    pub(super) fn shut(&mut self) -> i64 {
        let names: Vec<Name> = self.devices.keys().copied().collect();
        for name in names {
            self.detach_pasids(name);
        }
        self.open = false;
        self.end_of_all();
        0
    }

    pub(super) fn close(&mut self, name: Name) -> i64 {
        let Some(queue) = self.queues.get_mut(&name).filter(|queue| queue.open) else {
            return EBADF;
        };
        queue.open = false;
        let (unread, unanswered) = queue.forward.held();
        let others = self.open || self.queues.values().any(|queue| queue.open);
        let stay = others && unread + unanswered > 0;
        self.hits.hit_if(stay, Branch::CloseAnswersNothing);
        self.end_of_all();
        0
    }

    /// With the last descriptor everything goes: `iommufd_fops_release`. Devices go before what they
    /// are attached to, in the order of their object IDs.
    fn end_of_all(&mut self) {
        if self.open || self.queues.values().any(|queue| queue.open) {
            return;
        }
        let mut devices: Vec<(u32, Name)> = self
            .devices
            .iter()
            .map(|(name, device)| (device.id, *name))
            .collect();
        devices.sort_unstable();
        for (_, name) in devices {
            self.end_device(name, true);
        }
        self.tables.clear();
        self.viommus.clear();
        self.queues.clear();
        self.auto = None;
    }
}
