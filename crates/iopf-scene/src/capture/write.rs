//! [`Capture`] to JSON text.

use super::{Capture, Expect, Range, Request, RequestKind};
use iopf::Access;
use std::fmt::{Display, Write};

/// Writing to a string cannot fail; this says so once.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => { let _ = write!($out, $($arg)*); };
}

pub(super) fn line(capture: &Capture) -> String {
    let mut out = String::new();
    object(capture, &mut out, "", "");
    out
}

pub(super) fn text(capture: &Capture) -> String {
    let mut out = String::new();
    object(capture, &mut out, "\n  ", "\n    ");
    out.push('\n');
    out
}

/// Writes the whole file; `key` goes before each key, `item` before each item of a list.
fn object(capture: &Capture, out: &mut String, key: &str, item: &str) {
    put!(
        out,
        "{{{key}\"iopf_capture\": 1,{key}\"arch\": \"{}\"",
        capture.arch
    );
    if !capture.note.is_empty() {
        put!(out, ",{key}\"note\": {}", quoted(&capture.note));
    }
    put!(out, ",{key}\"registers\": {{");
    for (index, (name, value)) in capture.registers.iter().enumerate() {
        put!(out, "{}\"{name}\": \"{value:#x}\"", comma(index));
    }
    put!(
        out,
        "}},{key}\"memory_base\": \"{:#x}\"",
        capture.memory_base.0
    );
    if let Some(limit) = capture.memory_limit {
        put!(out, ",{key}\"memory_limit\": \"{:#x}\"", limit.0);
    }
    list(out, key, item, "memory", capture.memory.iter().map(range));
    if !capture.aborts.is_empty() {
        let aborts = capture.aborts.iter().map(|span| {
            format!(
                "{{\"addr\": \"{:#x}\", \"len\": \"{:#x}\"}}",
                span.addr.0, span.len
            )
        });
        list(out, key, item, "aborts", aborts);
    }
    list(
        out,
        key,
        item,
        "requests",
        capture.requests.iter().map(request),
    );
    if !capture.expect.is_empty() {
        let expect = capture
            .expect
            .iter()
            .map(|Expect(keys)| serde_json::to_string(keys).unwrap_or_else(|_| "{}".into()));
        list(out, key, item, "expect", expect);
    }
    out.push_str(if key.is_empty() { "}" } else { "\n}" });
}

fn comma(index: usize) -> &'static str {
    if index == 0 { "" } else { ", " }
}

fn quoted(text: &str) -> impl Display {
    serde_json::Value::from(text)
}

fn list(out: &mut String, key: &str, item: &str, name: &str, items: impl Iterator<Item = String>) {
    put!(out, ",{key}\"{name}\": [");
    for (index, text) in items.enumerate() {
        put!(out, "{}{item}{text}", if index == 0 { "" } else { "," });
    }
    out.push(']');
}

/// Tables are read as words; anything that is not made of whole words is bytes.
fn range(range: &Range) -> String {
    let mut out = format!("{{\"addr\": \"{:#x}\", ", range.addr.0);
    let (words, rest) = range.data.as_chunks::<8>();
    if range.addr.0.is_multiple_of(8) && rest.is_empty() {
        out.push_str("\"words\": [");
        for (index, word) in words.iter().enumerate() {
            put!(
                out,
                "{}\"{:#018x}\"",
                comma(index),
                u64::from_le_bytes(*word)
            );
        }
        out.push_str("]}");
    } else {
        out.push_str("\"data\": \"");
        for byte in &range.data {
            put!(out, "{byte:02x}");
        }
        out.push_str("\"}");
    }
    out
}

fn request(request: &Request) -> String {
    let mut out = match request.device {
        super::Device::Pci { .. } => format!("{{\"device\": \"{}\"", request.device),
        super::Device::Number(number) => format!("{{\"device\": {number}"),
    };
    if let Some(pasid) = request.pasid {
        put!(out, ", \"pasid\": {}", pasid.get());
    }
    put!(
        out,
        ", \"type\": \"{}\", \"addr\": \"{:#x}\", \"access\": \"{}\"",
        request.kind.name(),
        request.addr.0,
        letters(request.access)
    );
    if request.len != 1 {
        put!(out, ", \"len\": {}", request.len);
    }
    if request.no_write {
        out.push_str(", \"no_write\": true");
    }
    if request.kind == RequestKind::PageRequest {
        put!(
            out,
            ", \"group\": {}, \"last\": {}",
            request.group.0,
            request.last
        );
    }
    out.push('}');
    out
}

/// The rights as letters, empty for none.
pub(crate) fn letters(access: Access) -> String {
    if access.is_empty() {
        String::new()
    } else {
        access.to_string()
    }
}
