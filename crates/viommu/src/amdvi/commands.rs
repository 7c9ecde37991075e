//! The command buffer, and which commands a unit accepts.
//!
//! Spec: 48882, "Commands", "ILLEGAL_COMMAND_ERROR Event".

use super::Caps;
use super::log::{ring_base, ring_index};
use iommu_wire::amdvi::command::{Command, CommandType, RawCommand};
use iommu_wire::amdvi::regs::{RingBase, RingPointer};
use iopf::Gpa;

/// The command buffer's registers.
#[derive(Debug, Default)]
pub(super) struct CommandBuffer {
    base: RingBase,
    head: u16,
    tail: u16,
    on: bool,
    running: bool,
    /// How often the buffer was switched, or stopped by an error.
    turn: u64,
}

/// A command's place, in one life of the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    turn: u64,
    head: u16,
    /// Where it lies.
    pub(super) at: Gpa,
}

impl CommandBuffer {
    /// As after reset; no [`Place`] from before is one of this buffer's.
    pub(super) fn after_reset(&self) -> Self {
        Self {
            turn: self.turn.wrapping_add(1),
            ..Self::default()
        }
    }

    /// Switches the buffer on or off. Coming on, it starts to run, wherever it had stopped.
    pub(super) fn switch(&mut self, on: bool) {
        if on != self.on {
            self.turn = self.turn.wrapping_add(1);
            self.running = on && self.base.entries().is_some();
        }
        self.on = on;
    }

    /// An error stops the buffer, its head at the command in error.
    pub(super) fn stop(&mut self) {
        self.running = false;
        self.turn = self.turn.wrapping_add(1);
    }

    /// CmdBufRun.
    pub(super) const fn running(&self) -> bool {
        self.running
    }

    /// Whether it is on and stands still.
    pub(super) const fn stopped(&self) -> bool {
        self.on && !self.running
    }

    /// The next command, if there is one.
    pub(super) fn next(&self) -> Option<Place> {
        if !self.running || self.head == self.tail {
            return None;
        }
        // 15 bits of index: a base has at most 52 bits, so this never wraps.
        let at = self.base.base().checked_add(u64::from(self.head) * 16)?;
        Some(Place {
            turn: self.turn,
            head: self.head,
            at,
        })
    }

    /// Whether the buffer still is where it was when `place` was taken.
    pub(super) fn is_at(&self, place: Place) -> bool {
        self.turn == place.turn && self.head == place.head
    }

    /// The command at the head is done.
    pub(super) fn advance(&mut self) {
        if let Some(entries) = self.base.entries() {
            self.head = (self.head + 1) & (entries - 1);
        }
    }

    /// The base address register.
    pub(super) const fn base(&self) -> u64 {
        self.base.into_bits()
    }
    /// The head pointer register.
    pub(super) fn head(&self) -> u64 {
        RingPointer::new().with_index(self.head).into_bits()
    }
    /// The tail pointer register.
    pub(super) fn tail(&self) -> u64 {
        RingPointer::new().with_index(self.tail).into_bits()
    }

    /// Writes the base address register, unless the buffer runs: both pointers return to the start.
    pub(super) fn set_base(&mut self, value: u64) {
        if !self.running {
            self.base = ring_base(value);
            self.head = 0;
            self.tail = 0;
        }
    }

    /// Writes the head pointer register, unless the buffer runs.
    pub(super) fn set_head(&mut self, value: u64) {
        if let (false, Some(index)) = (self.running, ring_index(self.base, value)) {
            self.head = index;
            self.turn = self.turn.wrapping_add(1);
        }
    }

    /// Writes the tail pointer register.
    pub(super) fn set_tail(&mut self, value: u64) {
        if let Some(index) = ring_index(self.base, value) {
            self.tail = index;
        }
    }
}

/// Reads a command, if this unit accepts it; `None`: it is illegal.
///
/// A command is illegal if its opcode is none, or that of a feature which the unit does not have, or if
/// a reserved bit is set (VirtualBox `iommuAmdR3CmdProcess` has the three so).
pub(super) fn accept(raw: &RawCommand, caps: &Caps) -> Option<Command> {
    let features = caps.features;
    let supported = match raw.command_type() {
        CommandType::COMPLETION_WAIT
        | CommandType::INVALIDATE_DEVTAB_ENTRY
        | CommandType::INVALIDATE_IOMMU_PAGES
        | CommandType::INVALIDATE_INTERRUPT_TABLE => true,
        CommandType::INVALIDATE_IOTLB_PAGES => caps.device_tlb,
        CommandType::PREFETCH_IOMMU_PAGES => features.pref_sup(),
        CommandType::COMPLETE_PPR_REQUEST => features.ppr_sup(),
        CommandType::INVALIDATE_IOMMU_ALL => features.ia_sup(),
        _ => false,
    };
    if !supported || raw.has_reserved_bits() {
        return None;
    }
    let command = Command::decode(raw);
    let guest = features.gt_sup();
    let reserved = match command {
        Command::InvalidateIommuPages(pages) => pages.pasid.is_some() && !guest,
        Command::InvalidateIotlbPages(pages) => {
            pages.pasid.is_some() && !guest || pages.kind != 0 && !features.inv_iotlb_type_sup()
        }
        Command::PrefetchIommuPages(prefetch) => prefetch.pasid.is_some() && !guest,
        Command::Other(_) => true,
        _ => false,
    };
    (!reserved).then_some(command)
}
