//! A message of which the end may still come.

use super::advice::text_of;
use super::clean::unquote;
use super::dialect::Start;
use super::message::Scan;
use super::normal::{Arch, Kind, Record};
use super::{amdvi, dump, names, stamp};

/// Bytes kept of one message, and of the tables printed for it.
pub(super) const TEXT: usize = 4096;

/// A message of which the end may still come.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) line: u64,
    pub(super) time: Option<String>,
    /// What the lines that the kernel prints at one go have in common.
    pub(super) stamp: Option<Vec<u8>>,
    pub(super) start: Start,
    pub(super) text: Vec<u8>,
    pub(super) scan: Scan,
    /// The last line that added to it.
    pub(super) touched: u64,
    pub(super) tables: Vec<u8>,
    pub(super) closed: bool,
    /// Where no line of it names the driver, the lines that count as a message's if more of it comes.
    pub(super) doubtful: Option<u64>,
}

/// The second half of an old message.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) line: u64,
    pub(super) time: Option<String>,
    pub(super) stamp: Option<Vec<u8>>,
    pub(super) text: Vec<u8>,
}

impl Message {
    /// A refused page request of VT-d, which comes in two lines.
    pub(super) fn is_page_request(&self) -> bool {
        let fields = &self.scan.fields;
        (fields.arch, fields.kind) == (Arch::Vtd, Kind::PageRequest)
    }

    /// A message of one of Arm's SMMUs, which comes in several lines.
    pub(super) fn is_arm(&self) -> bool {
        matches!(self.scan.fields.arch, Arch::Smmuv3 | Arch::Smmuv2)
    }

    /// Linux prints the device table entry or the command after it.
    pub(super) fn may_have_tables(&self) -> bool {
        let fields = &self.scan.fields;
        fields.arch == Arch::Amdvi && matches!(fields.code, Some(1 | 5))
    }

    /// Adds a line of the tables that the kernel printed for it.
    pub(super) fn add_table(&mut self, text: &[u8], line: u64) {
        if self.tables.len() + text.len() <= TEXT {
            self.tables.extend_from_slice(unquote(text));
            self.tables.push(b' ');
        }
        self.touched = line;
        self.scan.open = false;
    }

    /// Its last line broke off in the address: a record holds that of a page.
    pub(super) fn ends_in_part_of_an_address(&self) -> bool {
        let digits = self.text.rsplit(|byte| !byte.is_ascii_hexdigit()).next();
        let low = digits.map(|digits| digits.get(digits.len().saturating_sub(3)..));
        let page = matches!(low, Some(Some(b"000" | b"0")));
        self.scan.number_at_end && self.scan.fields.kind == Kind::Dma && !page
    }

    pub(super) fn record(self, number: u64) -> Record {
        let fields = self.scan.fields;
        let mut record = Record {
            record: number,
            line: self.line,
            time: self.time,
            arch: fields.arch,
            kind: fields.kind,
            iommu: fields.iommu,
            device: fields.device,
            pasid: fields.pasid,
            address: fields.address,
            access: fields.access,
            privileged: fields.privileged,
            code: fields.code,
            name: fields.name,
            flags: fields.flags,
            index: fields.index,
            text: String::new(),
            client: fields.client,
            detail: fields.detail,
            dump: fields.dump,
        };
        if !self.tables.is_empty() {
            let dump = match record.arch {
                Arch::Amdvi => amdvi::dump(&self.tables),
                _ => dump::read(&self.tables, &record),
            };
            record.iommu = record.iommu.or_else(|| dump.iommu.clone());
            record.dump = Some(dump);
        }
        record.text = text_of(&record);
        record
    }
}

/// Whether a message read as `after` with the text from `joint` on, and as `before` without it,
/// shows that the text belongs to it.
pub(super) fn belongs(before: &Scan, after: &Scan, joint: usize, old_end: usize) -> bool {
    if after.end <= joint || after.template || after.gap > old_end {
        return false;
    }
    // Text that goes on with something else is another line, even if it begins like a number.
    if after.wants_reason && !after.open {
        return false;
    }
    // Once the number is known only its words are missing, and words we do not know could be
    // anybody's.
    let known = after
        .fields
        .name
        .as_deref()
        .is_some_and(|name| names::code_of(name).is_some());
    if !before.wants_reason && !known {
        return false;
    }
    let (old, new) = (&before.fields, &after.fields);
    let lost = (old.device.is_some() && new.device.is_none())
        || (old.address.is_some() && new.address.is_none())
        || (old.index.is_some() && new.index.is_none())
        || (old.pasid.is_some() && new.pasid.is_none());
    let grown = before.number_at_end
        && after.open
        && joint == old_end
        && (after.fields.address.is_some() || after.fields.kind == Kind::InterruptRemapping);
    // AMD-Vi's addresses need not be a page's, so all of the text must be digits.
    let digits = before.number_at_end
        && after.number_at_end
        && joint == old_end
        && after.fields.arch == Arch::Amdvi;
    (after.parts > before.parts || grown || digits) && !lost
}

/// `text` without the beginning of the next message's line, which ends it.
pub(super) fn without_prefix(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_end();
        let mark = [
            &b"DMAR:"[..],
            b"dmar:",
            b"[VT-D]",
            b"AMD-Vi:",
            b"kernel:",
            b"(XEN)",
        ]
        .iter()
        .find_map(|mark| text.strip_suffix(*mark));
        let stamp = || {
            let open = memchr::memrchr(b'[', text)?;
            stamp::kernel(text.get(open..)?)?;
            text.ends_with(b"]").then(|| text.get(..open))?
        };
        match mark.or_else(stamp) {
            Some(shorter) => text = shorter,
            None => return text,
        }
    }
}
