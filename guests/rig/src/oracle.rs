//! The kernel's mock devices as an oracle: `guests/kernel/oracle/README.md`.

use crate::{Outcome, ensure};
use std::fs::File;
use std::io::Read as _;

/// Bit of `perm` in a page request: the page is not the last of its group.
pub(crate) const NOT_LAST: u32 = 1 << 31;
/// The request drops pages whose group never ended, and reports nothing.
pub(crate) const DISCARD: u32 = 1 << 30;
/// The response needs the PASID, as VT-d's do.
pub(crate) const NEEDS_PASID: u32 = 1 << 29;
/// The request ends as the report did.
pub(crate) const RETURN: u32 = 1 << 28;

/// What the mock devices were asked and told.
#[derive(Debug)]
pub(crate) struct Log(File);

impl Log {
    /// Starts the log. There is one at a time.
    pub(crate) fn open() -> Outcome<Self> {
        Ok(Self(File::open("/sys/kernel/debug/iommufd_oracle/events")?))
    }

    /// Adds what came since the last time to `text`.
    pub(crate) fn read_into(&mut self, text: &mut String) -> Outcome<()> {
        self.0.read_to_string(text)?;
        Ok(())
    }
}

/// Every response so far, in order; that there is none beside them is checked.
#[derive(Debug)]
pub(crate) struct Responses {
    log: Log,
    /// A line that is not whole yet.
    text: String,
    /// The number of the next event.
    next: u64,
    said: Vec<String>,
}

impl Responses {
    /// From now on.
    pub(crate) fn new() -> Outcome<Self> {
        Ok(Self {
            log: Log::open()?,
            text: String::new(),
            next: 0,
            said: Vec::new(),
        })
    }

    /// The responses so far, as the kernel has them behind the word. No event may be missing, and no
    /// report refused.
    pub(crate) fn so_far(&mut self) -> Outcome<&[String]> {
        self.log.read_into(&mut self.text)?;
        let whole = self.text.rfind('\n').map_or(0, |end| end + 1);
        let rest = self.text.split_off(whole);
        for line in std::mem::replace(&mut self.text, rest).lines() {
            let mut words = line.splitn(3, ' ');
            let number = words.next().and_then(|word| word.parse().ok());
            ensure(
                number == Some(self.next),
                format!("{} is not {line}", self.next),
            )?;
            self.next += 1;
            match (words.next(), words.next()) {
                (Some("response"), Some(rest)) => self.said.push(rest.to_owned()),
                (Some("report"), Some(rest)) if rest.ends_with(" ret=0") => {}
                _ => return Err(line.into()),
            }
        }
        Ok(&self.said)
    }
}
