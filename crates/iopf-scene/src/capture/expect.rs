//! What should come of a request.

use super::Limits;
use super::hex::{Hex, HexBytes, List, object};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// What should come of one request: outcome keys with the values they should have.
///
/// `code` may be a list of acceptable codes, and `record_mask` says which bits of `record` count;
/// absent keys are not compared. The keys are those of an explanation ([`crate::explain`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expect(pub(crate) Map<String, Value>);

impl Expect {
    /// Keys an expectation may have.
    pub const KEYS: &'static [&'static str] = &[
        "outcome",
        "code",
        "name",
        "recoverable",
        "stage",
        "level",
        "entry_addr",
        "entry",
        "record",
        "record_mask",
        "response",
        "pa",
        "perms",
        "page",
        "text",
        "trail",
        "writes",
        "descriptor",
        "iotval2",
    ];

    /// The value a key should have, where it is compared.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    /// An expectation of these values, each under a key of [`Expect::KEYS`]; others are left out.
    #[must_use]
    pub fn new<'a>(values: impl IntoIterator<Item = (&'a str, Value)>) -> Self {
        let known = values
            .into_iter()
            .filter(|(key, _)| Self::KEYS.contains(key));
        Self(known.map(|(key, value)| (key.to_owned(), value)).collect())
    }
}

impl<'de> Deserialize<'de> for Expect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Expect;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of what should come of a request")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expect, A::Error> {
                let mut found = Map::new();
                while let Some(Key(key)) = map.next_key()? {
                    if found.contains_key(key) {
                        return Err(A::Error::duplicate_field(key));
                    }
                    let value = value(key, &mut map)?;
                    found.insert(key.to_owned(), value);
                }
                Ok(Expect(found))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Reads the value of `key` in its own type, so that a slip in a capture is seen as one.
fn value<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Value, A::Error> {
    Ok(match key {
        "code" => match map.next_value::<Codes>()? {
            Codes::One(code) => code.into(),
            Codes::Any(List(codes)) => codes.into(),
        },
        "recoverable" => map.next_value::<Option<bool>>()?.into(),
        "stage" | "level" => map.next_value::<Option<u8>>()?.into(),
        "pa" | "page" | "entry" | "entry_addr" | "iotval2" => map
            .next_value::<Option<Hex>>()?
            .map_or(Value::Null, hex_value),
        "record" | "record_mask" | "descriptor" => match map.next_value::<Option<HexBytes>>()? {
            Some(HexBytes(bytes)) => crate::hex_text(&bytes).into(),
            None => Value::Null,
        },
        "writes" => {
            let List(writes) = map.next_value::<List<Write, { Limits::EXPECTED }>>()?;
            writes.into_iter().map(|Write(value)| value).collect()
        }
        "trail" => {
            let List(trail) = map.next_value::<List<Step, { Limits::EXPECTED }>>()?;
            trail.into_iter().map(|Step(value)| value).collect()
        }
        _ => map.next_value::<Option<String>>()?.into(),
    })
}

/// A key of an expectation.
struct Key(&'static str);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Key;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key of an outcome")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Key, E> {
                let known = Expect::KEYS.iter().copied().find(|key| *key == text);
                known
                    .map(Key)
                    .ok_or_else(|| E::unknown_field(text, Expect::KEYS))
            }
        }
        deserializer.deserialize_identifier(Text)
    }
}

/// One code, none, or a list of which one is enough.
#[derive(serde::Deserialize)]
#[serde(untagged, expecting = "a number, null, or a list of numbers")]
enum Codes {
    One(Option<u32>),
    Any(List<Option<u32>, { Limits::EXPECTED }>),
}

/// One expected write, as an object of the keys that are given.
struct Write(Value);

impl<'de> Deserialize<'de> for Write {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            addr: Option<Hex>,
            old: Option<Hex>,
            new: Option<Hex>,
        }
        object(deserializer, |raw: Raw| {
            Ok(Self(given([
                ("addr", raw.addr.map(hex_value)),
                ("old", raw.old.map(hex_value)),
                ("new", raw.new.map(hex_value)),
            ])))
        })
    }
}

/// One expected step of a walk, as an object of the keys that are given.
struct Step(Value);

impl<'de> Deserialize<'de> for Step {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Raw {
            table: Option<String>,
            level: Option<u8>,
            index: Option<u32>,
            addr: Option<Hex>,
            guest_addr: Option<Hex>,
            raw: Option<String>,
            verdict: Option<String>,
        }
        object(deserializer, |raw: Raw| {
            Ok(Self(given([
                ("table", raw.table.map(Value::from)),
                ("level", raw.level.map(Value::from)),
                ("index", raw.index.map(Value::from)),
                ("addr", raw.addr.map(hex_value)),
                ("guest_addr", raw.guest_addr.map(hex_value)),
                ("raw", raw.raw.map(Value::from)),
                ("verdict", raw.verdict.map(Value::from)),
            ])))
        })
    }
}

fn hex_value(Hex(value): Hex) -> Value {
    format!("{value:#x}").into()
}

/// An object of the values that are there.
fn given<const N: usize>(values: [(&str, Option<Value>); N]) -> Value {
    let there = values
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Value::Object(there.collect())
}
