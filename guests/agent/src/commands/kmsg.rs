//! The kernel's log.
//!
//! Source: Linux Documentation/ABI/testing/dev-kmsg. A record is `priority,sequence,microseconds,
//! flags;text`, then lines of properties that start with a space.

use super::Command;
use crate::args::Args;
use crate::reply::{Context as _, Done, Failure, Reply};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{Duration, Instant};

pub(super) const COMMANDS: &[Command] = &[
    Command {
        name: "dmesg",
        usage: "dmesg",
        run: |args, out| {
            args.end()?;
            since(0, out)
        },
    },
    Command {
        name: "kmsg-mark",
        usage: "kmsg-mark",
        run: mark,
    },
    Command {
        name: "kmsg-since",
        usage: "kmsg-since MARK",
        run: |mut args, out| {
            let mark = args.number("MARK")?;
            args.end()?;
            since(mark, out)
        },
    },
    Command {
        name: "kmsg-wait",
        usage: "kmsg-wait MARK MILLISECONDS TEXT",
        run: wait,
    },
];

/// The largest record the kernel hands out.
const RECORD: usize = 8192;

/// One record.
#[derive(Debug, PartialEq, Eq)]
struct Record {
    sequence: u64,
    /// 0 (emergency) to 7 (debug).
    level: u8,
    microseconds: u64,
    text: String,
}

impl Record {
    fn parse(raw: &str) -> Option<Self> {
        let (head, rest) = raw.split_once(';')?;
        let mut fields = head.split(',');
        let priority: u32 = fields.next()?.parse().ok()?;
        Some(Self {
            level: u8::try_from(priority & 7).ok()?,
            sequence: fields.next()?.parse().ok()?,
            microseconds: fields.next()?.parse().ok()?,
            text: rest.lines().next().unwrap_or_default().to_owned(),
        })
    }

    /// `<level> [seconds] text`.
    fn show(&self) -> String {
        let (seconds, part) = (self.microseconds / 1_000_000, self.microseconds % 1_000_000);
        format!("<{}> [{seconds:>5}.{part:06}] {}", self.level, self.text)
    }
}

/// Reads records that are there; never waits.
struct Log(File);

impl Log {
    fn open() -> Result<Self, Failure> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open("/dev/kmsg")
            .context("/dev/kmsg")?;
        Ok(Self(file))
    }

    /// The next record. Records that the kernel overwrote are passed over: their sequence numbers
    /// are missing.
    fn next(&mut self) -> Result<Option<Record>, Failure> {
        let mut raw = [0; RECORD];
        loop {
            match self.0.read(&mut raw) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&raw[..len]);
                    if let Some(record) = Record::parse(&text) {
                        return Ok(Some(record));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => return Err(Failure::from(error).at("/dev/kmsg")),
            }
        }
    }
}

/// Says the sequence number that the next record will have.
fn mark(args: Args<'_>, out: &mut Reply<'_>) -> Done {
    args.end()?;
    let mut log = Log::open()?;
    let mut next = 0;
    while let Some(record) = log.next()? {
        next = record.sequence + 1;
    }
    out.line(next);
    Ok(())
}

fn since(mark: u64, out: &mut Reply<'_>) -> Done {
    let mut log = Log::open()?;
    while let Some(record) = log.next()? {
        if record.sequence >= mark {
            out.line(record.show());
        }
    }
    Ok(())
}

/// Waits for a record that holds the text, and says it.
fn wait(mut args: Args<'_>, out: &mut Reply<'_>) -> Done {
    let mark = args.number("MARK")?;
    let patience = Duration::from_millis(args.number("MILLISECONDS")?);
    let text = args.rest();
    let (mut log, started) = (Log::open()?, Instant::now());
    loop {
        while let Some(record) = log.next()? {
            if record.sequence >= mark && record.text.contains(text) {
                out.line(record.show());
                return Ok(());
            }
        }
        if started.elapsed() > patience {
            return Err(rustix::io::Errno::TIMEDOUT.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_gives_its_level_its_time_and_its_first_line() {
        // From the kernel's document, with a facility (30 = daemon.info).
        let raw = "30,339,5140900,-;NET: Registered protocol\n SUBSYSTEM=pci\n";
        let record = Record::parse(raw).unwrap();
        assert_eq!(record.sequence, 339);
        assert_eq!(record.show(), "<6> [    5.140900] NET: Registered protocol");
        assert_eq!(Record::parse("nonsense"), None);
    }
}
