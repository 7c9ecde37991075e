//! What happens while serving, as data; text and JSON are views of it.

pub(super) use crate::step::{Hex, Step};

use crate::quota::Quotas;
use crate::view::Outlet;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::Receiver;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Something worth a line.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// QEMU can be started.
    Ready {
        arch: &'static str,
        dir: PathBuf,
        table: PathBuf,
        bar: Hex,
        functions: Vec<Function>,
        /// Which QEMU.
        program: &'static str,
        /// Its arguments, one a word.
        qemu: Vec<String>,
        /// What Linux wants on its command line, if anything.
        kernel: Option<&'static str>,
        /// What else a person has to do.
        by_hand: Option<String>,
    },
    /// A client has come.
    Connected { function: String },
    /// A client has gone.
    Disconnected { function: String, why: String },
    /// A client broke the protocol, or was turned away.
    Refused { function: String, why: String },
    /// Firmware or guest has placed the registers of the IOMMU.
    Bar {
        address: Hex,
        table: Hex,
        /// The table, or the device tree, names that address.
        fits: bool,
        /// It did not, and does now.
        corrected: bool,
    },
    /// The guest has reset a function.
    Reset { function: String },
    /// A capture was written.
    Capture {
        file: PathBuf,
        device: String,
        code: u32,
        name: &'static str,
    },
    /// A capture could not be written.
    NoCapture { why: String },
    /// A fault of the guest's making, with --verbose.
    Fault {
        device: String,
        access: String,
        address: Hex,
        code: u32,
    },
    /// Faults of a device that got no line of their own.
    Suppressed { device: String, count: u64 },
    /// Lines about a function that were not printed, because there were too many at once.
    Unsaid { function: String, count: u64 },
    /// A fault that the host's IOMMU met, and what the guest's tables say of it.
    HostFault {
        device: String,
        access: String,
        address: Hex,
        /// The reason in the host's tables; the guest is not told of it.
        host_code: u32,
        host_name: &'static str,
        /// The reason in the guest's own tables, or none where they translate the address.
        guest_code: Option<u32>,
    },
    /// A step of a page request, with --trace.
    Step(Step),
    /// Counts, when they have changed.
    Counts(Counts),
    /// The end.
    Stopped { counts: Counts, lines_lost: u64 },
}

/// A function that is served.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Function {
    pub(super) function: String,
    pub(super) kind: &'static str,
    pub(super) socket: PathBuf,
}

/// Counts since the program started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) faults: u64,
    pub(super) recorded: u64,
    pub(super) lost: u64,
    /// Faults that the guest wanted no record of (FPD).
    pub(super) kept_back: u64,
    pub(super) page_requests: u64,
    pub(super) page_requests_lost: u64,
    pub(super) page_requests_refused: u64,
    /// Of those lost or refused: the last of their groups, which the unit answered itself.
    pub(super) page_requests_answered: u64,
    pub(super) responses: u64,
    pub(super) responses_lost: u64,
    pub(super) vanished: u64,
    pub(super) queue_errors: u64,
    pub(super) bytes: u64,
    /// Groups of page requests that the functions have sent; those answered in time; those given up.
    pub(super) groups: u64,
    pub(super) groups_answered: u64,
    pub(super) groups_unanswered: u64,
    /// Answers that no function waited for.
    pub(super) answers_unexpected: u64,
    /// Invalidations that reached a device TLB.
    pub(super) invalidations: u64,
    pub(super) messages: u64,
    pub(super) messages_lost: u64,
    pub(super) captures: u64,
    /// Faults that got a line of their own (with --verbose) and those that did not.
    pub(super) logged: u64,
    pub(super) suppressed: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready {
                dir,
                bar,
                functions,
                program,
                qemu,
                kernel,
                by_hand,
                ..
            } => {
                writeln!(
                    f,
                    "serving in {}, registers expected at {bar}",
                    dir.display()
                )?;
                for Function { function, kind, .. } in functions {
                    writeln!(f, "  {function}  {kind}")?;
                }
                write!(
                    f,
                    "start QEMU (10.1 or newer) with\n  {program} -accel tcg -cpu max {}",
                    super::command::quoted(qemu)
                )?;
                if let Some(words) = kernel {
                    write!(f, "\nand the kernel parameters\n  {words}")?;
                }
                match by_hand {
                    Some(rest) => write!(f, "\n{rest}"),
                    None => Ok(()),
                }
            }
            Self::Connected { function } => write!(f, "{function}: a client has come"),
            Self::Disconnected { function, why } => {
                write!(f, "{function}: its client has gone: {why}")
            }
            Self::Refused { function, why } => write!(f, "{function}: refused: {why}"),
            Self::Bar {
                address,
                fits: true,
                ..
            } => write!(f, "the IOMMU was put at {address}, as the guest is told"),
            Self::Bar {
                address,
                table,
                corrected: false,
                ..
            } => write!(
                f,
                "the IOMMU was put at {address}, but the guest's device tree says {table}: the guest finds \
                 nothing there; start it with starter.bin, or put {table} into BAR 0"
            ),
            Self::Bar { address, table, .. } => write!(
                f,
                "firmware has put the IOMMU at {address}, but the guest was given a table that says {table}; \
                 the table is right now: start QEMU again, or serve with --bar {address}"
            ),
            Self::Reset { function } => write!(f, "{function}: reset"),
            Self::Capture {
                file,
                device,
                code,
                name,
            } => write!(
                f,
                "{device}: fault {code:#04x} ({name}), captured in {}",
                file.display()
            ),
            Self::NoCapture { why } => write!(f, "no capture: {why}"),
            Self::Fault {
                device,
                access,
                address,
                code,
            } => write!(
                f,
                "{device}: {access} at {address} blocked, reason {code:#04x}"
            ),
            Self::Unsaid { function, count } => write!(f, "{function}: {count} lines not shown"),
            Self::Suppressed { device, count } => write!(f, "{device}: {count} faults not shown"),
            Self::HostFault {
                device,
                access,
                address,
                host_code,
                host_name,
                guest_code,
            } => {
                write!(
                    f,
                    "{device}: {access} at {address} met {host_code:#04x} ({host_name}) in the host's tables; "
                )?;
                match guest_code {
                    Some(code) => write!(f, "the guest is told {code:#04x}"),
                    None => f.write_str("the guest's tables know nothing of it"),
                }
            }
            Self::Step(step) => step.fmt(f),
            Self::Counts(counts) => counts.fmt(f),
            Self::Stopped { counts, lines_lost } => {
                write!(f, "stopped: {counts}")?;
                if *lines_lost > 0 {
                    write!(f, "; {lines_lost} lines were not printed")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bytes moved, {} faults ({} recorded, {} lost), {} page requests ({} lost, {} refused), {} answered",
            self.bytes,
            self.faults,
            self.recorded,
            self.lost,
            self.page_requests,
            self.page_requests_lost,
            self.page_requests_refused,
            self.responses,
        )
    }
}

/// The way of events to whoever prints them; cheap to clone in an `Arc`.
#[derive(Debug)]
pub(super) struct Events {
    outlet: Outlet<Event>,
    quotas: Mutex<Quotas>,
}

impl Events {
    pub(super) fn new() -> (Self, Receiver<Event>) {
        let (outlet, receiver) = Outlet::new();
        let events = Self {
            outlet,
            quotas: Mutex::default(),
        };
        (events, receiver)
    }

    /// Says it, unless the printer is too far behind.
    pub(super) fn say(&self, event: Event) {
        self.outlet.say(event);
    }

    /// Says something about `function` that a client or a guest can cause at will: what is too much
    /// for an interval becomes a count at its end.
    pub(super) fn say_of(&self, function: &str, event: Event) {
        let now = self.elapsed();
        self.end_intervals(now);
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let may = quotas.take(now, function);
        drop(quotas);
        if may {
            self.say(event);
        }
    }

    /// Says the counts of the intervals that are over at time `now`; at [`Duration::MAX`] all are.
    pub(super) fn end_intervals(&self, now: Duration) {
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let over = quotas.handle_timeout(now);
        drop(quotas);
        for (function, count) in over {
            self.say(Event::Unsaid { function, count });
        }
    }

    /// Says a step of a page request, with the time it is now.
    pub(super) fn step(
        &self,
        step: &'static str,
        device: Option<String>,
        group: Option<u32>,
        note: String,
    ) {
        let nanos = self.elapsed().as_nanos();
        self.say(Event::Step(Step {
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
            step,
            device,
            group,
            note,
        }));
    }

    /// Lines that found no room on their way to the printer.
    pub(super) fn lost(&self) -> u64 {
        self.outlet.lost()
    }

    /// Time since the start.
    pub(super) fn elapsed(&self) -> Duration {
        self.outlet.elapsed()
    }
}
