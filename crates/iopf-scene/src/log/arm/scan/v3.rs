//! Pieces of SMMUv3's messages.

use std::borrow::Cow;

use iommu_wire::smmuv3::event::{Class, EventNumber};
use iopf::{Gpa, Iova, Pasid};

use super::super::names::event_named;
use super::{Reader, Shape};
use crate::capture::Device;
use crate::log::cursor::Words;
use crate::log::message::Fields;
use crate::log::normal::{Detail, Kind, Wanted};
use crate::log::values::is_template;

/// What the lines of an event say. Of a command, its words.
#[derive(Debug, Default)]
pub(super) struct Event {
    /// `event 0x10 received:`
    pub(super) number: Option<u32>,
    /// The words, those that can be read.
    pub(super) words: [Option<u64>; 4],
    /// How many of them stand there.
    pub(super) count: usize,
    /// How many of them stand before lines of others.
    pub(super) gap: Option<usize>,
    pub(super) decoded: Decoded,
}

/// What Linux says of an event in words, since 6.13.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// The first of its lines is there.
    pub(super) seen: bool,
    /// The second is.
    how: bool,
    pub(super) name: Option<String>,
    client: Option<String>,
    stream: Option<u32>,
    substream: Option<Pasid>,
    iova: Option<u64>,
    ipa: Option<u64>,
    fetch: Option<u64>,
    privileged: Option<bool>,
    access: Wanted,
    detail: Detail,
}

impl Decoded {
    pub(super) fn number(&self) -> Option<u32> {
        let number = event_named(self.name.as_deref()?.as_bytes())?;
        Some(u32::from(number.0))
    }

    /// Nothing can follow.
    pub(super) fn complete(&self) -> bool {
        self.how || self.seen && self.number().is_some_and(|number| !has_how(number))
    }

    /// Adds to `fields` what the words do not say; `code` is the event's number.
    pub(super) fn fill(&self, fields: &mut Fields, code: Option<u32>) {
        fields.client = self.client.clone();
        fields.device = fields.device.or(self.stream.map(Device::Number));
        fields.pasid = fields.pasid.or(self.substream);
        if !code.is_some_and(has_how) {
            if let Some(fetch) = self.fetch {
                let detail = fields.detail.get_or_insert_default();
                detail.fetch = detail.fetch.or(Some(Gpa(fetch)));
            }
            return;
        }
        fields.address = fields.address.or(self.iova.map(Iova));
        if !self.how {
            return;
        }
        if fields.access == Wanted::Unknown {
            fields.access = self.access;
        }
        fields.privileged = fields.privileged.or(self.privileged);
        let detail = fields.detail.get_or_insert_default();
        if detail.stage.is_none() {
            *detail = self.detail;
            detail.ipa = self.ipa.map(Gpa).filter(|_| self.detail.stage == Some(2));
        }
    }
}

/// Events of which Linux prints the transaction: those of a translation.
fn has_how(number: u32) -> bool {
    [
        EventNumber::TRANSLATION,
        EventNumber::ADDR_SIZE,
        EventNumber::ACCESS,
        EventNumber::PERMISSION,
    ]
    .iter()
    .any(|known| u32::from(known.0) == number)
}

/// The keys of the line with the event's name, in their order.
const KEYS: [&[u8]; 6] = [b"client", b"sid", b"ssid", b"iova", b"ipa", b"fetch_addr"];

/// Global errors, in Linux's words (`arm_smmu_gerror_handler`).
const ERRORS: [&str; 7] = [
    "device has entered Service Failure Mode!",
    "GERROR MSI write aborted",
    "PRIQ MSI write aborted",
    "EVTQ MSI write aborted",
    "CMDQ MSI write aborted",
    "PRIQ write aborted -- events may have been lost",
    "EVTQ write aborted -- events may have been lost",
];

/// What a command can meet, in Linux's words (`__arm_smmu_cmdq_skip_err`).
const COMMAND_ERRORS: [&str; 5] = [
    "No error",
    "Illegal command",
    "Abort on command fetch",
    "ATC invalidate timeout",
    "Unknown",
];

impl Reader<'_> {
    /// Passes a piece of a message of SMMUv3.
    pub(super) fn v3(&mut self) -> bool {
        let pieces: [fn(&mut Self) -> bool; 8] = [
            Self::head,
            Self::word,
            Self::decoded,
            Self::how,
            Self::page_request,
            Self::asked,
            Self::command,
            Self::error,
        ];
        pieces.into_iter().any(|piece| self.attempt(piece))
    }

    /// `event 0x10 received:`
    fn head(&mut self) -> bool {
        let said = &self.event;
        let begun = said.count > 0 || said.number.is_some();
        if begun || said.decoded.seen || said.decoded.how || !self.eat(b"event ") {
            return false;
        }
        let number = self
            .number(b" ", 2)
            .and_then(|number| u8::try_from(number).ok());
        self.cursor.blanks();
        match self.cursor.words("received:") {
            Words::Here => {}
            Words::Cut => {
                let rest = self.cursor.rest().len();
                self.cursor.skip(rest);
            }
            Words::Absent => return false,
        }
        self.event.number = number.map(u32::from);
        number.is_some() && self.is(Shape::Event)
    }

    /// `0x0000020000000000`, one of the words of an event or a command.
    fn word(&mut self) -> bool {
        let room = if self.shape == Shape::Command { 2 } else { 4 };
        let event = matches!(self.shape, Shape::Unknown | Shape::Event);
        let said = &self.event;
        if !(event || self.shape == Shape::Command && said.number.is_some())
            || said.count >= room
            || said.decoded.seen
            || said.decoded.how
        {
            return false;
        }
        let token = self.cursor.word();
        let mut digits = token.strip_prefix(b"0x").unwrap_or_default().to_vec();
        if digits.len() == 8 && self.cursor.rest().len() >= 9 {
            // A mail program put a blank into it.
            self.cursor.blanks();
            digits.extend_from_slice(self.cursor.word());
        }
        let whole = digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit);
        let like = token.iter().filter(|byte| byte.is_ascii_hexdigit()).count();
        if !whole && (like < 10 || token.len() > 20) {
            return false;
        }
        // What is damaged takes its place all the same.
        let word = std::str::from_utf8(&digits)
            .ok()
            .filter(|_| whole)
            .and_then(|text| u64::from_str_radix(text, 16).ok());
        self.scan.number_at_end |= !whole && self.cursor.rest().is_empty();
        if let Some(slot) = self.event.words.get_mut(self.event.count) {
            *slot = word;
        }
        self.event.count += 1;
        !event || self.is(Shape::Event)
    }

    /// `event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0x… ipa: 0x…`
    fn decoded(&mut self) -> bool {
        let said = &self.event.decoded;
        if said.seen || said.how || !self.eat(b"event:") {
            return false;
        }
        self.cursor.blanks();
        let name = self.cursor.word();
        if is_template(name) {
            self.scan.template = true;
            return false;
        }
        let mut said = Decoded {
            seen: true,
            ..Decoded::default()
        };
        let known = event_named(name).and_then(EventNumber::name);
        said.name =
            Some(known.map_or_else(|| String::from_utf8_lossy(name).into_owned(), str::to_owned));
        let (mut keys, mut next, mut end) = (0, 0, self.cursor.clone());
        loop {
            self.cursor.blanks();
            let rest = self.cursor.rest();
            let len = memchr::memchr(b':', rest.get(..12).unwrap_or(rest)).unwrap_or(0);
            let key = rest.get(..len).unwrap_or_default();
            let Some(place) = KEYS.iter().position(|known| *known == key) else {
                break;
            };
            if place < next {
                break;
            }
            next = place + 1;
            self.cursor.skip(len + 1);
            self.cursor.blanks();
            if key == b"client" {
                said.client = self.client();
            } else {
                self.key(key, &mut said);
            }
            keys += 1;
            end = self.cursor.clone();
        }
        self.cursor = end;
        let ours = self.event.words[0].is_none_or(|head| {
            let stream = u32::try_from(head >> 32).ok();
            said.stream.is_none() || said.stream == stream
        });
        let begun = keys > 0 || known.is_some() && self.cursor.rest().is_empty();
        if !begun || !ours || !self.is(Shape::Event) {
            return false;
        }
        self.event.decoded = said;
        true
    }

    /// The name of a device, or `(unassigned sid)`.
    fn client(&mut self) -> Option<String> {
        let rest = self.cursor.rest();
        if rest.first() == Some(&b'(') {
            let len = memchr::memchr(b')', rest).map_or(rest.len(), |at| at + 1);
            self.cursor.skip(len);
            return None;
        }
        let word = self.cursor.word();
        let ended = !self.cursor.rest().is_empty();
        ended.then(|| String::from_utf8_lossy(word).into_owned())
    }

    fn key(&mut self, key: &[u8], said: &mut Decoded) {
        let last = match key {
            b"ipa" | b"fetch_addr" => true,
            b"ssid" => said
                .number()
                .is_some_and(|number| !has_how(number) && !matches!(number, 0x03 | 0x09 | 0x25)),
            _ => false,
        };
        let number = if last {
            self.last_number(b",")
        } else {
            self.number(b",", 16)
        };
        let narrow = number.and_then(|number| u32::try_from(number).ok());
        match key {
            b"sid" => said.stream = narrow,
            // Linux prints 0 where there is none.
            b"ssid" => said.substream = narrow.filter(|&ssid| ssid != 0).and_then(Pasid::new),
            b"iova" => said.iova = number,
            b"ipa" => said.ipa = number,
            _ => said.fetch = number,
        }
    }

    /// `unpriv data write s1 "Input address caused fault" ttd_read stall stag: 0x0`
    fn how(&mut self) -> bool {
        if self.event.decoded.how || !matches!(self.shape, Shape::Unknown | Shape::Event) {
            return false;
        }
        let mut token = || {
            let word = self.cursor.word();
            self.cursor.blanks();
            word
        };
        let privileged = match token() {
            b"priv" => true,
            b"unpriv" => false,
            _ => return false,
        };
        let instruction = match token() {
            b"inst" => true,
            b"data" => false,
            _ => return false,
        };
        let access = match token() {
            b"write" => Wanted::Write,
            b"read" if instruction => Wanted::Exec,
            b"read" => Wanted::Read,
            _ => return false,
        };
        let stage = match token() {
            b"s1" => Some(1),
            b"s2" => Some(2),
            b"" => None,
            _ => return false,
        };
        let class = self.class();
        self.cursor.blanks();
        let _ = self.eat(b"ttd_read") || self.eat(b"ttd_write");
        self.cursor.blanks();
        let stalled = self.eat(b"stall ");
        self.cursor.blanks();
        let tag = if self.eat(b"stag:") {
            self.cursor.blanks();
            self.last_number(b",")
        } else {
            None
        };
        if !self.is(Shape::Event) {
            return false;
        }
        let said = &mut self.event.decoded;
        said.how = true;
        said.privileged = Some(privileged);
        said.access = access;
        said.detail = Detail {
            stage,
            class,
            stalled: tag
                .filter(|_| stalled)
                .and_then(|tag| u16::try_from(tag).ok()),
            ..Detail::default()
        };
        true
    }

    fn class(&mut self) -> Option<Class> {
        let rest = self.cursor.rest();
        if rest.first() != Some(&b'"') {
            return None;
        }
        let inner = rest.get(1..)?;
        let len = memchr::memchr(b'"', inner).unwrap_or(inner.len());
        self.cursor.skip(len + 2);
        match inner.get(..2)? {
            b"CD" => Some(Class::CD),
            b"St" => Some(Class::TT),
            b"In" => Some(Class::IN),
            _ => None,
        }
    }

    /// `unexpected PRI request received:`
    fn page_request(&mut self) -> bool {
        if self.cursor.words("unexpected PRI request received:") != Words::Here {
            return false;
        }
        let first = self.shape == Shape::Unknown;
        self.scan.fields.kind = Kind::PageRequest;
        self.scan.fields.name = Some(Cow::Borrowed("unexpected PRI request"));
        self.scan.open = true;
        first && self.is(Shape::PageRequest)
    }

    /// `sid 0x00000100.0x00001: [3L] unprivileged RW access at iova 0x00007f0000001000`
    fn asked(&mut self) -> bool {
        let page_request = matches!(self.shape, Shape::Unknown | Shape::PageRequest);
        if !page_request || self.scan.fields.device.is_some() || !self.eat(b"sid ") {
            return false;
        }
        let stream = self.fixed(b".", 8).and_then(|sid| u32::try_from(sid).ok());
        self.cursor.eat(b'.');
        let substream = self
            .number(b":", 5)
            .and_then(|ssid| u32::try_from(ssid).ok());
        self.cursor.eat(b':');
        self.cursor.blanks();
        let rest = self.cursor.rest();
        let bracket = memchr::memchr(b']', rest.get(..8).unwrap_or(rest));
        self.cursor.skip(bracket.map_or(0, |at| at + 1));
        self.cursor.blanks();
        let mode = self.cursor.word();
        self.cursor.blanks();
        let rights = if self.cursor.rest().starts_with(b"access") {
            &b""[..]
        } else {
            self.cursor.word()
        };
        self.cursor.blanks();
        let address = match self.cursor.words("access at iova ") {
            Words::Here => self.fixed(b"", 16),
            Words::Cut | Words::Absent => None,
        };
        let fields = &mut self.scan.fields;
        fields.kind = Kind::PageRequest;
        fields.device = stream.map(Device::Number);
        fields.pasid = substream.filter(|&ssid| ssid != 0).and_then(Pasid::new);
        fields.address = address.map(Iova);
        fields.privileged = match mode {
            b"privileged" => Some(true),
            b"unprivileged" => Some(false),
            _ => None,
        };
        fields.access = match rights {
            [.., b'X'] => Wanted::Exec,
            [.., b'W'] => Wanted::Write,
            [b'R'] => Wanted::Read,
            _ => Wanted::Unknown,
        };
        self.scan.open = false;
        stream.is_some() && self.is(Shape::PageRequest)
    }

    /// `CMDQ error (cons 0x01000022): Illegal command`, and what follows it.
    fn command(&mut self) -> bool {
        if self.cursor.words("CMDQ error (cons ") == Words::Here {
            let first = self.shape == Shape::Unknown;
            let _ = self.fixed(b")", 8);
            self.cursor.eat(b')');
            self.cursor.eat(b':');
            self.cursor.blanks();
            let name = COMMAND_ERRORS
                .into_iter()
                .find(|name| self.cursor.words(name) == Words::Here);
            self.scan.fields.name = name.map(Cow::Borrowed);
            self.scan.fields.kind = Kind::Command;
            return first && self.is(Shape::Command);
        }
        let room = self.event.number.is_none();
        if self.cursor.words("skipping command in error state:") == Words::Here {
            self.event.number = Some(0);
            return room && self.is(Shape::Command);
        }
        if self.shape == Shape::Command
            && self.cursor.words("retrying command fetch") == Words::Here
        {
            self.event.number = Some(0);
            return room;
        }
        false
    }

    fn error(&mut self) -> bool {
        if self.shape != Shape::Unknown {
            return false;
        }
        let Some(name) = ERRORS
            .into_iter()
            .find(|name| self.cursor.words(name) == Words::Here)
        else {
            return false;
        };
        self.scan.fields.kind = Kind::Hardware;
        self.scan.fields.name = Some(Cow::Borrowed(name));
        self.is(Shape::Error)
    }
}
