//! Numbers and bytes as hex strings, lists with a bound, objects that are objects.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Unexpected, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// The number of a hex string: `0x` and 1 to 16 digits.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix("0x")?;
    if !(1..=16).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u64::from_str_radix(digits, 16).ok()
}

/// The bytes of a string of hex digits, two a byte; what is wrong with it otherwise. Allocates half
/// of what the string holds.
pub(crate) fn bytes(text: &str) -> Result<Vec<u8>, String> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes: Option<Vec<u8>> = pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect();
    if let Some((at, c)) = text
        .chars()
        .enumerate()
        .find(|(_, c)| !c.is_ascii_hexdigit())
    {
        return Err(format!("{c:?} at position {at} is not a hex digit"));
    }
    match (bytes, rest) {
        (Some(bytes), []) => Ok(bytes),
        _ => Err(format!("odd number of hex digits ({})", text.len())),
    }
}

/// A number that is written as a hex string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Hex(pub(super) u64);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Hex;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a hex string of 0x and 1 to 16 digits")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Hex, E> {
                number(text)
                    .map(Hex)
                    .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// Bytes that are written as a hex string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HexBytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = HexBytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string of hex bytes")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<HexBytes, E> {
                bytes(text).map(HexBytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// A list of at most `N` values; the value after the last one is an error before it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T, const N: usize>(pub(super) Vec<T>);

impl<T, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const N: usize> Deserialize<'de> for List<T, N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const N: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const N: usize> Visitor<'de> for Items<T, N> {
            type Value = List<T, N>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of at most {N}")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    if items.len() == N {
                        return Err(A::Error::custom(format_args!("more than {N} in this list")));
                    }
                    items.push(item);
                }
                Ok(List(items))
            }
        }
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

/// Reads an object as `R` and makes a `T` of it.
///
/// Serde's derived readers take a list of the fields as well, which is no capture; this does not.
/// What `make` refuses is reported at the end of the object.
pub(super) fn object<'de, D, R, T, F>(deserializer: D, make: F) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    R: Deserialize<'de>,
    F: FnOnce(R) -> Result<T, String>,
{
    struct Map<R, F>(F, PhantomData<R>);
    impl<'de, R, T, F> Visitor<'de> for Map<R, F>
    where
        R: Deserialize<'de>,
        F: FnOnce(R) -> Result<T, String>,
    {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            let raw = R::deserialize(MapAccessDeserializer::new(map))?;
            (self.0)(raw).map_err(A::Error::custom)
        }
    }
    deserializer.deserialize_map(Map(make, PhantomData))
}
