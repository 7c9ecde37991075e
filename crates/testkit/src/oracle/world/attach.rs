//! Attach, replace and detach, by the rules of iommufd's `device.c`.

use super::errno::{EBUSY, EINVAL, ENOENT};
use super::{Attached, Branch, Device, NOW, Name, Partial, Table, World, device, space};
use iopf::engine::{Attachment, DomainId};

/// How an attachment ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Detach,
    Replace,
    /// Everything was closed.
    Close,
}

impl World {
    /// Whether tables may be attached with PASIDs around (`IOMMU_HWPT_ALLOC_PASID`).
    fn for_pasids(&self, table: Table) -> bool {
        match table {
            Table::Ioas | Table::Viommu(_) => false,
            Table::Made(name) => self.tables.get(&name).is_some_and(|tables| tables.pasids),
        }
    }

    /// The fault queue of tables, and whether they are nested.
    fn queue_of(&self, table: Table) -> (Option<Name>, bool) {
        let made = match table {
            Table::Ioas | Table::Viommu(_) => None,
            Table::Made(name) => self.tables.get(&name),
        };
        made.map_or((None, false), |tables| (tables.queue, tables.on.is_some()))
    }

    pub(super) fn is_served(&self, attached: &Attached) -> bool {
        self.queue_of(attached.table).0.is_some()
    }

    pub(super) fn is_nested(&self, attached: &Attached) -> bool {
        self.queue_of(attached.table).1
    }

    /// What `iommufd_test_pasid_attach` and `_replace` look up first.
    fn found(&self, name: Name, table: Table) -> bool {
        let made = match table {
            Table::Ioas => true,
            Table::Made(table) => self.tables.contains_key(&table),
            Table::Viommu(name) => self.viommus.contains_key(&name),
        };
        self.devices.contains_key(&name) && made
    }

    /// `iommufd_hwpt_pasid_compat`.
    fn compatible(&mut self, name: Name, pasid: u32, table: Table) -> bool {
        let compatible = self.for_pasids(table);
        let Some(device) = self.devices.get(&name) else {
            return false;
        };
        if pasid == 0 {
            let others = device.attached.keys().any(|pasid| *pasid != 0);
            self.hits
                .hit_if(others && !compatible, Branch::FunctionKeepsPasids);
            return compatible || !others;
        }
        let own = device.attached.get(&0).map(|attached| attached.table);
        let own = own.is_none_or(|table| self.for_pasids(table));
        self.hits.hit_if(!compatible, Branch::PasidNotCompatible);
        self.hits
            .hit_if(compatible && !own, Branch::FunctionNotCompatible);
        compatible && own
    }

    pub(super) fn attach(&mut self, name: Name, pasid: u32, table: Table) -> i64 {
        if !self.found(name, table) {
            self.hits.hit(Branch::NoSuchTables);
            return ENOENT;
        }
        if matches!(table, Table::Viommu(_)) {
            return EINVAL;
        }
        let device = &self.devices[&name];
        let (twice, pasids) = (device.attached.contains_key(&pasid), device.pasids);
        if twice {
            self.hits.hit(Branch::AttachTwice);
            return EBUSY;
        }
        if !self.compatible(name, pasid, table) {
            return EINVAL;
        }
        if pasid != 0 && !pasids {
            self.hits.hit(Branch::DeviceWithoutPasids);
            return EINVAL;
        }
        if !self.has_number(name, pasid, table) {
            return ENOENT;
        }
        self.begin(name, pasid, table);
        0
    }

    pub(super) fn replace(&mut self, name: Name, pasid: u32, table: Table) -> i64 {
        if !self.found(name, table) {
            self.hits.hit(Branch::NoSuchTables);
            return ENOENT;
        }
        if matches!(table, Table::Viommu(_)) {
            return EINVAL;
        }
        let Some(old) = self.devices[&name].attached.get(&pasid).copied() else {
            self.hits.hit(Branch::ReplaceNothing);
            return EINVAL;
        };
        if old.table == table {
            let held = self.held(&old);
            self.hits.hit_if(held > 0, Branch::ReplaceSame);
            return 0;
        }
        if !self.compatible(name, pasid, table) {
            return EINVAL;
        }
        if !self.has_number(name, pasid, table) {
            return ENOENT;
        }
        self.begin(name, pasid, table);
        0
    }

    pub(super) fn detach(&mut self, name: Name, pasid: u32) -> i64 {
        if !self.devices.contains_key(&name) {
            return ENOENT;
        }
        // Nothing attached is no error.
        self.end(name, pasid, false);
        0
    }

    /// Groups held in the queue of an attachment.
    fn held(&self, attached: &Attached) -> usize {
        let queue = self.queue_of(attached.table).0;
        let queue = queue.and_then(|name| self.queues.get(&name));
        queue.map_or(0, |queue| {
            let (unread, unanswered) = queue.forward.held();
            unread + unanswered
        })
    }

    fn takers(&self, name: Name) -> usize {
        let attached = self
            .devices
            .get(&name)
            .map(|device: &Device| &device.attached);
        let all = attached.into_iter().flat_map(|all| all.values());
        all.filter(|attached| self.is_served(attached)).count()
    }

    /// Attaches tables, in the place of others where there are any.
    fn begin(&mut self, name: Name, pasid: u32, table: Table) {
        let before = self.takers(name);
        let (queue, nested) = self.queue_of(table);
        let domain = DomainId(self.domains);
        self.domains += 1;
        if let Some(queue) = queue {
            self.served.insert(domain, queue);
        }
        if table == Table::Ioas && self.auto.is_none() {
            self.auto = Some(self.ids.take());
        }
        let Some(of) = self.devices.get_mut(&name) else {
            return;
        };
        let old = of.attached.insert(pasid, Attached { domain, table });
        let attachment = Attachment {
            domain,
            nested,
            page_requests: queue.is_some(),
            unrecoverable: false,
        };
        let (id, space) = (device(name), space(pasid));
        // Both succeed: the device is there, and whether it is attached is known.
        let discarded = if old.is_some() {
            let replaced = self.engine.replace(NOW, id, space, attachment);
            replaced.map_or(0, |detached| detached.discarded)
        } else {
            let _ = self.engine.attach(id, space, attachment);
            0
        };
        let took = usize::from(old.is_some_and(|old| self.is_served(&old)));
        self.hits
            .hit_if(queue.is_some() && before == 0, Branch::FirstTaker);
        self.hits
            .hit_if(queue.is_some() && before > took, Branch::SecondTaker);
        if let Some(old) = old {
            self.after(name, &old, discarded, End::Replace);
        }
        self.drop_auto();
    }

    /// Detaches what is there.
    pub(super) fn end(&mut self, name: Name, pasid: u32, at_end: bool) {
        let of = self.devices.get_mut(&name);
        let Some(old) = of.and_then(|of| of.attached.remove(&pasid)) else {
            return;
        };
        let detached = self.engine.detach(NOW, device(name), space(pasid));
        let discarded = detached.map_or(0, |detached| detached.discarded);
        let how = if at_end { End::Close } else { End::Detach };
        self.after(name, &old, discarded, how);
        self.drop_auto();
    }

    /// The kernel's own tables for the I/O address space go with their last user.
    fn drop_auto(&mut self) {
        let mut all = self
            .devices
            .values()
            .flat_map(|device| device.attached.values());
        if !all.any(|attached| attached.table == Table::Ioas)
            && let Some(id) = self.auto.take()
        {
            self.ids.put(id);
        }
    }

    /// An attachment is gone, as the driver knows by now: `iommufd_auto_response_faults`.
    fn after(&mut self, name: Name, old: &Attached, discarded: u64, how: End) {
        self.ended.insert(old.domain, how == End::Replace);
        if discarded > 0 {
            self.partials.retain(|page: &Partial| page.device != name);
        }
        self.hits.hit_if(discarded > 0, Branch::StaleDropped);
        let Some(on) = self.queue_of(old.table).0 else {
            return;
        };
        let left = self.takers(name);
        self.hits.hit(if left == 0 {
            Branch::LastTaker
        } else {
            Branch::NotLastTaker
        });
        let Some(queue) = self.queues.get_mut(&on) else {
            return;
        };
        let (unread, unanswered) = queue.forward.held();
        let cookies: Vec<u32> = queue.forward.unanswered().collect();
        let denied = queue
            .forward
            .detached(NOW, &mut self.engine, device(name), old.domain);
        let (unread_left, unanswered_left) = queue.forward.held();
        let still: Vec<u32> = queue.forward.unanswered().collect();
        let gone = cookies.into_iter().filter(|cookie| !still.contains(cookie));
        queue.dead.extend(gone);
        let without_reader = !queue.open;
        let hits = &mut self.hits;
        let (unread, unanswered) = (unread - unread_left, unanswered - unanswered_left);
        hits.hit_if(unread > 0, Branch::DenyUnread);
        hits.hit_if(unanswered > 0, Branch::DenyRead);
        hits.hit_if(unread > 0 && unanswered > 0, Branch::DenyUnreadFirst);
        hits.hit_if(
            denied > 0 && unread_left + unanswered_left > 0,
            Branch::DenyNot,
        );
        hits.hit_if(denied > 0 && how == End::Replace, Branch::ReplaceDenies);
        hits.hit_if(denied > 0 && how == End::Close, Branch::EndDenies);
        hits.hit_if(denied > 0 && left == 0, Branch::DequeuedSpared);
        hits.hit_if(
            denied > 0 && without_reader && how != End::Close,
            Branch::DenyWithoutReader,
        );
    }
}
