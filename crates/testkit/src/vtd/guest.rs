//! The driver: bring-up, attaching and detaching devices, and the flushes that go with them.
//!
//! After Linux `drivers/iommu/intel/` (`dmar.c`, `iommu.c`, `pasid.c`, `prq.c`).

use super::faults::{self, Seen};
use super::numbers::{
    CAP, CTX_DTE, CTX_PASIDE, CTX_PRE, Descriptor, ECAP, FEADDR, FECTL, FEDATA, FEUADDR, FSTS,
    FSTS_PRO, GCMD, GSTS, PE_NXE, PE_WPE, PEADDR, PECTL, PEDATA, PEUADDR, PFO, PRO, PRS, QIE,
    RTADDR, RTADDR_SMT, SRTP, TE, context_device, context_global, devtlb_pages, devtlb_pasid_pages,
    iotlb_domain, iotlb_global, iotlb_pages, pasid_cache, pasid_cache_global, piotlb_all,
    piotlb_pages,
};
use super::prq::{self, PrqRing};
use super::queue::Queue;
use super::tables::{
    PasidEntry, PasidTable, RootTable, first_stage, legacy_context, scalable_context,
};
use crate::driver::{Driver, EVERYTHING, GuestError, Kernel, QueueError, lock};
use crate::fault_log::FaultLog;
use crate::irq::Interrupts;
use crate::mm::Mm;
use crate::mmio::Mmio;
use crate::page_groups::PageRequestStats;
use crate::paging::PageTable;
use crate::ram::Ram;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use viommu_api::Registers;

/// How a guest is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Scalable mode rather than legacy.
    pub scalable: bool,
    /// The page request queue has `4096 << prq_order` bytes; Linux takes 4. 0–7.
    pub prq_order: u8,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            scalable: true,
            prq_order: 4,
        }
    }
}

#[derive(Debug)]
struct Probed {
    ats: bool,
    pasids: PasidTable,
}

/// The domain of first-stage and pass-through entries, as Linux's `FLPT_DEFAULT_DID`.
const SVA_DOMAIN: u16 = 1;
/// Vectors of the two interrupts.
const FAULT_VECTOR: u32 = 48;
const PAGE_VECTOR: u32 = 49;

/// A guest kernel with VT-d under it.
pub struct Guest {
    mmio: Mmio,
    kernel: Kernel<Seen>,
    scalable: bool,
    root: RootTable,
    queue: Mutex<Queue>,
    prq: Mutex<Option<PrqRing>>,
    devices: Mutex<BTreeMap<Rid, Probed>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

impl Guest {
    /// Brings the IOMMU up: invalidation queue, root table, global flushes, interrupts, page
    /// request queue, translation.
    ///
    /// # Errors
    /// When the IOMMU lacks what `setup` asks for or does not come up, or memory runs out.
    pub fn boot(
        regs: Arc<dyn Registers>,
        ram: Arc<Ram>,
        irqs: Arc<Interrupts>,
        setup: Setup,
    ) -> Result<Self, GuestError> {
        let mmio = Mmio(regs);
        let ecap = mmio.read64(ECAP);
        if ecap >> 1 & 1 == 0 {
            return Err(GuestError::Unsupported("queued invalidation"));
        }
        let smts = ecap >> 43 & 1 != 0;
        if setup.scalable && !smts {
            return Err(GuestError::Unsupported("scalable mode"));
        }
        if mmio.read32(GSTS) & TE != 0 {
            mmio.write32(GCMD, 0);
        }
        // The width of descriptors follows the capability, not the mode, as in Linux.
        let queue = Queue::new(&mmio, &ram, smts)?;
        let root = RootTable::new(&ram, setup.scalable)?;
        let guest = Self {
            mmio,
            kernel: Kernel::new(ram, irqs),
            scalable: setup.scalable,
            root,
            queue: Mutex::new(queue),
            prq: Mutex::new(None),
            devices: Mutex::new(BTreeMap::new()),
        };
        faults::handle(&guest.mmio, &mut FaultLog::default());
        guest.command(QIE, 0, "QIES")?;
        let mode = if setup.scalable { RTADDR_SMT } else { 0 };
        guest.mmio.write64(RTADDR, guest.root.base().0 | mode);
        guest.command(SRTP, QIE, "RTPS")?;
        guest.flush_everything()?;
        guest.route(FEADDR, FEUADDR, FEDATA, FECTL, FAULT_VECTOR);
        if setup.scalable && ecap >> 29 & 1 != 0 {
            let ring = PrqRing::new(&guest.mmio, &guest.kernel.ram, setup.prq_order)?;
            *guest.prq() = Some(ring);
            guest.route(PEADDR, PEUADDR, PEDATA, PECTL, PAGE_VECTOR);
        }
        guest.command(TE, QIE, "TES")?;
        Ok(guest)
    }

    /// Sets one command bit, with those that stay set, and waits for its status.
    fn command(&self, bit: u32, keep: u32, name: &'static str) -> Result<(), GuestError> {
        self.mmio.write32(GCMD, bit | keep);
        for _ in 0..100_000 {
            if self.mmio.read32(GSTS) & bit != 0 {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(GuestError::Malfunction(name))
    }

    fn route(&self, addr: u64, upper: u64, data: u64, control: u64, vector: u32) {
        self.mmio.write32(addr, 0xfee0_0000);
        self.mmio.write32(upper, 0);
        self.mmio.write32(data, vector);
        self.mmio.write32(control, 0);
    }

    /// Writes the root table register and makes it count. Flushing is the caller's part.
    ///
    /// # Errors
    /// When the IOMMU does not take note.
    pub fn set_root(&self, value: u64) -> Result<(), GuestError> {
        self.mmio.write64(RTADDR, value);
        self.command(SRTP, QIE | TE, "RTPS")
    }

    /// Queues descriptors and waits for them.
    ///
    /// # Errors
    /// When the queue reports one, or never gets to the end.
    pub fn submit(&self, descriptors: &[Descriptor]) -> Result<(), QueueError> {
        lock(&self.queue).submit(&self.mmio, &self.kernel.ram, descriptors, false)
    }

    /// The root table, for those who want to spoil it.
    #[must_use]
    pub fn root(&self) -> &RootTable {
        &self.root
    }

    pub(crate) fn mmio(&self) -> &Mmio {
        &self.mmio
    }

    pub(crate) fn prq(&self) -> MutexGuard<'_, Option<PrqRing>> {
        lock(&self.prq)
    }

    /// Legacy mode: gives a device a second-stage domain. `translation` as in
    /// [`legacy_context`]; the width follows the table's levels.
    ///
    /// # Errors
    /// Without memory or when the queue fails.
    pub fn attach(
        &self,
        rid: Rid,
        translation: u64,
        table: &PageTable,
        did: u16,
    ) -> Result<(), GuestError> {
        let width = u64::from(table.levels().saturating_sub(2));
        let entry = legacy_context(translation, table.root(), width, did);
        self.set_context(rid, &entry, did)
    }

    /// Stores a context entry and flushes what may be cached of the one before.
    ///
    /// # Errors
    /// Without memory or when the queue fails.
    pub fn set_context(&self, rid: Rid, words: &[u64], did: u16) -> Result<(), GuestError> {
        let slot = self.root.context_slot(rid)?;
        self.root.set(slot, words);
        self.flush_context(rid, did)
    }

    /// Flushes the context entry of a device and what hangs from it.
    ///
    /// # Errors
    /// When the queue fails.
    pub fn flush_context(&self, rid: Rid, did: u16) -> Result<(), GuestError> {
        let mut all = vec![context_device(did, rid.pci())];
        if self.scalable {
            all.push(pasid_cache_global());
            all.push(iotlb_global());
        } else {
            all.push(iotlb_domain(did));
        }
        Ok(self.submit(&all)?)
    }

    /// Scalable mode: gives a device a PASID directory of `2^(size + 7)` entries and turns on its
    /// PASIDs, and with `ats` its device TLB and page requests.
    ///
    /// # Errors
    /// Without memory or when the queue fails.
    pub fn probe(&self, rid: Rid, ats: bool, size: u64) -> Result<(), GuestError> {
        let pasids = PasidTable::new(&self.kernel.ram, size)?;
        let services = if ats { CTX_DTE | CTX_PRE } else { 0 };
        let entry = scalable_context(pasids.base(), size, CTX_PASIDE | services);
        lock(&self.devices).insert(rid, Probed { ats, pasids });
        self.set_context(rid, &entry, 0)
    }

    /// Where the PASID directory of a probed device lies, with its size as in a context entry.
    #[must_use]
    pub fn directory(&self, rid: Rid) -> Option<(Gpa, u64)> {
        let devices = lock(&self.devices);
        let probed = devices.get(&rid)?;
        Some((probed.pasids.base(), probed.pasids.size()))
    }

    /// Where the directory entry and the table entry for a PASID lie.
    ///
    /// # Errors
    /// When the device was not probed, or without memory.
    pub fn pasid_slots(&self, rid: Rid, pasid: Pasid) -> Result<(Gpa, Gpa), GuestError> {
        let devices = lock(&self.devices);
        let probed = devices.get(&rid).ok_or(GuestError::NotAttached(rid))?;
        let slot = probed.pasids.slot(pasid)?;
        Ok((probed.pasids.directory_slot(pasid), slot))
    }

    /// Stores a PASID entry where none was; PASID 0 serves requests without one.
    ///
    /// # Errors
    /// When the device was not probed, without memory, or when the queue fails.
    pub fn set_pasid(&self, rid: Rid, pasid: Pasid, entry: &PasidEntry) -> Result<(), GuestError> {
        let (_, slot) = self.pasid_slots(rid, pasid)?;
        super::tables::store_entry(&self.kernel.ram, slot, entry);
        // Only caching mode remembers that nothing was there.
        if self.mmio.read64(CAP) >> 7 & 1 != 0 {
            self.flush_pasid(rid, pasid)?;
        }
        Ok(())
    }

    fn has_ats(&self, rid: Rid) -> bool {
        lock(&self.devices).get(&rid).is_some_and(|p| p.ats)
    }

    /// Legacy mode: clears one 4 KiB leaf of a domain, and flushes it in the IOTLB and in the
    /// device TLB of `devices`.
    ///
    /// # Errors
    /// When the queue fails.
    pub fn unmap_page(
        &self,
        table: &PageTable,
        did: u16,
        devices: &[Rid],
        at: Iova,
    ) -> Result<u64, GuestError> {
        let raw = table.unmap(at);
        let mut all = vec![iotlb_pages(did, at.0, 0)];
        all.extend(devices.iter().map(|rid| devtlb_pages(rid.pci(), at.0, 0)));
        self.submit(&all)?;
        Ok(raw)
    }

    /// The fault status register as it stands.
    #[must_use]
    pub fn fault_status(&self) -> u32 {
        self.mmio.read32(FSTS)
    }

    /// The page request status register as it stands.
    #[must_use]
    pub fn page_request_status(&self) -> u32 {
        self.mmio.read32(PRS)
    }
}

impl Driver for Guest {
    type Seen = Seen;

    fn kernel(&self) -> &Kernel<Seen> {
        &self.kernel
    }

    /// Flushes the context cache, the PASID cache and the IOTLB, in this order.
    fn flush_everything(&self) -> Result<(), GuestError> {
        let mut all = vec![context_global()];
        if self.scalable {
            all.push(pasid_cache_global());
        }
        all.push(iotlb_global());
        Ok(self.submit(&all)?)
    }

    fn probe_sva(&self, rid: Rid) -> Result<(), GuestError> {
        self.probe(rid, true, 0)
    }

    fn set_mm(&self, rid: Rid, mm: &Mm) -> Result<(), GuestError> {
        let table = mm.table();
        let entry = first_stage(table.root(), table.levels(), SVA_DOMAIN, PE_NXE | PE_WPE);
        self.set_pasid(rid, mm.pasid(), &entry)
    }

    /// Takes a PASID away from a device, as `intel_pasid_tear_down_entry()` does: present bit,
    /// flushes, the rest of the entry, and a drain of its page requests.
    fn clear_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        let (_, slot) = self.pasid_slots(rid, pasid)?;
        let first = self.kernel.ram.load(slot);
        self.kernel.ram.store(slot, first & !1);
        self.flush_pasid(rid, pasid)?;
        super::tables::store_entry(&self.kernel.ram, slot, &[0; 8]);
        self.drain(rid, pasid)
    }

    /// Waits until no page request of the PASID is left, as `intel_iommu_drain_pasid_prq()` does.
    fn drain(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        let named = (pasid.get() != 0).then_some(pasid);
        for _ in 0..1000 {
            let held = match self.prq().as_ref() {
                Some(ring) => ring.holds(&self.mmio, &self.kernel.ram, rid, named),
                None => false,
            };
            if held {
                self.handle_page_requests();
                continue;
            }
            let mut all = vec![[0x5 | 1 << 6, 0, 0, 0]];
            all.push(piotlb_all(SVA_DOMAIN, pasid.get()));
            if self.has_ats(rid) {
                all.push(devtlb(rid, pasid, 0, EVERYTHING));
            }
            lock(&self.queue).submit(&self.mmio, &self.kernel.ram, &all, true)?;
            if self.mmio.read32(PRS) & PRO == 0 {
                return Ok(());
            }
            self.handle_page_requests();
        }
        Err(GuestError::Malfunction("an empty page request queue"))
    }

    fn flush_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        let (_, slot) = self.pasid_slots(rid, pasid)?;
        let did = self.kernel.ram.load(Gpa(slot.0 + 8)).to_le_bytes();
        let did = u16::from_le_bytes([did[0], did[1]]);
        let kind = self.kernel.ram.load(slot) >> 6 & 7;
        let mut all = vec![pasid_cache(did, pasid.get())];
        if kind == 1 || kind == 4 {
            all.push(piotlb_all(did, pasid.get()));
        } else {
            all.push(iotlb_domain(did));
        }
        if self.has_ats(rid) {
            all.push(devtlb(rid, pasid, 0, EVERYTHING));
        }
        Ok(self.submit(&all)?)
    }

    fn flush_pages(&self, mm: &Mm, at: Iova, order: u8) -> Result<(), GuestError> {
        let pasid = mm.pasid();
        let base = at.0 & !((4096u64 << order.min(EVERYTHING - 1)) - 1);
        let mut all = vec![piotlb_pages(SVA_DOMAIN, pasid.get(), base, order)];
        for rid in self.kernel.bindings.devices(pasid) {
            if self.has_ats(rid) {
                all.push(devtlb(rid, pasid, base, order));
            }
        }
        Ok(self.submit(&all)?)
    }

    fn answer_page_group(
        &self,
        rid: Rid,
        pasid: Option<Pasid>,
        index: GroupIndex,
        response: Response,
    ) -> Result<(), GuestError> {
        Ok(self.submit(&[prq::response(rid, pasid, index, response)])?)
    }

    fn handle(&self, vectors: u64) {
        if vectors & 1 << FAULT_VECTOR != 0 {
            faults::handle(&self.mmio, &mut self.kernel.faults());
        }
        if vectors & 1 << PAGE_VECTOR != 0 {
            self.handle_page_requests();
        }
    }

    fn poll_faults(&self) -> FaultLog<Seen> {
        faults::handle(&self.mmio, &mut self.kernel.faults());
        self.faults()
    }

    fn page_requests(&self) -> PageRequestStats {
        self.prq()
            .as_ref()
            .map(|ring| ring.groups.stats)
            .unwrap_or_default()
    }

    fn overflow_pending(&self) -> bool {
        self.fault_status() & (PFO | FSTS_PRO) != 0 || self.page_request_status() & PRO != 0
    }
}

fn devtlb(rid: Rid, pasid: Pasid, at: u64, order: u8) -> Descriptor {
    if pasid.get() == 0 {
        devtlb_pages(rid.pci(), at, order)
    } else {
        devtlb_pasid_pages(rid.pci(), pasid.get(), at, order)
    }
}
