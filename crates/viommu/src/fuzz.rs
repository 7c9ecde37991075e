//! Plain functions over bytes, for a fuzzer and for the tests over its corpus.
//!
//! A script is a byte that chooses the configuration, then steps of sixteen bytes. The guest owns
//! the registers and the memory, the device everything it puts on the bus: both are hostile here.

use crate::arch::Arch;
use crate::mem::GuestRam;
use crate::{Counters, Setup, Unit, amdvi, smmuv3, vtd};
use iopf::{Access, Dma, DmaKind, Gpa, GroupIndex, Iova, PageRequest, Pasid, Response, Rid};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use viommu_api::{
    Ats, AtsCompletion, Endpoint, InterruptKind, Invalidation, IrqSink, MsiSink,
    PageRequestOutcome, Pri, Registers, Resume, StallTag, Translate, WiredSink,
};
use vm_memory::{GuestAddress, GuestMemoryMmap};

#[cfg(test)]
mod tests;

/// Guest memory, small enough for a script to hit what it set up.
const MEMORY: usize = 1 << 20;

/// Steps of one script that count; the rest is ignored.
const STEPS: usize = 512;

/// The one device.
const DEVICE: Rid = Rid(0x0008);

#[derive(Debug, Default)]
struct World {
    messages: AtomicU64,
    answers: AtomicU64,
    resumed: AtomicU64,
}

impl MsiSink for World {
    fn msi(&self, _: u64, _: u32) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}

impl IrqSink for World {
    fn raise(&self, _: InterruptKind, _: u16) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}

impl WiredSink for World {
    fn pulse(&self, _: u16) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }
}

impl Endpoint for World {
    fn invalidate(&self, invalidation: &Invalidation) {
        assert!(invalidation.size_shift <= 64, "{invalidation:?}");
    }

    fn page_response(&self, _: Option<Pasid>, group: GroupIndex, _: Response) {
        assert!(group.0 < 512, "PCIe has 9 bits for a group: {group:?}");
        self.answers.fetch_add(1, Ordering::Relaxed);
    }

    fn resume(&self, _: StallTag, _: Resume) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
    }
}

type Memory = Arc<GuestMemoryMmap>;

/// One step: `kind`, `size`, a PASID of 16 bits, an offset or address of 32 bits, and a value.
struct Step {
    kind: u8,
    detail: u8,
    pasid: u16,
    at: u32,
    value: u64,
}

impl Step {
    fn read(bytes: &[u8; 16]) -> Self {
        let [kind, detail, p0, p1, a0, a1, a2, a3, value @ ..] = *bytes;
        Self {
            kind,
            detail,
            pasid: u16::from_le_bytes([p0, p1]),
            at: u32::from_le_bytes([a0, a1, a2, a3]),
            value: u64::from_le_bytes(value),
        }
    }

    fn access(&self) -> Access {
        Access::from_bits_truncate(self.detail & 0xf)
    }

    fn pasid(&self) -> Option<Pasid> {
        (self.detail & 0x10 != 0).then(|| Pasid::truncate(u32::from(self.pasid)))
    }

    fn dma(&self, kind: DmaKind) -> Dma {
        Dma {
            requester: DEVICE,
            pasid: self.pasid(),
            kind,
            addr: Iova(self.value),
            access: self.access(),
        }
    }
}

/// Plays a script against the VT-d model.
///
/// # Panics
/// When the model breaks a promise: a piece of DMA outside its page, a right that was not granted,
/// counts that do not add up.
pub fn vtd_model(data: &[u8]) {
    let Some((flavour, script)) = data.split_first() else {
        return;
    };
    let mut config = vtd::Config {
        fault_records: 1 + u16::from(flavour & 7),
        ..vtd::Config::default()
    };
    if flavour & 8 != 0 {
        config.scalable = None;
    }
    let world = Arc::new(World::default());
    model::<vtd::Vtd>(config, world.clone(), &world, 0xfff, script);
}

/// Plays a script against the AMD-Vi model.
///
/// # Panics
/// As [`vtd_model`].
pub fn amdvi_model(data: &[u8]) {
    let Some((flavour, script)) = data.split_first() else {
        return;
    };
    let mut config = amdvi::Config {
        device_table_segments: 1 << (flavour & 3),
        device_tlb_types: flavour & 4 != 0,
        iotlb_entries: if flavour & 0x10 == 0 { 4096 } else { 0 },
        hypertransport_ignored: flavour & 0x20 != 0,
        ..amdvi::Config::default()
    };
    if flavour & 8 != 0 {
        config.guest = None;
        config.page_requests = None;
    }
    let world = Arc::new(World::default());
    model::<amdvi::Amdvi>(config, world.clone(), &world, 0x3fff, script);
}

/// Plays a script against the SMMUv3 model.
///
/// # Panics
/// As [`vtd_model`]; also when a stalled transaction is let go twice, or never.
pub fn smmuv3_model(data: &[u8]) {
    let Some((flavour, script)) = data.split_first() else {
        return;
    };
    let stall_model = match flavour & 3 {
        1 => smmuv3::StallModel::TERMINATE,
        2 => smmuv3::StallModel::FORCED,
        _ => smmuv3::StallModel::BOTH,
    };
    let mut config = smmuv3::Config {
        stall_model,
        stalls: match (stall_model, flavour & 0x80) {
            (smmuv3::StallModel::TERMINATE, _) => 0,
            (_, 0) => 2,
            _ => 64,
        },
        always_abort: flavour & 4 != 0,
        second_stage: flavour & 8 == 0,
        iotlb_entries: if flavour & 0x10 == 0 { 4096 } else { 0 },
        messages: flavour & 0x40 == 0,
        ..smmuv3::Config::default()
    };
    if flavour & 0x20 != 0 {
        config.ats = None;
    }
    let world = Arc::new(World::default());
    model::<smmuv3::Smmuv3>(config, world.clone(), &world, 0x1_ffff, script);
}

/// Plays a script against a model whose registers lie below `registers`, a mask.
fn model<X: Arch>(
    config: X::Config,
    sink: Arc<X::Sink>,
    world: &Arc<World>,
    registers: u32,
    script: &[u8],
) {
    let Ok(memory) = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]) else {
        return;
    };
    let ram = GuestRam::new(Arc::new(memory));
    let setup = Setup {
        config,
        ram: ram.clone(),
    };
    let Ok(unit) = Unit::<X, Memory>::new(setup, sink) else {
        return;
    };
    let endpoint: Arc<dyn Endpoint> = world.clone();
    unit.attach(DEVICE, Arc::downgrade(&endpoint) as Weak<dyn Endpoint>);
    let (chunks, _) = script.as_chunks::<16>();
    for chunk in chunks.iter().take(STEPS) {
        play(&unit, &ram, registers, &Step::read(chunk));
    }
    let answers = world.answers.load(Ordering::Relaxed);
    check(&unit.counters(), answers, unit.take_diagnostics().len());
    unit.reset();
    let stalled = unit.counters().stalled;
    assert_eq!(stalled, world.resumed.load(Ordering::Relaxed));
}

fn play<X: Arch>(unit: &Unit<X, Memory>, ram: &GuestRam<Memory>, registers: u32, step: &Step) {
    match step.kind % 8 {
        0 => {
            let size = 1 << (step.detail & 3);
            let bytes = step.value.to_le_bytes();
            unit.write(
                u64::from(step.at & registers),
                bytes.get(..size).unwrap_or(&bytes),
            );
        }
        1 => {
            let mut bytes = [0; 16];
            let size = usize::from(step.detail & 0xf);
            unit.read(u64::from(step.at), bytes.get_mut(..size).unwrap_or(&mut []));
        }
        // Outside of memory is a refusal, not a failure of the script.
        2 => drop(ram.write(Gpa(u64::from(step.at)), &step.value.to_le_bytes())),
        3 => untranslated(unit, step, DmaKind::Untranslated),
        4 => translation(unit, step),
        5 => {
            let request = PageRequest {
                pasid: step.pasid(),
                group: GroupIndex(step.at & 0x1ff),
                addr: Iova(step.value & !0xfff),
                access: step.access(),
                last: step.detail & 0x20 != 0,
                response_needs_pasid: step.detail & 0x40 != 0,
                private_data: [0; 2],
            };
            if let PageRequestOutcome::Answered(_) = unit.page_request(DEVICE, &request) {
                assert!(request.last, "only a group's last page is answered");
            }
        }
        6 => untranslated(unit, step, DmaKind::Translated),
        _ => unit.reset(),
    }
}

fn untranslated(unit: &impl Translate, step: &Step, kind: DmaKind) {
    let len = u64::from(step.at & 0x3fff);
    let mut moved = 0;
    let done = unit.with_translation(&step.dma(kind), len, &mut |_, piece| {
        assert!(piece > 0, "an empty piece");
        moved += piece;
    });
    match done {
        Ok(()) => assert_eq!(moved, len),
        Err(blocked) => assert!(moved <= len, "{blocked} after {moved} of {len}"),
    }
}

fn translation(unit: &impl Ats, step: &Step) {
    let no_write = step.detail & 0x20 != 0;
    let dma = step.dma(DmaKind::Translation { no_write });
    if let AtsCompletion::Success { granted, .. } = unit.translation_request(&dma) {
        assert!((12..=63).contains(&granted.page_shift), "{granted:?}");
        assert!(!granted.perms.contains(Access::PRIV), "{granted:?}");
    }
}

fn check(counters: &Counters, answers: u64, remembered: usize) {
    assert!(counters.recorded + counters.lost + counters.suppressed <= counters.faults);
    assert_eq!(counters.forgotten + remembered as u64, counters.faults);
    assert_eq!(counters.responses, answers);
}
