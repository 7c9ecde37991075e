//! The registers of one channel: storage and rules. Bytes in, an order out.

use crate::Broken;
use crate::pci::store::{Store, written};
use iopf::{Access, Iova, Pasid, Rid};

/// Bytes of data that a channel can hold and show.
pub(super) const WINDOW: usize = 0x800;

/// Offsets within a channel.
pub(super) mod reg {
    pub(crate) const ID: u16 = 0x000;
    pub(crate) const VERSION: u16 = 0x004;
    pub(crate) const SRC: u16 = 0x008;
    pub(crate) const DST: u16 = 0x010;
    pub(crate) const LEN: u16 = 0x018;
    pub(crate) const PASID: u16 = 0x01c;
    pub(crate) const CONTROL: u16 = 0x020;
    pub(crate) const STATUS: u16 = 0x024;
    pub(crate) const FAULT_ADDR: u16 = 0x028;
    pub(crate) const MOVED: u16 = 0x030;
    pub(crate) const PATTERN: u16 = 0x038;
    pub(crate) const REQUESTER: u16 = 0x040;
    pub(crate) const REPEAT: u16 = 0x044;
    pub(crate) const STRIDE: u16 = 0x048;
    pub(crate) const ERRORS: u16 = 0x050;
    pub(crate) const CHECK: u16 = 0x054;
    pub(crate) const NANOS: u16 = 0x058;
    pub(crate) const FLAGS: u16 = 0x060;
    pub(crate) const EVER: u16 = 0x064;
    pub(crate) const WINDOW: u16 = 0x800;
}

/// "IOPF", as its bytes lie in memory.
const ID: u32 = 0x4650_4f49;
const VERSION: u32 = 1;

/// Bits that hold what a guest writes; GO is not among them, it reads as zero.
const WRITABLE: [(u16, u64, usize); 10] = [
    (reg::SRC, u64::MAX, 8),
    (reg::DST, u64::MAX, 8),
    (reg::LEN, 0xffff_ffff, 4),
    (reg::PASID, 0x800f_ffff, 4),
    (reg::CONTROL, 0x3ff, 4),
    (reg::PATTERN, u64::MAX, 8),
    (reg::REQUESTER, 0x8000_ffff, 4),
    (reg::REPEAT, 0xffff_ffff, 4),
    (reg::STRIDE, u64::MAX, 8),
    (reg::FLAGS, 0x7, 4),
];

/// What a channel is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    Read,
    Write,
    Copy,
    Fill,
    Verify,
    PageRequests,
    StopMarker,
}

/// How its addresses reach memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Ats,
    Untranslated,
    Translated,
    Host,
}

/// The registers as they were when GO was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// `None`: a number that means nothing.
    pub(super) task: Option<Task>,
    pub(super) path: Path,
    pub(super) from: Iova,
    pub(super) to: Iova,
    pub(super) len: u32,
    pub(super) pasid: Option<Pasid>,
    pub(super) privileged: bool,
    pub(super) execute: bool,
    pub(super) interrupt: bool,
    /// Page requests ask to write.
    pub(super) write: bool,
    pub(super) pattern: [u8; 8],
    pub(super) requester: Option<Rid>,
    /// At least 1.
    pub(super) repeat: u32,
    pub(super) stride: u64,
    /// Page requests beyond the allocation, without waiting.
    pub(super) flood: bool,
    pub(super) without_bus_master: bool,
    /// What [`Task::Write`] stores.
    pub(super) window: Vec<u8>,
}

impl Order {
    /// Rules that its requests break.
    pub(super) fn broken(&self) -> Broken {
        Broken {
            requester: self.requester,
            without_bus_master: self.without_bus_master,
        }
    }

    /// The access that each page request asks for.
    pub(super) fn page_access(&self) -> Access {
        let mut access = Access::READ;
        access.set(Access::WRITE, self.write);
        access.set(Access::EXEC, self.execute);
        access.set(Access::PRIV, self.privileged);
        access
    }
}

/// Where an order stands, as STATUS shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    #[default]
    Idle,
    Busy,
    Done,
    Error,
}

/// What the guest reads about an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) outcome: Outcome,
    /// Of the first failure; 0 without one.
    pub(super) error: u8,
    pub(super) pages: u32,
    pub(super) fault: u64,
    pub(super) moved: u64,
    pub(super) errors: u32,
    pub(super) check: u32,
    pub(super) nanos: u64,
}

/// The 4 KiB of a channel.
#[derive(Clone)]
pub(super) struct Regs {
    store: Store,
}

impl Regs {
    pub(super) fn new() -> Self {
        let mut store = Store::new();
        store.define(reg::ID, &ID.to_le_bytes());
        store.define(reg::VERSION, &VERSION.to_le_bytes());
        for (at, mask, len) in WRITABLE {
            let mask = mask.to_le_bytes();
            store.allow(at, mask.get(..len).unwrap_or(&mask));
        }
        store.allow(reg::WINDOW, &[0xff; WINDOW]);
        Self { store }
    }

    pub(super) fn read(&self, offset: u16, data: &mut [u8]) {
        self.store.read(offset, data);
    }

    /// Writes; true when that wrote GO.
    #[must_use]
    pub(super) fn write(&mut self, offset: u16, data: &[u8]) -> bool {
        self.store.write(offset, data);
        written(offset, data, reg::CONTROL + 3).is_some_and(|b| b & 0x80 != 0)
    }

    /// Whether invalidations are to be ignored.
    pub(super) fn deaf(&self) -> bool {
        self.store.u32(reg::FLAGS) & 1 != 0
    }

    /// What the registers order.
    pub(super) fn order(&self) -> Order {
        let control = self.store.u32(reg::CONTROL);
        let flags = self.store.u32(reg::FLAGS);
        let bit = |word: u32, n: u32| word >> n & 1 != 0;
        let task = match control & 0xf {
            1 => Some(Task::Read),
            2 => Some(Task::Write),
            3 => Some(Task::Copy),
            4 => Some(Task::Fill),
            5 => Some(Task::Verify),
            6 => Some(Task::PageRequests),
            7 => Some(Task::StopMarker),
            _ => None,
        };
        let path = match control >> 6 & 3 {
            0 => Path::Ats,
            1 => Path::Untranslated,
            2 => Path::Translated,
            _ => Path::Host,
        };
        let mut window = Vec::new();
        if task == Some(Task::Write) {
            window.resize(WINDOW, 0);
            self.store.read(reg::WINDOW, &mut window);
        }
        let pasid = self.store.u32(reg::PASID);
        let requester = self.store.u32(reg::REQUESTER);
        let [low, high, ..] = requester.to_le_bytes();
        Order {
            task,
            path,
            from: Iova(self.store.u64(reg::SRC)),
            to: Iova(self.store.u64(reg::DST)),
            len: self.store.u32(reg::LEN),
            pasid: bit(pasid, 31).then(|| Pasid::truncate(pasid & 0xf_ffff)),
            privileged: bit(control, 4),
            execute: bit(control, 5),
            interrupt: bit(control, 8),
            write: bit(control, 9),
            pattern: self.store.u64(reg::PATTERN).to_le_bytes(),
            requester: bit(requester, 31).then(|| Rid::from_pci(u16::from_le_bytes([low, high]))),
            repeat: self.store.u32(reg::REPEAT).max(1),
            stride: self.store.u64(reg::STRIDE),
            flood: bit(flags, 1),
            without_bus_master: bit(flags, 2),
            window,
        }
    }

    /// Shows where the order stands.
    pub(super) fn show(&mut self, progress: &Progress) {
        let state: u32 = match progress.outcome {
            Outcome::Idle => 0,
            Outcome::Busy => 1,
            Outcome::Done => 2,
            Outcome::Error => 3,
        };
        let pages = progress.pages.min(0xffff);
        let status = state | u32::from(progress.error) << 8 | pages << 16;
        self.store.put(reg::STATUS, &status.to_le_bytes());
        for (at, value) in [
            (reg::FAULT_ADDR, progress.fault),
            (reg::MOVED, progress.moved),
            (reg::NANOS, progress.nanos),
        ] {
            self.store.put(at, &value.to_le_bytes());
        }
        self.store.put(reg::ERRORS, &progress.errors.to_le_bytes());
        self.store.put(reg::CHECK, &progress.check.to_le_bytes());
    }

    /// Puts data that was read into the window.
    pub(super) fn fill_window(&mut self, data: &[u8]) {
        let data = data.get(..WINDOW).unwrap_or(data);
        self.store.put(reg::WINDOW, data);
    }

    /// Counts an order that is over.
    pub(super) fn count(&mut self) {
        let ever = self.store.u32(reg::EVER).wrapping_add(1);
        self.store.put(reg::EVER, &ever.to_le_bytes());
    }

    pub(super) fn reset(&mut self) {
        self.store.reset();
    }
}

#[cfg(test)]
mod tests;
