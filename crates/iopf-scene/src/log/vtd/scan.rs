//! One message of a refused DMA or interrupt, from its head to its reason.

use std::borrow::Cow;

use iopf::Iova;
use memchr::memmem;

use crate::log::cursor::{Cursor, Number, Words};
use crate::log::message::{Fields, Scan};
use crate::log::names;
use crate::log::normal::{Arch, Kind};

use super::values::{Code, access, code, plain};
use crate::log::dialect::Start;
use crate::log::values::{device, is_template, pasid};

/// The head of the message whose part stands at `at`, if one with a damaged byte stands before it:
/// `[D?A Write NO_PASID] Request device [`.
pub(in crate::log) fn head_before(line: &[u8], from: usize, at: usize) -> (Start, usize) {
    let part = (Start::Part(at), at);
    let Some(before) = line.get(from..at) else {
        return part;
    };
    let before = before.trim_ascii_end();
    let Some(open) = memchr::memrchr(b'[', before) else {
        return part;
    };
    let head = before.get(open..).unwrap_or_default();
    let like = |known: &[u8]| {
        head.len() > known.len() && head.iter().zip(known).filter(|(a, b)| a != b).count() <= 1
    };
    if like(b"[DMA ") && head.last() == Some(&b']') {
        return (Start::Dma(from + open), from + open);
    }
    if like(b"[INTR-REMAP") {
        return (Start::Interrupt(from + open + 1), from + open + 1);
    }
    part
}

/// The first place from `from` on where a message or a part of one begins.
pub(in crate::log) fn find_start(line: &[u8], from: usize) -> Option<Start> {
    (from..line.len()).find_map(|at| start_at(line, at))
}

/// What begins at `at`. What stands in a pattern (`\[DMA`) does not.
fn start_at(line: &[u8], at: usize) -> Option<Start> {
    let (before, text) = line.split_at_checked(at)?;
    match text.first()? {
        b'[' if text.starts_with(b"[DMA ") || text == b"[DMA" => {
            (!before.ends_with(b"\\")).then_some(Start::Dma(at))
        }
        b'[' if text.starts_with(b"[fault reason ") => Some(Start::Reason(at)),
        // The second half of an old message, where the line ends.
        b'[' if text.len() >= 6 && b"[fault reason".starts_with(text) => before
            .trim_ascii_end()
            .ends_with(b":")
            .then_some(Start::Reason(at)),
        b'I' if text.starts_with(b"INTR-REMAP") => {
            is_interrupt(text).then_some(Start::Interrupt(at))
        }
        b'R' if text.starts_with(b"Request device [") => Some(Start::Part(at)),
        b'f' if text.starts_with(b"fault addr") || text.starts_with(b"fault index") => {
            Some(Start::Part(at))
        }
        b'r' if text.starts_with(b"reason ") || text == b"reason" => {
            let second = before.ends_with(b"DMAR: ") || before.ends_with(b"REMAP: ");
            second.then_some(Start::Reason(at))
        }
        _ => None,
    }
}

/// Whether this `INTR-REMAP` is the head of a first half: its second half has `[fault reason` or
/// `reason` there.
fn is_interrupt(text: &[u8]) -> bool {
    let after = text.get(10..).unwrap_or_default();
    let body = after.get(1..).unwrap_or_default().trim_ascii_start();
    matches!(after.first(), Some(b']' | b':'))
        && (body.is_empty() || body.starts_with(b"Req") || body.get(1..3) == Some(b"eq"))
}

/// What may follow the head, in this order; a part may be missing.
const ORDER: [(Part, &str); 5] = [
    (Part::Device, "Request device ["),
    (Part::Pasid, "PASID "),
    (Part::Address, "fault addr "),
    (Part::Index, "fault index "),
    (Part::Reason, "[fault reason "),
];

/// How a part is recognised behind damage: the end of its words, which is enough there.
const ANCHORS: [(Part, &[u8]); 6] = [
    (Part::Device, b"device ["),
    (Part::Address, b"addr "),
    (Part::Index, b"index "),
    (Part::Reason, b"[fault "),
    (Part::Reason, b"reason "),
    (Part::Pasid, b" PASID "),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Head,
    Device,
    Pasid,
    Address,
    Index,
    Reason,
}

/// Reads the message that `text` begins with.
pub(in crate::log) fn scan(text: &[u8], start: Start) -> Scan {
    let kind = match start {
        Start::Interrupt(_) => Kind::InterruptRemapping,
        _ => Kind::Dma,
    };
    let mut reader = Reader {
        scan: Scan {
            fields: Fields::new(Arch::Vtd, kind),
            parts: 0,
            end: 0,
            open: false,
            wants_reason: true,
            gap: 0,
            number_at_end: false,
            template: false,
            doubtful: false,
        },
        cursor: Cursor::new(text, 0),
        passed: Part::Head,
        code: None,
        xen: memmem::find(text, b"iommu reg").is_some(),
    };
    match start {
        Start::Dma(_) => reader.dma_head(),
        Start::Interrupt(_) => reader.interrupt_head(),
        _ => {}
    }
    reader.body();
    reader.finish()
}

struct Reader<'a> {
    scan: Scan,
    cursor: Cursor<'a>,
    /// The last part read.
    passed: Part,
    code: Option<Code>,
    xen: bool,
}

impl Reader<'_> {
    /// Counts a part that could be read.
    fn took(&mut self, part: Part) {
        self.scan.parts += 1;
        self.passed(part);
    }

    /// Notes that a part stands here, be it readable and whole or not.
    fn passed(&mut self, part: Part) {
        self.passed = part;
        self.scan.end = self.cursor.at();
    }

    /// `[DMA Read`, `[DMA Write NO_PASID]`, `[DMA Read PASID 0x1]`.
    fn dma_head(&mut self) {
        self.cursor.skip(5);
        let word = self.cursor.word();
        self.scan.fields.access = access(word);
        self.cursor.blanks();
        let mode = self.cursor.word();
        if mode == b"PASID" {
            self.cursor.blanks();
            // The bracket is no part of the number, but it ends it.
            let mut number = self.cursor.word().to_vec();
            number.push(b' ');
            self.scan.fields.pasid = pasid(Cursor::new(&number, 0).hex());
        }
        let closed = self.cursor.eat(b']');
        if !closed
            || self
                .cursor
                .rest()
                .first()
                .is_some_and(u8::is_ascii_hexdigit)
        {
            self.scan.fields.pasid = None;
        }
        if closed {
            self.took(Part::Head);
        } else if self.cursor.rest().is_empty() {
            self.scan.open = true;
            self.scan.end = self.cursor.at();
        }
    }

    fn interrupt_head(&mut self) {
        self.cursor.skip(11);
        self.took(Part::Head);
    }

    fn body(&mut self) {
        loop {
            self.cursor.blanks();
            if self.cursor.rest().is_empty() {
                self.scan.open = true;
                return;
            }
            let Some(part) = self.next_part() else {
                return;
            };
            match part {
                Part::Head => return,
                Part::Device => self.device(),
                Part::Pasid => {
                    let number = self.cursor.hex();
                    self.scan.fields.pasid = pasid(number);
                    self.took(Part::Pasid);
                }
                Part::Address => self.address(),
                Part::Index => self.index(),
                Part::Reason => {
                    self.reason();
                    return;
                }
            }
        }
    }

    /// Passes the words of the next part: those that stand here, else the first that follow.
    fn next_part(&mut self) -> Option<Part> {
        self.xen_register();
        self.cursor.blanks();
        if self.cursor.rest().is_empty() {
            self.scan.open = true;
            return None;
        }
        for (part, words) in ORDER {
            if part <= self.passed || !self.fits(part) {
                continue;
            }
            match self.cursor.words(words) {
                Words::Here => return Some(part),
                Words::Cut => {
                    self.scan.open = true;
                    return None;
                }
                Words::Absent => {}
            }
        }
        if self.cursor.words("reason ") == Words::Here {
            self.xen = true;
            return Some(Part::Reason);
        }
        self.behind_damage()
    }

    /// Passes the `, iommu reg = ffff82c00021d000` that Xen puts between address and reason.
    fn xen_register(&mut self) {
        if self.passed < Part::Address {
            return;
        }
        if self.cursor.words("iommu reg") == Words::Here {
            // Without its comma: what became of that may look like one more digit.
            self.scan.fields.address = None;
            self.scan.fields.index = None;
        } else {
            match self.cursor.words(", iommu reg") {
                Words::Here => {}
                Words::Cut => {
                    self.scan.open = true;
                    return;
                }
                Words::Absent => return,
            }
        }
        self.scan.parts += 1;
        self.xen = true;
        self.cursor.blanks();
        self.cursor.eat(b'=');
        self.cursor.blanks();
        if self.cursor.clone().words("reason ") != Words::Here {
            self.cursor.word();
        }
        self.scan.end = self.cursor.at();
    }

    /// Interrupts have an index, DMA an address; which it is may be all that tells them apart.
    fn fits(&self, part: Part) -> bool {
        match part {
            Part::Index => self.scan.fields.kind == Kind::InterruptRemapping || self.scan.parts < 2,
            Part::Address => self.scan.fields.kind == Kind::Dma,
            _ => true,
        }
    }

    fn behind_damage(&mut self) -> Option<Part> {
        let rest = self.cursor.rest();
        let mut after = self.cursor.clone();
        if after.rest().first().is_some_and(u8::is_ascii_punctuation) {
            after.skip(1);
        }
        let word = after.word();
        if !word.is_empty() && word.iter().all(u8::is_ascii_hexdigit) {
            // More digits: the number before them is only the beginning of one.
            match self.passed {
                Part::Address => self.scan.fields.address = None,
                Part::Index => self.scan.fields.index = None,
                Part::Pasid => self.scan.fields.pasid = None,
                _ => {}
            }
        }
        let (at, part, len) = ANCHORS
            .iter()
            .filter(|&&(part, _)| part > self.passed && self.fits(part))
            .filter_map(|&(part, anchor)| {
                let at = memmem::find(rest, anchor)?;
                let after = rest.get(at + anchor.len()..)?;
                let right = anchor != b"[fault " || like_reason(after);
                right.then_some((at, part, anchor.len()))
            })
            .min()?;
        let anchor = rest.get(at..at + len)?;
        self.cursor.skip(at + len);
        if anchor == b"[fault " {
            self.cursor.word();
            self.cursor.blanks();
        }
        self.scan.gap = self.cursor.at();
        Some(part)
    }

    fn device(&mut self) {
        self.cursor.eat(b'[');
        let rest = self.cursor.rest();
        self.template(rest);
        let word = self.cursor.word();
        let closed = self.cursor.eat(b']');
        // What a hexadecimal digit follows may be the beginning of more; the function has one digit.
        self.scan.fields.device = device(word);
        if closed || !self.cursor.rest().is_empty() {
            self.took(Part::Device);
        } else {
            self.passed(Part::Device);
        }
    }

    fn address(&mut self) {
        let number = self.cursor.hex();
        self.scan.fields.address = match number {
            Number::Whole(address) => Some(Iova(address)),
            // The record holds a page's address: a cut number shows by not being one, and 0 may be
            // what is left of anything.
            Number::AtEnd(address) => {
                (address != 0 && address & 0xfff == 0).then_some(Iova(address))
            }
            Number::Unreadable => None,
        };
        self.number(Part::Address, number);
    }

    fn index(&mut self) {
        self.scan.fields.kind = Kind::InterruptRemapping;
        let number = self.cursor.hex();
        self.scan.fields.index = match number {
            Number::Whole(index) => u32::try_from(index).ok().filter(|&index| index <= 0xffff),
            Number::AtEnd(_) | Number::Unreadable => None,
        };
        self.number(Part::Index, number);
    }

    /// Counts an address or an index, of which the last digits may be missing.
    fn number(&mut self, part: Part, number: Number) {
        self.scan.number_at_end = matches!(number, Number::AtEnd(_));
        match number {
            Number::Whole(_) | Number::AtEnd(_) => self.took(part),
            Number::Unreadable => self.passed(part),
        }
    }

    /// `05] PTE Write access is not set`, `05h] …`, `0x05] …`, `05 - …`.
    fn reason(&mut self) {
        let rest = self.cursor.rest();
        self.template(rest);
        let word = self.cursor.word();
        let ended = !self.cursor.rest().is_empty();
        self.cursor.blanks();
        let closed = self.cursor.eat(b']') || self.cursor.eat(b'-');
        self.code = code(word, ended || closed);
        self.passed(Part::Reason);
        if !ended {
            self.scan.open = true;
            return;
        }
        if closed {
            self.took(Part::Reason);
        }
        self.scan.wants_reason = false;
        self.cursor.blanks();
        self.name();
    }

    fn name(&mut self) {
        let rest = self.cursor.rest();
        if let Some((name, len)) = names::at_start(rest) {
            self.scan.fields.name = Some(Cow::Borrowed(name));
            self.cursor.skip(len);
            self.took(Part::Reason);
            return;
        }
        let code = self
            .code
            .map(|code| self.reason_number(code))
            .and_then(|code| u32::try_from(code).ok());
        let words = plain(rest);
        if names::may_continue(rest, code) {
            self.scan.open = true;
            // The words of its code, where they were begun here or are missing.
            self.scan.fields.name = code.and_then(names::reason).map(Cow::Borrowed).or_else(|| {
                (!words.is_empty()).then(|| Cow::Owned(String::from_utf8_lossy(words).into_owned()))
            });
        } else if !words.is_empty() {
            let begun = code.is_some() && words.len() >= 8 && names::may_continue(words, code);
            self.scan.fields.name = if begun {
                code.and_then(names::reason).map(Cow::Borrowed)
            } else {
                Some(Cow::Owned(String::from_utf8_lossy(words).into_owned()))
            };
        }
        self.cursor.skip(words.len());
        self.scan.end = self.cursor.at();
    }

    /// The number of a reason where its words do not decide the base.
    const fn reason_number(&self, code: Code) -> u64 {
        match code {
            Code::Hex(number) => number,
            Code::Either { hex, .. } if self.xen => hex,
            Code::Either { decimal, .. } => decimal,
        }
    }

    fn template(&mut self, value: &[u8]) {
        self.scan.template |= is_template(value);
    }

    fn finish(mut self) -> Scan {
        if self.scan.fields.kind == Kind::InterruptRemapping {
            // Of another message, where both were read.
            self.scan.fields.address = None;
        }
        let said = self.scan.fields.name.as_deref().and_then(names::code_of);
        let number = self
            .code
            .and_then(|code| match (code, said.map(u64::from)) {
                (Code::Hex(hex), Some(said)) => (hex == said).then_some(said),
                (Code::Either { decimal, hex }, Some(said)) => {
                    (decimal == said || hex == said).then_some(said)
                }
                (code, None) => Some(self.reason_number(code)),
            });
        self.scan.fields.code = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|&number| number <= 0xff);
        if self.scan.fields.name.is_none() {
            self.scan.fields.name = self
                .scan
                .fields
                .code
                .and_then(names::reason)
                .map(Cow::Borrowed);
        }
        self.scan
    }
}

/// Whether `text` begins with `reason `, one byte of which may be damaged.
fn like_reason(text: &[u8]) -> bool {
    let word = text.get(..7).unwrap_or_default();
    word.len() == 7 && word.iter().zip(b"reason ").filter(|(a, b)| a != b).count() <= 1
}
