//! What differs between the machines that guests run on.

use crate::qemu::root::Target;

/// QEMU's machine, and what the kernel is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Platform {
    /// The value of `-M`.
    pub(super) machine: &'static str,
    /// The value of `-cpu`.
    pub(super) cpu: &'static str,
    /// What every guest is told.
    pub(super) command_line: &'static str,
    /// What firmware says when it has set up the machine and finds nothing to boot; `None` where QEMU
    /// starts a kernel without firmware.
    pub(super) firmware_done: Option<&'static str>,
}

/// A panic ends the guest, and then QEMU. On a busy machine the timer of a guest may be so late that
/// Linux takes its wiring for broken. SeaBIOS says last that there is nothing to boot.
const Q35: Platform = Platform {
    machine: "q35,memory-backend=m",
    cpu: "max",
    command_line: "console=ttyS0,115200 panic=-1 oops=panic no_timer_check",
    firmware_done: Some("No bootable device"),
};

/// The interrupt controller has an ITS, which takes messages. The default of pointer authentication is
/// an algorithm that is slow to emulate.
const VIRT: Platform = Platform {
    machine: "virt,gic-version=3,memory-backend=m",
    cpu: "max,pauth-impdef=on",
    command_line: "console=ttyAMA0 panic=-1 oops=panic",
    firmware_done: None,
};

impl Platform {
    /// That of the kernels of a target.
    pub(super) const fn of(target: Target) -> Self {
        match target {
            Target::X86_64 => Q35,
            Target::Aarch64 => VIRT,
        }
    }
}
