//! JSON text to [`Capture`].

use super::error::{CaptureError, Place, Problem};
use super::hex::{Hex, HexBytes, List, object};
use super::{
    Arch, Capture, Device, Expect, Limits, Range, Registers, Request, RequestKind, Span, gzip,
};
use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Rid};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// PCI Express Base Specification, "Address/Length rules": a request does not cross this boundary.
const BOUNDARY: u64 = 4096;

pub(super) fn capture(bytes: &[u8]) -> Result<Capture, Box<CaptureError>> {
    let text = gzip::text(bytes, Limits::BYTES)?;
    let mut json = serde_json::Deserializer::from_str(&text);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    match object(tracked, |file: File| Ok(file)) {
        Ok(file) => {
            json.end().map_err(|error| placed(&error, String::new()))?;
            file.check()
        }
        Err(error) => {
            let path = track.path().to_string();
            // `?` is a key that was not read to its end, `.` the whole file.
            let known = path.trim_end_matches(['?', '.']);
            Err(placed(&error, Problem::quote(known)))
        }
    }
}

/// An error of the JSON reader, in our words and with its place.
fn placed(error: &serde_json::Error, path: String) -> Box<CaptureError> {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text
        .strip_suffix(&format!(" at line {line} column {column}"))
        .unwrap_or(&text)
        .replacen("unknown field", "unknown key", 1)
        .replacen("missing field", "missing key", 1)
        .replacen("duplicate field", "key given twice:", 1);
    let what = match error.classify() {
        serde_json::error::Category::Data => text,
        _ => format!("not JSON: {text}"),
    };
    Box::new(CaptureError {
        place: Place {
            path,
            line: Some((line, column)),
        },
        problem: Problem::Json(Problem::quote(&what)),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    iopf_capture: u64,
    arch: Arch,
    #[serde(default)]
    note: String,
    #[serde(default)]
    registers: RegisterMap,
    #[serde(default)]
    memory_base: Hex,
    memory_limit: Option<Hex>,
    #[serde(default)]
    memory: Memory,
    #[serde(default)]
    aborts: List<Span, { Limits::ABORTS }>,
    requests: List<Request, { Limits::REQUESTS }>,
    #[serde(default)]
    expect: List<Expect, { Limits::REQUESTS }>,
    /// The three keys of virtio captures are checked for their grammar only.
    mappings: Option<serde::de::IgnoredAny>,
    endpoints: Option<serde::de::IgnoredAny>,
    bypass: Option<serde::de::IgnoredAny>,
}

impl File {
    /// What needs the whole file to be checked.
    fn check(self) -> Result<Capture, Box<CaptureError>> {
        let refuse = |path: &str, problem| Err(CaptureError::at(path.into(), problem));
        if self.iopf_capture != 1 {
            let problem = Problem::OutOfRange {
                value: self.iopf_capture,
                wanted: "0x1, the version of the format that this program reads",
            };
            return refuse("iopf_capture", problem);
        }
        let virtio = [
            ("mappings", self.mappings.is_some()),
            ("endpoints", self.endpoints.is_some()),
            ("bypass", self.bypass.is_some()),
        ];
        if let Some((key, _)) = virtio.iter().find(|(_, given)| *given)
            && self.arch != Arch::Virtio
        {
            let problem = Problem::Conflict("unknown key: only a virtio capture has it");
            return refuse(key, problem);
        }
        if let Some(limit) = self.memory_limit
            && limit.0 < self.memory_base.0
        {
            let problem = Problem::Conflict("memory_limit is below memory_base");
            return refuse("memory_limit", problem);
        }
        if self.expect.0.len() > self.requests.0.len() {
            return refuse(
                "expect",
                Problem::Conflict("more expectations than requests"),
            );
        }
        for (index, request) in self.requests.0.iter().enumerate() {
            let what = match request.device {
                Device::Number(_) if self.arch.names_pci() => {
                    "this architecture names devices by PCI address, such as \"0000:00:05.0\""
                }
                _ if self.arch.names_pci() && request.group.0 > 511 => {
                    "a PCI page request group index is 0 to 511"
                }
                _ => continue,
            };
            return refuse(&format!("requests[{index}]"), Problem::Conflict(what));
        }
        Ok(Capture {
            arch: self.arch,
            note: self.note,
            registers: self.registers.check(self.arch)?,
            memory_base: Gpa(self.memory_base.0),
            memory_limit: self.memory_limit.map(|limit| Gpa(limit.0)),
            memory: self.memory.0,
            aborts: self.aborts.0,
            requests: self.requests.0,
            expect: self.expect.0,
        })
    }
}

impl<'de> Deserialize<'de> for Arch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        words(
            deserializer,
            "one of vtd, amdvi, smmuv3, riscv, virtio",
            |name| Self::ALL.into_iter().find(|arch| arch.name() == name),
        )
    }
}

impl<'de> Deserialize<'de> for RequestKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wanted = "one of untranslated, translation, translated, page_request";
        words(deserializer, wanted, |name| {
            Self::ALL.into_iter().find(|kind| kind.name() == name)
        })
    }
}

/// A string that `read` knows what to make of.
fn words<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    wanted: &'static str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error> {
    struct Text<F>(&'static str, F);
    impl<T, F: Fn(&str) -> Option<T>> Visitor<'_> for Text<F> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            (self.1)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
        }
    }
    deserializer.deserialize_str(Text(wanted, read))
}

/// Register names and values, before the architecture is known to the reader.
#[derive(Default)]
struct RegisterMap(Vec<(&'static str, u64)>);

impl<'de> Deserialize<'de> for RegisterMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = RegisterMap;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of register names and hex strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RegisterMap, A::Error> {
                let mut found: Vec<(&'static str, u64)> = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    if found.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::duplicate_field(name));
                    }
                    found.push((name, map.next_value::<Hex>()?.0));
                }
                Ok(RegisterMap(found))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

/// The name of a register of any architecture.
struct Name(&'static str);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Key;
        impl Visitor<'_> for Key {
            type Value = Name;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a register")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Name, E> {
                let all = Arch::ALL.into_iter().flat_map(|arch| arch.registers());
                all.copied()
                    .find(|name| *name == text)
                    .map(Name)
                    .ok_or_else(|| {
                        E::custom(format_args!(
                            "unknown key `{text}`: not a register that captures hold (vtd: {})",
                            Arch::Vtd.registers().join(", ")
                        ))
                    })
            }
        }
        deserializer.deserialize_identifier(Key)
    }
}

impl RegisterMap {
    fn check(self, arch: Arch) -> Result<Registers, Box<CaptureError>> {
        let mut registers = Registers::default();
        for (name, value) in self.0 {
            let problem = match (arch, name) {
                _ if !arch.registers().contains(&name) => Problem::UnknownRegister {
                    arch: arch.name(),
                    known: arch.registers().join(", "),
                },
                (Arch::Vtd, "GSTS_REG") if value > u64::from(u32::MAX) => Problem::OutOfRange {
                    value,
                    wanted: "a value of a 32-bit register",
                },
                (Arch::Vtd, "HAW") if !(32..=52).contains(&value) => Problem::OutOfRange {
                    value,
                    wanted: "a host address width of 0x20 to 0x34 bits",
                },
                _ => {
                    registers.set(name, value);
                    continue;
                }
            };
            return Err(CaptureError::at(format!("registers.{name}"), problem));
        }
        Ok(registers)
    }
}

/// Ranges sorted by address, of which no two name one byte.
#[derive(Default)]
struct Memory(Vec<Range>);

impl<'de> Deserialize<'de> for Memory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Ranges;
        impl<'de> Visitor<'de> for Ranges {
            type Value = Memory;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of ranges")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Memory, A::Error> {
                let mut layout = Layout::default();
                while seq.next_element_seed(&mut layout)?.is_some() {}
                let ranges = layout.ranges.into_iter();
                let ranges = ranges.map(|(addr, (.., data))| Range {
                    addr: Gpa(addr),
                    data,
                });
                Ok(Memory(ranges.collect()))
            }
        }
        deserializer.deserialize_seq(Ranges)
    }
}

/// The ranges read so far.
#[derive(Default)]
struct Layout {
    read: usize,
    /// By first address: last address, index in the file, bytes.
    ranges: BTreeMap<u64, (u64, usize, Vec<u8>)>,
}

impl Layout {
    fn add(&mut self, range: Range) -> Result<(), String> {
        let index = self.read;
        self.read += 1;
        if index >= Limits::RANGES {
            return Err(format!("more than {} ranges of memory", Limits::RANGES));
        }
        let Some(last) = range.last() else {
            return Ok(());
        };
        let first = range.addr.0;
        // Of the ranges that start at `last` or before, only the nearest can reach `first`.
        if let Some((at, (end, other, _))) = self.ranges.range(..=last).next_back()
            && *end >= first
        {
            return Err(format!(
                "{first:#x} to {last:#x} overlaps memory[{other}] ({at:#x} to {end:#x})"
            ));
        }
        self.ranges.insert(first, (last, index, range.data));
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for &mut Layout {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        object(deserializer, |raw: RawRange| self.add(raw.make()?))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    addr: Hex,
    data: Option<HexBytes>,
    words: Option<List<Hex, { Limits::BYTES }>>,
}

impl RawRange {
    fn make(self) -> Result<Range, String> {
        let raw = self;
        let addr = raw.addr.0;
        let data = match (raw.data, raw.words) {
            (Some(HexBytes(data)), None) => data,
            (None, Some(List(words))) if addr.is_multiple_of(8) => {
                words.iter().flat_map(|word| word.0.to_le_bytes()).collect()
            }
            (None, Some(_)) => {
                return Err(format!("words at {addr:#x}, which is not a multiple of 8"));
            }
            (None, None) => return Err("missing key `data` or `words`".into()),
            (Some(_), Some(_)) => return Err("both `data` and `words`: give one of them".into()),
        };
        let len = data.len();
        let range = Range {
            addr: Gpa(addr),
            data,
        };
        if len > 0 && range.last().is_none() {
            return Err(format!(
                "{len} bytes from {addr:#x} on leave the 64-bit space"
            ));
        }
        Ok(range)
    }
}

impl Range {
    /// The last address, or `None` for no bytes and for bytes past the end of the 64-bit space.
    fn last(&self) -> Option<u64> {
        let more = u64::try_from(self.data.len().checked_sub(1)?).ok()?;
        self.addr.0.checked_add(more)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSpan {
    addr: Hex,
    len: Hex,
}

impl RawSpan {
    fn make(self) -> Result<Span, String> {
        let raw = self;
        let (addr, len) = (raw.addr.0, raw.len.0);
        if len > 0 && addr.checked_add(len - 1).is_none() {
            return Err(format!(
                "{len:#x} bytes from {addr:#x} on leave the 64-bit space"
            ));
        }
        Ok(Span {
            addr: Gpa(addr),
            len,
        })
    }
}

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
                match super::hex::number(text) {
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

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer, RawSpan::make)
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
