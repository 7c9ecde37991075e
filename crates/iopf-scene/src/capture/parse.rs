//! JSON text to [`Capture`].

mod memory;
mod request;

use super::error::{CaptureError, Place, Problem};
use super::hex::{Hex, List, object};
use super::{Arch, Capture, Device, Expect, Limits, Registers, Request, Span, gzip};
use iopf::Gpa;
use memory::Memory;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};
use std::fmt;

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
                (Arch::Vtd, "HAW") if !(12..=52).contains(&value) => Problem::OutOfRange {
                    value,
                    wanted: "a host address width of 0xc to 0x34 bits",
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
