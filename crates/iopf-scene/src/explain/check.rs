//! Compares explanations with what a capture expects.

use super::Explanation;
use crate::capture::{Expect, hex};
use serde_json::Value;
use std::fmt;

/// A key whose value is not the expected one.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The key.
    pub key: String,
    /// What the capture expects; for `code`, one of a list.
    pub expected: Value,
    /// What came out; `null` where the outcome has no such key.
    pub found: Value,
    /// The bits that count, for `record`.
    pub mask: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: expected {}", self.key, self.expected)?;
        if let Some(mask) = &self.mask {
            write!(f, " under mask {mask}")?;
        }
        write!(f, ", found {}", self.found)
    }
}

/// Every key of `expect` whose value in `explanation` is another, in the order of the format; empty
/// where all is as expected.
///
/// Absent keys are not compared. A list of codes means any of them; `record_mask` says which bits
/// of `record` count, bytes it leaves out count whole; letters of `perms` come in any order; of the
/// objects in `trail` and `writes`, the keys that are given are compared.
#[must_use]
pub fn check(explanation: &Explanation, expect: &Expect) -> Vec<Difference> {
    let found = serde_json::to_value(explanation).unwrap_or(Value::Null);
    let keys = Expect::KEYS.iter().filter(|key| **key != "record_mask");
    keys.filter_map(|key| {
        let expected = expect.get(key)?;
        let found = found.get(key).unwrap_or(&Value::Null);
        let mask = match *key {
            "record" => expect.get("record_mask").and_then(Value::as_str),
            _ => None,
        };
        let same = match *key {
            "code" => any(expected, found),
            "record" => masked(expected, found, mask),
            "perms" => letters(expected) == letters(found),
            _ => same(expected, found),
        };
        (!same).then(|| Difference {
            key: (*key).to_owned(),
            expected: expected.clone(),
            found: found.clone(),
            mask: mask.map(str::to_owned),
        })
    })
    .collect()
}

fn any(expected: &Value, found: &Value) -> bool {
    match expected {
        Value::Array(codes) => codes.contains(found),
        code => code == found,
    }
}

fn letters(value: &Value) -> Option<Vec<char>> {
    let mut letters: Vec<char> = value.as_str()?.chars().filter(|c| *c != '-').collect();
    letters.sort_unstable();
    Some(letters)
}

fn masked(expected: &Value, found: &Value, mask: Option<&str>) -> bool {
    let (Some(expected), Some(found)) = (expected.as_str(), found.as_str()) else {
        return expected == found;
    };
    let bytes = |text| hex::bytes(text).unwrap_or_default();
    let (expected, found, mask) = (bytes(expected), bytes(found), bytes(mask.unwrap_or("")));
    expected.len() == found.len()
        && expected.iter().zip(&found).enumerate().all(|(at, (a, b))| {
            let counts = mask.get(at).copied().unwrap_or(0xff);
            a & counts == b & counts
        })
}

/// Equal, or equal as far as `expected` says: keys an expected object does not give do not count.
fn same(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => a
            .iter()
            .all(|(key, a)| same(a, b.get(key).unwrap_or(&Value::Null))),
        (a, b) => a == b,
    }
}
