//! The end of a walk that found no translation, and the flags of its event.

use super::{Cause, DomainId};
use crate::{Stage, TableMemMut, Updates};
use iopf::{Access, Dma, DmaKind, Pasid};

bitflags::bitflags! {
    /// The flags of an event, bits 59:48 of its first word. 48882, "Event Log"; FreeBSD `amd_reg.h`,
    /// `amdiommu_event_io_page_fault_entry`; VirtualBox `EVT_IO_PAGE_FAULT_T`.
    ///
    /// Bits 11:9 are a type in some events: see [`Flags::hardware_error`] and
    /// [`Flags::invalid_request`].
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Flags: u16 {
        /// `[0]` GN: the address is a guest virtual one, and the event has a PASID in place of a
        /// domain.
        const GUEST = 1 << 0;
        /// `[1]` NX: execute was asked for.
        const EXECUTE = 1 << 1;
        /// `[2]` US: the request was in user mode.
        const USER = 1 << 2;
        /// `[3]` I: the request was an interrupt.
        const INTERRUPT = 1 << 3;
        /// `[4]` PR: the page was present.
        const PRESENT = 1 << 4;
        /// `[5]` RW: the request was a write.
        const WRITE = 1 << 5;
        /// `[6]` PE: the request lacked a right.
        const PERMISSION = 1 << 6;
        /// `[7]` RZ: a reserved bit was set. Without it, and without PE, of a present page: a level
        /// was not encoded well.
        const RESERVED = 1 << 7;
        /// `[8]` TR: the request was a translation request.
        const TRANSLATION = 1 << 8;
        /// `[9]` The lowest bit of a type.
        const TYPE_0 = 1 << 9;
        /// `[10]` The next bit of a type.
        const TYPE_1 = 1 << 10;
        /// `[11]` The highest bit of a type.
        const TYPE_2 = 1 << 11;
    }
}

impl Flags {
    /// Type 0–3 of a hardware error: 1 is a master abort (VirtualBox `HWEVTTYPE`).
    #[must_use]
    pub const fn hardware_error(kind: u16) -> Self {
        Self::from_bits_retain((kind & 3) << 9)
    }

    /// Type 0–7 of an `INVALID_DEVICE_REQUEST`, as VirtualBox lists them
    /// (`EVT_INVALID_DEV_REQ_TYPE_T`): 0 is a read or non-posted write, 1 a translated request, 4 to 6
    /// are ranges; of translation requests, 1 is one that is not allowed and 2 one without a device
    /// table entry.
    #[must_use]
    pub const fn invalid_request(kind: u16) -> Self {
        Self::from_bits_retain((kind & 7) << 9)
    }
}

/// What only an AMD-Vi event needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Detail {
    /// The domain of the device table entry; 0 where it was not read.
    pub domain: DomainId,
    /// The guest address space that is to blame: the event has this PASID in place of the domain, and
    /// GN. A host table that a nested walk went through is the domain's.
    pub pasid: Option<Pasid>,
    /// SE: of the I/O page faults of this device, only the first leaves an event, until its device
    /// table entry is invalidated.
    pub once: bool,
}

/// Why and where a walk of AMD-Vi's tables ended without a translation. `hidden` is SA.
pub type Failure = crate::Failure<Cause, Detail>;

/// What became of the updates of a walk of AMD-Vi's tables.
pub type Applied = crate::Applied<Failure>;

impl Failure {
    /// Whether a request of this kind leaves an event: the condition is one that is recorded, and SA
    /// does not suppress it. SE is for whoever remembers the first: see [`Detail::once`].
    #[must_use]
    pub const fn recorded(&self, kind: DmaKind) -> bool {
        self.cause.recorded(kind) && !self.suppressed()
    }

    /// Whether SA suppresses the event.
    #[must_use]
    pub const fn suppressed(&self) -> bool {
        self.hidden && self.cause.qualified()
    }

    /// Whether SE suppresses the event if there was one before.
    #[must_use]
    pub const fn only_once(&self) -> bool {
        self.detail.once && self.cause.qualified()
    }

    /// The flags of the event, for a request that is not a page request.
    ///
    /// RW is right even where the page was not present: hardware was seen to do so (Linux commit
    /// 9f78e446bde8). US and NX come with GN only.
    #[must_use]
    pub fn flags(&self, dma: &Dma) -> Flags {
        let mut flags = self.cause.flags();
        let translation = matches!(dma.kind, DmaKind::Translation { .. });
        flags.set(Flags::TRANSLATION, translation);
        flags.set(Flags::GUEST, self.detail.pasid.is_some());
        // An INVALID_DEVICE_REQUEST says neither RW nor US where the others do.
        if self.cause.reason().0 == 8 {
            return flags;
        }
        let write = !translation && dma.access.contains(Access::WRITE);
        flags.set(Flags::WRITE, write);
        if self.cause.qualified() && self.detail.pasid.is_some() {
            let privileged = dma.pasid.is_some() && dma.access.contains(Access::PRIV);
            flags.set(Flags::USER, !privileged);
            let execute = dma.pasid.is_some() && dma.access.contains(Access::EXEC);
            flags.set(Flags::EXECUTE, execute);
        }
        flags
    }

    /// The address that the event has: of the entry that could not be read or written, of the guest
    /// physical address that a host table refused in a nested walk (UNCONFIRMED), else that of the
    /// request.
    #[must_use]
    pub fn address(&self, dma: &Dma) -> u64 {
        match (self.cause.reason().0, self.entry_addr) {
            (3 | 4, Some(entry)) => entry.0,
            _ => match self.guest_addr {
                Some(guest) if self.detail.pasid.is_none() => guest.0,
                _ => dma.addr.0,
            },
        }
    }
}

/// Sets the bits a walk asked for, each entry in one atomic access.
///
/// A walk that failed may have updates too; whether they could be set changes nothing about its
/// failure. `detail` and `hidden` are those of the space: see [`Space::detail`](super::Space::detail).
pub fn apply<M: TableMemMut>(updates: &Updates, mem: &M, detail: Detail, hidden: bool) -> Applied {
    crate::failure::apply(updates, mem, |stage| {
        let cause = match stage {
            Stage::First => Cause::GuestUpdateFailed,
            Stage::Second => Cause::HostUpdateFailed,
        };
        let pasid = match stage {
            Stage::First => detail.pasid,
            Stage::Second => None,
        };
        Failure::with(cause, Detail { pasid, ..detail }).hidden(hidden)
    })
}
