//! What the lines of one message say, one after the other.
//!
//! The text of a message is what the driver said in each of its lines, with a blank between them. It
//! is read piece by piece as far as the pieces can belong to one message.

mod decoded;
mod v2;
mod v3;

use std::borrow::Cow;

use iommu_wire::smmuv3::event::RawEvent;
use iopf::Iova;

use super::names::{self, event_name, kind_of};
use crate::capture::Device;
use crate::log::cursor::{Cursor, Number};
use crate::log::dump::{Dump, Entry, Table};
use crate::log::message::{Fields, Scan};
use crate::log::normal::{Arch, Detail, Kind};
use crate::record::smmuv3::event;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Not known yet.
    Unknown,
    /// A record of SMMUv3's event queue.
    Event,
    /// An entry of SMMUv3's PRI queue.
    PageRequest,
    /// A command that SMMUv3 cannot carry out.
    Command,
    /// Another global error of SMMUv3.
    Error,
    /// A context fault of SMMUv2.
    Context,
    /// A global fault of SMMUv2.
    Global,
}

/// Stands in a message's text where lines of others were between its own.
pub(in crate::log) const GAP: u8 = b'~';

/// Reads the message that `text` begins with.
pub(in crate::log) fn scan(text: &[u8]) -> Scan {
    let mut reader = Reader {
        scan: Scan {
            fields: Fields::new(Arch::Smmuv3, Kind::Hardware),
            parts: 0,
            end: 0,
            open: false,
            wants_reason: false,
            gap: 0,
            number_at_end: false,
            template: false,
            doubtful: false,
        },
        cursor: Cursor::new(text, 0),
        shape: Shape::Unknown,
        event: v3::Event::default(),
        context: v2::Context::default(),
        status: None,
    };
    loop {
        reader.cursor.blanks();
        if reader.cursor.eat(GAP) {
            let count = reader.event.count;
            reader.event.gap.get_or_insert(count);
            continue;
        }
        if reader.cursor.rest().is_empty() || !(reader.v3() || reader.v2()) {
            break;
        }
        reader.scan.parts += 1;
        reader.scan.end = reader.cursor.at();
    }
    reader.finish()
}

struct Reader<'a> {
    scan: Scan,
    cursor: Cursor<'a>,
    shape: Shape,
    event: v3::Event,
    context: v2::Context,
    /// GFSR of a global fault.
    status: Option<u32>,
}

impl Reader<'_> {
    /// Whether a piece of a message of `shape` can stand here; it is one from now on.
    fn is(&mut self, shape: Shape) -> bool {
        if self.shape == Shape::Unknown {
            self.shape = shape;
        }
        self.shape == shape
    }

    /// Passes a piece, or stays where it is.
    fn attempt(&mut self, piece: fn(&mut Self) -> bool) -> bool {
        let at = self.cursor.clone();
        let taken = piece(self);
        if !taken {
            self.cursor = at;
        }
        taken
    }

    /// Passes `text` exactly.
    fn eat(&mut self, text: &[u8]) -> bool {
        let here = self.cursor.rest().starts_with(text);
        if here {
            self.cursor.skip(text.len());
        }
        here
    }

    /// Passes a hexadecimal number with `0x` that one of `ends` or a blank ends, or the text does where
    /// no digit of it can be missing: it has `digits`.
    fn number(&mut self, ends: &[u8], digits: usize) -> Option<u64> {
        let prefixed = self.cursor.rest().starts_with(b"0x");
        self.bare_number(ends, digits).filter(|_| prefixed)
    }

    /// The same, be there a `0x` or not.
    fn bare_number(&mut self, ends: &[u8], digits: usize) -> Option<u64> {
        let rest = self.cursor.rest();
        self.scan.template |= crate::log::values::is_template(rest);
        let before = self.cursor.at();
        let number = self.cursor.hex_before(ends);
        let length = self.cursor.at() - before;
        match number {
            Number::Whole(number) => Some(number),
            Number::AtEnd(number) => {
                self.scan.number_at_end = true;
                let prefix = if rest.starts_with(b"0x") { 2 } else { 0 };
                (length >= digits + prefix).then_some(number)
            }
            Number::Unreadable => {
                // What spoils a number is no continuation of it.
                if !rest.is_empty() {
                    self.scan.gap = self.cursor.at();
                }
                None
            }
        }
    }

    /// A number that is printed with all its `digits`, leading zeros too; with `0x` or without.
    fn fixed(&mut self, ends: &[u8], digits: usize) -> Option<u64> {
        let before = self.cursor.rest();
        let number = self.bare_number(ends, digits);
        let width = before.len() - self.cursor.rest().len();
        let prefix = if before.starts_with(b"0x") { 2 } else { 0 };
        number.filter(|_| width == digits + prefix)
    }

    /// A number that is the last of its line, so that the text's end may end it.
    fn last_number(&mut self, ends: &[u8]) -> Option<u64> {
        self.number(ends, 1)
    }

    fn finish(mut self) -> Scan {
        match self.shape {
            Shape::Event => self.finish_event(),
            Shape::Context => self.finish_context(),
            Shape::Global => self.finish_global(),
            Shape::Command => self.finish_command(),
            Shape::Unknown | Shape::PageRequest | Shape::Error => {}
        }
        self.scan
    }

    fn finish_event(&mut self) {
        let said = &mut self.event;
        // One of the words is missing. Where lines are, it may be any from there on.
        let sure = match said.gap {
            _ if said.count == 4 => 4,
            _ if said.decoded.seen => said.gap.unwrap_or(4).min(1),
            gap => gap.unwrap_or(4),
        };
        for word in said.words.iter_mut().skip(sure) {
            *word = None;
        }
        let [head, syndrome, input, address] = said.words;
        let fields = &mut self.scan.fields;
        let said_by = [
            head.map(|head| (head & 0xff) as u32),
            said.number,
            said.decoded.number(),
        ];
        let mut numbers = said_by.into_iter().flatten();
        let first = numbers.next();
        // Where they contradict each other, one of them is damaged.
        let code = first.filter(|first| numbers.all(|number| number == *first));
        let agreed = code.is_some();
        if head.is_some() && agreed {
            let words = said.words.map(Option::unwrap_or_default);
            let fault = event(&RawEvent::from_words(words));
            fields.device = fault.device;
            fields.pasid = fault.pasid;
            fields.detail = fault.detail;
            if syndrome.is_some() {
                fields.access = fault.access;
                fields.privileged = fault.privileged;
            } else {
                fields.detail = Some(Detail::default());
            }
            fields.address = fault.address.filter(|_| input.is_some());
            if let Some(detail) = fields.detail.as_mut().filter(|_| address.is_none()) {
                detail.ipa = None;
                detail.fetch = None;
            }
        }
        said.decoded.fill(fields, code);
        fields.code = code;
        fields.kind = code.map_or(Kind::Dma, kind_of);
        let printed = std::mem::take(&mut said.decoded.name);
        let known = code.and_then(event_name).map(Cow::Borrowed);
        fields.name = known.or(printed.map(Cow::Owned));
        // Words without their head are a record if all are there and the first can be one's.
        let words = said.words.iter().flatten().count();
        let headless = said.number.is_none() && !said.decoded.seen;
        self.scan.doubtful = headless && (words < 4 || fields.name.is_none());
        self.scan.open = !said.decoded.complete();
    }

    fn finish_context(&mut self) {
        let said = &self.context;
        let fields = &mut self.scan.fields;
        fields.arch = Arch::Smmuv2;
        fields.kind = Kind::Dma;
        fields.code = said.fsr;
        fields.name = said
            .fsr
            .map(names::fsr)
            .filter(|name| !name.is_empty())
            .map(Cow::Owned);
        fields.address = said.address.map(Iova);
        fields.device = said.stream.map(Device::Number);
        if let Some(syndrome) = said.syndrome {
            (fields.access, fields.privileged) = v2::access(syndrome, 4);
        }
        // A syndrome by itself is the end of a message.
        self.scan.doubtful =
            fields.code.is_none() && fields.address.is_none() && fields.device.is_none();
        self.scan.open = true;
    }

    fn finish_global(&mut self) {
        let fields = &mut self.scan.fields;
        fields.arch = Arch::Smmuv2;
        fields.code = self.status;
        let name = self.status.map(names::gfsr);
        fields.name = name.filter(|name| !name.is_empty()).map(Cow::Owned);
        fields.device = self.context.stream.map(Device::Number);
        if let Some(syndrome) = self.context.syndrome {
            (fields.access, fields.privileged) = v2::access(syndrome, 1);
        }
        // An external abort is the memory's doing.
        let external = self.status.is_some_and(|status| status & 1 << 6 != 0);
        fields.kind = if external {
            Kind::Hardware
        } else {
            Kind::Configuration
        };
        self.scan.open = self.status.is_none();
    }

    fn finish_command(&mut self) {
        let fields = &mut self.scan.fields;
        fields.kind = Kind::Command;
        let [Some(first), Some(second), ..] = self.event.words else {
            self.scan.open = true;
            return;
        };
        let opcode = first & 0xff;
        fields.dump = Some(Dump {
            iommu: None,
            entries: vec![Entry {
                table: Table::Command,
                words: vec![first, second],
            }],
            finding: Some(format!(
                "the command has the opcode {opcode:#04x} (bits 7:0)"
            )),
        });
    }
}
