//! The report as a person reads it.

use super::report::{AnswerRow, Report, Scenario, StallRow};
use std::fmt;

/// Writes the whole report.
///
/// # Errors
/// Only those of `out`.
pub(crate) fn text(report: &Report, out: &mut impl fmt::Write) -> fmt::Result {
    for scenario in &report.scenarios {
        one(scenario, out)?;
        writeln!(out)?;
    }
    let passed = report.scenarios.iter().filter(|s| s.passed).count();
    writeln!(
        out,
        "{}: {passed} of {} scenarios as expected on {}, seed {}, {}",
        word(report.passed),
        report.scenarios.len(),
        report.arch,
        report.seed,
        duration(report.elapsed_ns),
    )
}

fn word(ok: bool) -> &'static str {
    if ok { "PASS" } else { "FAIL" }
}

fn one(s: &Scenario, out: &mut impl fmt::Write) -> fmt::Result {
    writeln!(
        out,
        "{}  {}  {}",
        s.name,
        word(s.passed),
        duration(s.elapsed_ns)
    )?;
    devices(s, out)?;
    faults(s, out)?;
    answers(&s.answers, out)?;
    stalls(&s.stalls, out)?;
    if !s.losses.is_empty() {
        writeln!(out, "  lost or suppressed, exactly")?;
        for row in &s.losses {
            writeln!(out, "    {:>10}  {}", row.count, row.what)?;
        }
    }
    mistakes(s, out)?;
    if !s.host_log.is_empty() {
        writeln!(out, "  host log")?;
        for line in &s.host_log {
            writeln!(out, "    {line}")?;
        }
    }
    for check in &s.checks {
        let mark = if check.ok { "ok  " } else { "FAIL" };
        writeln!(out, "  {mark} {}  ({})", check.what, check.detail)?;
    }
    Ok(())
}

fn devices(s: &Scenario, out: &mut impl fmt::Write) -> fmt::Result {
    if s.devices.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  {:<8} {:<6} {:>7} {:>7} {:>9} {:>9} {:>9} {:>8} {:>8} {:>7} {:>8}",
        "device",
        "served",
        "done",
        "failed",
        "moved",
        "ATS",
        "TLB hits",
        "pages",
        "groups",
        "invals",
        "blocked"
    )?;
    for d in &s.devices {
        writeln!(
            out,
            "  {:<8} {:<6} {:>7} {:>7} {:>9} {:>9} {:>9} {:>8} {:>8} {:>7} {:>8}",
            d.device,
            d.served_by,
            d.done,
            d.failed,
            bytes(d.bytes),
            d.translations,
            d.atc_hits,
            d.pages_requested,
            d.groups,
            d.invalidations,
            d.blocked,
        )?;
    }
    Ok(())
}

fn faults(s: &Scenario, out: &mut impl fmt::Write) -> fmt::Result {
    if s.faults.is_empty() {
        return writeln!(out, "  no fault recorded");
    }
    let width = s.faults.iter().map(|f| f.name.len()).fold(8, usize::max);
    writeln!(
        out,
        "  {:<8} {:<5} {:<width$} {:>9}  {:<18} last address",
        "device", "code", "name", "recorded", "first address"
    )?;
    for f in &s.faults {
        writeln!(
            out,
            "  {:<8} {:<#5x} {:<width$} {:>9}  {:<#18x} {:#x}",
            f.device, f.code, f.name, f.count, f.first, f.last
        )?;
    }
    Ok(())
}

fn answers(rows: &[AnswerRow], out: &mut impl fmt::Write) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  {:<9} {:>8} {:>8} {:>8} {:>8} {:>5} {:>10} {:>10} {:>10}",
        "answered", "groups", "success", "invalid", "failure", "none", "p50", "p99", "max"
    )?;
    for a in rows {
        writeln!(
            out,
            "  {:<9} {:>8} {:>8} {:>8} {:>8} {:>5} {:>10} {:>10} {:>10}",
            format!("by {}", a.by),
            a.groups,
            a.success,
            a.invalid,
            a.failure,
            a.unanswered,
            duration(a.p50_ns),
            duration(a.p99_ns),
            duration(a.max_ns),
        )?;
    }
    Ok(())
}

fn stalls(rows: &[StallRow], out: &mut impl fmt::Write) -> fmt::Result {
    if rows.is_empty() {
        return Ok(());
    }
    writeln!(
        out,
        "  {:<9} {:>8} {:>8} {:>8} {:>8}",
        "device", "stalled", "retried", "aborted", "ignored"
    )?;
    for row in rows {
        writeln!(
            out,
            "  {:<9} {:>8} {:>8} {:>8} {:>8}",
            row.device, row.stalled, row.retried, row.aborted, row.ignored
        )?;
    }
    Ok(())
}

fn mistakes(s: &Scenario, out: &mut impl fmt::Write) -> fmt::Result {
    if s.mistakes.is_empty() {
        return Ok(());
    }
    writeln!(out, "  the guest's mistakes, and what it was told")?;
    let width = s.mistakes.iter().map(|m| m.name.len()).max().unwrap_or(0);
    for m in &s.mistakes {
        let mark = if m.ok { "ok  " } else { "FAIL" };
        writeln!(out, "  {mark} {:<width$}  {}", m.name, m.seen)?;
        if !m.ok {
            writeln!(out, "         expected {}", m.expected)?;
        }
        writeln!(out, "         device: {}", m.device)?;
        if !m.guest_log.is_empty() {
            writeln!(out, "         guest:  {}", m.guest_log)?;
        }
    }
    Ok(())
}

/// Nanoseconds with three figures.
pub(super) fn duration(nanos: u64) -> String {
    let scaled = |unit: u64, name: &str| {
        let whole = nanos / unit;
        let rest = nanos % unit * 1000 / unit;
        match whole {
            0..=9 => format!("{whole}.{:02} {name}", rest / 10),
            10..=99 => format!("{whole}.{:01} {name}", rest / 100),
            _ => format!("{whole} {name}"),
        }
    };
    match nanos {
        0..1_000 => format!("{nanos} ns"),
        1_000..1_000_000 => scaled(1_000, "us"),
        1_000_000..1_000_000_000 => scaled(1_000_000, "ms"),
        _ => scaled(1_000_000_000, "s"),
    }
}

/// Bytes in binary units.
fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..0x10_0000 => format!("{} KiB", count >> 10),
        0x10_0000..0x4000_0000 => {
            format!("{}.{} MiB", count >> 20, (count >> 10 & 1023) * 10 / 1024)
        }
        _ => format!("{}.{} GiB", count >> 30, (count >> 20 & 1023) * 10 / 1024),
    }
}

#[cfg(test)]
mod tests;
