//! Requests.

use super::words;
use crate::capture::hex::{self, Hex, object};
use crate::capture::{Device, Request, RequestKind};
use iopf::{Access, GroupIndex, Iova, Pasid, Rid};
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};
use std::fmt;

/// PCI Express Base Specification, "Address/Length rules": a request does not cross this boundary.
const BOUNDARY: u64 = 4096;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRequest {
    device: Device,
    pasid: Option<u32>,
    r#type: Option<RequestKind>,
    addr: Hex,
    access: Option<Letters>,
    no_write: Option<bool>,
    group: Option<u32>,
    last: Option<bool>,
    len: Option<Len>,
}

impl RawRequest {
    fn make(self) -> Result<Request, String> {
        let raw = self;
        let kind = raw.r#type.unwrap_or(RequestKind::Untranslated);
        let access = match (raw.access, kind) {
            (Some(Letters(access)), _) => access,
            (None, RequestKind::Untranslated | RequestKind::Translated) => Access::READ,
            (None, RequestKind::Translation | RequestKind::PageRequest) => Access::empty(),
        };
        let pasid = match raw.pasid {
            None => None,
            Some(value) => Some(
                Pasid::new(value).ok_or(format!("pasid {value} needs more than its 20 bits"))?,
            ),
        };
        let len = raw.len.map_or(1, |Len(len)| len);
        if len == 0 || raw.addr.0 % BOUNDARY + len > BOUNDARY {
            return Err(format!(
                "len {len:#x} from {:#x} on crosses 4 KiB, which no PCI Express request does: \
                 split it",
                raw.addr.0
            ));
        }
        Ok(Request {
            device: raw.device,
            pasid,
            kind,
            addr: Iova(raw.addr.0),
            len: u32::try_from(len).unwrap_or(1),
            access,
            no_write: raw.no_write.unwrap_or(false),
            group: GroupIndex(raw.group.unwrap_or(0)),
            last: raw.last.unwrap_or(false),
        })
    }
}

/// A length of 0 to 4096 bytes, as number or hex string.
struct Len(u64);

impl<'de> Deserialize<'de> for Len {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Len;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a length of 1 to 4096 bytes, a number or a hex string")
            }
            fn visit_u64<E: Error>(self, value: u64) -> Result<Len, E> {
                let good = (1..=BOUNDARY).contains(&value);
                let value = good.then_some(Len(value));
                value.ok_or_else(|| E::custom("a length is 1 to 4096 bytes"))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Len, E> {
                match hex::number(text) {
                    Some(value) => self.visit_u64(value),
                    None => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// Rights as letters.
struct Letters(Access);

impl<'de> Deserialize<'de> for Letters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = "made of the letters r, w, x, p, each at most once";
        words(deserializer, wanted, |letters| {
            let mut access = Access::empty();
            for letter in letters.chars() {
                let right = match letter {
                    'r' => Access::READ,
                    'w' => Access::WRITE,
                    'x' => Access::EXEC,
                    'p' => Access::PRIV,
                    _ => return None,
                };
                if access.contains(right) {
                    return None;
                }
                access |= right;
            }
            Some(Self(access))
        })
    }
}

impl<'de> Deserialize<'de> for Request {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer, RawRequest::make)
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl Visitor<'_> for Value {
            type Value = Device;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a PCI address such as \"0000:00:05.0\", or a device number")
            }
            fn visit_u64<E: Error>(self, number: u64) -> Result<Device, E> {
                let number = u32::try_from(number).ok().map(Device::Number);
                number.ok_or_else(|| E::custom("a device number has 32 bits"))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Device, E> {
                pci(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Value)
    }
}

/// `[segment:]bus:device.function`, in hex.
fn pci(text: &str) -> Option<Device> {
    let field = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let good = digits.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        good.then(|| u32::from_str_radix(text, 16).ok()).flatten()
    };
    let (front, function) = text.rsplit_once('.')?;
    let (front, device) = front.rsplit_once(':')?;
    let (segment, bus) = match front.rsplit_once(':') {
        Some((segment, bus)) => (field(segment, 4..=8)?, bus),
        None => (0, front),
    };
    let byte = |value: u32| u8::try_from(value).ok();
    let rid = Rid::new(
        byte(field(bus, 2..=2)?)?,
        byte(field(device, 2..=2)?)?,
        byte(field(function, 1..=1)?)?,
    )?;
    Some(Device::Pci { segment, rid })
}

impl<'de> Deserialize<'de> for RequestKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = "one of untranslated, translation, translated, page_request";
        words(deserializer, wanted, |name| {
            Self::ALL.into_iter().find(|kind| kind.name() == name)
        })
    }
}
