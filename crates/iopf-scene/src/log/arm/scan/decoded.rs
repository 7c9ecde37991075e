//! What Linux says of an event of SMMUv3 in words, since 6.13.

use iommu_wire::smmuv3::event::{Class, EventNumber};
use iopf::{Gpa, Iova, Pasid};

use super::super::names::event_named;
use super::{Reader, Shape};
use crate::capture::Device;
use crate::log::message::Fields;
use crate::log::normal::{Detail, Wanted};
use crate::log::values::is_template;

/// What its two lines say.
#[derive(Debug, Default)]
pub(super) struct Decoded {
    /// The first of its lines is there.
    pub(super) seen: bool,
    /// The second is.
    pub(super) how: bool,
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

impl Reader<'_> {
    /// `event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0x… ipa: 0x…`
    pub(super) fn decoded(&mut self) -> bool {
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
    pub(super) fn how(&mut self) -> bool {
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
}
