//! The text view of decoded faults.

use iopf_scene::log::{Arch, Device, Kind, Record, Summary, Wanted};
use std::io::{self, Write};

/// One fault: a line of facts, a sentence.
pub(super) fn record(record: &Record, out: &mut dyn Write) -> io::Result<()> {
    write!(out, "line {}", record.line)?;
    for part in [&record.time, &record.iommu].into_iter().flatten() {
        write!(out, "  {}", printable(part))?;
    }
    match record.device {
        Some(Device::Number(id)) => write!(out, "  StreamID {id:#x}")?,
        Some(device) => write!(out, "  {device}")?,
        None => write!(out, "  device unknown")?,
    }
    if let Some(client) = &record.client {
        write!(out, " ({})", printable(client))?;
    }
    if let Some(pasid) = record.pasid {
        let space = match record.arch {
            Arch::Smmuv3 => "SubstreamID",
            _ => "PASID",
        };
        write!(out, "  {space} {pasid}")?;
    }
    let kind = match record.kind {
        Kind::Dma => "dma",
        Kind::InterruptRemapping => "interrupt",
        Kind::PageRequest => "page request",
        Kind::Configuration => "configuration",
        Kind::Command => "command",
        Kind::Hardware => "hardware",
        _ => "fault",
    };
    write!(out, "  {kind}")?;
    match record.access {
        Wanted::Read => write!(out, " read")?,
        Wanted::Write => write!(out, " write")?,
        Wanted::Exec => write!(out, " exec")?,
        Wanted::Unknown => {}
    }
    if let Some(address) = record.address {
        write!(out, " {address}")?;
    }
    if let Some(index) = record.index {
        write!(out, " index {index}")?;
    }
    if let Some(code) = record.code {
        write!(out, "  reason {code:#04x}")?;
    }
    if let Some(name) = &record.name {
        write!(out, " {}", printable(name))?;
    }
    writeln!(out)?;
    for entry in record.dump.iter().flat_map(|dump| &dump.entries) {
        let words: Vec<String> = entry.words.iter().map(|w| format!("{w:#018x}")).collect();
        let words = match words.as_slice() {
            [] => "no entry".to_owned(),
            words => words.join(" "),
        };
        writeln!(out, "  {:<28} {words}", format!("{:?}", entry.table))?;
    }
    writeln!(out, "  => {}", printable(&record.text))
}

/// The figures at the end.
pub(super) fn summary(summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    let plural = |n: u64| if n == 1 { "" } else { "s" };
    write!(
        out,
        "{} fault{} in {} line{}",
        summary.records,
        plural(summary.records),
        summary.lines,
        plural(summary.lines)
    )?;
    if summary.suppressed > 0 {
        write!(out, "; {} more left out by the kernel", summary.suppressed)?;
    }
    if let (Some(first), Some(last)) = (&summary.first, &summary.last) {
        write!(out, "; from {} to {}", printable(first), printable(last))?;
    }
    writeln!(out)
}

/// Text of a log without anything a terminal would act on.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}
