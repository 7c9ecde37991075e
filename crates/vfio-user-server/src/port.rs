//! A function's way up to its client.

use crate::codec::{IrqAction, IrqData, IrqIndex};
use crate::lines::{BadEventfd, Lines, Raised};
use crate::socket::Link;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use viommu_api::{InterruptKind, IrqSink, MsiSink};

/// What went through a [`Port`], and what did not. Counts since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortCounters {
    /// Interrupts raised towards an eventfd.
    pub interrupts: u64,
    /// Interrupts that nobody listened to: no client, or the vector is not set up.
    pub interrupts_dropped: u64,
    /// Messages written to the client's memory.
    pub messages: u64,
    /// Messages that found no client, or one that does not read.
    pub messages_lost: u64,
    /// Messages that the client said it could not write: Bus Master is off in the function's
    /// COMMAND register, as a rule. They are counted in `messages` too.
    pub messages_refused: u64,
}

/// Where one function's interrupts and messages go. It exists before any client connects, and
/// outlives them: what is sent meanwhile is dropped and counted.
///
/// [`IrqSink`] raises the eventfds that the client set up. [`MsiSink`] writes the four bytes of a
/// message into the client's address space (DMA_WRITE without a reply), for functions whose
/// interrupts don't come from a capability. Neither waits for longer than 100 ms, and a client that
/// keeps not reading is waited for once.
#[derive(Debug, Default)]
pub struct Port {
    lines: Mutex<Lines>,
    link: RwLock<Option<Arc<Link>>>,
    interrupts: AtomicU64,
    interrupts_dropped: AtomicU64,
    messages: AtomicU64,
    messages_lost: AtomicU64,
    messages_refused: AtomicU64,
}

impl Port {
    /// A port without a client.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What went through so far.
    #[must_use]
    pub fn counters(&self) -> PortCounters {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PortCounters {
            interrupts: load(&self.interrupts),
            interrupts_dropped: load(&self.interrupts_dropped),
            messages: load(&self.messages),
            messages_lost: load(&self.messages_lost),
            messages_refused: load(&self.messages_refused),
        }
    }

    /// Whether a client is connected and the version agreed on.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link().is_some()
    }

    pub(crate) fn connect(&self, link: Arc<Link>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
    }

    pub(crate) fn disconnect(&self) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = None;
        self.clear_irqs();
    }

    pub(crate) fn clear_irqs(&self) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.clear();
    }

    pub(crate) fn set_irqs(
        &self,
        index: IrqIndex,
        range: (u32, u32),
        action: IrqAction,
        data: IrqData<'_>,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), BadEventfd> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.set(index, range, action, data, descriptors)
    }

    pub(crate) fn refused(&self) {
        self.messages_refused.fetch_add(1, Ordering::Relaxed);
    }

    fn link(&self) -> Option<Arc<Link>> {
        let link = self.link.read().unwrap_or_else(PoisonError::into_inner);
        link.clone()
    }
}

impl IrqSink for Port {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match lines.raise(kind, vector) {
            Raised::Sent | Raised::Held => &self.interrupts,
            Raised::Dropped => &self.interrupts_dropped,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl MsiSink for Port {
    fn msi(&self, addr: u64, data: u32) {
        let sent = self
            .link()
            .is_some_and(|link| link.post(addr, &data.to_le_bytes()).is_ok());
        let counter = if sent {
            &self.messages
        } else {
            &self.messages_lost
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
