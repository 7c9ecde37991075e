//! Pieces of SMMUv3's messages.

use std::borrow::Cow;

use iopf::{Iova, Pasid};

use super::decoded::Decoded;
use super::{Reader, Shape};
use crate::capture::Device;
use crate::log::cursor::Words;
use crate::log::normal::{Kind, Wanted};

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
        // What is damaged takes its place all the same, but is no continuation of a broken line.
        if !whole {
            self.scan.gap = self.cursor.at();
        }
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
