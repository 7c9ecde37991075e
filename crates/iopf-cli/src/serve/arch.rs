//! What `serve` asks of an architecture beside the device itself.

mod amdvi;
mod smmuv3;
mod vtd;

use super::args::{Kind, Plan};
use super::told::Telling;
use endpoint::pci::Impossible;
use endpoint::{IommuFunction, Signals};
use iommu_walk::TableMem;
use iopf::Rid;
use iopf_scene::capture::Capture;
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::sync::Arc;
use vfio_user_server::{Port, Space};
use viommu::Diagnostic;
use viommu::arch::Arch;
use viommu_api::PciFunction;

/// A unit in front of a guest whose memory comes over sockets.
pub(super) type Unit<X> = viommu::Unit<X, Space>;

/// How guests and people know an architecture.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// As `--arch` has it.
    pub(super) arch: &'static str,
    /// The QEMU of its guests.
    pub(super) program: &'static str,
    /// The machine.
    pub(super) machine: &'static str,
    /// What Linux wants on its command line, if anything.
    pub(super) kernel: Option<&'static str>,
    /// The command queue.
    pub(super) queue: &'static str,
}

/// What a fault is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reason {
    /// The number in the record.
    pub(super) code: u32,
    /// What the specification calls it.
    pub(super) name: &'static str,
}

/// Where the unit's registers are, and who stands for it on PCI.
pub(super) enum Front {
    /// The function with the registers is all that there is.
    Registers,
    /// Software looks for this function; the registers are behind function 1 of the same device.
    Function(Arc<dyn PciFunction>),
}

/// An architecture that can be put in front of a guest.
pub(super) trait Serve: Arch<Refused: Display> {
    /// How it is known.
    const NAMES: Names;
    /// Functions of the unit's device: the last one has the registers.
    const FUNCTIONS: u8;
    /// Linux answers page requests with their PASID.
    const ANSWERS_BY_PASID: bool;
    /// How functions behind the unit tell their drivers of something.
    const SIGNALS: Signals = Signals::Messages;
    /// What is behind the unit if nobody says otherwise: kinds, and places on bus 0.
    const ENDPOINTS: &'static [(Kind, Rid)] = &[
        (Kind::Dma, Rid(0x20)),
        (Kind::Rng, Rid(0x30)),
        (Kind::Dsa, Rid(0x38)),
    ];

    /// Guests have a device tree in place of ACPI, and their functions may stall.
    const TREE: bool = false;

    /// What the unit can do. [`Plan::legacy`]: neither PASIDs nor page requests.
    fn config(plan: &Plan) -> Self::Config;

    /// Where the unit's interrupts go: the port of its first function.
    fn sink(port: Arc<Port>) -> Arc<Self::Sink>;

    /// The function that software looks for.
    ///
    /// # Errors
    /// Where its configuration space cannot be laid out.
    fn front(config: &Self::Config, registers: &Arc<IommuFunction>) -> Result<Front, Impossible>;

    /// What tells a guest of `unit`, with `functions` behind it.
    fn tell(unit: &Unit<Self>, config: &Self::Config, plan: &Plan, functions: Vec<Rid>) -> Telling;

    /// What tells kinds of fault apart, beside the request.
    type Condition: Copy + Debug + Eq + Hash + Send;

    /// The condition that a request met, and at which level.
    fn condition(failure: &Self::Failure) -> Self::Condition;

    /// What a fault is called.
    fn reason(failure: &Self::Failure) -> Reason;

    /// A capture of a fault that was just met.
    fn capture<M: TableMem>(
        walk: &Self::Walk,
        memory: M,
        fault: &Diagnostic<Self::Failure>,
        note: &str,
    ) -> Option<Capture>;
}
