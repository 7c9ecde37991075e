//! A line as pasted, without what pasting put around it.

use std::borrow::Cow;

/// `raw` with terminal colours, carriage returns and control bytes taken out.
///
/// A damaged byte becomes `?` rather than nothing: to drop it would join its neighbours into a
/// number that nobody printed. Only text that is UTF-16 throughout has its zero bytes dropped.
pub(super) fn clean(raw: &[u8]) -> Cow<'_, [u8]> {
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
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
