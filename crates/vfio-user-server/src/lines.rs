//! Where a function's interrupts go: eventfds that a client passed.

use crate::codec::{IrqAction, IrqData, IrqIndex};
use rustix::fs::{OFlags, fcntl_getfl};
use std::os::fd::{AsRawFd, OwnedFd};
use viommu_api::InterruptKind;

/// A descriptor that can't carry an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadEventfd {
    /// Some other kind of file.
    #[error("descriptor {0} of SET_IRQS is not an eventfd")]
    Kind(usize),
    /// A peer could fill it and stop our thread.
    #[error("descriptor {0} of SET_IRQS is an eventfd that blocks")]
    Blocks(usize),
}

#[derive(Debug, Default)]
struct Line {
    eventfd: Option<OwnedFd>,
    /// By the client, or by the interrupt that the client has not yet handled. Of the pin only.
    masked: bool,
}

/// What became of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    /// The client hears of it.
    Sent,
    /// It is masked: whoever unmasks the pin looks whether its function still asserts it.
    Held,
    /// Nobody listens.
    Dropped,
}

/// The vectors of one function.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    kinds: [Vec<Line>; 3],
}

const fn place(kind: InterruptKind) -> usize {
    match kind {
        InterruptKind::Intx => 0,
        InterruptKind::Msi => 1,
        InterruptKind::Msix => 2,
    }
}

impl Lines {
    /// Nobody listens any more.
    pub(crate) fn clear(&mut self) {
        self.kinds = Default::default();
    }

    pub(crate) fn raise(&mut self, kind: InterruptKind, vector: u16) -> Raised {
        let line = self.kinds[place(kind)].get_mut(usize::from(vector));
        line.map_or(Raised::Dropped, |line| match kind {
            InterruptKind::Intx => line.raise_pin(),
            InterruptKind::Msi | InterruptKind::Msix => line.send(),
        })
    }

    /// Does what SET_IRQS says; the session has checked the numbers.
    pub(crate) fn set(
        &mut self,
        index: IrqIndex,
        range: (u32, u32),
        action: IrqAction,
        data: IrqData<'_>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), BadEventfd> {
        for (at, descriptor) in descriptors.iter().enumerate() {
            check(at, descriptor)?;
        }
        let (start, count) = (range.0 as usize, range.1 as usize);
        let Some(lines) = self.kinds.get_mut(index.index() as usize) else {
            return Ok(());
        };
        if count == 0 {
            lines.clear();
            return Ok(());
        }
        if lines.len() < start + count {
            lines.resize_with(start + count, Line::default);
        }
        let meant = |at: usize| match data {
            IrqData::Bool(flags) => flags.get(at).is_some_and(|flag| *flag != 0),
            IrqData::None | IrqData::Eventfd => true,
        };
        let mut descriptors = descriptors.into_iter();
        let lines = &mut lines[start..start + count];
        for (_, line) in lines.iter_mut().enumerate().filter(|(at, _)| meant(*at)) {
            match (action, data) {
                (IrqAction::Mask, _) => line.masked = true,
                (IrqAction::Unmask, _) => line.masked = false,
                (IrqAction::Trigger, IrqData::Eventfd) => line.listen(descriptors.next()),
                (IrqAction::Trigger, _) => drop(line.send()),
            }
        }
        Ok(())
    }
}

impl Line {
    /// The pin is a level, and an eventfd is an edge: the client hears of it once, and again when it
    /// has unmasked the pin and the level is still there ("automasked" in `<linux/vfio.h>`).
    fn raise_pin(&mut self) -> Raised {
        if self.masked {
            return Raised::Held;
        }
        let raised = self.send();
        self.masked = raised == Raised::Sent;
        raised
    }

    fn send(&self) -> Raised {
        let Some(eventfd) = &self.eventfd else {
            return Raised::Dropped;
        };
        match rustix::io::write(eventfd, &1_u64.to_ne_bytes()) {
            // Full: the client has not looked since, and one look is all it needs.
            Ok(_) | Err(rustix::io::Errno::AGAIN) => Raised::Sent,
            Err(_) => Raised::Dropped,
        }
    }

    fn listen(&mut self, eventfd: Option<OwnedFd>) {
        *self = Self {
            eventfd,
            ..Self::default()
        };
    }
}

/// An eventfd that doesn't block. The kernel tells the kind in the link of the descriptor.
fn check(at: usize, descriptor: &OwnedFd) -> Result<(), BadEventfd> {
    let link = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    let kind = std::fs::read_link(link).map_err(|_| BadEventfd::Kind(at))?;
    if kind.as_os_str() != "anon_inode:[eventfd]" {
        return Err(BadEventfd::Kind(at));
    }
    match fcntl_getfl(descriptor) {
        Ok(flags) if flags.contains(OFlags::NONBLOCK) => Ok(()),
        _ => Err(BadEventfd::Blocks(at)),
    }
}
