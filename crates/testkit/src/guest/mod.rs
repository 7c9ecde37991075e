//! A real Linux in an unmodified QEMU, driven by a test.
//!
//! The guest boots a [`Kernel`] with an initramfs whose first process is our agent
//! (`guests/agent`). The kernel's log goes to the first serial port and is kept ([`Guest::log`]);
//! the agent takes commands over the second ([`Guest::run`]). Devices come as vfio-user sockets
//! ([`Builder::device`]).
//!
//! Everything that waits has a deadline, and what goes wrong is told with the end of the guest's
//! log. Dropping a [`Guest`] ends its QEMU, also on a panic.

pub mod agent;
mod builder;
mod control;
mod device_tree;
mod error;
mod exec;
mod initramfs;
mod machine;
mod platform;
mod program;

pub use builder::Builder;
pub use control::{Hello, Output};
pub use error::GuestError;
pub use exec::Stream;
pub use program::{Program, accel_config};

use crate::kernel::Kernel;
use control::Control;
use machine::Machine;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a command may take when its caller does not say.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running guest with its agent. Dropping it ends QEMU.
#[derive(Debug)]
pub struct Guest {
    machine: Machine,
    control: Mutex<Control>,
    hello: Hello,
}

impl Guest {
    /// Describes a guest that boots `kernel`.
    #[must_use]
    pub fn builder(kernel: &Kernel) -> Builder {
        Builder::new(kernel)
    }

    /// What the agent said when it came up first.
    #[must_use]
    pub fn hello(&self) -> &Hello {
        &self.hello
    }

    /// Runs a command of the agent, within a minute.
    ///
    /// A command that fails in the guest is an [`Output`] with a status, not an error.
    ///
    /// # Errors
    /// Where the guest ends or does not answer in time.
    pub fn run(&self, command: &str) -> Result<Output, GuestError> {
        self.run_within(command, PATIENCE)
    }

    /// Runs a command of the agent within `patience`. An answer that comes later is dropped.
    ///
    /// # Errors
    /// Where the guest ends or does not answer in time.
    pub fn run_within(&self, command: &str, patience: Duration) -> Result<Output, GuestError> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control
            .run(command, Instant::now() + patience)
            .map_err(|why| self.machine.down(command, why))
    }

    /// Runs a command that must succeed; gives its lines.
    ///
    /// # Errors
    /// Also where the command fails in the guest.
    pub fn must(&self, command: &str) -> Result<Vec<String>, GuestError> {
        let output = self.run(command)?;
        if output.status == 0 {
            return Ok(output.lines);
        }
        Err(GuestError::Refused {
            command: command.to_owned(),
            status: output.status,
            lines: output.lines.join("\n"),
        })
    }

    /// Tells the agent to do what has no answer: `poweroff`, `reboot`, `panic`.
    ///
    /// # Errors
    /// Where the guest has ended.
    pub fn tell(&self, command: &str) -> Result<(), GuestError> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control
            .send(command)
            .map(|_| ())
            .map_err(|why| self.machine.down(command, why))
    }

    /// Waits for the agent's hello after a reboot ([`Builder::reboots`]).
    ///
    /// # Errors
    /// Where the guest ends or does not come up in time.
    pub fn wait_hello(&self, patience: Duration) -> Result<Hello, GuestError> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control
            .hello(Instant::now() + patience)
            .map_err(|why| self.machine.down("hello", why))
    }

    /// The kernel's console so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.machine.log()
    }

    /// Waits for a console line that holds `text`; gives the line.
    ///
    /// # Errors
    /// Where it does not come in time, or the guest ends without it.
    pub fn wait_log(&self, text: &str, patience: Duration) -> Result<String, GuestError> {
        self.machine.wait_log(text, patience)
    }

    /// Waits for QEMU to end by itself, as it does after `poweroff` and after a panic.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn wait_end(&self, patience: Duration) -> Result<(), GuestError> {
        self.machine.wait_end(patience)
    }

    /// The process ID of QEMU.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.machine.pid()
    }

    /// Kills QEMU and waits for its end; gives the console's log.
    #[must_use]
    pub fn kill(self) -> String {
        self.machine.stop();
        self.machine.log()
    }
}
