//! The values in a message that all dialects share: PASIDs, devices, and what is no value at all.

use iopf::{Pasid, Rid};

use super::cursor::Number;
use crate::capture::Device;

pub(super) fn pasid(number: Number) -> Option<Pasid> {
    match number {
        Number::Whole(number) => u32::try_from(number).ok().and_then(Pasid::new),
        Number::AtEnd(_) | Number::Unreadable => None,
    }
}

/// `00:14.0`, `0x00:0x14.0`, `0000:00:14.0`.
pub(super) fn device(word: &[u8]) -> Option<Device> {
    let text = std::str::from_utf8(word).ok()?;
    let (address, function) = text.split_once('.')?;
    let mut numbers = address.rsplit(':');
    let slot = byte(numbers.next()?)?;
    let bus = byte(numbers.next()?)?;
    let segment = match numbers.next() {
        None => 0,
        Some(digits) if (4..=8).contains(&digits.len()) => hexadecimal(digits)?,
        Some(_) => return None,
    };
    if numbers.next().is_some() || function.len() != 1 {
        return None;
    }
    let function = u8::try_from(hexadecimal(function)?).ok()?;
    let rid = Rid::new(bus, slot, function)?;
    Some(Device::Pci { segment, rid })
}

fn byte(digits: &str) -> Option<u8> {
    let digits = digits.strip_prefix("0x").unwrap_or(digits);
    if digits.len() != 2 {
        return None;
    }
    u8::try_from(hexadecimal(digits)?).ok()
}

pub(super) fn hexadecimal(digits: &str) -> Option<u32> {
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    u32::from_str_radix(digits, 16).ok()
}

/// Whether `value` is of a pattern or of source code (`%02x`, `\d+`, `{}`), not of a message.
pub(super) fn is_template(value: &[u8]) -> bool {
    let value = value.strip_prefix(b"0x").unwrap_or(value);
    matches!(value.first(), Some(b'%' | b'\\' | b'{' | b'*')) && !value.starts_with(b"**")
}
