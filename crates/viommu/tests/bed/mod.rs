//! What the tests of every model stand on: a unit over memory, what came out of it, and dice.
#![allow(
    dead_code,
    unused_imports,
    reason = "each test binary uses its part of the bed"
)]

mod dice;
mod meddler;

pub(crate) use dice::{Dice, any_kind, any_page_request, any_register};
pub(crate) use meddler::Meddler;

use iopf::{Access, Dma, DmaKind, Gpa, GroupIndex, Iova, Pasid, Response, Rid};
use std::sync::{Arc, Mutex, Weak};
use viommu::arch::Arch;
use viommu::mem::GuestRam;
use viommu::{Setup, Unit};
use viommu_api::{
    Ats, Blocked, Endpoint, InterruptKind, Invalidation, IrqSink, MsiSink, Registers, Resume,
    StallTag, Translate, WiredSink,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub(crate) type Memory = Arc<GuestMemoryMmap<()>>;

/// Bytes of memory.
pub(crate) const SIZE: u64 = 4 << 20;

pub(crate) const DEVICE: Rid = Rid(0x0020); // 00:04.0

/// An interrupt that was raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    Message(u64, u32),
    Vector(u16),
    Wire(u16),
}

/// Remembers interrupts.
#[derive(Debug, Default)]
pub(crate) struct Sink(Mutex<Vec<Raised>>);

impl Sink {
    fn add(&self, raised: Raised) {
        self.0.lock().expect("it holds").push(raised);
    }
    fn take(&self) -> Vec<Raised> {
        std::mem::take(&mut self.0.lock().expect("it holds"))
    }
}

impl MsiSink for Sink {
    fn msi(&self, addr: u64, data: u32) {
        self.add(Raised::Message(addr, data));
    }
}

impl IrqSink for Sink {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        assert_eq!(kind, InterruptKind::Msi);
        self.add(Raised::Vector(vector));
    }
}

impl WiredSink for Sink {
    fn pulse(&self, wire: u16) {
        self.add(Raised::Wire(wire));
    }
}

/// What an endpoint heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Invalidate(Invalidation),
    Response(Option<Pasid>, GroupIndex, Response),
    Resume(StallTag, Resume),
}

#[derive(Debug, Default)]
pub(crate) struct Ear(Mutex<Vec<Heard>>);

impl Ear {
    fn add(&self, heard: Heard) {
        self.0.lock().expect("it holds").push(heard);
    }
    pub(crate) fn take(&self) -> Vec<Heard> {
        std::mem::take(&mut self.0.lock().expect("it holds"))
    }
}

impl Endpoint for Ear {
    fn invalidate(&self, invalidation: &Invalidation) {
        self.add(Heard::Invalidate(*invalidation));
    }
    fn page_response(&self, pasid: Option<Pasid>, group: GroupIndex, response: Response) {
        self.add(Heard::Response(pasid, group, response));
    }
    fn resume(&self, tag: StallTag, how: Resume) {
        self.add(Heard::Resume(tag, how));
    }
}

/// Does something at the end of a scope, also when a test fails there: other threads wait for it.
pub(crate) struct AtEnd<F: FnMut()>(pub(crate) F);

impl<F: FnMut()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// A unit over memory, [`DEVICE`] behind it.
pub(crate) struct Bed<X: Arch> {
    pub(crate) memory: Memory,
    pub(crate) unit: Arc<Unit<X, Memory>>,
    sink: Arc<Sink>,
    pub(crate) ear: Arc<Ear>,
}

/// Memory of [`SIZE`] bytes.
pub(crate) fn memory() -> Memory {
    let size = usize::try_from(SIZE).expect("it holds");
    let ranges = [(GuestAddress(0), size)];
    Arc::new(GuestMemoryMmap::from_ranges(&ranges).expect("it holds"))
}

impl<X: Arch> Bed<X> {
    /// `sink`: where its interrupts go, as the architecture takes them.
    pub(crate) fn new(config: X::Config, sink: fn(Arc<Sink>) -> Arc<X::Sink>) -> Self
    where
        X::Refused: std::fmt::Debug,
    {
        Self::over(memory(), config, sink)
    }

    /// The same over memory of another bed.
    pub(crate) fn over(
        memory: Memory,
        config: X::Config,
        sink: fn(Arc<Sink>) -> Arc<X::Sink>,
    ) -> Self
    where
        X::Refused: std::fmt::Debug,
    {
        let raised = Arc::new(Sink::default());
        let setup = Setup {
            config,
            ram: GuestRam::new(memory.clone()),
        };
        let unit = Arc::new(Unit::new(setup, sink(raised.clone())).expect("it holds"));
        let ear = Arc::new(Ear::default());
        let weak: Weak<Ear> = Arc::downgrade(&ear);
        unit.attach(DEVICE, weak);
        Self {
            memory,
            unit,
            sink: raised,
            ear,
        }
    }

    /// Interrupts since the last call.
    pub(crate) fn raised(&self) -> Vec<Raised> {
        self.sink.take()
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

    /// Does the same with 400 requests as a unit without caches, which is asked first. Says how many were
    /// served.
    pub(crate) fn assert_agrees(
        &self,
        bare: &Self,
        dice: &mut Dice,
        request: fn(&mut Dice) -> (Dma, u64),
        settle: fn(&mut X::Failure),
    ) -> u32 {
        let mut served = 0;
        for turn in 0..400 {
            let (dma, len) = request(dice);
            let expected = bare.play(&dma, len, settle);
            served += u32::from(expected.contains("Ok"));
            let found = self.play(&dma, len, settle);
            assert_eq!(found, expected, "turn {turn}, {dma:?}, {len:#x}");
        }
        served
    }

    /// What became of a request: the bytes it reaches, piece by piece joined, where it was blocked, and
    /// why, with what may differ between two units taken out of each failure.
    fn play(&self, dma: &Dma, len: u64, settle: fn(&mut X::Failure)) -> String {
        let said = if let DmaKind::Translation { .. } = dma.kind {
            format!("{:?}", self.unit.translation_request(dma))
        } else {
            let mut pieces: Vec<(u64, u64)> = Vec::new();
            let mut join = |Gpa(at): Gpa, len| match pieces.last_mut() {
                // Pages are cut in smaller ones, which says nothing about where bytes are.
                Some((from, before)) if from.wrapping_add(*before) == at => *before += len,
                _ => pieces.push((at, len)),
            };
            let result = self.unit.with_translation(dma, len, &mut join);
            format!("{pieces:x?} {result:?}")
        };
        let mut failures = Vec::new();
        for mut fault in self.unit.take_diagnostics() {
            settle(&mut fault.failure);
            failures.push((fault.dma, fault.failure));
        }
        format!("{said} {failures:?}")
    }

    /// Each fault is accounted for. Forgets the last ones.
    pub(crate) fn assert_accounts(&self) {
        let counters = self.unit.counters();
        let diagnostics = self.unit.take_diagnostics().len() as u64;
        assert_eq!(counters.faults, counters.forgotten + diagnostics);
        assert!(counters.recorded + counters.lost + counters.suppressed <= counters.faults);
    }
}
