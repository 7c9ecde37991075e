//! The JSON form of an explanation, in the order of the format.

use super::{Answer, Explanation, Outcome};
use crate::hex_text;
use iommu_walk::{Raw, Step, Table, Update};
use serde::ser::{Serialize, SerializeMap, Serializer};

impl Serialize for Explanation {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("request", &self.request)?;
        match &self.outcome {
            Outcome::Fault(fault) => {
                map.serialize_entry("outcome", "fault")?;
                map.serialize_entry("code", &fault.code)?;
                map.serialize_entry("name", fault.name)?;
                map.serialize_entry("recoverable", &fault.recoverable)?;
                map.serialize_entry("stage", &fault.stage)?;
                map.serialize_entry("level", &fault.level)?;
                map.serialize_entry("entry_addr", &fault.entry_addr.map(|at| Hex(at.0)))?;
                map.serialize_entry("entry", &fault.entry.map(Hex))?;
                map.serialize_entry("record", &fault.record.as_deref().map(hex_text))?;
                map.serialize_entry("response", &fault.response.map(Answer::name))?;
                map.serialize_entry("text", &fault.text)?;
            }
            Outcome::Translated(found) => {
                map.serialize_entry("outcome", "translated")?;
                map.serialize_entry("pa", &Hex(found.pa.0))?;
                map.serialize_entry("perms", &found.perms.to_string())?;
                map.serialize_entry("page", &Hex(found.page))?;
                map.serialize_entry("response", &found.response.map(Answer::name))?;
            }
            Outcome::Interrupt { response, text } => {
                map.serialize_entry("outcome", "interrupt")?;
                map.serialize_entry("response", &response.map(Answer::name))?;
                map.serialize_entry("text", text)?;
            }
            Outcome::Queued { descriptor, text } => {
                map.serialize_entry("outcome", "queued")?;
                map.serialize_entry("descriptor", &hex_text(descriptor))?;
                map.serialize_entry("response", &None::<&str>)?;
                map.serialize_entry("text", text)?;
            }
        }
        map.serialize_entry("trail", &Each(&self.trail))?;
        map.serialize_entry("writes", &Each(&self.writes))?;
        map.end()
    }
}

/// A number as a hex string.
struct Hex(u64);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&format_args!("{:#x}", self.0))
    }
}

/// Items of a crate that knows nothing of this format.
struct Each<'a, T>(&'a [T]);

impl<T> Serialize for Each<'_, T>
where
    for<'b> Item<'b, T>: Serialize,
{
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(Item))
    }
}

struct Item<'a, T>(&'a T);

impl Serialize for Item<'_, Step> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(step) = self;
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("table", step.table.name())?;
        if matches!(step.table, Table::FirstStage | Table::SecondStage) {
            map.serialize_entry("level", &step.level)?;
        }
        map.serialize_entry("index", &step.index)?;
        map.serialize_entry("addr", &Hex(step.addr.0))?;
        if let Some(guest) = step.guest_addr {
            map.serialize_entry("guest_addr", &Hex(guest.0))?;
        }
        map.serialize_entry("raw", &raw(&step.raw))?;
        map.serialize_entry("verdict", step.verdict.name())?;
        map.end()
    }
}

impl Serialize for Item<'_, Update> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(3))?;
        map.serialize_entry("addr", &Hex(self.0.addr.0))?;
        map.serialize_entry("old", &Hex(self.0.old))?;
        map.serialize_entry("new", &Hex(self.0.new))?;
        map.end()
    }
}

/// An entry as one number, whatever its width; `None` where it was not read.
fn raw(raw: &Raw) -> Option<String> {
    use std::fmt::Write;
    let words = raw.words();
    words.first()?;
    let top = words.iter().rposition(|word| *word != 0).unwrap_or(0);
    let mut out = String::from("0x");
    for (index, word) in words.iter().enumerate().take(top + 1).rev() {
        // Writing to a string cannot fail.
        let _ = if index == top {
            write!(out, "{word:x}")
        } else {
            write!(out, "{word:016x}")
        };
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_many_words_is_one_number() {
        assert_eq!(raw(&Raw::NONE), None);
        assert_eq!(raw(&Raw::new(&[0, 0])).as_deref(), Some("0x0"));
        assert_eq!(raw(&Raw::new(&[0x11001, 0])).as_deref(), Some("0x11001"));
        assert_eq!(
            raw(&Raw::new(&[1, 0x23, 0, 0])).as_deref(),
            Some("0x230000000000000001")
        );
    }
}
