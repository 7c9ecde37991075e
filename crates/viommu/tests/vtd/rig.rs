//! A guest's memory and tables, a unit over it, and what came out of it.

use crate::bed::{Bed, Raised, Sink};
pub(crate) use crate::bed::{DEVICE, Heard, Memory, SIZE};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use viommu::vtd::{Config, Vtd, VtdUnit};
use viommu_api::MsiSink;

pub(crate) type Unit = VtdUnit<Memory>;

pub(crate) struct Rig {
    bed: Bed<Vtd>,
    wide: bool,
    tail: Mutex<u64>,
}

impl Deref for Rig {
    type Target = Bed<Vtd>;

    fn deref(&self) -> &Bed<Vtd> {
        &self.bed
    }
}

// Where things lie.
pub(crate) const ROOT: u64 = 0x1000;
pub(crate) const CONTEXT: u64 = 0x2000;
pub(crate) const DIRECTORY: u64 = 0x4000;
pub(crate) const TABLES: u64 = 0x10000;
pub(crate) const OTHER_TABLES: u64 = 0x18000;
pub(crate) const QUEUE: u64 = 0x20000;
pub(crate) const PRQ: u64 = 0x30000;
pub(crate) const STATUS: u64 = 0x40000;
pub(crate) const PAGE: u64 = 0x10_0000;
pub(crate) const OTHER_PAGE: u64 = 0x20_0000;

/// The address that is mapped, in a table of its own at each level: index 1 of the lowest.
pub(crate) const AT: u64 = 0x1000;

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        fn sink(sink: Arc<Sink>) -> Arc<dyn MsiSink> {
            sink
        }
        Self {
            wide: config.scalable.is_some(),
            bed: Bed::new(config, sink),
            tail: Mutex::new(0),
        }
    }

    /// Messages since the last call.
    pub(crate) fn messages(&self) -> Vec<(u64, u32)> {
        let messages = self.raised().into_iter().map(|raised| match raised {
            Raised::Message(addr, data) => (addr, data),
            Raised::Vector(_) | Raised::Wire(_) => panic!("{raised:?}"),
        });
        messages.collect()
    }

    /// Three levels down from `top`, one page each; entries with `bits`, the lowest maps [`AT`].
    pub(crate) fn page_table(&self, top: u64, page: u64, bits: u64) {
        self.put(top, (top + 0x1000) | bits);
        self.put(top + 0x1000, (top + 0x2000) | bits);
        self.put(top + 0x2000, (top + 0x3000) | bits);
        self.put(top + 0x3008, page | bits);
    }

    /// A legacy context entry for [`DEVICE`]: second stage, 4 levels, `domain`.
    pub(crate) fn legacy_context(&self, top: u64, domain: u64) {
        self.put(ROOT, CONTEXT | 1);
        self.put(CONTEXT + 0x20 * 16, top | 1);
        self.put(CONTEXT + 0x20 * 16 + 8, domain << 8 | 2);
    }

    /// A scalable-mode context entry for [`DEVICE`]: P, DTE, PASIDE, PRE, a directory of 2^7
    /// entries.
    pub(crate) fn scalable_context(&self, directory: u64) {
        self.put(ROOT, CONTEXT | 1);
        self.put(
            CONTEXT + 0x20 * 32,
            directory | 1 << 4 | 1 << 3 | 1 << 2 | 1,
        );
        self.put(directory, (directory + 0x1000) | 1);
    }

    /// A PASID table entry of the table after `directory`: first stage, 4 levels, PWSNP.
    pub(crate) fn first_stage(&self, directory: u64, pasid: u64, top: u64, domain: u64) {
        let entry = directory + 0x1000 + pasid * 64;
        self.put(entry + 8, 1 << 23 | domain);
        self.put(entry + 16, top);
        self.put(entry, 1 << 6 | 2 << 2 | 1);
    }

    /// A PASID table entry as for [`Self::first_stage`], of any type: `top` is that of the second
    /// stage, `first` that of the first.
    pub(crate) fn pasid_entry(&self, pasid: u64, pgtt: u64, top: u64, first: u64, domain: u64) {
        let entry = DIRECTORY + 0x1000 + pasid * 64;
        self.put(entry + 8, 1 << 23 | domain);
        self.put(entry + 16, first);
        self.put(entry, top | pgtt << 6 | 2 << 2 | 1);
    }

    /// Sets the queue up, latches the root table, flushes everything, switches translation on: what
    /// `init_dmars()` of Linux does.
    pub(crate) fn start(&self, table_mode: u64) {
        let width = if self.wide { 1 << 11 } else { 0 };
        self.w32(0x88, 0);
        self.w64(0x90, QUEUE | width);
        self.w32(0x18, 1 << 26);
        assert_ne!(self.r32(0x1c) & 1 << 26, 0, "QIES");
        self.w64(0x20, ROOT | table_mode << 10);
        self.w32(0x18, 1 << 26 | 1 << 30);
        assert_ne!(self.r32(0x1c) & 1 << 30, 0, "RTPS");
        self.submit(&[[1 << 4 | 1, 0], [1 << 4 | 2, 0]]);
        self.w32(0x18, 1 << 26 | 1 << 31);
        assert_ne!(self.r32(0x1c) & 1 << 31, 0, "TES");
        // Interrupts: fault 0x30, page request 0x31, invalidation 0x32.
        for (control, data) in [(0x38, 0x30), (0xe0, 0x31), (0xa0, 0x32)] {
            self.w32(control + 4, data);
            self.w32(control + 8, 0xfee0_1000);
            self.w32(control + 12, 0);
            self.w32(control, 0);
        }
    }

    /// The registers of [`Self::start_scalable`] alone, for a guest that is in its own way.
    pub(crate) fn start_quietly(&self) {
        self.w32(0x88, 0);
        self.w64(0x90, QUEUE | 1 << 11);
        self.w64(0xd0, PRQ);
        self.w64(0x20, ROOT | 1 << 10);
        self.w32(0x18, 1 << 26);
        self.w32(0x18, 1 << 26 | 1 << 30);
        self.w32(0x18, 1 << 26 | 1 << 31);
    }

    pub(crate) fn start_legacy(&self) {
        self.start(0);
    }
    pub(crate) fn start_scalable(&self) {
        self.w64(0xc0, 0);
        self.w64(0xc8, 0);
        self.w64(0xd0, PRQ);
        self.start(1);
    }

    /// Bytes of a descriptor.
    pub(crate) fn step(&self) -> u64 {
        if self.wide { 32 } else { 16 }
    }

    /// Puts descriptors into the queue and moves its tail.
    pub(crate) fn queue(&self, descriptors: &[[u64; 2]]) {
        let mut tail = self.tail.lock().expect("it holds");
        for [low, high] in descriptors {
            let at = QUEUE + *tail;
            self.put(at, *low);
            self.put(at + 8, *high);
            if self.wide {
                self.put(at + 16, 0);
                self.put(at + 24, 0);
            }
            *tail = (*tail + self.step()) % 0x1000;
        }
        let tail = *tail;
        self.w32(0x88, u32::try_from(tail).expect("it holds"));
    }

    /// Descriptors and a wait, which must come true.
    pub(crate) fn submit(&self, descriptors: &[[u64; 2]]) {
        self.put(STATUS, 0);
        let mut all = descriptors.to_vec();
        all.push([2 << 32 | 1 << 5 | 5, STATUS]);
        self.queue(&all);
        assert_eq!(self.get(STATUS), 2, "the wait came true");
        assert_eq!(self.r64(0x80), self.r64(0x88), "head is at tail");
    }
}

/// A unit in legacy mode whose device has [`AT`] mapped to [`PAGE`] in domain 5.
pub(crate) fn legacy(config: Config) -> Rig {
    let rig = Rig::new(config);
    rig.page_table(TABLES, PAGE, 3);
    rig.legacy_context(TABLES, 5);
    rig.start_legacy();
    rig
}

/// A unit in scalable mode whose device has [`AT`] mapped to [`PAGE`] for PASID 3, domain 1.
pub(crate) fn scalable(config: Config) -> Rig {
    let rig = Rig::new(config);
    // Present, writable, user, accessed, dirty.
    rig.page_table(TABLES, PAGE, 0x67);
    rig.scalable_context(DIRECTORY);
    rig.first_stage(DIRECTORY, 3, TABLES, 1);
    rig.start_scalable();
    rig
}
