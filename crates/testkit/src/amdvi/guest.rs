//! The driver: bring-up, attaching and detaching devices, and the flushes that go with them.
//!
//! After Linux `drivers/iommu/amd/` (`init.c`, `iommu.c`, `pasid.c`, `ppr.c`).

use super::commands::Commands;
use super::events::{self, Seen};
use super::hardware::Hardware;
use super::log::{self, Log};
use super::numbers::{
    Command, DEVICE_TABLE, DTE_I, FEATURE_ENHANCED_PPR, FEATURE_GUEST, FEATURE_PPR, FEATURES,
    GCR3_VALID, STATUS, control, invalidate_all, invalidate_device, invalidate_device_tlb,
    invalidate_pages, status,
};
use super::ppr::{PageLog, completion};
use super::tables::{Cr3Table, DeviceEntry, DeviceTable, guest, host};
use crate::driver::{Driver, EVERYTHING, GuestError, Kernel, QueueError, lock};
use crate::fault_log::FaultLog;
use crate::irq::Interrupts;
use crate::mm::Mm;
use crate::mmio::Mmio;
use crate::page_groups::{PageGroup, PageRequestStats};
use crate::paging::PageTable;
use crate::ram::Ram;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use viommu_api::Registers;

/// How a guest is set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The event log has `2^event_length` entries; Linux takes 9. 8–15.
    pub event_length: u8,
    /// The PPR log has `2^ppr_length` entries; Linux takes 9. 8–15.
    pub ppr_length: u8,
    /// The IOMMU answers page requests that find the log full, with Success, so that the device asks again.
    /// Linux leaves that off.
    pub auto_response: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            event_length: 9,
            ppr_length: 9,
            auto_response: false,
        }
    }
}

#[derive(Debug)]
struct Probed {
    domain: u16,
    cr3: Cr3Table,
}

/// The vector of the one interrupt.
const VECTOR: u16 = 0;
/// The domain of the first device that is probed for SVA; others follow.
const FIRST_DOMAIN: u16 = 0x100;
/// Levels of the guest CR3 table of a device that is probed for SVA.
const CR3_LEVELS: u8 = 2;

/// A guest kernel with AMD-Vi under it. Devices are on bus 0.
pub struct Guest {
    hw: Hardware,
    kernel: Kernel<Seen>,
    table: DeviceTable,
    commands: Mutex<Commands>,
    events: Log,
    pages: Mutex<PageLog>,
    devices: Mutex<BTreeMap<Rid, Probed>>,
}

impl std::fmt::Debug for Guest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guest")
    }
}

impl Guest {
    /// Brings the IOMMU up: device table, command buffer, translation, a global flush, event log, PPR log
    /// and their interrupts.
    ///
    /// # Errors
    /// When the IOMMU lacks what SVA needs or does not come up, or memory runs out.
    pub fn boot(
        regs: Arc<dyn Registers>,
        ram: Arc<Ram>,
        irqs: Arc<Interrupts>,
        setup: Setup,
    ) -> Result<Self, GuestError> {
        let hw = Hardware::new(Mmio(regs));
        let features = hw.mmio.read64(FEATURES);
        for (bit, name) in [
            (FEATURE_GUEST, "guest translation"),
            (FEATURE_PPR, "page requests"),
            (FEATURE_ENHANCED_PPR, "enhanced page request handling"),
        ] {
            if features & bit == 0 {
                return Err(GuestError::Unsupported(name));
            }
        }
        // What was on before is off.
        hw.switch(!0, 0);
        hw.switch(
            control::INV_TIMEOUT,
            control::COHERENT | control::INV_TIMEOUT_1S | control::ENHANCED_PPR,
        );
        let table = DeviceTable::new(&ram)?;
        hw.mmio.write64(DEVICE_TABLE, table.register());
        let commands = Commands::new(&hw, &ram)?;
        hw.switch(0, control::COMMANDS);
        hw.switch(0, control::GUEST);
        hw.switch(0, control::IOMMU);
        if hw.mmio.read32(STATUS) & status::COMMANDS_RUN == 0 {
            return Err(GuestError::Malfunction("CmdBufRun"));
        }
        let events = Log::new(log::EVENTS, &hw, &ram, setup.event_length)?;
        hw.switch(0, control::PPR);
        if setup.auto_response {
            // The answer is in a register, which is 0 after reset: Success.
            hw.switch(0, control::PPR_AUTO_RESPONSE);
        }
        let pages = Log::new(log::PAGES, &hw, &ram, setup.ppr_length)?;
        let guest = Self {
            hw,
            kernel: Kernel::new(ram, irqs),
            table,
            commands: Mutex::new(commands),
            events,
            pages: Mutex::new(PageLog::new(pages)),
            devices: Mutex::new(BTreeMap::new()),
        };
        guest.flush_everything()?;
        Ok(guest)
    }

    /// Queues commands and waits for them.
    ///
    /// # Errors
    /// When a command stops the buffer, or it never gets to the end.
    pub fn submit(&self, commands: &[Command]) -> Result<(), QueueError> {
        lock(&self.commands).submit(&self.hw, &self.kernel.ram, commands)
    }

    /// Where the next command will lie.
    #[must_use]
    pub fn next_command(&self) -> Gpa {
        lock(&self.commands).next()
    }

    /// Tells the IOMMU that the command buffer lies at `base`, a multiple of 4 KiB, as a guest with a bug
    /// would; the next [`submit`](Self::submit) fails, and puts that right. Returns where the IOMMU will look
    /// for the next command.
    pub fn misplace_commands(&self, base: Gpa) -> Gpa {
        lock(&self.commands).misplace(&self.hw, base)
    }

    /// The device table, for those who want to spoil it.
    #[must_use]
    pub fn table(&self) -> &DeviceTable {
        &self.table
    }

    /// Writes the device table's base address register. Flushing is the caller's part.
    pub fn set_table(&self, value: u64) {
        self.hw.mmio.write64(DEVICE_TABLE, value);
    }

    /// Gives a device a domain with host tables, and a device TLB.
    ///
    /// # Errors
    /// When the command buffer fails.
    pub fn attach(&self, rid: Rid, table: &PageTable, domain: u16) -> Result<(), GuestError> {
        self.set_device(rid, &host(table.root(), table.levels(), domain))
    }

    /// Stores a device table entry and flushes what may be cached of the one before, and what it leads to.
    ///
    /// # Errors
    /// When the command buffer fails.
    pub fn set_device(&self, rid: Rid, entry: &DeviceEntry) -> Result<(), GuestError> {
        self.table.set(rid, entry);
        let [low, high, ..] = entry[1].to_le_bytes();
        let domain = u16::from_le_bytes([low, high]);
        let mut all = vec![
            invalidate_device(rid.pci()),
            invalidate_pages(domain, None, 0, EVERYTHING),
        ];
        if entry[1] & DTE_I != 0 {
            all.push(invalidate_device_tlb(rid.pci(), None, 0, EVERYTHING));
        }
        Ok(self.submit(&all)?)
    }

    /// Gives a device a guest CR3 table of `levels` levels (1–3), a device TLB and page requests.
    ///
    /// # Errors
    /// Without memory or when the command buffer fails.
    pub fn probe(&self, rid: Rid, levels: u8, domain: u16) -> Result<(), GuestError> {
        let cr3 = Cr3Table::new(&self.kernel.ram, levels)?;
        let entry = guest(cr3.base(), levels, domain);
        lock(&self.devices).insert(rid, Probed { domain, cr3 });
        self.set_device(rid, &entry)
    }

    /// Where the guest CR3 table of a probed device lies.
    ///
    /// # Errors
    /// When the device was not probed.
    pub fn cr3_table(&self, rid: Rid) -> Result<Gpa, GuestError> {
        let devices = lock(&self.devices);
        let probed = devices.get(&rid).ok_or(GuestError::NotAttached(rid))?;
        Ok(probed.cr3.base())
    }

    /// Where the entry of the guest CR3 table for a PASID lies: of its topmost level, and of its lowest.
    ///
    /// # Errors
    /// When the device was not probed, or without memory.
    pub fn cr3_slots(&self, rid: Rid, pasid: Pasid) -> Result<(Gpa, Gpa), GuestError> {
        let devices = lock(&self.devices);
        let probed = devices.get(&rid).ok_or(GuestError::NotAttached(rid))?;
        Ok((probed.cr3.top_slot(pasid), probed.cr3.slot(pasid)?))
    }

    /// Points a PASID of a probed device at guest tables, and flushes.
    ///
    /// # Errors
    /// When the device was not probed, without memory, or when the command buffer fails.
    pub fn set_cr3(&self, rid: Rid, pasid: Pasid, root: Gpa) -> Result<(), GuestError> {
        let (_, slot) = self.cr3_slots(rid, pasid)?;
        self.kernel.ram.store(slot, root.0 | GCR3_VALID);
        self.flush_pasid(rid, pasid)
    }

    fn domain(&self, rid: Rid) -> Result<u16, GuestError> {
        let devices = lock(&self.devices);
        let probed = devices.get(&rid).ok_or(GuestError::NotAttached(rid))?;
        Ok(probed.domain)
    }

    /// What makes a device forget pages of a PASID.
    fn forget(
        &self,
        rid: Rid,
        pasid: Pasid,
        at: u64,
        order: u8,
    ) -> Result<[Command; 2], GuestError> {
        let pasid = Some(pasid.get());
        Ok([
            invalidate_pages(self.domain(rid)?, pasid, at, order),
            invalidate_device_tlb(rid.pci(), pasid, at, order),
        ])
    }

    /// Serves the PPR log: resolves complete groups and answers them.
    fn handle_page_requests(&self) {
        let groups = lock(&self.pages).read(&self.hw, &self.kernel.ram);
        let bindings = &self.kernel.bindings;
        bindings.serve(&groups, |answers| self.respond(answers));
    }

    /// Queues the answers, which are counted.
    fn respond(&self, answers: &[(&PageGroup, Response)]) {
        let mut commands = Vec::new();
        {
            let mut pages = lock(&self.pages);
            for (group, answer) in answers {
                pages.groups.answered(*answer);
                commands.push(completion(group.rid, group.pasid, group.index, *answer));
            }
        }
        if self.submit(&commands).is_err() {
            self.note("AMD-Vi: answers to page requests failed");
        }
    }
}

impl Driver for Guest {
    type Seen = Seen;

    fn kernel(&self) -> &Kernel<Seen> {
        &self.kernel
    }

    /// Flushes all device table entries and all translations.
    fn flush_everything(&self) -> Result<(), GuestError> {
        Ok(self.submit(&[invalidate_all()])?)
    }

    fn probe_sva(&self, rid: Rid) -> Result<(), GuestError> {
        let probed = u16::try_from(lock(&self.devices).len()).unwrap_or(0);
        self.probe(rid, CR3_LEVELS, FIRST_DOMAIN + probed)
    }

    fn set_mm(&self, rid: Rid, mm: &Mm) -> Result<(), GuestError> {
        self.set_cr3(rid, mm.pasid(), mm.table().root())
    }

    /// As `remove_dev_pasid()` does it: the entry, then the flushes.
    fn clear_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        let (_, slot) = self.cr3_slots(rid, pasid)?;
        self.kernel.ram.store(slot, 0);
        self.flush_pasid(rid, pasid)?;
        self.drain(rid, pasid)
    }

    fn drain(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        for _ in 0..1000 {
            // What was asked before this is in the log, or lost.
            self.submit(&[])?;
            let waits = {
                let pages = lock(&self.pages);
                pages.holds(&self.hw, &self.kernel.ram, rid, Some(pasid))
                    || pages.log().overflowed(&self.hw)
            };
            if !waits {
                return Ok(());
            }
            self.handle_page_requests();
        }
        Err(GuestError::Malfunction("an empty PPR log"))
    }

    fn flush_pasid(&self, rid: Rid, pasid: Pasid) -> Result<(), GuestError> {
        Ok(self.submit(&self.forget(rid, pasid, 0, EVERYTHING)?)?)
    }

    fn flush_pages(&self, mm: &Mm, at: Iova, order: u8) -> Result<(), GuestError> {
        let mut all = Vec::new();
        for rid in self.kernel.bindings.devices(mm.pasid()) {
            all.extend(self.forget(rid, mm.pasid(), at.0, order)?);
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
        Ok(self.submit(&[completion(rid, pasid, index, response)])?)
    }

    /// One interrupt is for both logs, and stays pending while either of them has something.
    fn handle(&self, vectors: u64) {
        if vectors & 1 << VECTOR == 0 {
            return;
        }
        let pages = |guest: &Self| lock(&guest.pages).log().pending(&guest.hw);
        if self.events.pending(&self.hw) {
            let mut faults = self.kernel.faults();
            events::handle(&self.hw, &self.kernel.ram, &self.events, &mut faults);
        }
        if pages(self) {
            self.handle_page_requests();
        }
        if self.events.pending(&self.hw) || pages(self) {
            self.kernel.irqs.keep(VECTOR);
        }
    }

    fn poll_faults(&self) -> FaultLog<Seen> {
        let mut faults = self.kernel.faults();
        events::handle(&self.hw, &self.kernel.ram, &self.events, &mut faults);
        faults.clone()
    }

    fn page_requests(&self) -> PageRequestStats {
        lock(&self.pages).groups.stats
    }

    fn overflow_pending(&self) -> bool {
        self.events.overflowed(&self.hw) || lock(&self.pages).log().overflowed(&self.hw)
    }
}
