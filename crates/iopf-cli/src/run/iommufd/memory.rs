//! Memory on demand: a page of this process is mapped where a device asks for it.

use super::plan::{PAGE, Window};
use crate::exit::Stop;
use iopf::engine::{Group, Pages, Stray, Verdict};
use iopf::resolve::{Decision, Resolver};
use iopf::{Access, Iova, Response};
use iopf_host::{Ioas, Mapping, Refused, Rights};
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

/// Why a page was not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unmapped {
    /// It is not in the window.
    #[error("outside of the memory")]
    Outside,
    /// Devices may read and write, nothing else.
    #[error("no right to execute")]
    Execute,
    /// The kernel did not map it.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// The window, its memory, and what of it is mapped. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ioas: Arc<Ioas>,
    mapping: Arc<Mapping>,
    start: u64,
    len: u64,
    /// By page number in the window.
    mapped: Mutex<BTreeSet<u64>>,
}

impl Memory {
    /// Nothing of it is mapped, and no page of it exists yet.
    pub(super) fn new(window: &Window, ioas: &Arc<Ioas>) -> Result<Self, Stop> {
        let len = usize::try_from(window.len)
            .map_err(|_| Stop::host("more memory than this machine has addresses"))?;
        let mapping = match &window.backing {
            None => Mapping::anonymous(len)
                .map_err(|e| Stop::host(format_args!("{len:#x} bytes of memory: {e}")))?,
            Some(path) => {
                let refused =
                    |e: &dyn std::fmt::Display| Stop::host(format_args!("{}: {e}", path.display()));
                let options = File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path);
                let file = options.map_err(|e| refused(&e))?;
                if file.metadata().map_err(|e| refused(&e))?.len() < window.len {
                    file.set_len(window.len).map_err(|e| refused(&e))?;
                }
                Mapping::new(&file, 0, len).map_err(|e| refused(&e))?
            }
        };
        Ok(Self(Arc::new(Inner {
            ioas: ioas.clone(),
            mapping: Arc::new(mapping),
            start: window.start.0,
            len: window.len,
            mapped: Mutex::default(),
        })))
    }

    /// Maps what of `pages` is not mapped yet. Pages before one that fails stay mapped.
    pub(super) fn populate(
        &self,
        access: Access,
        pages: impl Iterator<Item = u64>,
    ) -> Result<u64, Unmapped> {
        if access.contains(Access::EXEC) {
            return Err(Unmapped::Execute);
        }
        let mut mapped = self.0.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new = 0;
        for page in pages {
            let offset = page.checked_sub(self.0.start).filter(|at| *at < self.0.len);
            let offset = offset.ok_or(Unmapped::Outside)? & !(PAGE - 1);
            if mapped.contains(&(offset / PAGE)) {
                continue;
            }
            let at = Iova(self.0.start + offset);
            let part = offset..offset + PAGE;
            self.0
                .ioas
                .map_part(at, &self.0.mapping, part, Rights::all())?;
            mapped.insert(offset / PAGE);
            new += 1;
        }
        Ok(new)
    }

    /// Pages that are mapped.
    pub(super) fn pages(&self) -> u64 {
        let mapped = self.0.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.len() as u64
    }
}

/// Answers SUCCESS once the pages of a group are mapped, else INVALID.
#[derive(Debug)]
pub(super) struct OnDemand {
    pub(super) memory: Memory,
    pub(super) watch: Arc<super::watch::Watch>,
}

impl Resolver for OnDemand {
    fn group(&mut self, group: &Group, pages: Pages<'_>) -> Decision {
        let step = |step, note: &dyn Fn() -> String| {
            self.watch.step(step, group.device, group.index.0, note);
        };
        let mut done = Ok(0);
        step("resolver decided", &|| "map it".to_owned());
        for page in pages {
            done = done.and_then(|sum| {
                let new = self
                    .memory
                    .populate(page.access, std::iter::once(page.addr.0))?;
                Ok::<u64, Unmapped>(sum + new)
            });
        }
        match done {
            Ok(new) => {
                step("IOAS_MAP done", &|| format!("{new} pages"));
                Decision::Answer(Response::Success)
            }
            Err(why) => {
                step("not mapped", &|| why.to_string());
                Decision::Answer(Response::Invalid)
            }
        }
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}
