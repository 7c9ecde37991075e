//! Plain functions over bytes, for a fuzzer and for the tests over its corpus.
//!
//! A script is steps of sixteen bytes: what a hostile guest writes into configuration space and
//! registers, answers and invalidations of an IOMMU, and the work of the function in between.

mod accelerator;
mod engine;
mod entropy;

pub use accelerator::dsa;
pub use engine::dma_engine;
pub use entropy::virtio_rng;

use crate::pci::{
    AtsCapability, AtsControl, Bar, Builder, Effect, Identity, MsixCapability, PasidCapability,
    Port, PriCapability,
};
use iopf::{PageRequest, Response};
use viommu_api::PageRequestOutcome;

#[cfg(test)]
mod tests;

/// Steps of one script that count; the rest is ignored.
const STEPS: usize = 256;

/// What becomes of a page request: its address says so, and every outcome is reached.
///
/// # Panics
/// When its group index is wider than PCIe has it.
fn page_request_outcome(request: &PageRequest) -> PageRequestOutcome {
    assert!(request.group.0 < 512, "nine bits: {request:?}");
    match request.addr.0 >> 12 & 3 {
        0 if request.last => PageRequestOutcome::Answered(Response::Success),
        1 if request.last => PageRequestOutcome::Answered(Response::Invalid),
        2 => PageRequestOutcome::Dropped,
        _ => PageRequestOutcome::Queued,
    }
}

/// One step: what, how, a small number, a place and a value.
struct Step {
    kind: u8,
    detail: u8,
    number: u16,
    at: u32,
    value: [u8; 8],
}

impl Step {
    fn read(bytes: &[u8; 16]) -> Self {
        let [kind, detail, n0, n1, a0, a1, a2, a3, value @ ..] = *bytes;
        Self {
            kind,
            detail,
            number: u16::from_le_bytes([n0, n1]),
            at: u32::from_le_bytes([a0, a1, a2, a3]),
            value,
        }
    }

    /// Up to eight bytes of the value: the low bits of `detail` say how many.
    fn data(&self) -> &[u8] {
        let len = usize::from(self.detail & 0xf).min(self.value.len());
        self.value.get(..len).unwrap_or_default()
    }

    fn word(&self) -> u64 {
        u64::from_le_bytes(self.value)
    }

    /// An offset into configuration space: anywhere, or near what is there.
    fn config_offset(&self) -> u16 {
        let [low, high, ..] = self.at.to_le_bytes();
        let offset = u16::from_le_bytes([low, high]);
        if self.detail & 0x10 == 0 {
            offset & 0x1ff
        } else {
            offset
        }
    }
}

fn steps(script: &[u8]) -> impl Iterator<Item = Step> {
    let (chunks, _) = script.as_chunks::<16>();
    chunks.iter().take(STEPS).map(Step::read)
}

/// Plays writes against a configuration space with every capability.
///
/// # Panics
/// When an effect says something that the space does not show, or an identifier changes.
pub fn config_space(data: &[u8]) {
    let built = Builder::new(Identity {
        vendor: 0x494f,
        device: 0x5046,
        ..Identity::default()
    })
    .bar(0, Bar::memory32(0x1000))
    .bar(2, Bar::memory64(1 << 33).prefetchable())
    .intx()
    .express(Port::Endpoint, true)
    .msix(MsixCapability {
        vectors: 8,
        table: (0, 0),
        pending: (0, 0x800),
    })
    .vendor(&[8, 0, 0, 0, 0, 0], &[0, 0xff, 0, 0, 0, 0])
    .ats(AtsCapability::default())
    .pri(PriCapability {
        capacity: 64,
        response_needs_pasid: true,
    })
    .pasid(PasidCapability {
        width: 20,
        execute: false,
        privileged: true,
    })
    .build();
    let Ok(mut space) = built else { return };
    let (mut master, mut ats) = (false, AtsControl::default());
    for step in steps(data) {
        for effect in space.write(step.config_offset(), step.data()) {
            match effect {
                Effect::BusMaster(on) => master = on,
                Effect::AtsChanged(control) => ats = control,
                Effect::FunctionReset => (master, ats) = (false, AtsControl::default()),
                Effect::PriChanged { control, reset } => {
                    assert!(control.allocation <= 64, "{control:?}");
                    assert!(!(control.enabled && reset), "reset while on");
                }
                _ => {}
            }
        }
        assert_eq!((space.bus_master(), space.ats()), (master, ats));
        assert!(!space.pasid().execute, "a mode that it does not have");
        let mut id = [0; 4];
        space.read(0, &mut id);
        assert_eq!(id, [0x4f, 0x49, 0x46, 0x50]);
        if let Some(address) = space.bar_address(2) {
            assert!(address.is_multiple_of(1 << 33), "{address:#x}");
        }
        let mut any = [0; 16];
        space.read(step.number, &mut any);
    }
}
