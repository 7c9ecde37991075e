//! What a device looks like while it stands still: its configuration space.
//!
//! Source: PCI Express Base Specification, "PCI-Compatible Configuration Registers", "ATS Extended
//! Capability Structure", "Page Request Extended Capability Structure", "PASID Extended Capability
//! Structure".

use super::event::{Event, Events};
use super::watch::Watch;
use crate::step::Hex;
use iopf::engine::{DeviceId, Group, Pages, Stray};
use iopf::resolve::Inspect;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Bytes of the header that is shown.
const HEADER: usize = 64;

/// Extended capabilities by their ID.
const ATS: u16 = 0x0f;
const PRI: u16 = 0x13;
const PASID: u16 = 0x1b;

/// The fields that matter for page requests, and the header as it lies there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Look {
    pub(super) command: u16,
    pub(super) status: u16,
    /// ATS Control, where there is ATS.
    pub(super) ats: Option<u16>,
    /// Page Request Control and Status, where there is PRI.
    pub(super) pri: Option<(u16, u16)>,
    /// PASID Control, where there is PASID.
    pub(super) pasid: Option<u16>,
    /// The first 64 bytes in hex; fewer where fewer could be read.
    pub(super) header: String,
    /// Why it could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Look {
    /// From the bytes of a configuration space, as many as there are.
    pub(super) fn of(space: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = space.get(at..at + 2)?;
            Some(u16::from_le_bytes(bytes.try_into().ok()?))
        };
        let extended = |id| {
            let mut at = 0x100;
            // Each is 8 bytes at least, so a longer chain is a loop.
            for _ in 0..480 {
                let (found, next) = (word(at)?, word(at + 2)?);
                if found == id {
                    return Some(at);
                }
                at = usize::from(next >> 4) & !3;
                if at < 0x100 {
                    return None;
                }
            }
            None
        };
        let at = |id, offset| extended(id).and_then(|at: usize| word(at + offset));
        let header = space.iter().take(HEADER);
        Self {
            command: word(4).unwrap_or_default(),
            status: word(6).unwrap_or_default(),
            ats: at(ATS, 6),
            pri: at(PRI, 4).zip(at(PRI, 6)),
            pasid: at(PASID, 6),
            header: header.map(|byte| format!("{byte:02x}")).collect(),
            error: None,
        }
    }

    fn read(file: &File) -> Self {
        let mut space = vec![0; 4096];
        match read_all(file, &mut space) {
            Ok(len) => Self::of(&space[..len]),
            Err(error) => Self {
                error: Some(error.to_string()),
                ..Self::of(&[])
            },
        }
    }
}

fn read_all(file: &File, into: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    loop {
        match file.read_at(&mut into[len..], len as u64) {
            Ok(0) => return Ok(len),
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(error) = &self.error {
            return write!(f, "  configuration space: {error}");
        }
        let bit = |word: u16, bit: u16, name: &str| {
            let sign = if word & bit != 0 { '+' } else { '-' };
            format!(" {name}{sign}")
        };
        write!(
            f,
            "  COMMAND {:#06x}{}",
            self.command,
            bit(self.command, 4, "BusMaster")
        )?;
        write!(f, ", STATUS {:#06x}", self.status)?;
        write!(f, "{}", bit(self.status, 1 << 13, "MasterAbort"))?;
        match self.ats {
            Some(word) => write!(f, "\n  ATS {:#06x}{}", word, bit(word, 1 << 15, "Enable"))?,
            None => f.write_str("\n  no ATS")?,
        }
        match self.pri {
            Some((control, status)) => {
                write!(f, "; PRI {control:#06x}{}", bit(control, 1, "Enable"))?;
                write!(
                    f,
                    ", status {status:#06x}{}",
                    bit(status, 1, "ResponseFailure")
                )?;
                write!(f, "{}", bit(status, 1 << 8, "Stopped"))?;
            }
            None => f.write_str("; no PRI")?,
        }
        match self.pasid {
            Some(word) => write!(f, "; PASID {word:#06x}{}", bit(word, 1, "Enable"))?,
            None => f.write_str("; no PASID")?,
        }
        for (row, text) in self.header.as_bytes().chunks(32).enumerate() {
            write!(f, "\n  {:02x}: {}", 16 * row, String::from_utf8_lossy(text))?;
        }
        Ok(())
    }
}

/// Looks at devices through sysfs.
#[derive(Debug)]
pub(super) struct Looker {
    /// Each device's configuration space.
    pub(super) spaces: BTreeMap<DeviceId, File>,
    pub(super) watch: Arc<Watch>,
    pub(super) events: Arc<Events>,
}

impl Inspect for Looker {
    type State = Look;

    fn stalled(&mut self, group: &Group, pages: Pages<'_>) -> Look {
        let look = match self.spaces.get(&group.device) {
            Some(file) => Look::read(file),
            None => Look::of(&[]),
        };
        self.watch
            .step("device inspected", group.device, group.index.0, String::new);
        self.events.say(Event::Stalled {
            device: self.watch.name(group.device),
            group: group.index.0,
            pages: pages.map(|page| Hex(page.addr.0)).collect(),
            look: look.clone(),
        });
        look
    }

    fn passed(&mut self, stray: &Stray) -> Look {
        let file = self.spaces.get(&stray.device);
        file.map_or_else(|| Look::of(&[]), Look::read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_switches_of_page_requests_are_found_in_literal_bytes() {
        let mut space = vec![0; 4096];
        // COMMAND: memory and bus master; STATUS: capabilities list.
        space[4..8].copy_from_slice(&[0x06, 0x00, 0x10, 0x00]);
        // 100: ATS version 1, next 110; control enabled with the smallest translation unit 0.
        space[0x100..0x108].copy_from_slice(&[0x0f, 0x00, 0x01, 0x11, 0x20, 0x00, 0x00, 0x80]);
        // 110: PRI, next 120; control enabled, status stopped and PASID required.
        space[0x110..0x118].copy_from_slice(&[0x13, 0x00, 0x01, 0x12, 0x01, 0x00, 0x00, 0x81]);
        // 120: PASID, the last; control enabled with execute.
        space[0x120..0x128].copy_from_slice(&[0x1b, 0x00, 0x01, 0x00, 0x00, 0x14, 0x03, 0x00]);
        let look = Look::of(&space);
        assert_eq!((look.command, look.status), (6, 0x10));
        assert_eq!(look.ats, Some(0x8000));
        assert_eq!(look.pri, Some((1, 0x8100)));
        assert_eq!(look.pasid, Some(3));
        let text = look.to_string();
        assert!(
            text.starts_with("  COMMAND 0x0006 BusMaster+, STATUS 0x0010 MasterAbort-"),
            "{text}"
        );
        assert!(
            text.contains("PRI 0x0001 Enable+, status 0x8100 ResponseFailure- Stopped+"),
            "{text}"
        );
        assert!(text.contains("\n  00: 0000000006001000"), "{text}");
    }

    #[test]
    fn a_space_without_extended_part_or_with_a_loop_has_no_such_capabilities() {
        let look = Look::of(&[0xff; 64]);
        assert_eq!((look.ats, look.pri, look.pasid), (None, None, None));
        let mut space = vec![0; 4096];
        space[0x100..0x104].copy_from_slice(&[0x01, 0x00, 0x01, 0x10]);
        assert_eq!(Look::of(&space).pri, None);
        assert_eq!(Look::of(&[]).header, "");
    }
}
