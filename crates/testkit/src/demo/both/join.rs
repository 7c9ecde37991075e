//! Two traces with two clocks, joined by what must come before what.
//!
//! Nothing is read in the guest before the unit has queued it, and no answer arrives at the unit before
//! the guest has sent it. Over many faults that leaves a narrow range for the difference of the clocks.

use super::super::report::{ANSWER, ASKED, FOUND, MESSAGE, MISSED};
use serde_json::Value;
use std::fmt::{self, Write};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The steps that `iopf run` tells.
const READ: &str = "fault read";
const DECIDED: &str = "resolver decided";
const MAPPED: &str = "IOAS_MAP done";
const SENT: &str = "answer on its way";
const WRITTEN: &str = "answer written";

/// Whose clock a step was told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// `iopf serve`, outside: the IOMMU and the device.
    Server,
    /// `iopf run`, in the guest.
    Guest,
}

/// A step of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Time since the first step of the fault, in nanoseconds; of guest steps uncertain by
    /// [`Both::uncertainty`].
    pub nanos: i64,
    /// Who saw it.
    pub side: Side,
    /// What happened.
    pub step: &'static str,
    /// More, in words.
    pub note: String,
}

/// One fault in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of its group.
    pub group: u64,
    /// Its steps.
    pub steps: Vec<Seen>,
}

impl Fault {
    fn total(&self) -> i64 {
        self.steps.last().map_or(0, |last| last.nanos)
    }
}

/// What both sides saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Both {
    /// The guest's kernel.
    pub release: String,
    /// The guest's clock less the server's: the least and the most it can be, in nanoseconds; where they
    /// drift, at the fault where least is known of it.
    pub offset: (i64, i64),
    /// Every fault, in the order they came.
    pub faults: Vec<Fault>,
}

/// A line of a trace.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    nanos: i64,
    step: &'a str,
    group: Option<u64>,
    note: &'a str,
}

impl<'a> Line<'a> {
    fn all(events: &'a [Value]) -> Vec<Self> {
        let line = |event: &'a Value| {
            Some(Self {
                nanos: event["nanos"].as_i64()?,
                step: event["step"].as_str()?,
                group: event["group"].as_u64(),
                note: event["note"].as_str().unwrap_or_default(),
            })
        };
        let mut lines: Vec<_> = events.iter().filter_map(line).collect();
        lines.sort_by_key(|line| line.nanos);
        lines
    }
}

/// One fault in both traces.
struct Pair<'a> {
    server: Vec<(&'static str, Line<'a>)>,
    guest: Vec<(&'static str, Line<'a>)>,
}

impl<'a> Pair<'a> {
    fn at(&self, side: Side, step: &str) -> Result<i64, String> {
        let lines = match side {
            Side::Server => &self.server,
            Side::Guest => &self.guest,
        };
        let found = lines.iter().find(|(name, _)| *name == step);
        found
            .map(|(_, line)| line.nanos)
            .ok_or_else(|| format!("a fault has no {step:?}"))
    }
}

/// Cuts a trace into faults: each starts with `first` and has the steps of `names` once each, the
/// first of each name.
fn cut<'a>(
    lines: &[Line<'a>],
    first: &str,
    names: &[&'static str],
) -> Vec<Vec<(&'static str, Line<'a>)>> {
    let mut faults: Vec<Vec<(&'static str, Line<'a>)>> = Vec::new();
    for line in lines {
        if line.step == first {
            faults.push(Vec::new());
        }
        let Some(name) = names.iter().find(|name| **name == line.step) else {
            continue;
        };
        if let Some(fault) = faults.last_mut()
            && !fault.iter().any(|(known, _)| known == name)
        {
            fault.push((name, *line));
        }
    }
    faults
}

impl Both {
    /// Joins the events of `iopf serve --json --trace` and those of `iopf run --json --trace`, where
    /// faults came one after the other.
    ///
    /// # Errors
    /// The text names a step that is missing, or where the two differ, or that no difference of the
    /// clocks explains what was seen.
    pub fn of(release: &str, server: &[Value], guest: &[Value]) -> Result<Self, String> {
        let server = cut(
            &Line::all(server),
            MISSED,
            &[MISSED, ASKED, MESSAGE, ANSWER, FOUND],
        );
        let guest = cut(
            &Line::all(guest),
            READ,
            &[READ, DECIDED, MAPPED, SENT, WRITTEN],
        );
        if server.len() != guest.len() || server.is_empty() {
            return Err(format!(
                "the server saw {} faults, the guest {}",
                server.len(),
                guest.len()
            ));
        }
        let pairs: Vec<_> = server
            .into_iter()
            .zip(guest)
            .map(|(server, guest)| Pair { server, guest })
            .collect();
        let offsets = offsets(&pairs)?;
        let middle = |(least, most): (i64, i64)| least + (most - least) / 2;
        let faults = pairs.iter().zip(&offsets);
        let faults = faults.map(|(pair, offset)| fault(pair, middle(*offset)));
        let widest = offsets.iter().max_by_key(|(least, most)| most - least);
        Ok(Self {
            release: release.to_owned(),
            offset: widest.copied().unwrap_or_default(),
            faults: faults.collect::<Result<_, _>>()?,
        })
    }

    /// How wrong a time between steps of different sides can be, in nanoseconds.
    #[must_use]
    pub fn uncertainty(&self) -> i64 {
        (self.offset.1 - self.offset.0) / 2
    }

    /// The fault that took the median time.
    #[must_use]
    pub fn typical(&self) -> Option<&Fault> {
        let mut order: Vec<&Fault> = self.faults.iter().collect();
        order.sort_by_key(|fault| fault.total());
        order.get(order.len() / 2).copied()
    }
}

/// How far two clocks may drift apart: one part in so many. A guest without KVM measures the rate of
/// its clock when it boots, and some 40 millionths off were seen.
const DRIFT: i64 = 1000;

/// The least and the most that the guest's clock can be ahead at each fault, by all faults, or where
/// the clocks drift, by those around it.
fn offsets(pairs: &[Pair<'_>]) -> Result<Vec<(i64, i64)>, String> {
    let mut bounds = Vec::new();
    for pair in pairs {
        let asked = pair.at(Side::Server, ASKED)?;
        let answered = pair.at(Side::Server, ANSWER)?;
        let (read, sent) = (pair.at(Side::Guest, READ)?, pair.at(Side::Guest, SENT)?);
        bounds.push((sent - answered, read - asked, asked));
    }
    let around = |at: usize, reach: usize| {
        let near = &bounds[at.saturating_sub(reach)..bounds.len().min(at + reach + 1)];
        near.iter()
            .fold((i64::MIN, i64::MAX), |(least, most), near| {
                (least.max(near.0), most.min(near.1))
            })
    };
    let span = match (bounds.first(), bounds.last()) {
        (Some(first), Some(last)) => last.2 - first.2,
        _ => 0,
    };
    let (least, most) = around(0, bounds.len());
    if !bounds.is_empty() && least > most + span / DRIFT {
        return Err(format!(
            "no difference of the clocks fits: it is {least} ns at least and {most} ns at most"
        ));
    }
    let fits = |at: usize| {
        let reaches = [bounds.len(), 16, 4, 1, 0];
        let mut offsets = reaches.into_iter().map(|reach| around(at, reach));
        let found = offsets.find(|(least, most)| least <= most);
        found.ok_or_else(|| format!("fault {at} was answered before it was read, by any clock"))
    };
    (0..bounds.len()).map(fits).collect()
}

fn fault(pair: &Pair<'_>, offset: i64) -> Result<Fault, String> {
    let start = pair.at(Side::Server, MISSED)?;
    pair.at(Side::Server, FOUND)?;
    pair.at(Side::Guest, WRITTEN)?;
    let group = |lines: &[(&'static str, Line<'_>)], step: &str| {
        let found = lines.iter().find(|(name, _)| *name == step);
        found.and_then(|(_, line)| line.group)
    };
    let (asked, read) = (group(&pair.server, ASKED), group(&pair.guest, READ));
    if asked.is_none() || asked != read {
        return Err(format!(
            "the server asked for group {asked:?}, the guest read {read:?}"
        ));
    }
    let seen = |side, shift: i64| {
        move |(step, line): &(&'static str, Line<'_>)| Seen {
            nanos: line.nanos - shift - start,
            side,
            step,
            note: line.note.to_owned(),
        }
    };
    let mut steps: Vec<_> = pair.server.iter().map(seen(Side::Server, 0)).collect();
    steps.extend(pair.guest.iter().map(seen(Side::Guest, offset)));
    steps.sort_by_key(|seen| seen.nanos);
    Ok(Fault {
        group: asked.unwrap_or_default(),
        steps,
    })
}

/// Shows one fault step by step, and the medians of all.
///
/// # Errors
/// Those of `out`.
pub fn text(both: &Both, out: &mut impl Write) -> fmt::Result {
    let Some(typical) = both.typical() else {
        return Ok(());
    };
    writeln!(
        out,
        "One of {} page requests of a DMA engine, seen from both sides (Linux {})",
        both.faults.len(),
        both.release
    )?;
    writeln!(out, "  {:>12}  {:>12}  who    what", "at", "median of all")?;
    for seen in &typical.steps {
        let who = match seen.side {
            Side::Server => "serve",
            Side::Guest => "run",
        };
        let median = median(both, seen.step);
        write!(
            out,
            "  {:>9} us  {:>9} us  {who:<5}  {}",
            micros(seen.nanos),
            micros(median),
            seen.step
        )?;
        match seen.note.as_str() {
            "" => writeln!(out)?,
            note => writeln!(out, ": {note}")?,
        }
    }
    writeln!(
        out,
        "The two clocks are joined by causality: times of `run` against those of `serve` are right to \
         +-{} us.",
        micros(both.uncertainty())
    )
}

/// When this step came, in the median of all faults that have it.
fn median(both: &Both, step: &str) -> i64 {
    let times = both.faults.iter().filter_map(|fault| {
        let seen = fault.steps.iter().find(|seen| seen.step == step)?;
        Some(seen.nanos)
    });
    let mut times: Vec<i64> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Nanoseconds as microseconds with one decimal.
fn micros(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let time = Duration::from_nanos(nanos.unsigned_abs());
    format!(
        "{sign}{}.{}",
        time.as_micros(),
        time.subsec_nanos() % 1000 / 100
    )
}
