//! A guest's memory and tables, a unit over it, and what came out of it.

pub(crate) use crate::bed::{AtEnd, DEVICE, Heard, SIZE};
use crate::bed::{Bed, Raised, Sink};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Rid};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use viommu::amdvi::{Amdvi, Config};
use viommu_api::{IrqSink, PageRequestOutcome, Pri};

pub(crate) struct Rig {
    bed: Bed<Amdvi>,
    tail: Mutex<u64>,
}

impl Deref for Rig {
    type Target = Bed<Amdvi>;

    fn deref(&self) -> &Bed<Amdvi> {
        &self.bed
    }
}

// Where things lie.
pub(crate) const DEVICE_TABLE: u64 = 0x1000;
pub(crate) const DTE: u64 = DEVICE_TABLE + 0x20 * 32;
pub(crate) const CR3_TABLE: u64 = 0x4000;
pub(crate) const TABLES: u64 = 0x10000;
pub(crate) const OTHER_TABLES: u64 = 0x18000;
pub(crate) const EVENTS: u64 = 0x20000;
pub(crate) const COMMANDS: u64 = 0x30000;
pub(crate) const PAGES: u64 = 0x34000;
pub(crate) const STORE: u64 = 0x40000;
pub(crate) const PAGE: u64 = 0x10_0000;
pub(crate) const OTHER_PAGE: u64 = 0x20_0000;

/// The address that is mapped, in a table of its own at each level: index 1 of the lowest.
pub(crate) const AT: u64 = 0x1000;

/// IR and IW, in a device table entry and in a host table entry.
pub(crate) const RW: u64 = 0x6000_0000_0000_0000;

// Registers.
pub(crate) const CONTROL: u64 = 0x18;
pub(crate) const COMMAND_HEAD: u64 = 0x2000;
pub(crate) const COMMAND_TAIL: u64 = 0x2008;
pub(crate) const EVENT_HEAD: u64 = 0x2010;
pub(crate) const EVENT_TAIL: u64 = 0x2018;
pub(crate) const STATUS: u64 = 0x2020;
pub(crate) const PPR_HEAD: u64 = 0x2030;
pub(crate) const PPR_TAIL: u64 = 0x2038;

// Commands.
pub(crate) const INVALIDATE_ALL: [u64; 2] = [8 << 60, 0];
pub(crate) fn invalidate_device(device: Rid) -> [u64; 2] {
    [2 << 60 | u64::from(device.0), 0]
}
/// `build_completion_wait` of Linux.
pub(crate) fn wait(at: u64, data: u64) -> [u64; 2] {
    [1 << 60 | at | 1, data]
}

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            bed: Bed::new(config, sink),
            tail: Mutex::new(0),
        }
    }

    /// Interrupts since the last call.
    pub(crate) fn interrupts(&self) -> usize {
        let raised = self.raised();
        assert!(
            raised.iter().all(|raised| *raised == Raised::Vector(0)),
            "{raised:?}"
        );
        raised.len()
    }

    /// An entry of a log.
    pub(crate) fn entry(&self, log: u64, index: u64) -> [u64; 2] {
        let at = log + index * 16;
        [self.get(at), self.get(at + 8)]
    }

    /// `iommu_feature_enable` and `iommu_feature_disable` of Linux.
    pub(crate) fn enable(&self, bit: u32) {
        self.w64(CONTROL, self.r64(CONTROL) | 1 << bit);
    }
    pub(crate) fn disable(&self, bit: u32) {
        self.w64(CONTROL, self.r64(CONTROL) & !(1 << bit));
    }

    /// Host tables of four levels down from `top`, one page each; the lowest maps [`AT`].
    pub(crate) fn host_tables(&self, top: u64, page: u64, rights: u64) {
        self.put(top, rights | (top + 0x1000) | 3 << 9 | 1);
        self.put(top + 0x1000, rights | (top + 0x2000) | 2 << 9 | 1);
        self.put(top + 0x2000, rights | (top + 0x3000) | 1 << 9 | 1);
        self.put(top + 0x3008, rights | page | 1);
    }

    /// Guest tables in the same way: present, writable, user, accessed, dirty.
    pub(crate) fn guest_tables(&self, top: u64, page: u64) {
        for level in 0..3 {
            let table = top + level * 0x1000;
            self.put(table, (table + 0x1000) | 0x67);
        }
        self.put(top + 0x3008, page | 0x67);
    }

    /// A device table entry: V, TV, host tables of four levels, IR and IW, PPR, I; `domain`.
    pub(crate) fn host_entry(&self, top: u64, domain: u64) {
        self.put(DTE, RW | 1 << 52 | top | 4 << 9 | 3);
        self.put(DTE + 8, 1 << 32 | domain);
    }

    /// A device table entry with guest tables alone, GCR3 table of one level at [`CR3_TABLE`], GV, GIoV,
    /// PPR, I; domain 1. PASID 3 has the tables at `top`.
    pub(crate) fn guest_entry(&self, top: u64) {
        // Bits 14:12 of the GCR3 table pointer at 60:58; the others of 0x4000 are clear.
        self.put(DTE, RW | 4 << 58 | 1 << 55 | 1 << 54 | 1 << 52 | 3);
        self.put(DTE + 8, 1 << 32 | 1);
        self.put(CR3_TABLE + 3 * 8, top | 1);
    }

    /// What Linux does from `early_enable_iommu` to `iommu_init_irq`, in that order.
    pub(crate) fn start(&self) {
        // iommu_disable
        for bit in [12, 3, 2, 28, 29, 13, 14, 0, 59] {
            self.disable(bit);
        }
        // iommu_init_flags
        for bit in [1, 8, 9, 11] {
            self.disable(bit);
        }
        self.enable(10);
        self.w64(CONTROL, self.r64(CONTROL) & !(7 << 5) | 4 << 5);
        self.enable(45);
        // iommu_set_device_table
        self.w64(0x00, DEVICE_TABLE);
        // iommu_enable_command_buffer
        self.w64(0x08, COMMANDS | 9 << 56);
        self.disable(12);
        self.w32(COMMAND_HEAD, 0);
        self.w32(COMMAND_TAIL, 0);
        self.enable(12);
        // iommu_enable_gt, iommu_enable, amd_iommu_flush_all_caches
        self.enable(16);
        self.enable(0);
        self.submit(&[INVALIDATE_ALL]);
        // iommu_enable_event_buffer, with the smallest log that there is
        self.w64(0x10, EVENTS | 8 << 56);
        self.w32(EVENT_HEAD, 0);
        self.w32(EVENT_TAIL, 0);
        self.enable(2);
        // amd_iommu_enable_ppr_log
        self.enable(15);
        self.w64(0x38, PAGES | 8 << 56);
        self.w32(PPR_HEAD, 0);
        self.w32(PPR_TAIL, 0);
        self.enable(14);
        self.enable(13);
        // iommu_init_irq
        self.enable(3);
    }

    /// Puts commands into the buffer and moves its tail.
    pub(crate) fn queue(&self, commands: &[[u64; 2]]) {
        let mut tail = self.tail.lock().expect("it holds");
        for [low, high] in commands {
            self.put(COMMANDS + *tail, *low);
            self.put(COMMANDS + *tail + 8, *high);
            *tail = (*tail + 16) % 0x2000;
        }
        self.w32(COMMAND_TAIL, u32::try_from(*tail).expect("it holds"));
    }

    /// Commands and a wait, which must come true.
    pub(crate) fn submit(&self, commands: &[[u64; 2]]) {
        self.put(STORE, 0);
        let mut all = commands.to_vec();
        all.push(wait(STORE, 0x1234_5678_9abc_def0));
        self.queue(&all);
        assert_eq!(self.get(STORE), 0x1234_5678_9abc_def0, "the wait came true");
        assert_eq!(self.r64(COMMAND_HEAD), self.r64(COMMAND_TAIL));
    }

    /// Software has put the buffer's pointers to its start.
    pub(crate) fn rewound(&self) {
        *self.tail.lock().expect("it holds") = 0;
    }

    /// A page request of PASID 3 for `addr`.
    pub(crate) fn ask(&self, addr: u64, group: u32, last: bool) -> PageRequestOutcome {
        let request = PageRequest {
            pasid: Pasid::new(3),
            group: GroupIndex(group),
            addr: Iova(addr),
            access: Access::READ,
            last,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        self.unit.page_request(DEVICE, &request)
    }
}

/// Where a unit's interrupts go.
pub(crate) fn sink(sink: Arc<Sink>) -> Arc<dyn IrqSink> {
    sink
}

/// A unit whose device has [`AT`] mapped to [`PAGE`] by host tables in domain 5.
pub(crate) fn host(config: Config) -> Rig {
    let rig = Rig::new(config);
    rig.host_tables(TABLES, PAGE, RW);
    rig.host_entry(TABLES, 5);
    rig.start();
    rig
}

/// A unit whose device has [`AT`] mapped to [`PAGE`] by the guest tables of PASID 3, domain 1.
pub(crate) fn guest(config: Config) -> Rig {
    let rig = Rig::new(config);
    rig.guest_tables(TABLES, PAGE);
    rig.guest_entry(TABLES);
    rig.start();
    rig
}
