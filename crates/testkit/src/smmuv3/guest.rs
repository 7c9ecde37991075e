//! The driver: bring-up, attaching and detaching devices, and the flushes that go with them.
//!
//! After Linux `drivers/iommu/arm/arm-smmu-v3/` (`arm-smmu-v3.c`, `arm-smmu-v3-sva.c`).

mod handlers;

use super::commands::Commands;
use super::events::Seen;
use super::hardware::Hardware;
use super::numbers::{
    CD_S, CR1, CR2, CR2_PTM, CR2_RECINVSID, Command, EVTQ_IRQ_CFG0, GBPA, GBPA_ABORT, GBPA_UPDATE,
    GERROR_IRQ_CFG0, IDR0, IDR1, IRQ_CTRL, PRIQ_IRQ_CFG0, STE_EATS, STRTAB_BASE, STRTAB_BASE_CFG,
    atc_inv, cfgi_all, cfgi_cd, cfgi_ste, cr0, idr0, resume, tlbi_all, tlbi_asid, tlbi_range,
};
use super::pages::answer;
use super::queue::{EVENTS, PAGES, Queue};
use super::tables::{
    ContextTable, Entry, Misses, SUBSTREAM_BITS, StreamTable, context, first_stage, store,
};
use crate::driver::{Driver, EVERYTHING, GuestError, Kernel, QueueError, StallStats, lock};
use crate::fault_log::FaultLog;
use crate::irq::Interrupts;
use crate::mm::Mm;
use crate::mmio::Mmio;
use crate::page_groups::{Groups, PageRequestStats};
use crate::paging::Processor;
use crate::ram::Ram;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use viommu_api::Registers;

/// How a guest is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The Event queue has `2^event_bits` entries, as far as the SMMU has them; Linux takes what there is.
    pub event_bits: u8,
    /// The PRI queue has `2^page_bits` entries, likewise.
    pub page_bits: u8,
    /// How firmware says that a device meets missing pages: `dma-can-stall`, or ATS and PRI.
    pub misses: fn(Rid) -> Misses,
}

impl Default for Setup {
    /// Large queues; devices with odd numbers stall.
    fn default() -> Self {
        Self {
            event_bits: 10,
            page_bits: 9,
            misses: |rid| match rid.0 >> 3 & 1 {
                0 => Misses::Request,
                _ => Misses::Stall,
            },
        }
    }
}

#[derive(Debug)]
struct Probed {
    contexts: ContextTable,
    misses: Misses,
}

/// Vectors of the three interrupts.
const ERROR_VECTOR: u16 = 16;
const EVENT_VECTOR: u16 = 17;
const PAGE_VECTOR: u16 = 18;
/// Where their messages go, beyond all memory: one that met memory would be stored there.
const DOORBELL: u64 = 0x8_0808_0040;
/// The ASID of PASID 0; others follow.
const FIRST_ASID: u16 = 0x4000;

/// A guest kernel with an SMMUv3 under it.
pub struct Guest {
    hw: Hardware,
    kernel: Kernel<Seen>,
    setup: Setup,
    /// The SMMU leaves it to software whether faults stall.
    choice: bool,
    streams: StreamTable,
    commands: Mutex<Commands>,
    events: Mutex<Queue<4>>,
    pages: Mutex<Queue<2>>,
    groups: Mutex<Groups>,
    stalls: Mutex<StallStats>,
    devices: Mutex<BTreeMap<Rid, Probed>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

/// The ASID of a PASID of 14 bits; no two are alike, and none is its PASID.
fn asid_of(pasid: Pasid) -> u16 {
    let [low, high, ..] = pasid.get().to_le_bytes();
    FIRST_ASID | u16::from_le_bytes([low, high]) & 0x3fff
}

impl Guest {
    /// Brings the SMMU up, as `arm_smmu_device_reset()` does: everything off, stream table, Command queue,
    /// global flushes, Event queue, PRI queue, interrupts, translation.
    ///
    /// # Errors
    /// When the SMMU lacks what SVA needs or does not come up, or memory runs out.
    pub fn boot(
        regs: Arc<dyn Registers>,
        ram: Arc<Ram>,
        irqs: Arc<Interrupts>,
        setup: Setup,
    ) -> Result<Self, GuestError> {
        let hw = Hardware::new(Mmio(regs));
        let (features, sizes) = (hw.mmio.read32(IDR0), hw.mmio.read32(IDR1));
        for (bit, name) in [
            (idr0::S1P, "stage 1"),
            (idr0::COHACC, "coherent walks"),
            (idr0::HTTU_ACCESS_DIRTY, "updates of the dirty state"),
            (idr0::ATS, "device TLBs"),
            (idr0::ASID16, "ASIDs of 16 bits"),
            (idr0::MSI, "interrupts as messages"),
            (idr0::PRI, "page requests"),
            (idr0::CD2L, "context descriptors in two levels"),
            (idr0::TWO_LEVELS, "stream tables of two levels"),
        ] {
            if features & bit == 0 {
                return Err(GuestError::Unsupported(name));
            }
        }
        if sizes >> 6 & 0x1f < u32::from(SUBSTREAM_BITS) {
            return Err(GuestError::Unsupported("substreams of 16 bits"));
        }
        if sizes >> 21 & 0x1f < 8 {
            return Err(GuestError::Unsupported("a Command queue of 256 entries"));
        }
        let at_most = |wanted: u8, at: u32| wanted.min((sizes >> at & 0x1f).to_le_bytes()[0]);
        let enable = |bits| hw.acknowledged(super::numbers::CR0, bits, "CR0ACK");
        enable(0)?;
        // Tables and queues: write-back, inner shareable.
        hw.mmio.write32(CR1, 0xd75);
        hw.mmio.write32(CR2, CR2_PTM | CR2_RECINVSID);
        let streams = StreamTable::new(&ram)?;
        // RA.
        hw.mmio.write64(STRTAB_BASE, 1 << 62 | streams.base().0);
        hw.mmio.write32(STRTAB_BASE_CFG, StreamTable::config());
        let mut commands = Commands::new(&hw, &ram)?;
        let mut on = cr0::CMDQEN;
        enable(on)?;
        commands.submit(&hw, &ram, &[cfgi_all()])?;
        commands.submit(&hw, &ram, &[tlbi_all()])?;
        let events = Queue::new(EVENTS, &hw, &ram, at_most(setup.event_bits, 16))?;
        on |= cr0::EVTQEN;
        enable(on)?;
        let pages = Queue::new(PAGES, &hw, &ram, at_most(setup.page_bits, 11))?;
        on |= cr0::PRIQEN;
        enable(on)?;
        on |= cr0::ATSCHK;
        enable(on)?;
        start_interrupts(&hw)?;
        enable(on | cr0::SMMUEN)?;
        Ok(Self {
            hw,
            kernel: Kernel::new(ram, irqs),
            setup,
            choice: features & idr0::STALL_MODEL == 0,
            streams,
            commands: Mutex::new(commands),
            events: Mutex::new(events),
            pages: Mutex::new(pages),
            groups: Mutex::default(),
            stalls: Mutex::default(),
            devices: Mutex::default(),
        })
    }

    /// Queues commands and a CMD_SYNC, and waits for it.
    ///
    /// # Errors
    /// When a command stops the queue, or it never gets to the end.
    pub fn submit(&self, commands: &[Command]) -> Result<(), QueueError> {
        lock(&self.commands).submit(&self.hw, &self.kernel.ram, commands)
    }

    /// Queues commands without a CMD_SYNC: what needs none, as answers do not. An error of one of them is
    /// told by whoever looks next.
    ///
    /// # Errors
    /// When there is never room for them.
    pub fn post(&self, commands: &[Command]) -> Result<(), QueueError> {
        lock(&self.commands).post(&self.hw, &self.kernel.ram, commands)
    }

    /// Tells the SMMU that the Command queue lies at `base`, a multiple of 4 KiB, as a guest with a bug
    /// would; the next [`submit`](Self::submit) fails, and puts that right.
    pub fn misplace_commands(&self, base: Gpa) {
        lock(&self.commands).misplace(&self.hw, base);
    }

    /// Tells the SMMU that the Event queue, empty then, lies at `base`, or again where it does.
    pub fn place_events(&self, base: Option<Gpa>) {
        let events = lock(&self.events);
        self.hw.switch(cr0::EVTQEN, 0);
        events.put(&self.hw, base.unwrap_or(events.base()));
        self.hw.switch(0, cr0::EVTQEN);
    }

    /// The stream table, for those who want to spoil it.
    #[must_use]
    pub fn streams(&self) -> &StreamTable {
        &self.streams
    }

    /// Writes the stream table's registers, for which translation is off for a moment. Flushing is the
    /// caller's part.
    pub fn set_streams(&self, base: Gpa, config: u32) {
        self.hw.switch(cr0::SMMUEN, 0);
        self.hw.mmio.write64(STRTAB_BASE, base.0);
        self.hw.mmio.write32(STRTAB_BASE_CFG, config);
        self.hw.switch(0, cr0::SMMUEN);
    }

    /// Whether requests of StreamIDs without an entry are recorded (RECINVSID); translation is off for a
    /// moment.
    pub fn record_strangers(&self, on: bool) {
        self.hw.switch(cr0::SMMUEN, 0);
        let recorded = if on { CR2_RECINVSID } else { 0 };
        self.hw.mmio.write32(CR2, CR2_PTM | recorded);
        self.hw.switch(0, cr0::SMMUEN);
    }

    /// Switches translation off or on. `abort`: what comes while it is off is aborted, else it passes.
    pub fn translate(&self, on: bool, abort: bool) {
        let aborts = if abort { GBPA_ABORT } else { 0 };
        self.hw.mmio.write32(GBPA, GBPA_UPDATE | aborts);
        self.hw.switch(cr0::SMMUEN, 0);
        if on {
            self.hw.switch(0, cr0::SMMUEN);
        }
    }

    /// Stores a stream table entry and flushes what may be cached of the one before, and what it leads to.
    ///
    /// # Errors
    /// Without memory or when the Command queue fails.
    pub fn set_stream(&self, rid: Rid, entry: &Entry) -> Result<(), GuestError> {
        let slot = self.streams.slot(rid)?;
        let before = self.kernel.ram.load(Gpa(slot.0 + 8));
        store(&self.kernel.ram, slot, entry);
        self.submit(&[cfgi_ste(rid.0)])?;
        self.submit(&[tlbi_all()])?;
        if before & STE_EATS != 0 {
            self.submit(&[atc_inv(rid.0, None, 0, EVERYTHING)])?;
        }
        Ok(())
    }

    /// Gives a device a table of context descriptors that has none, and the way in which it meets missing
    /// pages. Returns the entry of the stream table.
    ///
    /// # Errors
    /// Without memory or when the Command queue fails.
    pub fn probe(&self, rid: Rid, misses: Misses) -> Result<Entry, GuestError> {
        let contexts = ContextTable::new(&self.kernel.ram)?;
        let entry = first_stage(contexts.base(), misses, self.choice);
        lock(&self.devices).insert(rid, Probed { contexts, misses });
        self.set_stream(rid, &entry)?;
        Ok(entry)
    }

    /// Where the context descriptor for a PASID of a probed device lies, and what leads to it. PASID 0 is
    /// that of requests without one.
    ///
    /// # Errors
    /// When the device was not probed, without memory, or when the Command queue fails.
    pub fn context_slots(&self, rid: Rid, pasid: Pasid) -> Result<(Gpa, Gpa), GuestError> {
        let (first, slot, made) = {
            let devices = lock(&self.devices);
            let probed = devices.get(&rid).ok_or(GuestError::NotAttached(rid))?;
            let (slot, made) = probed.contexts.slot(pasid)?;
            (probed.contexts.first_slot(pasid), slot, made)
        };
        if made {
            self.submit(&[cfgi_cd(rid.0, pasid.get(), false)])?;
        }
        Ok((first, slot))
    }

    /// Stores a context descriptor of a probed device and flushes what may be cached of the one before. It
    /// is made to stall if the device does.
    ///
    /// # Errors
    /// When the device was not probed, without memory, or when the Command queue fails.
    pub fn set_context(&self, rid: Rid, pasid: Pasid, entry: &Entry) -> Result<(), GuestError> {
        let (_, slot) = self.context_slots(rid, pasid)?;
        let mut entry = *entry;
        if self.misses(rid) == Some(Misses::Stall) {
            entry[0] |= CD_S;
        }
        store(&self.kernel.ram, slot, &entry);
        Ok(self.submit(&[cfgi_cd(rid.0, pasid.get(), true)])?)
    }

    /// The ASID of a PASID's address space.
    #[must_use]
    pub fn asid(pasid: Pasid) -> u16 {
        asid_of(pasid)
    }

    /// Lets a stalled request go on, or aborts it.
    ///
    /// # Errors
    /// When the Command queue fails.
    pub fn resume(&self, rid: Rid, tag: u16, how: u8) -> Result<(), GuestError> {
        Ok(self.post(&[resume(rid.0, tag, how)])?)
    }

    /// Reads the Event queue, and resolves nothing: stalled requests stay where they are. For those who want
    /// to decide about them by hand.
    #[must_use]
    pub fn take_events(&self) -> Vec<Seen> {
        let batch = lock(&self.events).read(&self.hw, &self.kernel.ram);
        batch.entries.into_iter().map(Seen::decode).collect()
    }

    /// The same, and the SMMU is told once, when all are read. The interrupts that are pending count as taken
    /// before.
    #[must_use]
    pub fn take_events_at_once(&self) -> Vec<Seen> {
        let _taken = self.kernel.irqs.take();
        let read = lock(&self.events).read_at_once(&self.hw, &self.kernel.ram);
        read.into_iter().map(Seen::decode).collect()
    }

    fn misses(&self, rid: Rid) -> Option<Misses> {
        lock(&self.devices).get(&rid).map(|probed| probed.misses)
    }

    /// Tells a device to forget pages, if it has a device TLB.
    fn forget(&self, rid: Rid, pasid: Pasid, at: u64, order: u8) -> Option<Command> {
        let pasid = (pasid.get() != 0).then_some(pasid.get());
        let base = at & !((4096u64 << order.min(EVERYTHING - 1)) - 1);
        (self.misses(rid)? == Misses::Request).then(|| atc_inv(rid.0, pasid, base, order))
    }
}

/// `arm_smmu_setup_irqs()`, with messages.
fn start_interrupts(hw: &Hardware) -> Result<(), GuestError> {
    hw.acknowledged(IRQ_CTRL, 0, "IRQ_CTRLACK")?;
    for (config, vector) in [
        (GERROR_IRQ_CFG0, ERROR_VECTOR),
        (EVTQ_IRQ_CFG0, EVENT_VECTOR),
        (PRIQ_IRQ_CFG0, PAGE_VECTOR),
    ] {
        hw.mmio.write64(config, DOORBELL);
        hw.mmio.write32(config + 8, u32::from(vector));
        // Device memory, nGnRE.
        hw.mmio.write32(config + 12, 1);
    }
    // Errors, page requests, events.
    hw.acknowledged(IRQ_CTRL, 7, "IRQ_CTRLACK")
}

impl Driver for Guest {
    type Seen = Seen;

    const PROCESSOR: Processor = Processor::Arm;

    fn kernel(&self) -> &Kernel<Seen> {
        &self.kernel
    }

    /// Flushes all configuration and all translations.
    fn flush_everything(&self) -> Result<(), GuestError> {
        Ok(self.submit(&[cfgi_all(), tlbi_all()])?)
    }

    fn probe_sva(&self, rid: Rid) -> Result<(), GuestError> {
        self.probe(rid, (self.setup.misses)(rid)).map(drop)
    }

    fn set_mm(&self, rid: Rid, mm: &Mm) -> Result<(), GuestError> {
        let entry = context(mm.table().root(), asid_of(mm.pasid()));
        self.set_context(rid, mm.pasid(), &entry)
    }

    /// As `arm_smmu_remove_dev_pasid()` does it: the descriptor, then the flushes.
    fn clear_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        let (_, slot) = self.context_slots(rid, pasid)?;
        self.kernel.ram.store(slot, 0);
        self.flush_pasid(rid, pasid)?;
        store(&self.kernel.ram, slot, &[0; 8]);
        self.drain(rid, pasid)
    }

    /// Neither queue tells its entries apart without being read: both are emptied.
    fn drain(&self, _: Rid, _: Pasid) -> Result<(), GuestError> {
        for _ in 0..1000 {
            // What was asked or stalled before this is in a queue, or waits for room in it.
            self.submit(&[])?;
            let events = !lock(&self.events).is_empty(&self.hw);
            let pages = {
                let pages = lock(&self.pages);
                !pages.is_empty(&self.hw) || pages.overflowed(&self.hw)
            };
            if !events && !pages {
                return Ok(());
            }
            if events {
                self.handle_events();
            }
            if pages {
                self.handle_page_requests();
            }
        }
        Err(GuestError::Malfunction("empty queues"))
    }

    fn flush_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        self.submit(&[cfgi_cd(rid.0, pasid.get(), true)])?;
        self.submit(&[tlbi_asid(asid_of(pasid))])?;
        match self.forget(rid, pasid, 0, EVERYTHING) {
            Some(command) => Ok(self.submit(&[command])?),
            None => Ok(()),
        }
    }

    /// As `arm_smmu_mm_arch_invalidate_secondary_tlbs()` does it, with ranges (RIL): first the SMMU, then
    /// the devices, which might ask it again.
    fn flush_pages(&self, mm: &Mm, at: Iova, order: u8) -> Result<(), GuestError> {
        let pasid = mm.pasid();
        let asid = asid_of(pasid);
        let flush = if order < 32 {
            let base = at.0 & !((4096u64 << order) - 1);
            // Linux has no range of a single page here, which would say nothing of its level.
            tlbi_range(asid, base, 0, order.max(1))
        } else {
            tlbi_asid(asid)
        };
        self.submit(&[flush])?;
        let bound = self.kernel.bindings.devices(pasid).into_iter();
        let devices: Vec<Command> = bound
            .filter_map(|rid| self.forget(rid, pasid, at.0, order))
            .collect();
        if devices.is_empty() {
            return Ok(());
        }
        Ok(self.submit(&devices)?)
    }

    fn answer_page_group(
        &self,
        rid: Rid,
        pasid: Option<Pasid>,
        index: GroupIndex,
        response: Response,
    ) -> Result<(), GuestError> {
        Ok(self.submit(&[answer(rid, pasid, index, response)])?)
    }

    fn handle(&self, vectors: u64) {
        if vectors & 1 << ERROR_VECTOR != 0 {
            self.handle_errors();
        }
        if vectors & 1 << EVENT_VECTOR != 0 {
            self.handle_events();
        }
        if vectors & 1 << PAGE_VECTOR != 0 {
            self.handle_page_requests();
        }
    }

    fn poll_faults(&self) -> FaultLog<Seen> {
        self.handle_events();
        self.faults()
    }

    fn page_requests(&self) -> PageRequestStats {
        lock(&self.groups).stats
    }

    fn overflow_pending(&self) -> bool {
        lock(&self.events).overflowed(&self.hw) || lock(&self.pages).overflowed(&self.hw)
    }

    fn stalls(&self, rid: Rid) -> bool {
        self.misses(rid) == Some(Misses::Stall)
    }

    fn stall_stats(&self) -> StallStats {
        *lock(&self.stalls)
    }
}
