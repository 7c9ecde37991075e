//! Page requests that Linux refuses.
//!
//! Linux `drivers/iommu/intel/prq.c` (before 6.12 `svm.c`) prints the descriptor as two raw words,
//! and since 5.18 why it refuses it on a line before: one message.

use std::borrow::Cow;

use iommu_wire::vtd::page_request::RawDescriptor;
use memchr::memmem;

use crate::log::cursor::{Cursor, Number};
use crate::log::message::Fields;
use crate::log::normal::{Arch, Kind};
use crate::record;

/// A line about a refused page request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::log) enum Report {
    /// Why; the descriptor follows on a line of its own.
    Why(Fields),
    /// The descriptor, and why where the line says so.
    What(Fields),
}

/// The words that stand between the IOMMU's name and the descriptor or the end of the line.
const WORDS: [&str; 7] = [
    "Invalid page request",
    "Page request without PASID",
    "Page request for invalid PASID",
    "Page request in Privilege Mode",
    "Unexpected page request in Privilege Mode",
    "Execution request not supported",
    "Address is not canonical",
];

/// Reads a line about a refused page request; gives also where it begins.
pub(in crate::log) fn page_report(line: &[u8]) -> Option<(usize, Report)> {
    memmem::find(line, b"dmar")?;
    let (at, words) = WORDS
        .iter()
        .filter_map(|words| memmem::find(line, words.as_bytes()).map(|at| (at, *words)))
        .min()?;
    let iommu = name_before(line.get(..at)?)?;
    let mut fields = Fields::new(Arch::Vtd, Kind::PageRequest);
    fields.iommu = Some(iommu);
    fields.name = Some(Cow::Borrowed(words));
    let mut cursor = Cursor::new(line, at + words.len());
    // "for invalid PASID 5:"; the descriptor has it too.
    if cursor.rest().first() != Some(&b':') {
        cursor.blanks();
        cursor.word();
    } else {
        cursor.skip(1);
    }
    cursor.blanks();
    if cursor.rest().is_empty() {
        return Some((at, Report::Why(fields)));
    }
    let head = cursor.padded_hex();
    cursor.blanks();
    let request = cursor.padded_hex();
    if cursor.rest().starts_with(b"%") {
        return None;
    }
    describe(&mut fields, head, request);
    Some((at, Report::What(fields)))
}

/// Fills in what the raw words of a descriptor say.
fn describe(fields: &mut Fields, head: Number, request: Number) {
    let (Number::Whole(head), Number::Whole(request) | Number::AtEnd(request)) = (head, request)
    else {
        return;
    };
    let raw = RawDescriptor {
        head: head.into(),
        request: request.into(),
        ..RawDescriptor::default()
    };
    if let Some(fault) = record::page_request(&raw) {
        fields.device = fault.device;
        fields.pasid = fault.pasid;
        fields.address = fault.address;
        fields.access = fault.access;
        fields.privileged = fault.privileged;
    }
}

/// `dmar0` of `DMAR: IOMMU: dmar0: `.
fn name_before(before: &[u8]) -> Option<String> {
    let before = before.trim_ascii_end().strip_suffix(b":")?;
    let word = before.rsplit(|byte| !byte.is_ascii_alphanumeric()).next()?;
    word.starts_with(b"dmar")
        .then(|| String::from_utf8_lossy(word).into_owned())
}
