//! Messages that drivers print in several lines of their own: VT-d's refused page requests, and all of
//! Arm's SMMUs.

use super::{ARM, Decoder};
use crate::log::arm;
use crate::log::clean::unquote;
use crate::log::dialect::Start;
use crate::log::message::{Fields, Scan};
use crate::log::stamp;
use crate::log::vtd::Report;
use crate::log::waiting::{Message, TEXT, without_prefix};

impl Decoder {
    pub(super) fn page(&mut self, line: &[u8], at: usize, report: Report, time: Option<&str>) {
        let prefix = line.get(..at).unwrap_or_default();
        self.count_line();
        let (fields, open) = match report {
            Report::Why(fields) => (fields, true),
            Report::What(fields) => (fields, false),
        };
        if !open {
            let begun = self.waiting.iter_mut().rev().find(|message| {
                message.scan.open
                    && !message.closed
                    && message.is_page_request()
                    && message.scan.fields.iommu == fields.iommu
            });
            if let Some(message) = begun {
                let name = message.scan.fields.name.take();
                message.scan.fields = Fields { name, ..fields };
                message.scan.open = false;
                message.touched = self.summary.lines;
                return;
            }
        }
        let time = time
            .map(str::to_owned)
            .or_else(|| stamp::find(unquote(prefix)));
        let scan = Scan {
            fields,
            parts: 1,
            end: 0,
            open,
            wants_reason: false,
            gap: 0,
            number_at_end: false,
            template: false,
            doubtful: false,
        };
        self.add(Start::Part(0), &[], scan, time, None);
    }

    /// Takes what drivers of SMMUs have printed in `line`, and what goes on with it; whether there is
    /// any.
    pub(super) fn arm(&mut self, line: &[u8], time: Option<&str>, after_soft: bool) -> bool {
        if !ARM.any(line) && !self.waiting.iter().any(Message::is_arm) {
            return false;
        }
        let parts = arm::parts(line);
        let first = parts.first().map_or(line.len(), |part| part.at);
        let before = line.get(..first).unwrap_or_default();
        let mut taken = self.arm_goes_on(before, after_soft);
        for part in &parts {
            let prefix = line.get(..part.at).unwrap_or_default();
            taken |= self.arm_part(prefix, part, time);
        }
        if !taken
            && parts.is_empty()
            && let Some(part) = arm::unmarked(line)
        {
            let prefix = line.get(..part.at).unwrap_or_default();
            taken = self.arm_begins(prefix, &part, time, true);
        }
        taken
    }

    /// Adds `part` to the message that it goes on with, or begins one.
    fn arm_part(&mut self, prefix: &[u8], part: &arm::Part<'_>, time: Option<&str>) -> bool {
        let line = self.summary.lines;
        let same = |message: &&mut Message| {
            message.is_arm() && !message.closed && message.scan.fields.iommu.as_deref() == part.unit
        };
        for message in self.waiting.iter_mut().rev().filter(same) {
            let end = message.scan.end;
            let gap: &[u8] = if message.touched + 1 < line {
                &[b' ', arm::GAP]
            } else {
                b""
            };
            let more = [gap, b" ", part.body].concat();
            if let Some(scan) = extended(message, end, &more)
                && scan.parts > message.scan.parts
            {
                extend(message, end, &more, scan, line);
                self.count_line();
                return true;
            }
        }
        self.arm_begins(prefix, part, time, false)
    }

    /// Begins a message with `part`; `unmarked` where the line does not name the driver.
    fn arm_begins(
        &mut self,
        prefix: &[u8],
        part: &arm::Part<'_>,
        time: Option<&str>,
        unmarked: bool,
    ) -> bool {
        let body = part.body.get(..TEXT).unwrap_or(part.body);
        let mut scan = arm::scan(body);
        if scan.parts == 0 || scan.template || unmarked && !scan.says_something() {
            return false;
        }
        scan.fields.iommu = part.unit.map(str::to_owned);
        let doubtful = scan.doubtful || unmarked && body.starts_with(b"event 0x");
        let time = time
            .map(str::to_owned)
            .or_else(|| stamp::find(unquote(prefix)));
        let before = self.fault_lines;
        self.add(Start::Part(0), body, scan, time, None);
        let lines = self.fault_lines - before;
        if let Some(message) = self.waiting.back_mut().filter(|_| doubtful) {
            message.doubtful = Some(lines);
        }
        true
    }

    /// Adds `text`, which no driver's name stands before, to the message whose line was broken there.
    fn arm_goes_on(&mut self, text: &[u8], after_soft: bool) -> bool {
        let line = self.summary.lines;
        let text = without_prefix(unquote(text));
        if text.is_empty() {
            return false;
        }
        let open = |message: &&mut Message| message.is_arm() && !message.closed;
        for message in self.waiting.iter_mut().rev().filter(open) {
            // Where a mail program breaks a line there was a blank; a terminal breaks anywhere.
            let whole = message.text.len();
            let joints: &[&[u8]] = if after_soft { &[b""] } else { &[b" ", b""] };
            for joint in joints {
                let more = [joint, text].concat();
                if let Some(scan) = extended(message, whole, &more)
                    && scan.gap <= whole
                {
                    extend(message, whole, &more, scan, line);
                    self.count_line();
                    return true;
                }
            }
        }
        false
    }
}

/// What a message says if `more` is added to the first `keep` bytes of it; `None` where that does not
/// belong there.
fn extended(message: &Message, keep: usize, more: &[u8]) -> Option<Scan> {
    let text = message.text.get(..keep)?;
    let between = |byte: &&u8| matches!(**byte, b' ' | arm::GAP);
    let joint = keep + more.iter().take_while(between).count();
    if keep + more.len() > TEXT {
        return None;
    }
    let scan = arm::scan(&[text, more].concat());
    (!scan.template && scan.end > joint && scan.parts >= message.scan.parts).then_some(scan)
}

/// Adds `more` to the first `keep` bytes of a message, which says `scan` then.
fn extend(message: &mut Message, keep: usize, more: &[u8], mut scan: Scan, line: u64) {
    scan.fields.iommu = message.scan.fields.iommu.take();
    if !scan.doubtful {
        message.doubtful = None;
    }
    message.text.truncate(keep);
    message.text.extend_from_slice(more);
    message.scan = scan;
    message.touched = line;
}
