//! One event message, from the words before it to its closing bracket.

mod xen;

use std::borrow::Cow;

use iopf::{Iova, Rid};
use memchr::memmem;

use super::meaning::{PAGE_FAULT, describe, page_request};
use super::names::{self, Event};
use crate::capture::Device;
use crate::log::cursor::{Cursor, Words};
use crate::log::dialect::Start;
use crate::log::message::{Fields, Scan};
use crate::log::normal::{Arch, Kind};
use crate::log::values::{device, is_template};

/// The words before the bracket.
const LOGGED: &str = "Event logged [";

/// The words before the bracket of a page request that Linux refuses. It prints them for who debugs
/// it; `ppr.c`, `ppr_is_valid`.
const REQUESTED: &str = "PPR logged [";

/// Why Linux refuses a page request.
const REFUSALS: [&str; 2] = ["Request ignored due to GN=0", "Invalid request format"];

/// Linux prints this for a page fault of a device without a domain, and the device on the next line.
const DETACHED: &str = "Device not attached to domain properly";

/// The first place from `from` on where an event message or a part of one begins.
pub(in crate::log) fn find_start(line: &[u8], from: usize) -> Option<Start> {
    let text = line.get(from..)?;
    let logged = memmem::find_iter(line, b"Event logged")
        .chain(memmem::find_iter(line, REQUESTED.as_bytes()))
        .map(|at| owner_before(line, at))
        .find(|&at| at >= from);
    let cut = || {
        let at = memmem::rfind(line, b"AMD-Vi:")?;
        let rest = line.get(at + 7..)?.trim_ascii();
        let begun = LOGGED.as_bytes().starts_with(rest);
        begun
            .then(|| owner_before(line, at))
            .filter(|&at| at >= from)
    };
    let head = logged.or_else(cut).map(Start::Event);
    // A name has a key or a mark beside it; most lines of others have neither.
    let may_be = memchr::memchr(b'=', text).is_some() || super::marked(text);
    let names = names::all().filter(|_| may_be);
    let name = names.filter_map(|name| name_at(line, from, name)).min();
    [head, name.map(Start::Name)]
        .into_iter()
        .flatten()
        .min_by_key(|start| start.at())
}

/// Where `name` stands with a key or, as in Xen's messages, a colon behind it.
fn name_at(line: &[u8], from: usize, name: &str) -> Option<usize> {
    let at = from + memmem::find(line.get(from..)?, name.as_bytes())?;
    let after = line.get(at + name.len()..)?;
    let keyed = after
        .strip_prefix(b" ")
        .map(<[u8]>::trim_ascii_start)
        .is_some_and(|rest| key(rest).is_some());
    let xen = after.starts_with(b": ") && line.get(..at)?.ends_with(b"AMD-Vi: ");
    (keyed || xen).then_some(at)
}

/// Where what is to the left of `at` begins: `nvme 0000:01:00.0: AMD-Vi: `, without the driver.
fn owner_before(line: &[u8], at: usize) -> usize {
    let Some(mut before) = line.get(..at).map(<[u8]>::trim_ascii_end) else {
        return at;
    };
    for mark in [&b"AMD-Vi:"[..], b"AMD IOMMU:"] {
        if let Some(shorter) = before.strip_suffix(mark) {
            before = shorter.trim_ascii_end();
        }
    }
    let marked = line.get(before.len()..).unwrap_or_default();
    let begin = before.len() + marked.iter().take_while(|&&byte| byte == b' ').count();
    let Some(owner) = before.strip_suffix(b":") else {
        return begin;
    };
    let word = owner
        .rsplit(|&byte| byte == b' ')
        .next()
        .unwrap_or_default();
    if device(word).is_some() || unit(word).is_some() {
        owner.len() - word.len()
    } else {
        begin
    }
}

/// `ivhd0`.
fn unit(word: &[u8]) -> Option<String> {
    let digits = word.strip_prefix(b"ivhd")?;
    let number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    number.then(|| String::from_utf8_lossy(word).into_owned())
}

/// The key that `text` begins with, and its length with the equals sign.
fn key(text: &[u8]) -> Option<(Key, usize)> {
    let len = memchr::memchr(b'=', text.get(..16.min(text.len()))?)?;
    let word = text.get(..len)?;
    let known = match word {
        b"device" => Key::Device,
        b"domain" => Key::Domain,
        b"pasid" => Key::Pasid,
        b"address" | b"gpa" | b"spa" => Key::Address,
        b"flags" => Key::Flags,
        b"type" => Key::Type,
        b"event[0]" => Key::Word(0),
        b"event[1]" => Key::Word(1),
        b"event[2]" => Key::Word(2),
        b"event[3]" => Key::Word(3),
        b"tag" | b"vmg_tag" | b"flags_rmp" | b"vflags" => Key::Other,
        _ => return None,
    };
    Some((known, len + 1))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Device,
    Domain,
    Pasid,
    Address,
    Flags,
    Type,
    /// A word of an event that the kernel does not know.
    Word(usize),
    /// One that the normal form has no place for.
    Other,
}

/// Reads the message that `text` begins with.
pub(in crate::log) fn scan(text: &[u8]) -> Scan {
    let mut reader = Reader {
        scan: Scan {
            fields: Fields::new(Arch::Amdvi, Kind::Hardware),
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
        event: None,
        flags: None,
        space: None,
        words: [None; 4],
        page_request: false,
    };
    reader.owner();
    if reader.head() && reader.name() {
        reader.keys();
    }
    reader.finish()
}

struct Reader<'a> {
    scan: Scan,
    cursor: Cursor<'a>,
    event: Option<&'static Event>,
    flags: Option<u16>,
    /// What `domain=` or `pasid=` says.
    space: Option<u32>,
    words: [Option<u32>; 4],
    /// It is a page request, with the flags of the PPR log.
    page_request: bool,
}

impl Reader<'_> {
    /// Counts a part that could be read.
    fn took(&mut self) {
        self.scan.parts += 1;
        self.passed();
    }

    /// Notes that a part stands here, be it readable or not.
    fn passed(&mut self) {
        self.scan.end = self.cursor.at();
    }

    /// `0000:01:00.0: ` or `ivhd0: `, then `AMD-Vi: `.
    fn owner(&mut self) {
        let rest = self.cursor.rest();
        let len = memmem::find(rest, b": ").unwrap_or(rest.len());
        let word = rest.get(..len).unwrap_or_default();
        if let Some(address) = device(word) {
            self.scan.fields.device = Some(address);
            self.cursor.skip(len + 1);
        } else if let Some(name) = unit(word) {
            self.scan.fields.iommu = Some(name);
            self.cursor.skip(len + 1);
            self.took();
        }
        self.mark();
    }

    /// Passes `AMD-Vi: `.
    fn mark(&mut self) {
        self.cursor.blanks();
        for mark in [&b"AMD-Vi:"[..], b"AMD IOMMU:"] {
            if self.cursor.rest().starts_with(mark) {
                self.cursor.skip(mark.len());
                self.took();
            }
        }
        self.cursor.blanks();
    }

    /// Passes `Event logged [` or `PPR logged [`; false where the text ends or is no message.
    fn head(&mut self) -> bool {
        let rest = self.cursor.rest();
        if rest.starts_with(REQUESTED.as_bytes()) {
            self.cursor.skip(REQUESTED.len());
            self.took();
            self.page_request = true;
            self.scan.fields.kind = Kind::PageRequest;
            return true;
        }
        if self.cursor.words("Event logged") == Words::Here {
            self.took();
            self.cursor.blanks();
            let rest = self.cursor.rest();
            let named = |text: &[u8]| names::all().any(|name| text.starts_with(name.as_bytes()));
            if rest.first() == Some(&b'[') || rest.get(1..).is_some_and(named) {
                self.cursor.skip(1);
                self.passed();
            } else if !rest.is_empty() {
                return false;
            }
        } else if LOGGED.as_bytes().starts_with(rest) {
            self.cursor.skip(rest.len());
            self.passed();
        }
        self.cursor.blanks();
        self.scan.open = self.cursor.rest().is_empty();
        !self.scan.open
    }

    /// Passes `Invalid request format (`.
    fn refusal(&mut self) -> bool {
        let rest = self.cursor.rest();
        let name = REFUSALS
            .into_iter()
            .find(|name| rest.starts_with(name.as_bytes()));
        let Some(name) = name else {
            let begun = |name: &str| name.as_bytes().starts_with(rest);
            self.scan.open = REFUSALS.into_iter().any(begun);
            return false;
        };
        self.scan.fields.name = Some(Cow::Borrowed(name));
        self.cursor.skip(name.len());
        self.took();
        self.cursor.blanks();
        self.cursor.eat(b'(');
        true
    }

    /// Passes the event's name; false where nothing that could be read follows.
    fn name(&mut self) -> bool {
        if self.page_request {
            return self.refusal();
        }
        if self.cursor.rest().starts_with(DETACHED.as_bytes()) {
            self.scan.fields.name = Some(Cow::Borrowed(DETACHED));
            self.event = names::event(PAGE_FAULT);
            self.cursor.skip(DETACHED.len());
            self.cursor.eat(b']');
            self.took();
            return true;
        }
        let rest = self.cursor.rest();
        let len = rest
            .iter()
            .position(|byte| matches!(byte, b' ' | b']' | b':'))
            .unwrap_or(rest.len());
        let word = rest.get(..len).unwrap_or_default();
        if is_template(word) {
            self.scan.template = true;
            return false;
        }
        if let Some(event) = names::named(word) {
            self.scan.fields.name = Some(Cow::Borrowed(event.name));
            self.event = Some(event);
            self.cursor.skip(len);
            self.took();
        } else if len == rest.len() {
            // The beginning of a name, it may be.
            let begun = |name: &str| {
                name.as_bytes().starts_with(word) || "UNKNOWN".as_bytes().starts_with(word)
            };
            self.scan.open = names::all().any(begun);
            return false;
        } else if word.len() > 2
            && word
                .iter()
                .all(|byte| byte.is_ascii_uppercase() || *byte == b'_')
        {
            self.scan.fields.name = Some(String::from_utf8_lossy(word).into_owned().into());
            self.cursor.skip(len);
            self.took();
        } else {
            // Damaged; the keys may be whole.
            let next = (0..len.min(40) + 1).find(|&at| rest.get(at..).and_then(key).is_some());
            let Some(next) = next else {
                return false;
            };
            self.cursor.skip(next);
        }
        if self.event.is_some() && self.cursor.rest().starts_with(b":") {
            self.xen();
            return false;
        }
        true
    }

    fn keys(&mut self) {
        loop {
            self.cursor.eat(b',');
            self.mark();
            let rest = self.cursor.rest();
            if rest.is_empty() {
                self.scan.open = true;
                return;
            }
            if self.cursor.eat(b']') {
                self.scan.wants_reason = false;
                self.passed();
                return;
            }
            let Some((key, len)) = key(rest) else {
                // A key that the line's end cuts.
                let letters = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
                self.scan.open = rest.len() < 10 && rest.iter().all(letters);
                return;
            };
            self.cursor.skip(len);
            let value = self.cursor.word();
            self.scan.template |= is_template(value);
            let ended = !self.cursor.rest().is_empty();
            if self.take(key, value, ended) {
                self.took();
            } else {
                self.passed();
            }
            if self.is_whole() {
                self.scan.wants_reason = false;
                return;
            }
        }
    }

    /// The messages that no bracket closes say all they have to say.
    fn is_whole(&self) -> bool {
        let detached = self.scan.fields.name.as_deref() == Some(DETACHED);
        detached && self.scan.fields.device.is_some() && self.space.is_some()
            || self.words.iter().all(Option::is_some)
    }

    /// Notes a value; `ended` where something follows it, so that no digit can be missing.
    fn take(&mut self, key: Key, value: &[u8], ended: bool) -> bool {
        let number = number(value);
        let digits = value.len().saturating_sub(2);
        match key {
            Key::Device => {
                let found = device(value);
                self.scan.fields.device = found.or(self.scan.fields.device);
                found.is_some()
            }
            Key::Domain | Key::Pasid => {
                let number =
                    number.filter(|_| ended || digits == 5 || key == Key::Domain && digits == 4);
                self.space = number.and_then(|number| u32::try_from(number).ok());
                self.space.is_some()
            }
            Key::Address => {
                let number = number.filter(|_| ended || digits == 16);
                self.scan.fields.address = number.map(Iova);
                self.scan.number_at_end = !ended && digits < 16;
                number.is_some()
            }
            Key::Flags => {
                self.flags = number
                    .filter(|&number| digits == 4 && number <= 0xfff)
                    .and_then(|number| u16::try_from(number).ok());
                self.flags.is_some()
            }
            Key::Type => {
                let code = number.filter(|&number| digits == 2 && number <= 0xf);
                self.scan.fields.code = code.and_then(|code| u32::try_from(code).ok());
                code.is_some()
            }
            Key::Word(nth) => {
                let number = number.filter(|_| digits == 8);
                let word = number.and_then(|number| u32::try_from(number).ok());
                if let Some(slot) = self.words.get_mut(nth) {
                    *slot = word;
                }
                word.is_some()
            }
            Key::Other => number.is_some(),
        }
    }

    /// What the words of an event say that the kernel does not know.
    fn unknown(&mut self) {
        let [Some(first), Some(second), Some(third), Some(fourth)] = self.words else {
            return;
        };
        self.scan.fields.code = Some(second >> 28);
        self.scan.fields.device = Some(Device::Pci {
            segment: 0,
            rid: Rid::from_pci((first & 0xffff) as u16),
        });
        self.scan.fields.address = Some(Iova(u64::from(fourth) << 32 | u64::from(third)));
    }

    fn finish(mut self) -> Scan {
        self.unknown();
        let fields = &mut self.scan.fields;
        if let Some(event) = self.event {
            fields.code = Some(u32::from(event.code));
            fields.kind = event.kind;
            self.scan.parts += u32::from(self.scan.parts == 0);
        } else if let Some(event) = fields.code.and_then(names::event) {
            fields.kind = event.kind;
        }
        match (self.flags, self.event) {
            (Some(bits), Some(event)) => describe(fields, event, bits, self.space),
            (Some(bits), None) if self.page_request => page_request(fields, bits, self.space),
            _ => {}
        }
        self.scan
    }
}

/// `0x` and 1 to 16 digits.
fn number(value: &[u8]) -> Option<u64> {
    let digits = value.strip_prefix(b"0x")?;
    let digits = std::str::from_utf8(digits).ok()?;
    let good =
        (1..=16).contains(&digits.len()) && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    good.then(|| u64::from_str_radix(digits, 16).ok())?
}
