//! Time stamps in what stands before a message.

use jiff::Timestamp;

/// How far into a line a stamp may begin: far beyond any prefix of a log, and a bound on the work.
const REACH: usize = 160;

/// Finds the first stamp in `prefix`, the text before a message.
///
/// An instant that is fully known (a zone is printed, or it counts from the epoch) is given in UTC;
/// any other stamp as the log prints it.
pub(super) fn find(prefix: &[u8]) -> Option<String> {
    let prefix = prefix.get(..prefix.len().min(REACH)).unwrap_or(prefix);
    let mut before = b' ';
    for (at, &byte) in prefix.iter().enumerate() {
        let text = prefix.get(at..).unwrap_or_default();
        // `kern.log:88:Jun 10 …`, `kernel:[   12.345678]`; but no number in the middle of another.
        let here = match before {
            b':' | b'-' => byte == b'[' || byte.is_ascii_alphabetic() || iso(text).is_some(),
            b'.' | b'+' | b'_' => false,
            _ => byte == b'[' || !before.is_ascii_alphanumeric(),
        };
        before = byte;
        if here {
            let stamp = at_start(text);
            if stamp.is_some() {
                return stamp;
            }
        }
    }
    None
}

/// The kernel's own stamp (`[   12.345678]`) in `prefix`: what the lines of one message share.
pub(super) fn kernel(prefix: &[u8]) -> Option<&[u8]> {
    let open = memchr::memchr_iter(b'[', prefix).find(|&at| {
        prefix
            .get(at..)
            .is_some_and(|text| bracketed(text).is_some())
    })?;
    let inner = prefix.get(open + 1..)?;
    inner.get(..memchr::memchr(b']', inner)?)
}

/// The stamp `text` begins with.
fn at_start(text: &[u8]) -> Option<String> {
    bracketed(text)
        .or_else(|| iso(text))
        .or_else(|| words(text))
        .or_else(|| logcat(text))
        .or_else(|| epoch(text))
        .or_else(|| kmsg(text))
}

/// Whether `text` has the form of `shape`: `0` any digit, `a` any letter, `_` blank or digit, else
/// itself.
fn shaped(text: &[u8], shape: &[u8]) -> bool {
    text.len() >= shape.len()
        && text.iter().zip(shape).all(|(&byte, &form)| match form {
            b'0' => byte.is_ascii_digit(),
            b'a' => byte.is_ascii_alphabetic(),
            b'_' => byte.is_ascii_digit() || byte == b' ',
            _ => byte == form,
        })
}

/// `len` bytes of `text` and the fraction that may follow them, as text.
fn with_fraction(text: &[u8], len: usize) -> Option<&str> {
    let fraction = match text.get(len..) {
        Some([b'.' | b',', digits @ ..]) => {
            let digits = digits.iter().take_while(|b| b.is_ascii_digit()).count();
            if digits == 0 { 0 } else { digits + 1 }
        }
        _ => 0,
    };
    std::str::from_utf8(text.get(..len + fraction)?).ok()
}

/// `[   12.345678]`, `[   12.345678 <    0.000011>]`, `[  +0.000011]`, `[Mon Jun 10 12:00:00 2024]`,
/// `[Jun10 12:00]`, `[2024-06-10 12:00:00.123]`.
fn bracketed(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"[")?;
    let inner = inner.get(..memchr::memchr(b']', inner.get(..60.min(inner.len()))?)?)?;
    let inner = inner.trim_ascii();
    if let Some(stamp) = iso(inner) {
        return Some(stamp);
    }
    let seconds = inner.split(|&byte| byte == b' ').next()?;
    let plain = seconds.strip_prefix(b"+").unwrap_or(seconds);
    let dot = memchr::memchr(b'.', plain)?;
    let decimal = dot > 0
        && plain.len() > dot + 1
        && plain
            .iter()
            .enumerate()
            .all(|(at, byte)| at == dot || byte.is_ascii_digit());
    decimal
        .then(|| std::str::from_utf8(seconds).ok().map(str::to_owned))
        .flatten()
}

/// Calendar stamps that need their brackets to be told from other words.
fn calendar(text: &[u8]) -> Option<String> {
    let inner = text.strip_prefix(b"[")?;
    let inner = inner.get(..memchr::memchr(b']', inner.get(..60.min(inner.len()))?)?)?;
    let inner = inner.trim_ascii();
    // `crash` puts the zone before the year, and `dmesg -T` writes days and months in any language.
    if shaped(inner, b"aaa aaa _0 00:00:00 UTC 0000") {
        let day = std::str::from_utf8(inner).ok()?;
        let instant = jiff::fmt::strtime::parse("%a %b %e %H:%M:%S UTC %Y", day).ok()?;
        return Some(format!("{}Z", instant.to_datetime().ok()?));
    }
    let clock = inner.len().checked_sub(15).and_then(|at| inner.get(at..));
    let known = clock.is_some_and(|clock| shaped(clock, b"0 00:00:00 0000"))
        || shaped(inner, b"aaa_0 00:00");
    known
        .then(|| std::str::from_utf8(inner).ok().map(str::to_owned))
        .flatten()
}

/// `2024-06-10T12:00:00.123456+02:00` and the like.
fn iso(text: &[u8]) -> Option<String> {
    if !shaped(text, b"0000-00-00T00:00:00") && !shaped(text, b"0000-00-00 00:00:00") {
        return None;
    }
    let stamp = with_fraction(text, 19)?;
    let rest = text.get(stamp.len()..)?;
    let zone_len = match rest {
        [b'Z', ..] => 1,
        [b'+' | b'-', ..] if shaped(rest.get(1..)?, b"00:00") => 6,
        [b'+' | b'-', ..] if shaped(rest.get(1..)?, b"0000") => 5,
        [b'+' | b'-', ..] if shaped(rest.get(1..)?, b"00") => 3,
        _ if rest.starts_with(b" UTC") => return utc(stamp, "Z").or(Some(stamp.to_owned())),
        _ => 0,
    };
    let zone = std::str::from_utf8(rest.get(..zone_len)?).ok()?;
    if zone.is_empty() {
        return Some(stamp.to_owned());
    }
    utc(stamp, zone).or_else(|| Some(format!("{stamp}{zone}")))
}

/// `stamp` in `zone` as an instant in UTC.
fn utc(stamp: &str, zone: &str) -> Option<String> {
    let text = format!("{}{zone}", stamp.replace(' ', "T").replace(',', "."));
    text.parse::<Timestamp>()
        .ok()
        .map(|instant| instant.to_string())
}

/// `Jun 10 12:00:00`, `Mon Jun 10 12:00:00 2024`, `Mon 2024-06-10 12:00:00 UTC`.
fn words(text: &[u8]) -> Option<String> {
    if text.first() == Some(&b'[') {
        return calendar(text);
    }
    if shaped(text, b"aaa 0000-00-00 00:00:00") {
        return iso(text.get(4..)?);
    }
    if shaped(text, b"aaa aaa _0 00:00:00 0000") {
        return std::str::from_utf8(text.get(..24)?).ok().map(str::to_owned);
    }
    let month = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ]
    .iter()
    .any(|name| text.starts_with(name.as_bytes()));
    (month && shaped(text, b"aaa _0 00:00:00"))
        .then(|| with_fraction(text, 15).map(str::to_owned))
        .flatten()
}

/// `06-10 12:00:00.123` of Android's logcat.
fn logcat(text: &[u8]) -> Option<String> {
    shaped(text, b"00-00 00:00:00.")
        .then(|| with_fraction(text, 14).map(str::to_owned))
        .flatten()
}

/// `1718020800.123456` of `journalctl -o short-unix`, `1718020800.123` of `logcat -v epoch`.
fn epoch(text: &[u8]) -> Option<String> {
    if !shaped(text, b"0000000000.000") {
        return None;
    }
    let fraction = text.get(11..)?;
    let digits = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits > 6 {
        return None;
    }
    let seconds: i64 = std::str::from_utf8(text.get(..10)?).ok()?.parse().ok()?;
    let fraction = std::str::from_utf8(fraction.get(..digits)?).ok()?;
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    from_micros(seconds * 1_000_000 + micros)
}

/// The microseconds of `3,1234,12345678,-;`, a record of `/dev/kmsg`, in seconds.
fn kmsg(text: &[u8]) -> Option<String> {
    let head = text.get(..memchr::memchr(b';', text)?)?;
    let mut fields = head.split(|&byte| byte == b',');
    let (_level, _sequence, micros) = (
        number(fields.next()?)?,
        number(fields.next()?)?,
        number(fields.next()?)?,
    );
    fields.next()?;
    Some(seconds(micros))
}

/// All of `text` as a decimal number.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Microseconds since boot in the form of the kernel's own stamps.
pub(super) fn seconds(micros: u64) -> String {
    format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000)
}

/// Microseconds since the epoch as an instant in UTC.
pub(super) fn from_micros(micros: i64) -> Option<String> {
    Timestamp::from_microsecond(micros)
        .ok()
        .map(|instant| instant.to_string())
}
