//! A machine of QEMU's with one of its IOMMUs, and devices that do DMA when told to.

use super::case::{Arch, Case, End, Memory, RAM_SIZE, SCRATCH};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use testkit::qemu::qtest::{Qtest, QtestError, Read};
use testkit::qemu::root::QemuRoot;

/// Registers of `edu`: QEMU `docs/specs/edu.rst`.
const EDU_SOURCE: u64 = 0x80;
const EDU_DESTINATION: u64 = 0x88;
const EDU_COUNT: u64 = 0x90;
const EDU_COMMAND: u64 = 0x98;
const EDU_BUFFER: u64 = 0x4_0000;
const EDU_FROM_RAM: u64 = 1;
const EDU_TO_RAM: u64 = 3;
/// `edu` moves its data 100 ms after the command.
const EDU_DELAY: u64 = 101_000_000;

/// Registers of `iommu-testdev`: QEMU `include/hw/misc/iommu-testdev.h`.
const TEST_TRIGGER: u64 = 0x00;
const TEST_ADDRESS: u64 = 0x04;
const TEST_LENGTH: u64 = 0x0c;
const TEST_RESULT: u64 = 0x10;
const TEST_ARM: u64 = 0x14;
const TEST_READ_BACK: u64 = 0x1c;
/// The write went out, and the word read back is not what was written: we let it look elsewhere.
const TEST_MISMATCH: u64 = 0xdead_0004;
/// The write did not go out.
const TEST_FAILED: u64 = 0xdead_0002;
/// What it writes.
const PATTERN: u32 = 0x1234_5678;

/// The functions that do DMA: two a kind, one with a function number above 127.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// Writes one 32-bit word.
    Writer { upper: bool },
    /// Reads one 32-bit word.
    Reader { upper: bool },
}

impl Device {
    pub(crate) const ALL: [Self; 4] = [
        Self::Writer { upper: false },
        Self::Reader { upper: false },
        Self::Writer { upper: true },
        Self::Reader { upper: true },
    ];

    /// Requester ID: bus 0, and the slot it is plugged into.
    pub(crate) const fn rid(self) -> u16 {
        let slot = match self {
            Self::Writer { upper: false } => 0x04,
            Self::Reader { upper: false } => 0x05,
            Self::Writer { upper: true } => 0x12,
            Self::Reader { upper: true } => 0x13,
        };
        slot << 3
    }

    pub(crate) const fn writes(self) -> bool {
        matches!(self, Self::Writer { .. })
    }
}

/// What an access to the file behind guest memory relies on.
const RAM_FILE: &str = "the file behind guest memory is open and as long as it";

/// What QEMU did with a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Observed<A: Arch> {
    pub(crate) end: End<A>,
    /// The words of the case afterwards.
    pub(crate) words: BTreeMap<u64, u64>,
}

/// The way to registers and to memory.
pub(crate) struct Bus {
    pub(crate) qtest: Qtest,
    ram: File,
    /// Memory as no case has changed it.
    clean: Memory,
    _dir: tempfile::TempDir,
}

impl Bus {
    pub(crate) fn put(&self, at: u64, word: u64) {
        self.ram
            .write_all_at(&word.to_le_bytes(), at - self.clean.start)
            .expect(RAM_FILE);
    }

    pub(crate) fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn read(&self, at: u64, bytes: &mut [u8]) {
        let offset = at - self.clean.start;
        self.ram.read_exact_at(bytes, offset).expect(RAM_FILE);
    }

    /// Writes the word that is at `at` as long as no case has another.
    fn restore(&self, at: u64) {
        self.put(at, self.clean.default_word(at));
    }
}

pub(crate) struct Machine<A> {
    bus: Bus,
    pub(crate) iommu: A,
}

impl<A: Arch> Machine<A> {
    /// A machine whose IOMMU is this device with these properties.
    pub(crate) fn start(root: &QemuRoot, unit: &str, mode: A::Mode) -> Result<Self, QtestError> {
        let dir = tempfile::tempdir().map_err(QtestError::Start)?;
        let path = dir.path().join("ram");
        let ram = File::create_new(&path).map_err(QtestError::Start)?;
        ram.set_len(RAM_SIZE).map_err(QtestError::Start)?;
        let clean = Memory::of(&A::BOARD);
        for (at, page) in clean.default_pages() {
            let written = ram.write_all_at(&page, at - clean.start);
            written.map_err(QtestError::Start)?;
        }
        let backend = format!(
            "memory-backend-file,id=ram,size={RAM_SIZE},share=on,mem-path={}",
            path.display()
        );
        let size = format!("{}M", RAM_SIZE >> 20);
        let machine = format!("{},memory-backend=ram", A::BOARD.machine);
        let mut args = vec!["-machine", &machine, "-m", &size];
        args.extend(["-object", &backend, A::BOARD.unit, unit]);
        let devices = Device::ALL.map(|device| {
            let slot = device.rid() >> 3;
            if device.writes() {
                format!("iommu-testdev,addr={slot:02x}.0")
            } else {
                format!("edu,addr={slot:02x}.0,dma_mask=0xffffffffffffffff")
            }
        });
        for device in &devices {
            args.extend(["-device", device.as_str()]);
        }
        let mut qtest = Qtest::start(root, &args)?;
        for device in Device::ALL {
            A::BOARD.plug(&mut qtest, device.rid())?;
        }
        let mut bus = Bus {
            qtest,
            ram,
            clean,
            _dir: dir,
        };
        Ok(Self {
            iommu: A::start(&mut bus, mode)?,
            bus,
        })
    }

    /// Runs one case; `likely` is where a write is looked for first.
    pub(crate) fn run(
        &mut self,
        case: &Case<A>,
        likely: &[u64],
    ) -> Result<Observed<A>, QtestError> {
        for (at, word) in &case.memory.words {
            self.bus.put(*at, *word);
        }
        self.iommu.enter(&mut self.bus, Some(case))?;
        let (record, reached) = if case.device.writes() {
            self.write_dma(case, likely)?
        } else {
            self.read_dma(case)?
        };
        let words = case.memory.words.keys();
        let words = words.map(|at| (*at, self.bus.get(*at))).collect();
        for at in case.memory.words.keys() {
            self.bus.restore(*at);
        }
        let end = match (record, reached) {
            (Some(record), None) => End::Fault(record),
            (None, Some(at)) => End::Memory(at),
            (None, None) => End::Nothing,
            (Some(record), Some(at)) => panic!("QEMU recorded {record:?} and reached {at:#x}"),
        };
        Ok(Observed { end, words })
    }

    fn write_dma(
        &mut self,
        case: &Case<A>,
        likely: &[u64],
    ) -> Result<(Option<A::Record>, Option<u64>), QtestError> {
        let (bar, scratch) = (bar::<A>(case.device), self.scratch());
        for (register, value) in [
            (TEST_ADDRESS, low(case.iova)),
            (TEST_ADDRESS + 4, low(case.iova >> 32)),
            (TEST_LENGTH, 4),
            (TEST_READ_BACK, low(scratch)),
            (TEST_READ_BACK + 4, 0),
            (TEST_ARM, 1),
        ] {
            self.bus.qtest.writel(bar + register, value)?;
        }
        let mut reads = vec![
            Read::Long(bar + TEST_TRIGGER),
            Read::Long(bar + TEST_RESULT),
        ];
        reads.extend(self.iommu.status());
        let values = self.bus.qtest.reads(&reads)?;
        let record = self.iommu.take(&mut self.bus, &values[2..])?;
        let reached = match values[1] {
            TEST_FAILED => None,
            TEST_MISMATCH => Some(self.find_pattern(likely)),
            other => panic!("iommu-testdev reports {other:#x}"),
        };
        Ok((record, reached))
    }

    fn read_dma(&mut self, case: &Case<A>) -> Result<(Option<A::Record>, Option<u64>), QtestError> {
        let scratch = self.scratch();
        self.bus.put(scratch, u64::MAX);
        self.edu(case.device, case.iova, EDU_BUFFER, EDU_FROM_RAM)?;
        let values = self.bus.qtest.reads(&self.iommu.status())?;
        let record = self.iommu.take(&mut self.bus, &values)?;
        // The buffer comes out where it can be seen.
        self.iommu.enter(&mut self.bus, None)?;
        self.edu(case.device, EDU_BUFFER, scratch, EDU_TO_RAM)?;
        self.bus.qtest.settle()?;
        let seen = self.bus.get(scratch) & 0xffff_ffff;
        // Every word of the data pages holds its own address; a blocked read gives zero.
        Ok((record, (seen != 0).then_some(seen)))
    }

    fn edu(&mut self, device: Device, from: u64, to: u64, command: u64) -> Result<(), QtestError> {
        let bar = bar::<A>(device);
        let qtest = &mut self.bus.qtest;
        qtest.writeq(bar + EDU_SOURCE, from)?;
        qtest.writeq(bar + EDU_DESTINATION, to)?;
        qtest.writeq(bar + EDU_COUNT, 4)?;
        qtest.writeq(bar + EDU_COMMAND, command)?;
        qtest.clock_step(EDU_DELAY)
    }

    /// A word of the harness itself.
    const fn scratch(&self) -> u64 {
        self.bus.clean.start + SCRATCH
    }

    /// Where the pattern landed; it is taken away again.
    fn find_pattern(&self, likely: &[u64]) -> u64 {
        let mut bytes = vec![0; 1 << 20];
        let mut within = |at: u64, length: usize| {
            let bytes = &mut bytes[..length];
            self.bus.read(at, bytes);
            let mut words = (at..).step_by(4).zip(bytes.chunks_exact(4));
            words.find_map(|(at, word)| (word == PATTERN.to_le_bytes()).then_some(at))
        };
        let found = likely
            .iter()
            .find_map(|at| within(*at, 4))
            .or_else(|| {
                let mut chunks = self.bus.clean.place(&(0..RAM_SIZE)).step_by(1 << 20);
                chunks.find_map(|at| within(at, 1 << 20))
            })
            .expect("the write went to memory");
        self.bus.restore(found & !7);
        found
    }
}

/// Where the registers of a device are.
const fn bar<A: Arch>(device: Device) -> u64 {
    A::BOARD.bar(device.rid() >> 3)
}

/// The low half of a word.
fn low(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}
