//! A capture at each new kind of fault.

use super::arch::Serve;
use super::event::Event;
use iopf::{Access, DmaKind, Rid};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use viommu::Diagnostic;
use viommu::mem::{GuestRam, View};
use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

/// Captures tried in one run at most: a guest chooses how many kinds there are, and whether its
/// tables hold still.
const MOST: usize = 256;

/// What makes a fault one of its own kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Kind<C> {
    requester: Rid,
    with_pasid: bool,
    kind: DmaKind,
    page_request: bool,
    access: Access,
    condition: C,
}

/// Where captures go, and which kinds have one.
pub(super) struct Captures<X: Serve> {
    dir: PathBuf,
    taken: Mutex<Taken<X::Condition>>,
    written: AtomicU64,
}

struct Taken<C> {
    kinds: HashSet<Kind<C>>,
    tried: usize,
    /// The number of the last file.
    number: u64,
}

/// The greatest number that a file in `dir` begins with: the captures of an earlier run stay.
fn last(dir: &Path) -> io::Result<u64> {
    let number = |entry: fs::DirEntry| {
        let name = entry.file_name();
        name.to_str()?.split('-').next()?.parse().ok()
    };
    let numbers = fs::read_dir(dir)?.flatten().filter_map(number);
    Ok(numbers.max().unwrap_or(0))
}

/// Writes a new file. Whatever has that name already, a link included, is left alone.
fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut new = File::create_new(file)?;
    new.write_all(text.as_bytes())
}

impl<X: Serve> Captures<X> {
    /// Captures in `dir`, which is made where it is missing.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            taken: Mutex::new(Taken {
                kinds: HashSet::new(),
                tried: 0,
                number: last(dir)?,
            }),
            written: AtomicU64::new(0),
        })
    }

    /// Writes a capture of `fault`, if it is of a new kind. To be called before the guest is told.
    pub(super) fn take<A>(
        &self,
        unit: &X::Walk,
        ram: &GuestRam<A>,
        fault: &Diagnostic<X::Failure>,
    ) -> Option<Event>
    where
        A: GuestAddressSpace<M: GuestMemoryBackend> + 'static,
    {
        let Diagnostic { dma, failure, .. } = fault;
        let reason = X::reason(failure);
        let kind = Kind {
            requester: dma.requester,
            with_pasid: dma.pasid.is_some(),
            kind: dma.kind,
            page_request: fault.page_request,
            access: dma.access,
            condition: X::condition(failure),
        };
        let number = {
            let mut taken = self.taken();
            if taken.tried >= MOST || !taken.kinds.insert(kind) {
                return None;
            }
            taken.tried += 1;
            taken.number = taken.number.saturating_add(1);
            taken.number
        };
        let note = format!(
            "{} at {} from {}, met by iopf serve",
            dma.access, dma.addr, dma.requester
        );
        let capture = ram.view(|view| X::capture(unit, View::new(view.memory()), fault, &note));
        let Some(capture) = capture else {
            // The next one of this kind may hold still.
            self.taken().kinds.remove(&kind);
            return Some(Event::NoCapture {
                why: format!("the tables of {} changed at that moment", dma.requester),
            });
        };
        let name = format!(
            "{number:03}-{:02x}.{}-{:02x}.json",
            dma.requester.device(),
            dma.requester.function(),
            reason.code
        );
        let file = self.dir.join(name);
        Some(match write_new(&file, &capture.to_text()) {
            Ok(()) => {
                self.written.fetch_add(1, Ordering::Relaxed);
                Event::Capture {
                    file,
                    device: dma.requester.to_string(),
                    code: reason.code,
                    name: reason.name,
                }
            }
            Err(error) => Event::NoCapture {
                why: format!("{}: {error}", file.display()),
            },
        })
    }

    /// Captures written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    fn taken(&self) -> MutexGuard<'_, Taken<X::Condition>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
