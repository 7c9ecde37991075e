//! What was seen of one fault, and the text that tells it.

use serde_json::Value;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// What the process in the guest says: `guests/agent/src/commands/dsa/page.rs`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Its number in the guest.
    pub id: u64,
    /// The address it copied from.
    pub source: u64,
    /// The address of the page that it never touched.
    pub target: u64,
    /// Bytes that it copied.
    pub bytes: u64,
    /// The guest-physical address that Linux had behind the page before the copy; 0 is none.
    pub before: u64,
    /// The same after the copy.
    pub after: u64,
    /// From before it submitted the first copy until it saw the completion record, by the guest's
    /// clock.
    pub first: Duration,
    /// The same for a second copy onto the page.
    pub next: Duration,
}

impl Process {
    /// Reads the agent's lines.
    ///
    /// # Errors
    /// The text names what is missing or no number.
    pub fn parse(lines: &[String]) -> Result<Self, String> {
        let words = lines.iter().flat_map(|line| line.split(' '));
        let words: HashMap<_, _> = words.filter_map(|word| word.split_once('=')).collect();
        let number = |name: &str| {
            let word = words
                .get(name)
                .ok_or_else(|| format!("the process says no {name}"))?;
            let read = match word.strip_prefix("0x") {
                Some(digits) => u64::from_str_radix(digits, 16),
                None => word.parse(),
            };
            read.map_err(|_| format!("{name}={word} is no number"))
        };
        Ok(Self {
            id: number("process")?,
            source: number("source")?,
            target: number("target")?,
            bytes: number("bytes")?,
            before: number("before")?,
            after: number("after")?,
            first: Duration::from_nanos(number("first")?),
            next: Duration::from_nanos(number("next")?),
        })
    }
}

/// A step of the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Time since the first step, by the server's clock.
    pub at: Duration,
    /// What happened, in words.
    pub what: String,
}

/// One fault, from the device's question to its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The kernel's release.
    pub release: String,
    /// What the process saw.
    pub process: Process,
    /// The address space of the process, as the device names it.
    pub pasid: String,
    /// What the server saw, in the order of time.
    pub steps: Vec<Step>,
    /// The time of the steps in which the server was at work.
    pub ours: Duration,
    /// From the interrupt message until the guest's answer was in its invalidation queue.
    pub guests: Duration,
}

/// A line of the server's trace.
#[derive(Clone, Debug)]
struct Line<'a> {
    nanos: u64,
    step: &'a str,
    group: Option<u64>,
    note: &'a str,
}

impl<'a> Line<'a> {
    fn of(event: &'a Value) -> Option<Self> {
        Some(Self {
            nanos: event["nanos"].as_u64()?,
            step: event["step"].as_str()?,
            group: event["group"].as_u64(),
            note: event["note"].as_str().unwrap_or_default(),
        })
    }
}

pub(super) const MISSED: &str = "translation request finds nothing";
pub(super) const ASKED: &str = "page request queued for the guest";
pub(super) const MESSAGE: &str = "interrupt message to the guest";
const TAIL: &str = "the guest has moved the tail of its command queue";
pub(super) const ANSWER: &str = "group answered";
pub(super) const FOUND: &str = "translation request finds the page";

impl Report {
    /// Puts together what the process and the server saw, and checks that both saw the same.
    ///
    /// `events` are those of `iopf serve --json --trace` from just before the process started.
    ///
    /// # Errors
    /// Where a step is missing, where there is more than one fault, or where the two differ.
    pub fn of(release: &str, process: Process, events: &[Value]) -> Result<Self, String> {
        let mut lines: Vec<_> = events.iter().filter_map(Line::of).collect();
        lines.sort_by_key(|line| line.nanos);
        let page = format!("at {:#x},", process.target);
        let find = |step: &str, from: usize| {
            let rest = lines.iter().enumerate().skip(from);
            let mut steps = rest.filter(|(_, line)| line.step == step);
            steps
                .next()
                .map(|(at, _)| at)
                .ok_or_else(|| format!("there is no {step:?} where it belongs"))
        };
        let missed = find(MISSED, 0)?;
        let asked = find(ASKED, missed)?;
        let message = find(MESSAGE, asked)?;
        let answer = find(ANSWER, message)?;
        let found = find(FOUND, answer)?;
        let tail = lines[message..answer]
            .iter()
            .rposition(|line| line.step == TAIL)
            .map(|at| message + at)
            .ok_or_else(|| format!("there is no {TAIL:?} before the answer"))?;
        for at in [missed, asked, found] {
            let Line { step, note, .. } = &lines[at];
            if !format!("{note},").contains(&page) {
                return Err(format!(
                    "{step:?} is of another page than {page:?}: {note:?}"
                ));
            }
        }
        if lines[answer].group != lines[asked].group || lines[answer].note != "Success" {
            return Err(format!("no Success for that group: {:?}", lines[answer]));
        }
        if process.before != 0 {
            return Err("the page was there before".to_owned());
        }
        let given = format!("which is {:#x} of", process.after);
        if !lines[found].note.contains(&given) {
            return Err(format!(
                "Linux has {:#x} behind the page, and the device was told {:?}",
                process.after, lines[found].note
            ));
        }
        let pasid = lines[missed].note.split_once("pasid ");
        let (_, pasid) = pasid.ok_or("the device named no PASID")?;
        let since = |at: usize| Duration::from_nanos(lines[at].nanos - lines[missed].nanos);
        let steps = (missed..=found)
            .map(|at| Step {
                at: since(at),
                what: match lines[at].step {
                    TAIL if at == tail => ANSWERED.to_owned(),
                    _ => words(&lines[at], process.after),
                },
            })
            .collect();
        let guests = since(tail) - since(message);
        Ok(Self {
            release: release.to_owned(),
            pasid: pasid.to_owned(),
            steps,
            ours: since(found) - guests,
            guests,
            process,
        })
    }

    /// From the device's question to its answer.
    #[must_use]
    pub fn total(&self) -> Duration {
        self.ours + self.guests
    }
}

const ANSWERED: &str = "Linux has handled the fault as one of the process, and the answer is in its invalidation queue";

fn words(line: &Line<'_>, given: u64) -> String {
    match line.step {
        MISSED => {
            "the device asks the IOMMU for the page; the process's page table has nothing there"
                .to_owned()
        }
        ASKED => format!(
            "it sends a page request, group {}; the IOMMU puts it into Linux's page request queue",
            line.group.unwrap_or_default()
        ),
        MESSAGE => "the IOMMU interrupts the guest".to_owned(),
        TAIL => "Linux has something else in its invalidation queue".to_owned(),
        ANSWER => "the IOMMU gives the answer, Success, to the device".to_owned(),
        FOUND => format!("the device asks again and is given {given:#x} of the guest's memory"),
        other if line.note.is_empty() => other.to_owned(),
        other => format!("{other}: {}", line.note),
    }
}

/// A time with the unit that suits it.
fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    if micros < 1000.0 {
        format!("{micros:.1} µs")
    } else {
        format!("{:.2} ms", micros / 1000.0)
    }
}

/// The text view.
///
/// # Errors
/// Only those of `out`.
pub fn text(report: &Report, out: &mut impl Write) -> fmt::Result {
    let Report { process: p, .. } = report;
    writeln!(
        out,
        "Process {} of Linux {} has opened /dev/dsa/wq0.0.\n\
         From now on the device reaches the process's memory, at the process's own addresses; it calls that\n\
         address space PASID {}.",
        p.id, report.release, report.pasid
    )?;
    writeln!(
        out,
        "The process maps a page at {:#x} and does not touch it: Linux has nothing behind it.\n\
         It has the device copy {} bytes from {:#x} to there, and waits.\n",
        p.target, p.bytes, p.source
    )?;
    let mut last = Duration::ZERO;
    for Step { at, what } in &report.steps {
        let (at, step) = (*at, at.saturating_sub(last));
        writeln!(
            out,
            "{:>10}  {:>11}  {what}",
            time(at),
            format!("+{}", time(step))
        )?;
        last = at;
    }
    writeln!(
        out,
        "\nThe device writes the bytes and a completion record. The process sees it {} after it began to\n\
         submit, by the guest's clock, and the bytes are right. Linux now has {:#x} behind the page,\n\
         which is what the device was given.",
        time(p.first),
        p.after
    )?;
    writeln!(
        out,
        "The same copy again takes {}: the page is there, and no page request is needed.\n",
        time(p.next)
    )?;
    writeln!(
        out,
        "From the first question to the page: {}. Of that, {} lie between the interrupt and the\n\
         guest's answer, in QEMU and the guest; the rest, {}, is iopf: the unit, the device, their threads.",
        time(report.total()),
        time(report.guests),
        time(report.ours)
    )
}
