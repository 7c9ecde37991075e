//! The values in a message that only VT-d's have: reasons and words.

use memchr::memmem;

use crate::log::normal::Wanted;
use crate::log::values::hexadecimal;

/// The number of a reason, with what its form says of the base.
#[derive(Clone, Copy, Debug)]
pub(super) enum Code {
    Hex(u64),
    Either { decimal: u64, hex: u64 },
}

/// Words of a reason we have no table for: up to the next stamp, quotation mark or line's end.
pub(super) fn plain(rest: &[u8]) -> &[u8] {
    let stamp = memmem::find(rest, b" [").unwrap_or(rest.len());
    let quote = memchr::memchr2(b'"', b'`', rest).unwrap_or(rest.len());
    let mut words = rest
        .get(..stamp.min(quote).min(160))
        .unwrap_or(rest)
        .trim_ascii();
    // `less -S` and web pages mark a cut line.
    while let Some(cut) = words
        .strip_suffix(b"$")
        .or_else(|| words.strip_suffix(b"..."))
        .or_else(|| words.strip_suffix("…".as_bytes()))
    {
        words = cut.trim_ascii_end();
    }
    words
}

pub(super) fn access(word: &[u8]) -> Wanted {
    let like = |known: &[u8]| {
        word.len() == known.len() && word.iter().zip(known).filter(|(a, b)| a != b).count() <= 1
    };
    if like(b"Read") {
        Wanted::Read
    } else if like(b"Write") {
        Wanted::Write
    } else {
        Wanted::Unknown
    }
}

/// The number of a reason, printed with two digits at least; `ended` where something follows it, so that no digit can be missing.
pub(super) fn code(word: &[u8], ended: bool) -> Option<Code> {
    let text = std::str::from_utf8(word).ok()?;
    let hex = |digits: &str| hexadecimal(digits).map(u64::from);
    if let Some(digits) = text.strip_prefix("0x") {
        return hex(digits).filter(|_| digits.len() >= 2).map(Code::Hex);
    }
    if let Some(digits) = text.strip_suffix('h') {
        return hex(digits).map(Code::Hex);
    }
    let either = hex(text).filter(|_| ended && text.len() >= 2)?;
    Some(match text.parse() {
        Ok(decimal) => Code::Either {
            decimal,
            hex: either,
        },
        Err(_) => Code::Hex(either),
    })
}
