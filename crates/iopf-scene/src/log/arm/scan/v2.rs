//! Pieces of SMMUv2's messages.

use super::{Reader, Shape};
use crate::log::cursor::Words;
use crate::log::normal::Wanted;
use crate::log::values::is_template;

/// What the lines of a fault say.
#[derive(Debug, Default)]
pub(super) struct Context {
    /// The line with the words is there.
    seen: bool,
    /// FSR.
    pub(super) fsr: Option<u32>,
    /// FAR.
    pub(super) address: Option<u64>,
    /// FSYNR0; of a global fault, GFSYNR0.
    pub(super) syndrome: Option<u32>,
    /// The StreamID: CBFRSYNRA, or GFSYNR1.
    pub(super) stream: Option<u32>,
    /// Registers stand there as Linux prints them, which is behind the words.
    linux: bool,
    /// Lines of registers that are there: bit by bit, in the order of [`REGISTERS`].
    registers: u32,
}

impl Context {
    /// Drops the value of `key`.
    fn forget(&mut self, key: &[u8]) {
        match key {
            b"fsr" => self.fsr = None,
            b"iova" => self.address = None,
            b"fsynr" | b"fsynr0" => self.syndrome = None,
            b"cbfrsynra" | b"SID" => self.stream = None,
            _ => {}
        }
    }
}

/// `WnR`, `PnU` and `InD` of a syndrome register in which `WnR` is bit `at`. IHI 0062,
/// `SMMU_CBn_FSYNR0` and `SMMU_sGFSYNR0`; Linux `ARM_SMMU_CB_FSYNR0_…`, HiSilicon's `GFSYNR0`.
pub(super) const fn access(syndrome: u32, at: u32) -> (Wanted, Option<bool>) {
    let flags = syndrome >> at;
    let wanted = if flags & 1 != 0 {
        Wanted::Write
    } else if flags & 1 << 2 != 0 {
        Wanted::Exec
    } else {
        Wanted::Read
    };
    (wanted, Some(flags & 1 << 1 != 0))
}

/// Lines of registers that drivers print beside a context fault: the first three begin a message if
/// need be.
const REGISTERS: [&str; 17] = [
    "FSR    = ",
    "FSYNR0 = ",
    "FAR    = ",
    "SID=",
    "SSD=",
    "FSYNR1 = ",
    "PAR    = ",
    "TTBR0  = ",
    "TTBR1  = ",
    "SCTLR  = ",
    "CBAR  = ",
    "MAIR0   = ",
    "CONTEXTIDR",
    "Client info: ",
    "soft iova-to-phys",
    "hard iova-to-phys",
    "SOFTWARE TABLE WALK FAILED!",
];

impl Reader<'_> {
    /// Passes a piece of a message of SMMUv2.
    pub(super) fn v2(&mut self) -> bool {
        let pieces: [fn(&mut Self) -> bool; 5] = [
            Self::unhandled,
            Self::register,
            Self::global,
            Self::status,
            Self::advice,
        ];
        pieces.into_iter().any(|piece| self.attempt(piece))
    }

    /// `Unhandled context fault: fsr=0x402, iova=0x…, fsynr=0x…, cbfrsynra=0x…, cb=1`, keys in any
    /// order.
    fn unhandled(&mut self) -> bool {
        if self.context.seen || !matches!(self.shape, Shape::Unknown | Shape::Context) {
            return false;
        }
        if self.cursor.words("Unexpected context fault (fsr ") == Words::Here {
            self.context.fsr = self.narrow(b")");
            self.cursor.eat(b')');
            return self.is(Shape::Context);
        }
        if self.cursor.words("Unhandled context fault:") != Words::Here {
            return false;
        }
        if self.context.linux {
            return false;
        }
        let mut end = self.cursor.clone();
        let (mut keys, mut before) = (0, &b""[..]);
        loop {
            self.cursor.blanks();
            let comma = self.cursor.eat(b',');
            self.cursor.blanks();
            let rest = self.cursor.rest();
            let len = memchr::memchr(b'=', rest.get(..12).unwrap_or(rest)).unwrap_or(0);
            let key = rest.get(..len).unwrap_or_default();
            if !matches!(
                key,
                b"fsr" | b"iova" | b"fsynr" | b"fsynr0" | b"fsynr1" | b"cbfrsynra" | b"cb" | b"SID"
            ) {
                break;
            }
            self.cursor.skip(len + 1);
            if !comma {
                // What became of the comma may look like one more digit.
                self.context.forget(before);
            }
            before = key;
            match key {
                b"fsr" => {
                    let fsr = self.narrow(b",");
                    if self.context.fsr.is_some_and(|before| Some(before) != fsr) {
                        return false;
                    }
                    self.context.fsr = fsr;
                }
                b"iova" => {
                    let address = self.number(b",", 16);
                    if self
                        .context
                        .address
                        .is_some_and(|before| Some(before) != address)
                    {
                        return false;
                    }
                    self.context.address = address;
                }
                b"fsynr" | b"fsynr0" => self.context.syndrome = self.narrow(b","),
                b"cbfrsynra" | b"SID" => {
                    self.context.stream = self.narrow(b",").map(|sid| sid & 0xffff);
                }
                _ => {
                    let word = self.cursor.word();
                    self.scan.template |= is_template(word);
                    if !word.iter().all(u8::is_ascii_hexdigit) && !word.starts_with(b"0x") {
                        self.scan.gap = self.cursor.at();
                    }
                }
            }
            keys += 1;
            end = self.cursor.clone();
        }
        let cut = self.cursor.rest().is_empty();
        self.cursor = end;
        self.context.seen = true;
        (keys > 0 || cut) && self.is(Shape::Context)
    }

    /// A number of 32 bits that `ends` end.
    fn narrow(&mut self, ends: &[u8]) -> Option<u32> {
        self.number(ends, 16)
            .and_then(|number| u32::try_from(number).ok())
    }

    /// `FSR    = 00000402 [Format=2 TF], SID=0x409`, and other lines of registers.
    fn register(&mut self) -> bool {
        if !matches!(self.shape, Shape::Unknown | Shape::Context) {
            return false;
        }
        let rest = self.cursor.rest();
        if !matches!(
            rest.first(),
            Some(b'F' | b'S' | b'P' | b'T' | b'C' | b'M' | b's' | b'h')
        ) {
            return false;
        }
        let Some(nth) = REGISTERS
            .iter()
            .position(|name| same(rest, name.as_bytes()))
        else {
            return false;
        };
        let begins = self.shape != Shape::Unknown || nth < 3;
        if !begins || self.context.registers >> nth & 1 == 1 {
            return false;
        }
        let name = REGISTERS
            .get(nth)
            .map_or(0, |name| width(rest, name.as_bytes()));
        self.cursor.skip(name);
        let agreed = match nth {
            0 => {
                let fsr = self.fixed(b" ", 8).and_then(|fsr| u32::try_from(fsr).ok());
                let same =
                    fsr.is_some() && self.context.fsr.is_none_or(|before| Some(before) == fsr);
                self.context.fsr = fsr;
                self.stream_after_flags();
                same
            }
            1 => {
                let syndrome = self.fixed(b" ", 8).and_then(|s| u32::try_from(s).ok());
                let before = self.context.syndrome;
                self.context.syndrome = syndrome.or(before);
                self.flags();
                syndrome.is_some() && before.is_none_or(|before| Some(before) == syndrome)
            }
            2 => {
                let address = self.fixed(b" ", 16);
                let before = self.context.address;
                self.context.address = address.or(before);
                address.is_some() && before.is_none_or(|before| Some(before) == address)
            }
            3 => {
                self.stream();
                true
            }
            4 => {
                self.cursor.word();
                self.cursor.blanks();
                if self.eat(b"SID=") {
                    self.stream();
                }
                true
            }
            _ => {
                self.pass();
                true
            }
        };
        self.context.registers |= 1 << nth;
        agreed && self.is(Shape::Context)
    }

    /// Passes a line that says nothing for the normal form.
    fn pass(&mut self) {
        loop {
            self.cursor.skip(1);
            self.cursor.word();
            let rest = self.cursor.rest();
            let next = rest.trim_ascii_start();
            let piece = next.starts_with(b"Unhandled")
                || REGISTERS.iter().any(|name| same(next, name.as_bytes()));
            if rest.is_empty() || piece {
                // Words that anybody's could follow.
                self.scan.gap = self.cursor.at();
                return;
            }
        }
    }

    /// `[Format=2 TF], SID=0x409`
    fn stream_after_flags(&mut self) {
        self.flags();
        self.cursor.eat(b',');
        self.cursor.blanks();
        if self.eat(b"SID=") {
            self.stream();
        }
    }

    fn stream(&mut self) {
        let stream = self.last_number(b",");
        let stream = stream.and_then(|stream| u32::try_from(stream).ok());
        self.context.stream = self.context.stream.or(stream.map(|sid| sid & 0xffff));
    }

    /// Passes `[…]`.
    fn flags(&mut self) {
        self.cursor.blanks();
        let rest = self.cursor.rest();
        if rest.first() == Some(&b'[') {
            let len = memchr::memchr(b']', rest).map_or(rest.len(), |at| at + 1);
            let inner = rest.get(..len).unwrap_or_default();
            self.context.linux |= [&b"Format="[..], b"S1CBNDX="]
                .iter()
                .any(|words| memchr::memmem::find(inner, words).is_some());
            self.cursor.skip(len);
        }
    }

    /// `Unexpected global fault, this could be serious`, `Blocked unknown Stream ID 0x429; boot with …`
    fn global(&mut self) -> bool {
        if self.shape != Shape::Unknown {
            return false;
        }
        if self.cursor.words("Unexpected global fault") == Words::Here {
            let rest = self.cursor.rest();
            let end = memchr::memmem::find(rest, b"serious").map(|at| at + 7);
            self.cursor.skip(end.filter(|&end| end < 32).unwrap_or(0));
            return self.is(Shape::Global);
        }
        if self.cursor.words("Blocked unknown Stream ID ") == Words::Here {
            let stream = self.number(b";", 4);
            self.context.stream = stream.and_then(|sid| u32::try_from(sid).ok());
            return self.is(Shape::Global);
        }
        false
    }

    /// `GFSR 0x80000002, GFSYNR0 0x00000002, GFSYNR1 0x00000429, GFSYNR2 0x00000000`
    fn status(&mut self) -> bool {
        if self.status.is_some()
            || !matches!(self.shape, Shape::Unknown | Shape::Global)
            || !self.eat(b"GFSR ")
        {
            return false;
        }
        let value = |number: Option<u64>| number.and_then(|number| u32::try_from(number).ok());
        let Some(status) = value(self.fixed(b",", 8)) else {
            return false;
        };
        self.status = Some(status);
        for (nth, name) in [&b"GFSYNR0 "[..], b"GFSYNR1 ", b"GFSYNR2 "]
            .iter()
            .enumerate()
        {
            self.cursor.eat(b',');
            self.cursor.blanks();
            if !self.eat(name) {
                break;
            }
            let number = value(self.fixed(b",", 8));
            match nth {
                0 => self.context.syndrome = number,
                // UNCONFIRMED beyond bits 15:0, which Linux prints as the StreamID.
                1 => {
                    let stream = number.map(|sid| sid & 0xffff);
                    // Both lines have it; where they contradict each other, one is damaged.
                    self.context.stream = match (self.context.stream, stream) {
                        (Some(before), Some(stream)) => (before == stream).then_some(stream),
                        (before, stream) => before.or(stream),
                    };
                }
                _ => {}
            }
        }
        self.is(Shape::Global)
    }

    /// `; boot with "arm-smmu.disable_bypass=0" to allow, but …`, or what is left of it where lines are
    /// broken.
    fn advice(&mut self) -> bool {
        if self.shape != Shape::Global || self.status.is_some() {
            return false;
        }
        let rest = self.cursor.rest();
        let begins = [
            &b";"[..],
            b"boot with",
            b"\"arm-smmu",
            b"implications",
            b"but this",
            b"security",
        ];
        if !begins.iter().any(|words| rest.starts_with(words)) {
            return false;
        }
        let end = memchr::memmem::find(rest, b"implications").map(|at| at + 12);
        let next = memchr::memmem::find(rest, b"GFSR 0x");
        self.cursor.skip(end.or(next).unwrap_or(rest.len()));
        true
    }
}

/// Whether `text` begins with `words`, blanks compared as one.
fn same(text: &[u8], words: &[u8]) -> bool {
    width(text, words) > 0
}

/// How much of `text` the `words` take, where it begins with them.
fn width(text: &[u8], words: &[u8]) -> usize {
    let mut at = 0;
    for word in words
        .split(|&byte| byte == b' ')
        .filter(|word| !word.is_empty())
    {
        let Some(rest) = text.get(at..) else {
            return 0;
        };
        let blanks = rest.iter().take_while(|&&byte| byte == b' ').count();
        if at > 0 && blanks == 0 && word != b"=" {
            return 0;
        }
        if !rest
            .get(blanks..)
            .is_some_and(|rest| rest.starts_with(word))
        {
            return 0;
        }
        at += blanks + word.len();
    }
    let rest = text.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|&&byte| byte == b' ').count()
}
