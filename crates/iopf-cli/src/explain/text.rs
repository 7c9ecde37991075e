//! The text view of explanations: the walk step by step, then what came of it.

use iopf_scene::capture::{Capture, Request, RequestKind};
use iopf_scene::explain::fields::{self, Formats};
use iopf_scene::explain::{Answer, Explanation, Fault, Outcome, Translated};
use std::io::{self, Write};

/// What goes before the first request.
pub(super) fn head(capture: &Capture, out: &mut dyn Write) -> io::Result<()> {
    if !capture.note.is_empty() {
        for line in capture.note.lines() {
            writeln!(out, "# {}", printable(line))?;
        }
    }
    let registers = capture.registers.iter();
    let registers: Vec<String> = registers.map(|(n, v)| format!("{n}={v:#x}")).collect();
    writeln!(out, "{} {}", capture.arch, registers.join(" "))
}

/// One request.
pub(super) fn explanation(
    capture: &Capture,
    explanation: &Explanation,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out)?;
    if let Some(request) = capture.requests.get(explanation.request) {
        asked(explanation, request, out)?;
    }
    trail(explanation, out)?;
    for write in &explanation.writes {
        writeln!(
            out,
            "  {:<14} {:#x}: {:#x} becomes {:#x}",
            "writes", write.addr.0, write.old, write.new
        )?;
    }
    match &explanation.outcome {
        Outcome::Translated(found) => translated(found, out),
        Outcome::Fault(fault) => self::fault(explanation, fault, out),
        Outcome::Interrupt { response, text } => {
            answer(*response, out)?;
            writeln!(out, "  => {text}")
        }
        Outcome::Queued { descriptor, text } => {
            writeln!(out, "  {:<14} {}", "descriptor", hex(descriptor))?;
            writeln!(out, "  => {text}")
        }
    }
}

fn asked(explanation: &Explanation, request: &Request, out: &mut dyn Write) -> io::Result<()> {
    let (index, formats) = (explanation.request, explanation.formats);
    write!(out, "request {index}: {} ", formats.device(request.device))?;
    if let Some(pasid) = request.pasid {
        write!(out, "{} {pasid} ", formats.substream())?;
    }
    write!(
        out,
        "{} {} at {}",
        request.kind.name(),
        request.rights(),
        request.addr
    )?;
    if request.no_write {
        write!(out, " no_write")?;
    }
    if request.kind == RequestKind::PageRequest {
        let last = if request.last { " last" } else { "" };
        write!(out, " group {}{last}", request.group.0)?;
    }
    writeln!(out)
}

/// One line a word of each entry, and under the word that is to blame, its bits.
fn trail(explanation: &Explanation, out: &mut dyn Write) -> io::Result<()> {
    let blamed = explanation.blamed();
    let bits = match &explanation.outcome {
        Outcome::Fault(fault) => fault.bits,
        _ => 0,
    };
    for step in &explanation.trail {
        let name = if step.level > 0 {
            format!("{} L{}", step.table, explanation.formats.level(step.level))
        } else {
            step.table.to_string()
        };
        // The longest names would break the columns.
        let name = match name.strip_suffix(" table") {
            Some(short) if name.len() > 15 => short.to_owned(),
            _ => name,
        };
        let words = step.raw.words();
        if words.is_empty() {
            writeln!(
                out,
                "  {name:<15} [{:>3}] {:#011x}  {:<18}  {}  <==",
                step.index,
                step.addr.0,
                "-",
                step.verdict.name()
            )?;
        }
        for (index, word) in words.iter().enumerate() {
            let blame = blamed.filter(|(at, at_word)| {
                at.addr == step.addr && at.table == step.table && *at_word == index
            });
            // Words that hold nothing and decided nothing are left out.
            if index > 0 && *word == 0 && blame.is_none() {
                continue;
            }
            let bits = if blame.is_some() { bits } else { 0 };
            let spelled = fields::spell(explanation.formats, step.table, index, *word, bits);
            let (name, number, verdict) = if index == 0 {
                (
                    name.as_str(),
                    format!("[{:>3}]", step.index),
                    step.verdict.name(),
                )
            } else {
                ("", String::new(), "")
            };
            write!(
                out,
                "  {name:<15} {number:>5} {:#011x}  {word:#018x}  {spelled}",
                step.addr.0 + 8 * index as u64,
            )?;
            if !verdict.is_empty() {
                write!(out, "  {verdict}")?;
            }
            if let (0, Some(guest)) = (index, step.guest_addr) {
                write!(out, "  (guest address {guest})")?;
            }
            writeln!(out, "{}", if blame.is_some() { "  <==" } else { "" })?;
            if blame.is_some() && bits != 0 {
                let named = fields::name_bits(explanation.formats, step.table, index, bits);
                writeln!(out, "  {:<33}  {named}", "")?;
            }
        }
    }
    Ok(())
}

fn translated(found: &Translated, out: &mut dyn Write) -> io::Result<()> {
    answer(found.response, out)?;
    writeln!(
        out,
        "  => translated to {}, {} on a page of {}",
        found.pa,
        found.perms,
        size(found.page)
    )
}

fn fault(explanation: &Explanation, fault: &Fault, out: &mut dyn Write) -> io::Result<()> {
    match fault.code {
        Some(code) => write!(out, "  {:<14} {} (reason {code:#04x})", "fault", fault.name)?,
        None => write!(out, "  {:<14} {} (no reason code)", "fault", fault.name)?,
    }
    if fault.recoverable {
        write!(out, ", recoverable by a page request")?;
        if explanation.formats == Formats::Smmuv3 {
            write!(out, " or a stall")?;
        }
    }
    writeln!(out)?;
    if explanation.blamed().is_none()
        && let Some(addr) = fault.entry_addr
    {
        writeln!(out, "  {:<14} {addr}", "entry")?;
    }
    match &fault.record {
        Some(record) => writeln!(out, "  {:<14} {}", "record", hex(record))?,
        None => writeln!(out, "  {:<14} none", "record")?,
    }
    answer(fault.response, out)?;
    writeln!(out, "  => {}", fault.text)
}

fn answer(response: Option<Answer>, out: &mut dyn Write) -> io::Result<()> {
    match response {
        Some(response) => writeln!(out, "  {:<14} {}", "answer", response.name()),
        None => Ok(()),
    }
}

/// A power of two in bytes, with the largest unit that divides it.
fn size(bytes: u64) -> String {
    match bytes.trailing_zeros() {
        30..64 => format!("{} GiB", bytes >> 30),
        20..30 => format!("{} MiB", bytes >> 20),
        10..20 => format!("{} KiB", bytes >> 10),
        _ => format!("{bytes} bytes"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A line of a stranger's text without anything a terminal would act on.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
