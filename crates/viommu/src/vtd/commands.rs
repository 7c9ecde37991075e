//! The invalidation queue: IQH_REG, IQT_REG, IQA_REG, ICS_REG, IECTL_REG and its siblings; and which
//! descriptors a unit accepts.
//!
//! Spec: Intel VT-d, "Queued Invalidation Interface", "Invalidation Queue Error Record Register".

use super::interrupt::{Interrupt, Msi};
use iommu_wire::vtd::command::{Command, CommandType, RawCommand};
use iommu_wire::vtd::regs::{
    Cap, Ecap, InvalidationHead, InvalidationQueueAddress, InvalidationStatus, InvalidationTail,
    QueueError, TableMode,
};
use iopf::Gpa;

/// The invalidation queue's registers.
#[derive(Debug)]
pub(super) struct InvalidationQueue {
    enabled: bool,
    /// How often the queue was switched or reset.
    turn: u64,
    head: InvalidationHead,
    tail: InvalidationTail,
    address: InvalidationQueueAddress,
    complete: bool,
    pub(super) interrupt: Interrupt,
}

/// The head, in one life of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    turn: u64,
    head: u16,
}

/// A descriptor to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fetch {
    /// Where it lies.
    pub(super) at: Gpa,
    /// Whether it has 256 bits.
    pub(super) wide: bool,
}

impl InvalidationQueue {
    pub(super) const fn new() -> Self {
        Self {
            enabled: false,
            turn: 0,
            head: InvalidationHead::new(),
            tail: InvalidationTail::new(),
            address: InvalidationQueueAddress::new(),
            complete: false,
            interrupt: Interrupt::new(),
        }
    }

    /// As after reset; no [`Place`] from before is one of this queue's.
    pub(super) const fn after_reset(&self) -> Self {
        Self {
            turn: self.turn.wrapping_add(1),
            ..Self::new()
        }
    }

    /// Where the head is. Equal to an earlier answer only if nobody switched the queue meanwhile.
    pub(super) const fn place(&self) -> Place {
        Place {
            turn: self.turn,
            head: self.head.index(),
        }
    }

    /// Switches the queue on or off. Off, its head returns to the start.
    pub(super) fn enable(&mut self, on: bool) {
        self.enabled = on;
        self.turn = self.turn.wrapping_add(1);
        if !on {
            self.head = InvalidationHead::new();
        }
    }

    /// The next descriptor, if there is one.
    ///
    /// # Errors
    /// When the registers do not fit each other or the mode.
    pub(super) fn next(&self, mode: TableMode, ecap: Ecap) -> Result<Option<Fetch>, QueueError> {
        if !self.enabled || self.head.index() == self.tail.index() {
            return Ok(None);
        }
        let known = match mode {
            TableMode::LEGACY => true,
            TableMode::SCALABLE => ecap.smts(),
            TableMode::ABORT_DMA => ecap.adms(),
            _ => false,
        };
        if !known {
            return Err(QueueError::TABLE_MODE);
        }
        if mode != TableMode::LEGACY && !self.address.wide() {
            return Err(QueueError::WIDTH);
        }
        if self.address.wide() && self.tail.index() & 1 != 0 {
            return Err(QueueError::TAIL_ALIGNMENT);
        }
        if u64::from(self.tail.index()) * 16 >= self.address.bytes() {
            return Err(QueueError::TAIL);
        }
        let offset = self.offset();
        match self.address.base().checked_add(offset) {
            Some(at) if offset < self.address.bytes() => Ok(Some(Fetch {
                at,
                wide: self.address.wide(),
            })),
            _ => Err(QueueError::FETCH),
        }
    }

    fn offset(&self) -> u64 {
        u64::from(self.head.index()) * 16
    }

    /// The descriptor at the head is done.
    pub(super) fn advance(&mut self) {
        let step = if self.address.wide() { 2 } else { 1 };
        let entries = u16::try_from(self.address.bytes() / 16).unwrap_or(1 << 15);
        let next = (self.head.index() + step) & (entries - 1);
        self.head.set_index(next);
    }

    /// A wait descriptor asks for an interrupt.
    pub(super) fn completed(&mut self) -> Option<Msi> {
        if self.complete {
            return None;
        }
        self.complete = true;
        self.interrupt.raise()
    }

    /// ICS_REG.
    pub(super) fn status(&self) -> u32 {
        InvalidationStatus::new()
            .with_complete(self.complete)
            .into_bits()
    }

    /// Writes ICS_REG.
    pub(super) fn clear(&mut self, value: u32) {
        if InvalidationStatus::from_bits(value).complete() {
            self.complete = false;
            self.interrupt.serviced();
        }
    }

    /// IQH_REG.
    pub(super) const fn head(&self) -> u64 {
        self.head.into_bits()
    }

    /// IQT_REG.
    pub(super) const fn tail(&self) -> u64 {
        self.tail.into_bits()
    }

    /// IQA_REG.
    pub(super) const fn address(&self) -> u64 {
        self.address.into_bits()
    }

    /// Writes IQT_REG.
    ///
    /// # Errors
    /// When it does not point to a descriptor; the bit that is too much is dropped.
    pub(super) fn set_tail(&mut self, value: u64) -> Result<(), QueueError> {
        let index = InvalidationTail::from_bits(value).index();
        let odd = self.address.wide() && index & 1 != 0;
        self.tail = InvalidationTail::new().with_index(if odd { index & !1 } else { index });
        if odd {
            return Err(QueueError::TAIL_ALIGNMENT);
        }
        Ok(())
    }

    /// Writes IQA_REG.
    ///
    /// # Errors
    /// When the unit has no 256-bit descriptors.
    pub(super) fn set_address(&mut self, value: u64, ecap: Ecap) -> Result<(), QueueError> {
        let value = InvalidationQueueAddress::from_bits(value);
        let wide = value.wide() && (ecap.smts() || ecap.adms());
        self.address = InvalidationQueueAddress::new()
            .with_size(value.size())
            .with_wide(wide)
            .with_page(value.page());
        if wide {
            // Bit 4 of the head is always zero then.
            self.head.set_index(self.head.index() & !1);
        }
        if value.wide() && !wide {
            return Err(QueueError::WIDTH);
        }
        Ok(())
    }
}

/// Reads a descriptor, if this unit accepts it in this mode.
///
/// Legacy mode has the types 1 to 5 only ("Hardware Handling of Queued Invalidation Interface
/// Errors", table of valid descriptor types), whatever their width.
///
/// # Errors
/// What IQERCD_REG is to say of it.
pub(super) fn accept(
    raw: &RawCommand,
    mode: TableMode,
    cap: Cap,
    ecap: Ecap,
) -> Result<Command, QueueError> {
    let kind = raw.command_type();
    if mode == TableMode::LEGACY && kind.0 > CommandType::WAIT.0 {
        return Err(QueueError::TYPE);
    }
    let supported = match kind {
        CommandType::CONTEXT_CACHE | CommandType::IOTLB | CommandType::WAIT => true,
        CommandType::DEVICE_TLB => ecap.dt(),
        CommandType::INTERRUPT_CACHE => ecap.ir(),
        CommandType::PASID_IOTLB | CommandType::PASID_CACHE => ecap.smts(),
        CommandType::PASID_DEVICE_TLB => ecap.smts() && ecap.dt(),
        CommandType::GROUP_RESPONSE => ecap.prs(),
        _ => false,
    };
    if !supported {
        return Err(QueueError::TYPE);
    }
    if raw.has_reserved_bits() {
        return Err(QueueError::RESERVED_FIELD);
    }
    let command = Command::decode(raw);
    let reserved = match command {
        // A granularity that is reserved.
        Command::Other(_) => true,
        Command::Wait(wait) => wait.drain_page_requests && !ecap.pds(),
        Command::Iotlb { scope, .. } => {
            matches!(scope, iommu_wire::vtd::command::IotlbScope::Pages(..)) && !cap.psi()
        }
        _ => false,
    };
    if reserved {
        return Err(QueueError::RESERVED_FIELD);
    }
    Ok(command)
}
