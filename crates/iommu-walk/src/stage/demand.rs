//! What a request asks of the tables.

use iopf::{Access, Dma, DmaKind};

/// What a request asks of the tables, with its kind and its address space taken into account.
///
/// One byte, so that it stays in a register.
#[derive(Clone, Copy)]
pub(crate) struct Demand(u8);

impl Demand {
    // Bits 2:0 are what the request must be granted, as in `Access`; for a translation request, what
    // it would like. Bit 3 is privileged mode, as there.

    /// It is a translation request: it is told what it may do, and fails only if that is nothing.
    const TRANSLATION: u8 = 1 << 4;
    /// A zero-length read, which a write-only page may serve.
    const ZERO_LENGTH: u8 = 1 << 5;

    /// `privileged`: requests without a PASID count as privileged. `honours_no_write`: the unit looks
    /// at the no-write flag of translation requests. `zero_length_of_write_only`: a write-only page
    /// serves a zero-length read.
    #[inline(always)]
    pub(crate) fn new(
        dma: &Dma,
        privileged: impl FnOnce() -> bool,
        honours_no_write: impl FnOnce() -> bool,
        zero_length_of_write_only: impl FnOnce() -> bool,
    ) -> Self {
        const KINDS: u8 = Access::RW.union(Access::EXEC).bits();
        let mut bits = dma.access.bits() & (KINDS | Access::PRIV.bits());
        if dma.pasid.is_none() {
            // Both flags travel with the PASID: without one there is no execute, and the privilege
            // is the configuration's.
            let fetch = bits & Access::EXEC.bits() != 0;
            bits &= Access::RW.bits();
            if fetch {
                bits |= Access::READ.bits();
            }
            if privileged() {
                bits |= Access::PRIV.bits();
            }
        }
        if let DmaKind::Translation { no_write } = dma.kind {
            bits = bits & !Access::RW.bits() | Self::TRANSLATION | Access::READ.bits();
            if !no_write || !honours_no_write() {
                bits |= Access::WRITE.bits();
            }
        }
        if bits & KINDS == 0 {
            bits |= Access::READ.bits();
            if zero_length_of_write_only() {
                bits |= Self::ZERO_LENGTH;
            }
        }
        Self(bits)
    }

    #[inline(always)]
    pub(crate) const fn wanted(self) -> Access {
        Access::from_bits_retain(self.0 & 7)
    }

    /// The same in user mode.
    #[inline(always)]
    pub(crate) const fn in_user_mode(self) -> Self {
        Self(self.0 & !Access::PRIV.bits())
    }

    /// It runs in privileged mode.
    #[inline(always)]
    pub(crate) const fn privileged(self) -> bool {
        self.0 & Access::PRIV.bits() != 0
    }

    #[inline(always)]
    pub(crate) const fn translation(self) -> bool {
        self.0 & Self::TRANSLATION != 0
    }

    #[inline(always)]
    pub(crate) const fn zero_length(self) -> bool {
        self.0 & Self::ZERO_LENGTH != 0
    }

    /// It writes: the dirty bit is due.
    #[inline(always)]
    pub(crate) const fn write(self) -> bool {
        self.0 & Access::WRITE.bits() != 0
    }

    /// Privilege, execute or a translation request: such a request has to be let in first.
    #[inline(always)]
    pub(crate) const fn special(self) -> bool {
        self.0 & (Access::PRIV.bits() | Access::EXEC.bits() | Self::TRANSLATION) != 0
    }
}
