//! The Command queue, and which commands a unit accepts.
//!
//! Spec: IHI 0070, "Commands", "Command errors", "Command queue errors".

use super::Caps;
use super::queue::Ring;
use iommu_wire::smmuv3::command::{Addresses, Command, Granule, Level, RawCommand, Signal};
use iommu_wire::smmuv3::regs::{CommandError, Consumer, Index, StallModel};
use iopf::Gpa;

/// The Command queue's registers.
#[derive(Debug)]
pub(super) struct CommandQueue {
    ring: Ring<16>,
    prod: u32,
    cons: u32,
    error: CommandError,
    on: bool,
    /// How often the queue was switched, or stopped by an error.
    turn: u64,
}

/// A command's place, in one life of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    turn: u64,
    index: u32,
    /// Where it lies.
    pub(super) at: Gpa,
}

impl CommandQueue {
    pub(super) const fn new(limit: u8) -> Self {
        Self {
            ring: Ring::new(limit),
            prod: 0,
            cons: 0,
            error: CommandError::NONE,
            on: false,
            turn: 0,
        }
    }

    /// As after reset; no [`Place`] from before is one of this queue's.
    pub(super) const fn after_reset(&self, limit: u8) -> Self {
        let mut queue = Self::new(limit);
        queue.turn = self.turn.wrapping_add(1);
        queue
    }

    /// CMDQEN.
    pub(super) const fn switch(&mut self, on: bool) {
        if on != self.on {
            self.turn = self.turn.wrapping_add(1);
        }
        self.on = on;
    }

    /// An error: the index stays at the command that made it.
    pub(super) const fn fail(&mut self, error: CommandError) {
        self.error = error;
        self.turn = self.turn.wrapping_add(1);
    }

    /// The next command, if there is one.
    pub(super) fn next(&self) -> Option<Place> {
        let used = self.ring.used(self.prod, self.cons);
        if !self.on || used == 0 || !self.ring.holds(used) {
            return None;
        }
        Some(Place {
            turn: self.turn,
            index: self.cons,
            at: self.ring.place(self.cons)?,
        })
    }

    /// Whether the queue still is where it was when `place` was taken.
    pub(super) fn is_at(&self, place: Place) -> bool {
        self.turn == place.turn && self.cons == place.index
    }

    /// The command at the index is consumed.
    pub(super) const fn advance(&mut self) {
        self.cons = self.ring.after(self.cons);
    }

    /// The base register.
    pub(super) const fn base(&self) -> u64 {
        self.ring.base()
    }
    /// The producer index register.
    pub(super) const fn prod(&self) -> u32 {
        Index::new().with_at(self.prod).into_bits()
    }
    /// The consumer index register.
    pub(super) const fn cons(&self) -> u32 {
        Consumer::new()
            .with_at(self.cons)
            .with_error(self.error)
            .into_bits()
    }

    /// Writes the base register, unless the queue is on.
    pub(super) fn set_base(&mut self, value: u64) {
        if !self.on {
            self.ring.set_base(value);
            self.prod = self.ring.index(self.prod);
            self.cons = self.ring.index(self.cons);
        }
    }
    /// Writes the producer index register.
    pub(super) const fn set_prod(&mut self, value: u32) {
        self.prod = self.ring.index(Index::from_bits(value).at());
    }
    /// Writes the consumer index register, unless the queue is on. ERR is the unit's.
    pub(super) const fn set_cons(&mut self, value: u32) {
        if !self.on {
            self.cons = self.ring.index(Consumer::from_bits(value).at());
            self.turn = self.turn.wrapping_add(1);
        }
    }
}

/// Reads a command, if this unit accepts it; `None`: it is illegal.
///
/// A command is illegal if its opcode is none, or that of a feature which the unit does not have, or if
/// a reserved bit is set, which the specification lets a unit detect.
pub(super) fn accept(raw: &RawCommand, caps: &Caps) -> Option<Command> {
    if raw.has_reserved_bits() {
        return None;
    }
    let command = Command::decode(raw);
    let (first, second) = (caps.idr0.s1p(), caps.idr0.s2p());
    let legal = match &command {
        Command::PrefetchConfig(_)
        | Command::PrefetchAddr(_)
        | Command::CfgiSte { .. }
        | Command::CfgiSteRange { .. }
        | Command::TlbiNsnhAll => true,
        Command::CfgiCd { .. } | Command::CfgiCdAll(_) => first,
        Command::TlbiNhAll { vmid } => first && caps.vmid(*vmid),
        Command::TlbiNhAsid { vmid, asid } => first && caps.vmid(*vmid) && caps.asid(*asid),
        Command::TlbiNhVa {
            vmid,
            asid,
            addresses,
        } => first && caps.vmid(*vmid) && caps.asid(*asid) && named(addresses, caps),
        Command::TlbiNhVaa { vmid, addresses } => {
            first && caps.vmid(*vmid) && named(addresses, caps)
        }
        Command::TlbiS12Vmall { vmid } => second && caps.vmid(*vmid),
        Command::TlbiS2Ipa { vmid, addresses } => {
            second && caps.vmid(*vmid) && named(addresses, caps)
        }
        Command::AtcInv(invalidation) => caps.idr0.ats() && invalidation.size <= 52,
        Command::PriResp(response) => caps.idr0.pri() && response.code.response().is_some(),
        Command::Resume(_) | Command::StallTerm(_) => {
            caps.idr0.stall_model() != StallModel::TERMINATE
        }
        Command::Sync(sync) => matches!(sync.signal, Signal::NONE | Signal::IRQ | Signal::SEV),
        // No memory partitioning, and no translations of hypervisors.
        Command::CfgiVmsPidm { .. }
        | Command::TlbiEl2All
        | Command::TlbiEl2Asid { .. }
        | Command::TlbiEl2Va { .. }
        | Command::TlbiEl2Vaa { .. }
        | Command::Other(_) => false,
    };
    legal.then_some(command)
}

/// Whether these addresses can be named: a span needs SMMU_IDR3.RIL, and says something.
fn named(addresses: &Addresses, caps: &Caps) -> bool {
    match addresses.span {
        None => true,
        Some(span) => {
            let nothing = span.num == 0 && span.scale == 0 && span.level == Level::ANY;
            // Level 1 of a 16 KiB granule has no leaf without 52-bit addresses: it counts as any.
            let no_leaf = span.granule == Granule::K16 && span.level == Level(1);
            let hint = !(no_leaf && span.num == 0 && span.scale == 0);
            // SCALE has five bits without 52-bit addresses.
            caps.idr3.ril() && !nothing && hint && span.scale < 32
        }
    }
}
