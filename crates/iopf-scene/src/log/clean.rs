//! A line as pasted, without what pasting put around it.

use std::borrow::Cow;

/// `raw` with terminal colours, carriage returns and control bytes taken out.
///
/// A damaged byte becomes `?` rather than nothing: to drop it would join its neighbours into a
/// number that nobody printed. Only text that is UTF-16 throughout has its zero bytes dropped.
pub(super) fn clean(raw: &[u8]) -> Cow<'_, [u8]> {
    let mut raw = raw;
    // A serial console adds one of its own.
    while let Some(shorter) = raw.strip_suffix(b"\r") {
        raw = shorter;
    }
    if raw.iter().all(|byte| (b' '..0x7f).contains(byte)) {
        return Cow::Borrowed(raw);
    }
    let zeros = raw.iter().filter(|&&byte| byte == 0).count();
    let wide = zeros > 4 && zeros * 5 > raw.len() * 2;
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            0 if wide => {}
            b'\t' => out.push(b' '),
            0x1b => rest = after_escape(rest),
            // The no-break space and the zero-width space of web pages.
            0xc2 if rest.first() == Some(&0xa0) => {
                out.push(b' ');
                rest = rest.get(1..).unwrap_or_default();
            }
            0xe2 if rest.starts_with(&[0x80, 0x8b]) => rest = rest.get(2..).unwrap_or_default(),
            0..=0x1f | 0x7f => out.push(b'?'),
            _ => out.push(byte),
        }
    }
    if wide {
        while out.last() == Some(&b'?') {
            out.pop();
        }
    }
    Cow::Owned(out)
}

/// What follows a terminal's escape sequence.
fn after_escape(rest: &[u8]) -> &[u8] {
    let end = match rest.first() {
        Some(b'[') => rest
            .iter()
            .skip(1)
            .position(|byte| (0x40..=0x7e).contains(byte))
            .map(|at| at + 2),
        Some(b']') => rest.iter().position(|&byte| byte == 7).map(|at| at + 1),
        _ => Some(1),
    };
    end.and_then(|end| rest.get(end..)).unwrap_or_default()
}

/// `line` without the marks of quoted mail and of lists, and without leading blanks.
pub(super) fn unquote(mut line: &[u8]) -> &[u8] {
    loop {
        line = line.trim_ascii_start();
        line = match line {
            [b'>' | b'|', rest @ ..] => rest,
            _ => match line.strip_prefix(b"&gt;") {
                Some(rest) => rest,
                None => return line,
            },
        };
    }
}

/// Undoes the quoted-printable escapes that mail puts into such lines; `true` where the line ends
/// in a soft break.
///
/// Escapes are told from an equals sign followed by a value by being few: blank, tab, and the marks
/// that mail programs are known to escape.
pub(super) fn unescape(line: Cow<'_, [u8]>) -> (Cow<'_, [u8]>, bool) {
    let soft = line.ends_with(b"=");
    if !soft && memchr::memchr(b'=', &line).is_none() {
        return (line, false);
    }
    let mut out = Vec::with_capacity(line.len());
    let mut rest = line.strip_suffix(b"=").unwrap_or(&line);
    while let Some((&byte, tail)) = rest.split_first() {
        let escape = match rest {
            [b'=', b'3', b'D', ..] => b'=',
            // A year: `ts=2024-06-10T12:00:00Z`.
            [b'=', b'2', b'0', a, b, b'-', ..] if a.is_ascii_digit() && b.is_ascii_digit() => {
                out.push(byte);
                rest = tail;
                continue;
            }
            // A bus number: `device=20:00.0`.
            [b'=', b'2', b'0', b':', ..] | [b'=', b'0', b'9', b':', ..] => {
                out.push(byte);
                rest = tail;
                continue;
            }
            [b'=', b'2', b'0', ..] | [b'=', b'0', b'9', ..] => b' ',
            [b'=', b'5', b'B', ..] => b'[',
            [b'=', b'5', b'D', ..] => b']',
            [b'=', b'3', b'E', ..] => b'>',
            _ => {
                out.push(byte);
                rest = tail;
                continue;
            }
        };
        out.push(escape);
        rest = rest.get(3..).unwrap_or_default();
    }
    (Cow::Owned(out), soft)
}

/// Undoes what a web page puts into a line: entities, tags that surround text, and the escapes of
/// Markdown where they stand before a device (a pattern has them too).
pub(super) fn unmark(line: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    let device = memchr::memmem::find(&line, b"device \\[").and_then(|at| line.get(at + 9));
    if device.is_some_and(u8::is_ascii_hexdigit) {
        let escape = |at: usize| {
            let mark = line.get(at..=at + 1);
            matches!(mark, Some([b'\\', b'[' | b']' | b'_']))
        };
        let kept = line.iter().enumerate().filter(|&(at, _)| !escape(at));
        return Cow::Owned(kept.map(|(_, &byte)| byte).collect());
    }
    if memchr::memchr2(b'&', b'<', &line).is_none() {
        return line;
    }
    let mut out = Vec::with_capacity(line.len());
    let mut rest: &[u8] = &line;
    while let Some((&byte, tail)) = rest.split_first() {
        let found = match byte {
            b'&' => entity(tail),
            b'<' => tag(tail),
            _ => None,
        };
        match found {
            Some((text, len)) => {
                out.extend(text);
                rest = tail.get(len..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    Cow::Owned(out)
}

/// The character that an entity stands for, and the length of what follows its `&`.
fn entity(text: &[u8]) -> Option<(Option<u8>, usize)> {
    let len = memchr::memchr(b';', text.get(..8.min(text.len()))?)?;
    let name = std::str::from_utf8(text.get(..len)?).ok()?;
    let byte = match name {
        "nbsp" | "#160" | "#xA0" | "#xa0" => b' ',
        "gt" => b'>',
        "lt" => b'<',
        "amp" => b'&',
        "quot" => b'"',
        _ => {
            let number = name.strip_prefix('#')?;
            let number = match number.strip_prefix(['x', 'X']) {
                Some(digits) => u8::from_str_radix(digits, 16).ok()?,
                None => number.parse().ok()?,
            };
            (b' '..0x7f).contains(&number).then_some(number)?
        }
    };
    Some((Some(byte), len + 1))
}

/// What a tag leaves, a blank where it breaks the line, and the length of what follows its `<`.
fn tag(text: &[u8]) -> Option<(Option<u8>, usize)> {
    let len = memchr::memchr(b'>', text.get(..200.min(text.len()))?)?;
    let inner = text.get(..len)?;
    let inner = inner.strip_prefix(b"/").unwrap_or(inner);
    let name = inner.split(|byte| matches!(byte, b' ' | b'/')).next()?;
    let breaks = match name {
        b"br" | b"p" | b"div" | b"li" | b"td" | b"tr" | b"pre" => Some(b' '),
        b"code" | b"span" | b"b" | b"i" | b"em" | b"strong" | b"font" | b"samp" | b"tt" => None,
        _ => return None,
    };
    Some((breaks, len + 1))
}
