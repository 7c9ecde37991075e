//! What goes wrong with a guest.

use crate::kernel::SetupError;
use std::io;

/// Why a guest is not there or did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// QEMU or a kernel is missing.
    #[error("{0}")]
    Setup(&'static SetupError),
    /// There is no firmware to run alone.
    #[error("this machine starts its kernel without firmware")]
    NoFirmware,
    /// The initramfs could not be put together.
    #[error("the guest's initramfs: {0}")]
    Initramfs(String),
    /// QEMU could not be started.
    #[error("starting QEMU: {0}")]
    Start(#[from] io::Error),
    /// The guest did not do something in time, or ended.
    #[error("the guest did not answer {waiting:?}: {why}; QEMU said: {said}\n{log}")]
    Down {
        /// What it was to do.
        waiting: String,
        /// What happened instead.
        why: String,
        /// The end of QEMU's standard error.
        said: String,
        /// The end of the kernel's console.
        log: String,
    },
    /// A command failed in the guest.
    #[error("the guest's {command:?} failed with status {status}:\n{lines}")]
    Refused {
        /// The command.
        command: String,
        /// Its status, an error number of Linux or 1.
        status: i32,
        /// What it said.
        lines: String,
    },
}

impl From<&'static SetupError> for GuestError {
    fn from(error: &'static SetupError) -> Self {
        Self::Setup(error)
    }
}
