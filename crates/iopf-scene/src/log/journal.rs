//! Logs as JSON lines: `journalctl -o json`, and what containers' loggers write.

use serde_json::{Map, Value};

use super::stamp;

/// The messages of a line that is a JSON object, each with its time; `None` where it is none.
pub(super) fn entries(line: &[u8]) -> Option<Vec<(Vec<u8>, Option<String>)>> {
    let line = line.trim_ascii();
    if line.first() != Some(&b'{') || line.last() != Some(&b'}') {
        return None;
    }
    let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let message = ["MESSAGE", "message", "msg", "log"]
        .iter()
        .find_map(|key| object.get(*key))?;
    Some(vec![(bytes(message)?, time(&object))])
}

/// A message; the journal gives one that is not UTF-8 as numbers.
fn bytes(message: &Value) -> Option<Vec<u8>> {
    match message {
        Value::String(text) => Some(text.as_bytes().to_vec()),
        Value::Array(numbers) => numbers
            .iter()
            .map(|number| number.as_u64().and_then(|number| u8::try_from(number).ok()))
            .collect(),
        _ => None,
    }
}

fn time(object: &Map<String, Value>) -> Option<String> {
    let number = |key: &str| {
        let value = object.get(key)?;
        value
            .as_str()
            .and_then(|text| text.parse().ok())
            .or_else(|| value.as_u64())
    };
    let instant = ["__REALTIME_TIMESTAMP", "_SOURCE_REALTIME_TIMESTAMP"]
        .iter()
        .find_map(|key| number(key))
        .and_then(|micros| i64::try_from(micros).ok())
        .and_then(stamp::from_micros);
    let text = || {
        ["time", "timestamp", "@timestamp", "ts"]
            .iter()
            .find_map(|key| object.get(*key)?.as_str())
            .and_then(|text| stamp::find(text.as_bytes()))
    };
    let since_boot = || {
        ["_SOURCE_MONOTONIC_TIMESTAMP", "__MONOTONIC_TIMESTAMP"]
            .iter()
            .find_map(|key| number(key))
            .map(stamp::seconds)
    };
    instant.or_else(text).or_else(since_boot)
}
