//! A step of a page request, with its time: what `--trace` tells, whichever side it is seen from.

use serde::Serialize;
use std::fmt;

/// A step of a page request.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Step {
    /// Nanoseconds since the program started.
    pub(crate) nanos: u64,
    /// What happened.
    pub(crate) step: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<u32>,
    /// More, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (millis, rest) = (self.nanos / 1_000_000, self.nanos % 1_000_000);
        write!(f, "{millis:>8}.{rest:06} ms  {}", self.step)?;
        if let Some(device) = &self.device {
            write!(f, "  {device}")?;
        }
        if let Some(group) = self.group {
            write!(f, "  group {group}")?;
        }
        if !self.note.is_empty() {
            write!(f, "  {}", self.note)?;
        }
        Ok(())
    }
}

/// A number that JSON and text show in hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hex(pub(crate) u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl Serialize for Hex {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
