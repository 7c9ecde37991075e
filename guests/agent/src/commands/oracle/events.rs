//! What the patched kernel tells of mock devices: `guests/kernel/oracle/README.md`.

use crate::args::number;
use crate::reply::{Context as _, Failure};
use std::fs::File;
use std::io::Read as _;

/// Where it tells.
const EVENTS: &str = "/sys/kernel/debug/iommufd_oracle/events";

/// Something that happened to a mock device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A page was reported; what came of it.
    Report { device: String, came: i64 },
    /// A device got an answer.
    Answer {
        device: String,
        pasid: u64,
        group: u64,
        code: u64,
        flags: u64,
        addr: u64,
    },
    /// Partial pages were discarded.
    Discard,
}

/// The open list of events.
#[derive(Debug)]
pub(super) struct Events {
    file: File,
    /// The number of the next event.
    next: u64,
}

impl Events {
    pub(super) fn open() -> Result<Self, Failure> {
        let file = File::open(EVENTS).context(EVENTS)?;
        Ok(Self { file, next: 0 })
    }

    /// What happened since the last time.
    pub(super) fn read(&mut self) -> Result<Vec<Event>, Failure> {
        let mut text = String::new();
        self.file.read_to_string(&mut text).context(EVENTS)?;
        let mut events = Vec::new();
        for line in text.lines() {
            let (count, event) = parse(line)?;
            if count != self.next {
                return Err(Failure::new(format!("event {} is missing", self.next)));
            }
            self.next += 1;
            events.push(event);
        }
        Ok(events)
    }
}

/// A line: its number, and what it tells.
fn parse(line: &str) -> Result<(u64, Event), Failure> {
    let mut words = line.split(' ');
    let count = number("EVENT", words.next().unwrap_or_default())?;
    let kind = words.next().unwrap_or_default();
    let pairs: Vec<_> = words.filter_map(|word| word.split_once('=')).collect();
    let text = |key: &str| {
        let found = pairs.iter().find(|(name, _)| *name == key);
        let missing = || Failure::new(format!("no {key}: {line}"));
        found.map(|(_, value)| *value).ok_or_else(missing)
    };
    let value = |key: &str| number(key, text(key)?);
    let event = match kind {
        "report" => Event::Report {
            device: text("dev")?.to_owned(),
            came: text("ret")?
                .parse()
                .map_err(|_| Failure::new(format!("no number: {line}")))?,
        },
        "response" => Event::Answer {
            device: text("dev")?.to_owned(),
            pasid: value("pasid")?,
            group: value("grpid")?,
            code: value("code")?,
            flags: value("flags")?,
            addr: value("addr")?,
        },
        "discard" => Event::Discard,
        _ => return Err(Failure::new(format!("not understood: {line}"))),
    };
    Ok((count, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_the_patch_are_understood() {
        let line = "0 response dev=iommufd_mock0 pasid=5 grpid=8 code=1 flags=0x7 addr=0x2000";
        let answer = Event::Answer {
            device: "iommufd_mock0".to_owned(),
            pasid: 5,
            group: 8,
            code: 1,
            flags: 7,
            addr: 0x2000,
        };
        assert_eq!(parse(line), Ok((0, answer)));
        let line =
            "1 report dev=iommufd_mock0 pasid=5 grpid=8 perm=0x3 flags=0x7 addr=0x2000 ret=-22";
        let report = Event::Report {
            device: "iommufd_mock0".to_owned(),
            came: -22,
        };
        assert_eq!(parse(line), Ok((1, report)));
        assert_eq!(parse("2 discard ret=0"), Ok((2, Event::Discard)));
        assert!(parse("3 response dev=x").is_err());
        assert!(parse("4 else").is_err());
    }
}
