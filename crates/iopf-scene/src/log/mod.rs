//! Kernel logs as people paste them, and raw records, in one normal form.
//!
//! [`decode`] reads any input and gives one [`Record`] a fault message, then a [`Summary`];
//! [`Decoder`] is the same for a caller who has the lines.
//!
//! # What counts as what
//! - A *fault message* is what the kernel prints for one fault record: one line, or the two of old
//!   kernels, or the reason and the descriptor of a refused page request, together with the tables
//!   printed for it (after an AMD-Vi event: the device table entry, or the command). Pasted logs break
//!   it over lines or put several on one; it stays one record.
//! - `lines` are the lines of the input, blank ones too, the last one also without a line feed.
//! - `not_faults` are the lines of which no part belongs to a fault message: status headers
//!   (`DRHD: handling fault status reg`), counts of suppressed messages, errors of the invalidation
//!   queue (`VT-d detected Invalidation Time-out Error`, which are the driver's), AMD-Vi's
//!   `Completion-Wait loop timed out` and `IOMMU Event log restarting`, SMMUv3's `unexpected global error
//!   reported`, `CMD_SYNC timeout` and `EVTQ overflow detected`, everything else.
//!   So `lines - not_faults` is the number of records if each has a line of its own.
//! - `suppressed` adds up `dmar_fault: N callbacks suppressed`, and the same of the functions that
//!   print AMD-Vi's events, `amd_iommu_report_page_fault` first of all, and those of Arm's SMMUs.
//! - `time` is in UTC where the log tells the instant, else the stamp as printed without its
//!   brackets: `12.345678`, `Jun 10 12:00:00`, `Mon Jun 10 12:00:00 2024`. Where a line has two, the
//!   first. `first` and `last` are those of the first and the last record that have one.
//! - A second half without its first is a record of what it says, and a first half without its
//!   second likewise. Which of several first halves a second half belongs to is told by the kernel's
//!   stamp, which both have; else by their order if none is missing; else it is the nearest before.
//! - Where a cut or damaged number could be a part of the real one, it is `None`.
//!
//! # Adding an architecture
//! `decoder` joins lines to messages; `vtd` and `amdvi` find and read the messages of one IOMMU, and
//! `dialect` asks them in turn. Another dialect brings its own `find_start` and `scan`, and its
//! entries in [`Arch`] and [`Kind`]. Where a message is several lines that each name the driver, as in
//! `arm`, `decoder/lines.rs` puts it together.

mod advice;
pub(crate) mod amdvi;
pub(crate) mod arm;
mod clean;
mod cursor;
mod decoder;
mod dialect;
mod dump;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod journal;
mod message;
pub(crate) mod names;
mod normal;
mod stamp;
mod values;
mod vtd;
mod waiting;

pub use crate::capture::Device;
pub use advice::text_of;
pub use decoder::Decoder;
pub use dump::Dump;
pub use normal::{Arch, Detail, Flags, Kind, Record, Summary, SummaryObject, Wanted};

use std::io::{self, BufRead};

use crate::record::{Faults, HexLine, HexReader, looks_raw};

/// What an input is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Find out from how it begins.
    #[default]
    Detect,
    /// Lines of a log, or JSON lines of a journal.
    Log,
    /// Raw records as hexadecimal text.
    Hex,
    /// Raw records.
    Binary,
}

/// Bytes of a line that are kept; the rest of a longer one is passed over.
const LINE: usize = 256 * 1024;

/// Decodes all of `input`, giving each record to `sink` as soon as it is complete. Raw records are
/// those of VT-d.
///
/// Memory is bounded whatever the input: one line, and the messages under way.
///
/// # Errors
/// Those of reading `input`, and those that `sink` returns.
pub fn decode(
    input: impl BufRead,
    form: Form,
    sink: impl FnMut(Record) -> io::Result<()>,
) -> io::Result<Summary> {
    decode_of(Arch::Vtd, input, form, sink)
}

/// The same, with raw records being those of `arch`. Lines of a log say themselves whose they are.
///
/// # Errors
/// Those of [`decode`].
pub fn decode_of(
    arch: Arch,
    mut input: impl BufRead,
    form: Form,
    mut sink: impl FnMut(Record) -> io::Result<()>,
) -> io::Result<Summary> {
    let form = match form {
        Form::Detect => detect(arch, input.fill_buf()?),
        form => form,
    };
    match form {
        Form::Binary => binary(arch, input, &mut sink),
        Form::Hex => hex(arch, input, &mut sink),
        Form::Detect | Form::Log => text(input, &mut sink),
    }
}

/// What an input that begins with `bytes` is made of, if raw records are those of `arch`.
#[must_use]
pub fn detect(arch: Arch, bytes: &[u8]) -> Form {
    let bytes = bytes.get(..4096).unwrap_or(bytes);
    let odd = bytes
        .iter()
        .filter(|&&byte| byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r' | 0x1b))
        .count();
    if odd * 8 > bytes.len() && looks_raw(arch, bytes) {
        return Form::Binary;
    }
    let mut reader = HexReader::of(arch);
    let lines: Vec<&[u8]> = bytes
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty() && !HexReader::is_offset(line))
        .take(64)
        .collect();
    let dumps = lines.iter().filter(|line| reader.is_dump(line)).count();
    let marked = |line: &&[u8]| dialect::marked(line) || arm::marked(line);
    let log = lines.iter().any(marked);
    let mut records = lines.iter().map(|line| reader.line(line));
    if !log && dumps * 2 > lines.len() && records.any(|line| matches!(line, HexLine::Fault(_))) {
        return Form::Hex;
    }
    Form::Log
}

fn text(
    mut input: impl BufRead,
    sink: &mut impl FnMut(Record) -> io::Result<()>,
) -> io::Result<Summary> {
    let mut decoder = Decoder::new();
    let mut line = Vec::new();
    while next_line(&mut input, &mut line)? {
        decoder.handle_line(&line);
        while let Some(record) = decoder.poll_record() {
            sink(record)?;
        }
    }
    let summary = decoder.finish();
    while let Some(record) = decoder.poll_record() {
        sink(record)?;
    }
    Ok(summary)
}

fn hex(
    arch: Arch,
    mut input: impl BufRead,
    sink: &mut impl FnMut(Record) -> io::Result<()>,
) -> io::Result<Summary> {
    let (mut reader, mut summary, mut line) = (HexReader::of(arch), Summary::default(), Vec::new());
    let mut begun = None;
    while next_line(&mut input, &mut line)? {
        summary.lines += 1;
        let slots = reader.lines(line.trim_ascii());
        summary.not_faults += u64::from(slots.iter().all(|slot| *slot == HexLine::Nothing));
        for slot in slots {
            let line = begun.take().unwrap_or(summary.lines);
            if slot == HexLine::Begun {
                begun = Some(summary.lines);
            }
            if let HexLine::Fault(fault) = slot {
                let record = fault.record(summary.records, line);
                summary.count(&record);
                sink(record)?;
            }
        }
    }
    Ok(summary)
}

fn binary(
    arch: Arch,
    mut input: impl BufRead,
    sink: &mut impl FnMut(Record) -> io::Result<()>,
) -> io::Result<Summary> {
    let mut summary = Summary::default();
    let mut buffer = Vec::new();
    loop {
        let read = input.fill_buf()?;
        let (used, ended) = (read.len(), read.is_empty());
        buffer.extend_from_slice(read);
        input.consume(used);
        let mut faults = Faults::of(arch, &buffer);
        for slot in &mut faults {
            summary.lines += 1;
            match slot {
                Some(fault) => {
                    let record = fault.record(summary.records, summary.lines);
                    summary.count(&record);
                    sink(record)?;
                }
                None => summary.not_faults += 1,
            }
        }
        let rest = faults.rest().len();
        buffer.drain(..buffer.len() - rest);
        if ended {
            return Ok(summary);
        }
    }
}

/// Reads the next line into `line`, without its line feed and at most [`LINE`] bytes of it; `false`
/// at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut any = false;
    loop {
        let read = match input.fill_buf() {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if read.is_empty() {
            // The other half of the last line feed of UTF-16 is no line.
            return Ok(any && *line != [0]);
        }
        any = true;
        let end = memchr::memchr(b'\n', read);
        let part = read.get(..end.unwrap_or(read.len())).unwrap_or(read);
        let room = LINE.saturating_sub(line.len());
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        let used = end.map_or(read.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests;
