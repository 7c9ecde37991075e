//! A guest's memory and tables, a unit over it, and what came out of it.

use crate::bed::{Bed, Sink};
pub(crate) use crate::bed::{DEVICE, Heard, Memory, Raised};
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid};
use std::ops::Deref;
use std::sync::{Arc, Mutex};
use viommu::smmuv3::{Config, Smmuv3, Smmuv3Unit};
use viommu_api::{PageRequestOutcome, Pri, WiredSink};

pub(crate) type Unit = Smmuv3Unit<Memory>;

pub(crate) struct Rig {
    bed: Bed<Smmuv3>,
    /// SMMU_CMDQ_PROD as software has it, with the wrap bit.
    prod: Mutex<u32>,
}

impl Deref for Rig {
    type Target = Bed<Smmuv3>;

    fn deref(&self) -> &Bed<Smmuv3> {
        &self.bed
    }
}

// Where things lie.
/// Of 64 entries.
pub(crate) const STREAMS: u64 = 0x1000;
pub(crate) const STE: u64 = STREAMS + 0x20 * 64;
/// Of 8 entries.
pub(crate) const CONTEXTS: u64 = 0x4000;
pub(crate) const OTHER_CONTEXTS: u64 = 0x5000;
pub(crate) const TABLES: u64 = 0x10000;
pub(crate) const OTHER_TABLES: u64 = 0x18000;
/// Of 16 entries.
pub(crate) const EVENTS: u64 = 0x20000;
/// Of 256 entries.
pub(crate) const COMMANDS: u64 = 0x30000;
/// Of 8 entries.
pub(crate) const PAGES: u64 = 0x34000;
pub(crate) const STORE: u64 = 0x40000;
pub(crate) const STAGE2: u64 = 0x50000;
pub(crate) const PAGE: u64 = 0x10_0000;
pub(crate) const OTHER_PAGE: u64 = 0x20_0000;

/// The address that is mapped, in a table of its own at each level: index 1 of the lowest.
pub(crate) const AT: u64 = 0x1000;

// Registers.
pub(crate) const CR0: u64 = 0x20;
pub(crate) const CR0ACK: u64 = 0x24;
pub(crate) const CR2: u64 = 0x2c;
pub(crate) const GBPA: u64 = 0x44;
pub(crate) const IRQ_CTRL: u64 = 0x50;
pub(crate) const GERROR: u64 = 0x60;
pub(crate) const GERRORN: u64 = 0x64;
pub(crate) const STRTAB_BASE: u64 = 0x80;
pub(crate) const STRTAB_BASE_CFG: u64 = 0x88;
pub(crate) const CMDQ_BASE: u64 = 0x90;
pub(crate) const CMDQ_PROD: u64 = 0x98;
pub(crate) const CMDQ_CONS: u64 = 0x9c;
pub(crate) const EVENTQ_BASE: u64 = 0xa0;
pub(crate) const PRIQ_BASE: u64 = 0xc0;
pub(crate) const EVENTQ_PROD: u64 = 0x1_00a8;
pub(crate) const EVENTQ_CONS: u64 = 0x1_00ac;
pub(crate) const PRIQ_PROD: u64 = 0x1_00c8;
pub(crate) const PRIQ_CONS: u64 = 0x1_00cc;

// SMMU_CR0.
pub(crate) const SMMUEN: u32 = 1 << 0;
pub(crate) const PRIQEN: u32 = 1 << 1;
pub(crate) const EVENTQEN: u32 = 1 << 2;
pub(crate) const CMDQEN: u32 = 1 << 3;
pub(crate) const ATSCHK: u32 = 1 << 4;
pub(crate) const ALL_ON: u32 = SMMUEN | PRIQEN | EVENTQEN | CMDQEN | ATSCHK;

/// Where messages go: no memory is there.
pub(crate) const DOORBELL: u64 = 0x0808_0040;
pub(crate) const GERROR_MESSAGE: Raised = Raised::Message(DOORBELL, 0x10);
pub(crate) const EVENT_MESSAGE: Raised = Raised::Message(DOORBELL, 0x11);
pub(crate) const PAGE_MESSAGE: Raised = Raised::Message(DOORBELL, 0x12);

// Commands, for the device, ASID 5 and VMID 0.
const SID: u64 = 0x20 << 32;
pub(crate) const CFGI_STE: [u64; 2] = [0x03 | SID, 1];
pub(crate) const CFGI_ALL: [u64; 2] = [0x04, 31];
pub(crate) fn cfgi_cd(substream: u64) -> [u64; 2] {
    [0x05 | substream << 12 | SID, 1]
}
pub(crate) const CFGI_CD_ALL: [u64; 2] = [0x06 | SID, 0];
pub(crate) fn tlbi_asid(asid: u64) -> [u64; 2] {
    [0x11 | asid << 48, 0]
}
pub(crate) fn tlbi_va(asid: u64, addr: u64) -> [u64; 2] {
    [0x12 | asid << 48, addr | 1]
}
pub(crate) const TLBI_NSNH_ALL: [u64; 2] = [0x30, 0];
/// CMDQ_RESUME_0_RESP_TERM, _RETRY and _ABORT.
pub(crate) fn resume(response: u64, tag: u64) -> [u64; 2] {
    [0x44 | response << 12 | SID, tag]
}
pub(crate) const STALL_TERM: [u64; 2] = [0x45 | SID, 0];
/// CS is SIG_IRQ; MSH and MSIAttr as Linux has them.
pub(crate) fn sync(at: u64, data: u64) -> [u64; 2] {
    [0x46 | 1 << 12 | 3 << 22 | 0xf << 24 | data << 32, at]
}
pub(crate) const SYNC: [u64; 2] = [0x46, 0];

/// The rights of a stage 1 page as Linux has them for a device: AP is unprivileged, read and write; inner
/// shareable, AF, nG.
pub(crate) const RW: u64 = 0xf43;
/// Those of a stage 2 page: normal memory, read and write, inner shareable, AF.
pub(crate) const RW2: u64 = 0x7ff;

/// R and A of a context descriptor.
pub(crate) const R: u64 = 1 << 45;
pub(crate) const A: u64 = 1 << 46;
/// S.
pub(crate) const S: u64 = 1 << 44;

impl Rig {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            bed: Bed::new(config, sink),
            prod: Mutex::new(0),
        }
    }

    /// The four words of an event, by its place in the queue.
    pub(crate) fn event(&self, place: u64) -> [u64; 4] {
        let at = EVENTS + place % 16 * 32;
        [0, 8, 16, 24].map(|word| self.get(at + word))
    }

    /// The events that software has not taken yet, and takes now, as `arm_smmu_evtq_thread` does.
    pub(crate) fn take_events(&self) -> Vec<[u64; 4]> {
        let mut events = Vec::new();
        let prod = self.r32(EVENTQ_PROD);
        let mut cons = self.r32(EVENTQ_CONS);
        while cons & 0x1f != prod & 0x1f {
            events.push(self.event(u64::from(cons)));
            cons = (cons & 0x1f).wrapping_add(1) & 0x1f;
        }
        // queue_sync_cons_ovf
        self.w32(EVENTQ_CONS, cons & 0x1f | prod & 1 << 31);
        events
    }

    /// Four levels of stage 1 or 2 down from `top`, one page each; the lowest maps [`AT`].
    pub(crate) fn tables(&self, top: u64, page: u64) {
        for level in 0..3 {
            let table = top + level * 0x1000;
            self.put(table, (table + 0x1000) | 3);
        }
        self.put(top + 0x3008, page);
    }

    /// A context descriptor with these tables: 48 bits, EPD1, V, IPS 5, AA64, ASET, and `bits`.
    pub(crate) fn context(&self, at: u64, top: u64, asid: u64, bits: u64) {
        self.put(at + 8, top);
        self.put(at + 16, 0);
        self.put(
            at,
            asid << 48 | 1 << 47 | 1 << 41 | 5 << 32 | 1 << 31 | 1 << 30 | 16 | bits,
        );
    }

    /// A stream table entry with stage 1: 8 context descriptors at `contexts` in a linear table, those
    /// without a substream have the first; full ATS; SHCFG is 1.
    pub(crate) fn first_entry(&self, contexts: u64) {
        self.put(STE + 8, 1 << 44 | 1 << 28 | 2);
        self.put(STE + 16, 0);
        self.put(STE + 24, 0);
        self.put(STE, 3 << 59 | contexts | 5 << 1 | 1);
    }

    /// The third and fourth word of an entry with stage 2 at `top`: 48 bits from level 0, granule of 4 KiB,
    /// S2PS 5, S2AA64, S2R; and `bits`.
    pub(crate) fn second_words(&self, top: u64, vmid: u64, bits: u64) {
        self.put(
            STE + 16,
            1 << 58 | 1 << 51 | 5 << 48 | 2 << 38 | 16 << 32 | vmid | bits,
        );
        self.put(STE + 24, top);
    }

    /// A stream table entry with stage 2 alone.
    pub(crate) fn second_entry(&self, top: u64, vmid: u64) {
        self.put(STE + 8, 1 << 44 | 1 << 28);
        self.second_words(top, vmid, 0);
        self.put(STE, 6 << 1 | 1);
    }

    /// What Linux does in `arm_smmu_device_reset`, in that order, with small queues.
    pub(crate) fn start(&self) {
        let enable = |bits: u32| {
            self.w32(CR0, bits);
            assert_eq!(self.r32(CR0ACK), bits);
        };
        enable(0);
        self.w32(0x28, 0xd75);
        // PTM and RECINVSID.
        self.w32(CR2, 1 << 2 | 1 << 1);
        self.w64(STRTAB_BASE, 1 << 62 | STREAMS);
        self.w32(STRTAB_BASE_CFG, 6);
        self.w64(CMDQ_BASE, 1 << 62 | COMMANDS | 8);
        self.w32(CMDQ_PROD, 0);
        self.w32(CMDQ_CONS, 0);
        self.rewound();
        enable(CMDQEN);
        self.submit(&[CFGI_ALL]);
        self.submit(&[TLBI_NSNH_ALL]);
        self.w64(EVENTQ_BASE, 1 << 62 | EVENTS | 4);
        self.w32(EVENTQ_PROD, 0);
        self.w32(EVENTQ_CONS, 0);
        enable(CMDQEN | EVENTQEN);
        let mut on = CMDQEN | EVENTQEN;
        if self.r32(0) & 1 << 16 != 0 {
            self.w64(PRIQ_BASE, 1 << 62 | PAGES | 3);
            self.w32(PRIQ_PROD, 0);
            self.w32(PRIQ_CONS, 0);
            on |= PRIQEN;
            enable(on);
        }
        if self.r32(0) & 1 << 10 != 0 {
            on |= ATSCHK;
            enable(on);
        }
        self.start_interrupts();
        enable(on | SMMUEN);
    }

    /// The registers of [`Self::start`] alone, for a guest that is in its own way.
    pub(crate) fn start_quietly(&self) {
        self.w32(CR0, 0);
        self.w32(CR2, 1 << 1);
        self.w64(STRTAB_BASE, STREAMS);
        self.w32(STRTAB_BASE_CFG, 6);
        self.w64(CMDQ_BASE, COMMANDS | 8);
        self.w64(EVENTQ_BASE, EVENTS | 4);
        self.w64(PRIQ_BASE, PAGES | 3);
        self.w32(CR0, ALL_ON);
    }

    /// `arm_smmu_setup_irqs`.
    pub(crate) fn start_interrupts(&self) {
        self.w32(IRQ_CTRL, 0);
        for (config, data) in [(0x68, 0x10), (0xb0, 0x11), (0xd0, 0x12)] {
            self.w64(config, DOORBELL);
            self.w32(config + 8, data);
            self.w32(config + 12, 1);
        }
        self.w32(IRQ_CTRL, 7);
        assert_eq!(self.r32(IRQ_CTRL + 4) & 5, 5);
    }

    /// Puts commands into the queue and moves its producer index.
    pub(crate) fn queue(&self, commands: &[[u64; 2]]) {
        let mut prod = self.prod.lock().expect("it holds");
        for [low, high] in commands {
            let at = COMMANDS + u64::from(*prod & 0xff) * 16;
            self.put(at, *low);
            self.put(at + 8, *high);
            *prod = (*prod + 1) & 0x1ff;
        }
        self.w32(CMDQ_PROD, *prod);
    }

    /// Commands and a CMD_SYNC, which must come true.
    pub(crate) fn submit(&self, commands: &[[u64; 2]]) {
        self.put(STORE, 0);
        let mut all = commands.to_vec();
        all.push(sync(STORE, 0x1234_5678));
        self.queue(&all);
        if self.r32(0) & 1 << 13 != 0 {
            assert_eq!(self.get(STORE), 0x1234_5678, "the sync came true");
        }
        let cons = self.r32(CMDQ_CONS) & 0xf_ffff;
        assert_eq!(cons, self.r32(CMDQ_PROD), "it was consumed");
    }

    /// Software has put the queue's indices to its start.
    pub(crate) fn rewound(&self) {
        *self.prod.lock().expect("it holds") = 0;
    }

    /// A page request of substream 3 for `addr`.
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
pub(crate) fn sink(sink: Arc<Sink>) -> Arc<dyn WiredSink> {
    sink
}

/// A unit whose device has [`AT`] mapped to [`PAGE`] by stage 1, without a substream (ASID 5) and for
/// substream 3 (ASID 6); R and A.
pub(crate) fn first(config: Config) -> Rig {
    let rig = Rig::new(config);
    rig.tables(TABLES, PAGE | RW);
    rig.context(CONTEXTS, TABLES, 5, R | A);
    rig.context(CONTEXTS + 3 * 64, TABLES, 6, R | A);
    rig.first_entry(CONTEXTS);
    rig.start();
    rig.raised();
    rig
}

/// The same where faults stall.
pub(crate) fn stalling(config: Config) -> Rig {
    let rig = first(config);
    for context in [CONTEXTS, CONTEXTS + 3 * 64] {
        rig.put(context, rig.get(context) | S);
    }
    rig.submit(&[CFGI_ALL]);
    rig.raised();
    rig
}

/// A unit whose device has [`AT`] mapped to [`PAGE`] by stage 2, VMID 7.
pub(crate) fn second(config: Config) -> Rig {
    let rig = Rig::new(config);
    rig.tables(STAGE2, PAGE | RW2);
    rig.second_entry(STAGE2, 7);
    rig.start();
    rig.raised();
    rig
}

/// A unit whose device has [`AT`] mapped to [`OTHER_PAGE`] by stage 1, ASID 5, and that to [`PAGE`] by
/// stage 2, VMID 7, which maps the first MiB to itself.
pub(crate) fn nested(config: Config) -> Rig {
    let rig = Rig::new(config);
    rig.tables(TABLES, OTHER_PAGE | RW);
    rig.context(CONTEXTS, TABLES, 5, R | A);
    rig.first_entry(CONTEXTS);
    rig.tables(STAGE2, PAGE | RW2);
    for page in 0..0x100 {
        rig.put(STAGE2 + 0x3000 + page * 8, page << 12 | RW2);
    }
    // Blocks of 2 MiB are pages here, too: of the second table, one entry.
    rig.put(STAGE2 + 0x2008, (STAGE2 + 0x4000) | 3);
    rig.put(STAGE2 + 0x4000, PAGE | RW2);
    rig.second_words(STAGE2, 7, 0);
    rig.put(STE, rig.get(STE) | 7 << 1);
    rig.start();
    rig.raised();
    rig
}
