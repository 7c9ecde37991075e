//! A guest's memory and tables, a unit over it, and what came out of it.

use iopf::{Access, Dma, DmaKind, Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::sync::{Arc, Mutex, Weak};
use viommu::mem::GuestRam;
use viommu::vtd::{Config, Setup, VtdUnit};
use viommu_api::{Blocked, Endpoint, Invalidation, MsiSink, Registers, Translate};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub(crate) type Memory = Arc<GuestMemoryMmap<()>>;
pub(crate) type Unit = VtdUnit<Memory>;

/// Bytes of memory.
pub(crate) const SIZE: u64 = 4 << 20;

pub(crate) const DEVICE: Rid = Rid(0x0020); // 00:04.0

/// Remembers messages.
#[derive(Debug, Default)]
pub(crate) struct Sink(Mutex<Vec<(u64, u32)>>);

impl MsiSink for Sink {
    fn msi(&self, addr: u64, data: u32) {
        self.0.lock().expect("it holds").push((addr, data));
    }
}

/// What an endpoint heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Invalidate(Invalidation),
    Response(Option<Pasid>, GroupIndex, Response),
}

#[derive(Debug, Default)]
pub(crate) struct Ear(Mutex<Vec<Heard>>);

impl Ear {
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().expect("it holds"))
    }
}

impl Endpoint for Ear {
    fn invalidate(&self, invalidation: &Invalidation) {
        self.0
            .lock()
            .expect("it holds")
            .push(Heard::Invalidate(*invalidation));
    }
    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response) {
        let heard = Heard::Response(pasid, group, response);
        self.0.lock().expect("it holds").push(heard);
    }
}

pub(crate) struct Rig {
    pub(crate) memory: Memory,
    pub(crate) unit: Arc<Unit>,
    sink: Arc<Sink>,
    pub(crate) ear: Arc<Ear>,
    wide: bool,
    tail: Mutex<u64>,
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
        let memory: Memory = Arc::new(
            GuestMemoryMmap::from_ranges(&[(
                GuestAddress(0),
                usize::try_from(SIZE).expect("it holds"),
            )])
            .expect("it holds"),
        );
        let sink = Arc::new(Sink::default());
        let setup = Setup {
            config,
            ram: GuestRam::new(memory.clone()),
        };
        let unit = Arc::new(VtdUnit::new(setup, sink.clone()).expect("it holds"));
        let ear = Arc::new(Ear::default());
        let weak: Weak<Ear> = Arc::downgrade(&ear);
        unit.attach(DEVICE, weak);
        Self {
            memory,
            unit,
            sink,
            ear,
            wide: config.scalable.is_some(),
            tail: Mutex::new(0),
        }
    }

    pub(crate) fn messages(&self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.sink.0.lock().expect("it holds"))
    }

    pub(crate) fn r32(&self, at: u64) -> u32 {
        let mut data = [0; 4];
        self.unit.read(at, &mut data);
        u32::from_le_bytes(data)
    }
    pub(crate) fn r64(&self, at: u64) -> u64 {
        let mut data = [0; 8];
        self.unit.read(at, &mut data);
        u64::from_le_bytes(data)
    }
    pub(crate) fn w32(&self, at: u64, value: u32) {
        self.unit.write(at, &value.to_le_bytes());
    }
    pub(crate) fn w64(&self, at: u64, value: u64) {
        self.unit.write(at, &value.to_le_bytes());
    }

    pub(crate) fn put(&self, at: u64, word: u64) {
        self.memory
            .write_obj(word, GuestAddress(at))
            .expect("it holds");
    }
    pub(crate) fn get(&self, at: u64) -> u64 {
        self.memory.read_obj(GuestAddress(at)).expect("it holds")
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

    pub(crate) fn dma(&self, pasid: Option<u32>, addr: u64, access: Access) -> Dma {
        Dma {
            requester: DEVICE,
            pasid: pasid.and_then(Pasid::new),
            kind: DmaKind::Untranslated,
            addr: Iova(addr),
            access,
        }
    }

    /// The pieces that an access reaches.
    pub(crate) fn access(&self, dma: &Dma, len: u64) -> Result<Vec<(u64, u64)>, Blocked> {
        let mut pieces = Vec::new();
        let result = self.unit.with_translation(dma, len, &mut |at: Gpa, len| {
            pieces.push((at.0, len));
        });
        result.map(|()| pieces)
    }

    /// Where one byte read at `addr` comes from.
    pub(crate) fn read_at(&self, pasid: Option<u32>, addr: u64) -> Option<u64> {
        let pieces = self.access(&self.dma(pasid, addr, Access::READ), 1).ok()?;
        pieces.first().map(|(at, _)| *at)
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
