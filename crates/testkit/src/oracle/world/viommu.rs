//! Virtual IOMMUs, by the rules of iommufd's `viommu.c`: as far as page requests go.

use super::errno::{EBUSY, EEXIST, EINVAL, ENOENT};
use super::{Branch, Came, Name, Table, Taken, To, Viommu, World};
use std::collections::BTreeMap;

impl World {
    pub(super) fn viommu(&mut self, name: Name, device: Name, parent: Name) -> Came {
        if self.viommus.contains_key(&name) {
            return Taken;
        }
        if !self.devices.contains_key(&device) {
            return To(ENOENT);
        }
        // Nested tables are of another type, and not found.
        match self.tables.get(&parent) {
            None => return To(ENOENT),
            Some(tables) if tables.on.is_some() => return To(ENOENT),
            Some(tables) if !tables.parent => return To(EINVAL),
            Some(_) => {}
        }
        let viommu = Viommu {
            id: self.ids.take(),
            parent,
            devices: BTreeMap::new(),
        };
        self.viommus.insert(name, viommu);
        To(0)
    }

    pub(super) fn vdevice(&mut self, name: Name, device: Name, number: u32) -> i64 {
        let numbered = |viommu: &Viommu| viommu.devices.contains_key(&device);
        let twice = self.viommus.values().any(numbered);
        let Some(viommu) = self.viommus.get_mut(&name) else {
            return ENOENT;
        };
        if !self.devices.contains_key(&device) {
            return ENOENT;
        }
        if twice || viommu.devices.values().any(|other| *other == number) {
            return EEXIST;
        }
        viommu.devices.insert(device, number);
        self.ids.take();
        0
    }

    pub(super) fn destroy_viommu(&mut self, name: Name) -> i64 {
        let Some(viommu) = self.viommus.get(&name) else {
            return ENOENT;
        };
        let id = viommu.id;
        let this = Some(Table::Viommu(name));
        let built_upon = self.tables.values().any(|tables| tables.on == this);
        if built_upon || !viommu.devices.is_empty() {
            return EBUSY;
        }
        self.viommus.remove(&name);
        self.ids.put(id);
        0
    }

    /// Whether the mock driver finds the function on the virtual IOMMU of the tables, where they have
    /// one. Of PASIDs it does not ask.
    pub(super) fn has_number(&mut self, device: Name, pasid: u32, table: Table) -> bool {
        let Table::Made(table) = table else {
            return true;
        };
        let on = self.tables.get(&table).and_then(|tables| tables.on);
        let Some(Table::Viommu(name)) = on.filter(|_| pasid == 0) else {
            return true;
        };
        let viommu = self.viommus.get(&name);
        let found = viommu.is_some_and(|viommu| viommu.devices.contains_key(&device));
        self.hits.hit_if(!found, Branch::NoNumber);
        found
    }

    /// The virtual IOMMUs that there are.
    pub(in super::super) fn viommus(&self) -> Vec<Name> {
        self.viommus.keys().copied().collect()
    }
}
