//! A log that the IOMMU writes: the event log and the PPR log are both one.
//!
//! After `iommu_poll_events()`, `amd_iommu_poll_ppr_log()` and `amd_iommu_restart_log()` of Linux
//! `drivers/iommu/amd/`.

use super::hardware::Hardware;
use super::numbers::{
    EVENT_BASE, EVENT_HEAD, EVENT_TAIL, PPR_BASE, PPR_HEAD, PPR_TAIL, STATUS, control, status,
};
use crate::ram::{OutOfMemory, Ram};
use iopf::Gpa;

/// Where a log has its registers and bits.
#[derive(Debug)]
pub(crate) struct Place {
    base: u64,
    head: u64,
    tail: u64,
    /// Control: it is on; its interrupt is on.
    enable: [u64; 2],
    /// Status: it has overflowed; something was logged.
    overflow: u32,
    logged: u32,
    /// Status: it runs.
    run: u32,
}

pub(crate) const EVENTS: Place = Place {
    base: EVENT_BASE,
    head: EVENT_HEAD,
    tail: EVENT_TAIL,
    enable: [control::EVENT_LOG, control::EVENT_INT],
    overflow: status::EVENT_OVERFLOW,
    logged: status::EVENT_INT,
    run: status::EVENT_RUN,
};

pub(crate) const PAGES: Place = Place {
    base: PPR_BASE,
    head: PPR_HEAD,
    tail: PPR_TAIL,
    enable: [control::PPR_LOG, control::PPR_INT],
    overflow: status::PPR_OVERFLOW,
    logged: status::PPR_INT,
    run: status::PPR_RUN,
};

#[derive(Debug)]
pub(crate) struct Log {
    place: Place,
    base: Gpa,
    mask: u64,
}

/// Looks at an entry that the tail has passed and that is not there yet.
const PATIENCE: u32 = 1_000;

/// What one interrupt found.
pub(crate) struct Batch {
    /// Entries, in order.
    pub(crate) entries: Vec<[u64; 2]>,
    /// The log had overflowed, and runs again.
    pub(crate) restarted: bool,
}

impl Log {
    /// Allocates `2^length` entries (8–15) and switches the log and its interrupt on.
    pub(crate) fn new(
        place: Place,
        hw: &Hardware,
        ram: &Ram,
        length: u8,
    ) -> Result<Self, OutOfMemory> {
        let length = length.clamp(8, 15);
        let bytes = 16u64 << length;
        let base = ram.frames(bytes / 4096)?;
        hw.mmio
            .write64(place.base, base.0 | u64::from(length) << 56);
        hw.mmio.write32(place.head, 0);
        hw.mmio.write32(place.tail, 0);
        let [log, interrupt] = place.enable;
        hw.switch(0, interrupt | log);
        Ok(Self {
            place,
            base,
            mask: bytes - 16,
        })
    }

    /// Whether something waits for the handler.
    pub(crate) fn pending(&self, hw: &Hardware) -> bool {
        hw.mmio.read32(STATUS) & (self.place.logged | self.place.overflow) != 0
    }

    /// Whether it has overflowed.
    pub(crate) fn overflowed(&self, hw: &Hardware) -> bool {
        hw.mmio.read32(STATUS) & self.place.overflow != 0
    }

    /// Whether `wanted` is true of an entry in the log.
    pub(crate) fn holds(&self, hw: &Hardware, ram: &Ram, wanted: impl Fn(u64) -> bool) -> bool {
        let tail = hw.mmio.read64(self.place.tail) & self.mask;
        let mut head = hw.mmio.read64(self.place.head) & self.mask;
        while head != tail {
            if wanted(ram.load(Gpa(self.base.0 + head))) {
                return true;
            }
            head = (head + 16) & self.mask;
        }
        false
    }

    /// Clears the status, reads what is there, and starts the log again if it stands still: it has
    /// overflowed then.
    pub(crate) fn read(&self, hw: &Hardware, ram: &Ram) -> Batch {
        let place = &self.place;
        hw.mmio.write32(STATUS, place.logged | place.overflow);
        let tail = hw.mmio.read64(place.tail) & self.mask;
        let mut head = hw.mmio.read64(place.head) & self.mask;
        let mut entries = Vec::new();
        while head != tail {
            entries.push(self.entry(ram, head));
            head = (head + 16) & self.mask;
            hw.mmio
                .write32(place.head, u32::try_from(head).unwrap_or(0));
        }
        // Linux asks the overflow bit first, and misses an overflow that came between its read and its
        // write of the status.
        let restarted = hw.mmio.read32(STATUS) & place.run == 0;
        if restarted {
            let [log, interrupt] = place.enable;
            hw.switch(log, 0);
            hw.switch(interrupt, 0);
            hw.mmio.write32(STATUS, place.overflow);
            hw.switch(0, interrupt);
            hw.switch(0, log);
        }
        Batch { entries, restarted }
    }

    /// Takes an entry out. The word with its code may come last, and zeros are left in its place, so that
    /// the next round sees that it has not come yet.
    fn entry(&self, ram: &Ram, offset: u64) -> [u64; 2] {
        let at = Gpa(self.base.0 + offset);
        let mut first = ram.load(at);
        for _ in 0..PATIENCE {
            if first >> 60 != 0 {
                break;
            }
            std::thread::yield_now();
            first = ram.load(at);
        }
        let second = ram.load(Gpa(at.0 + 8));
        ram.store(at, 0);
        ram.store(Gpa(at.0 + 8), 0);
        [first, second]
    }
}
