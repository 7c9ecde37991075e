//! A capture at each new kind of fault.

use super::event::Event;
use iommu_walk::vtd::Unit;
use iopf::{Access, DmaKind, Rid};
use iopf_scene::capture::vtd_fault;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use viommu::mem::{GuestRam, View};
use viommu::vtd::Diagnostic;
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

/// Captures written in one run at most: a guest chooses how many kinds there are.
const MOST: usize = 256;

/// What makes a fault one of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind {
    requester: Rid,
    with_pasid: bool,
    kind: DmaKind,
    page_request: bool,
    access: Access,
    code: u32,
    level: u8,
}

/// Where captures go, and which kinds have one.
#[derive(Debug)]
pub(super) struct Captures {
    dir: PathBuf,
    seen: Mutex<HashSet<Kind>>,
}

impl Captures {
    /// Captures in `dir`, which is made where it is missing.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            seen: Mutex::default(),
        })
    }

    /// Writes a capture of `fault`, if it is of a new kind. To be called before the guest is told.
    pub(super) fn take<A>(
        &self,
        unit: &Unit,
        ram: &GuestRam<A>,
        fault: &Diagnostic,
    ) -> Option<Event>
    where
        A: GuestAddressSpace<M: GuestMemoryBackend> + 'static,
    {
        let Diagnostic { dma, failure, .. } = fault;
        let kind = Kind {
            requester: dma.requester,
            with_pasid: dma.pasid.is_some(),
            kind: dma.kind,
            page_request: fault.page_request,
            access: dma.access,
            code: failure.cause.reason().0,
            level: failure.level,
        };
        let number = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.len() >= MOST || !seen.insert(kind) {
                return None;
            }
            seen.len()
        };
        let note = format!(
            "{} at {} from {}, met by iopf serve",
            dma.access, dma.addr, dma.requester
        );
        let capture = ram.view(|view| vtd_fault(unit, View::new(view.memory()), fault, &note));
        let Some(capture) = capture else {
            return Some(Event::NoCapture {
                why: format!("the tables of {} changed at that moment", dma.requester),
            });
        };
        let name = format!(
            "{number:03}-{:02x}.{}-{:02x}.json",
            dma.requester.device(),
            dma.requester.function(),
            kind.code
        );
        let file = self.dir.join(name);
        Some(match fs::write(&file, capture.to_text()) {
            Ok(()) => Event::Capture {
                file,
                device: dma.requester.to_string(),
                code: kind.code,
                name: failure.cause.code(),
            },
            Err(error) => Event::NoCapture {
                why: format!("{}: {error}", file.display()),
            },
        })
    }

    /// Kinds met so far.
    pub(super) fn kinds(&self) -> u64 {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len() as u64
    }
}
