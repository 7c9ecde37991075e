//! A VMM writes a capture at the moment of a fault: it holds what the walk touched, and explains the
//! same.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use iommu_walk::{Trail, Updates};
use iopf::{Dma, DmaKind, Rid};
use iopf_scene::capture::{Arch, Builder, Capture, Device, Recorder, RequestKind, SceneMemory};
use iopf_scene::explain::{Explanation, amdvi, explain, smmuv3, vtd};
use std::fs;
use std::path::Path;

fn outcomes(capture: &Capture) -> Vec<Explanation> {
    explain(capture).unwrap().collect()
}

/// Walks the first request of `capture` over a recorder, as a VMM does over guest memory.
fn record(capture: &Capture) -> Option<Capture> {
    let request = capture.requests.first()?;
    let rid = match request.device {
        Device::Pci { rid, .. } => rid,
        Device::Number(stream) => Rid(stream),
    };
    let kind = match request.kind {
        RequestKind::Untranslated => DmaKind::Untranslated,
        _ => return None,
    };
    let dma = Dma {
        requester: rid,
        pasid: request.pasid,
        kind,
        addr: request.addr,
        access: request.access,
    };
    let recorder = Recorder::new(SceneMemory::new(capture));
    let (mut updates, mut trail) = (Updates::new(), Trail::new());
    let (updates, trail) = (&mut updates, &mut trail);
    let _ = match capture.arch {
        Arch::Amdvi => {
            let unit = amdvi::unit(capture);
            iommu_walk::amdvi::translate(&unit, &recorder, &dma, updates, trail).is_ok()
        }
        Arch::Smmuv3 => {
            let unit = smmuv3::unit(capture);
            iommu_walk::smmuv3::translate(&unit, &recorder, &dma, updates, trail).is_ok()
        }
        _ => {
            let unit = vtd::unit(capture);
            iommu_walk::vtd::translate(&unit, &recorder, &dma, updates, trail).is_ok()
        }
    };
    let mut builder = Builder::new(capture.arch);
    builder.note(&capture.note);
    for (name, value) in capture.registers.iter() {
        assert!(builder.register(name, value));
    }
    builder.record(&recorder);
    assert!(builder.request(*request));
    Some(builder.build())
}

#[test]
fn a_recorded_capture_is_explained_as_the_memory_it_was_taken_of() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/captures");
    let mut recorded = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let capture = Capture::parse(&fs::read(&path).unwrap()).unwrap();
        let Some(taken) = record(&capture) else {
            continue;
        };
        recorded += 1;
        let again = Capture::parse(&taken.to_gzip()).unwrap();
        assert_eq!(again, taken, "{}", path.display());
        assert_eq!(
            outcomes(&again),
            outcomes(&capture)[..1],
            "{}",
            path.display()
        );
        // At most four configuration entries of 64 bytes and a few page-table entries.
        let bytes: usize = taken.memory.iter().map(|range| range.data.len()).sum();
        assert!(bytes <= 512, "{} bytes of {}", bytes, path.display());
    }
    assert!(recorded > 90);
}
