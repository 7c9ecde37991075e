//! What happens while devices are served, as data; text and JSON are views of it.

use super::look::Look;
use super::report::Report;
use crate::step::{Hex, Step};
use crate::view::Outlet;
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Something worth a line.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// The devices are attached.
    Serving {
        devices: Vec<String>,
        pasid: Option<u32>,
        resolver: &'static str,
        /// Where memory starts, and its bytes.
        memory: Option<(Hex, u64)>,
        socket: Option<PathBuf>,
        deadline_ns: u64,
    },
    /// A group of page requests and its answer.
    Fault {
        device: String,
        group: u32,
        pasid: Option<u32>,
        access: String,
        /// Of its first page.
        address: Hex,
        pages: u64,
        answer: &'static str,
        /// From the read of the fault to the write of its answer.
        nanos: u64,
    },
    /// Groups of a device that got no line of their own.
    Unsaid { device: String, count: u64 },
    /// A device that stands still, and what it looks like.
    Stalled {
        device: String,
        group: u32,
        pages: Vec<Hex>,
        look: Look,
    },
    /// Something else to know of.
    Notice { text: String },
    /// A step of a page request, with --trace.
    Step(Step),
    /// The end.
    Report(Report),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serving {
                devices,
                pasid,
                resolver,
                memory,
                socket,
                deadline_ns,
            } => {
                write!(f, "serving {}", devices.join(", "))?;
                if let Some(pasid) = pasid {
                    write!(f, " and PASID {pasid}")?;
                }
                write!(f, "; resolver {resolver}")?;
                if let Some((start, len)) = memory {
                    write!(f, ", {len:#x} bytes of memory at {start}")?;
                }
                if let Some(socket) = socket {
                    write!(f, ", socket {}", socket.display())?;
                }
                let seconds = Duration::from_nanos(*deadline_ns).as_secs_f64();
                write!(f, "; deadline {seconds} s")
            }
            Self::Fault {
                device,
                group,
                pasid,
                access,
                address,
                pages,
                answer,
                nanos,
            } => {
                write!(f, "{device}: group {group}, {access} at {address}")?;
                if *pages > 1 {
                    write!(f, " and {} more", pages - 1)?;
                }
                if let Some(pasid) = pasid {
                    write!(f, ", pasid {pasid}")?;
                }
                write!(f, ": {answer} after {}", super::report::duration(*nanos))
            }
            Self::Unsaid { device, count } => write!(f, "{device}: {count} groups not shown"),
            Self::Stalled {
                device,
                group,
                pages,
                look,
            } => {
                write!(f, "{device}: stands still for group {group} at")?;
                for page in pages {
                    write!(f, " {page}")?;
                }
                write!(f, "\n{look}")
            }
            Self::Notice { text } => f.write_str(text),
            Self::Step(step) => step.fmt(f),
            Self::Report(report) => report.fmt(f),
        }
    }
}

/// The way of events to whoever prints them.
pub(super) type Events = Outlet<Event>;

impl Events {
    /// Says a sentence.
    pub(super) fn note(&self, text: impl fmt::Display) {
        self.say(Event::Notice {
            text: text.to_string(),
        });
    }
}
