//! A plain function over bytes, for a fuzzer and for the tests over its corpus.

use std::io::BufReader;

use super::{Arch, Form, Record, Summary, decode_of};

/// Decodes `data` as a log, as a hex dump and as binary records.
///
/// # Panics
/// Where a promise of [`decode_of`] is broken.
pub fn log(data: &[u8]) {
    for (arch, form) in [
        (Arch::Vtd, Form::Log),
        (Arch::Vtd, Form::Hex),
        (Arch::Vtd, Form::Binary),
        (Arch::Amdvi, Form::Hex),
        (Arch::Amdvi, Form::Binary),
        (Arch::Smmuv3, Form::Hex),
        (Arch::Smmuv3, Form::Binary),
    ] {
        let whole = all(arch, data, form, 8192);
        // How the input arrives makes no difference.
        assert_eq!(whole, all(arch, data, form, 3));
        check(data, &whole.0, &whole.1);
    }
}

fn all(arch: Arch, data: &[u8], form: Form, chunk: usize) -> (Vec<Record>, Summary) {
    let mut records = Vec::new();
    let summary = decode_of(
        arch,
        BufReader::with_capacity(chunk, data),
        form,
        |record| {
            records.push(record);
            Ok(())
        },
    )
    .unwrap_or_default();
    (records, summary)
}

fn check(data: &[u8], records: &[Record], summary: &Summary) {
    assert_eq!(summary.records, records.len() as u64);
    assert!(summary.not_faults <= summary.lines);
    assert!(summary.lines <= data.len() as u64);
    // A message has a head or a number of its own.
    assert!(records.len() <= data.len() / 8);
    let mut line = 1;
    for (number, record) in records.iter().enumerate() {
        assert_eq!(record.record, number as u64);
        assert!(record.line >= line, "records are in the order of the log");
        line = record.line;
        assert!(line <= summary.lines);
        // SMMUv2 has a status register of 32 bits for a code.
        assert!(record.arch == Arch::Smmuv2 || record.code.is_none_or(|code| code <= 0xff));
        assert!(record.index.is_none_or(|index| index <= 0xffff));
        assert!(record.text.ends_with('.') && !record.text.contains('\n'));
        assert!(
            record.text.len() < 2048 && record.name.as_ref().is_none_or(|name| name.len() < 1024)
        );
    }
}
