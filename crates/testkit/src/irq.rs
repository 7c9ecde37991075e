//! An interrupt controller that remembers what was raised.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;
use viommu_api::{InterruptKind, IrqSink, MsiSink, WiredSink};

/// Sixty-four vectors, named by the low six bits of the message's data, or of the number of a vector.
///
/// Raising only sets a flag and wakes whoever waits, so that a model may raise an interrupt from
/// anywhere; the guest's handlers run when somebody calls them.
#[derive(Debug, Default)]
pub struct Interrupts {
    state: Mutex<State>,
    raised: Condvar,
}

#[derive(Debug, Default)]
struct State {
    pending: u64,
    count: u64,
    last: Option<(u64, u32)>,
}

impl Interrupts {
    /// Nothing raised.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes every pending vector, as a bit mask.
    #[must_use]
    pub fn take(&self) -> u64 {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.pending)
    }

    /// Waits for a vector, `timeout` at most, and takes every pending one.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .raised
            .wait_timeout_while(state, timeout, |s| s.pending == 0);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.pending)
    }

    /// Messages so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.count
    }

    /// Address and data of the last message.
    #[must_use]
    pub fn last(&self) -> Option<(u64, u32)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.last
    }

    /// A vector whose cause is not gone stays pending.
    pub(crate) fn keep(&self, vector: u16) {
        self.change(|state| state.pending |= 1 << (vector & 63));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        drop(state);
        self.raised.notify_all();
    }
}

impl MsiSink for Interrupts {
    fn msi(&self, addr: u64, data: u32) {
        self.change(|state| {
            state.pending |= 1 << (data & 63);
            state.count += 1;
            state.last = Some((addr, data));
        });
    }
}

impl WiredSink for Interrupts {
    fn pulse(&self, wire: u16) {
        self.change(|state| {
            state.pending |= 1 << (wire & 63);
            state.count += 1;
        });
    }
}

impl IrqSink for Interrupts {
    fn raise(&self, _: InterruptKind, vector: u16) {
        self.change(|state| {
            state.pending |= 1 << (vector & 63);
            state.count += 1;
        });
    }
}
