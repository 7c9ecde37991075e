//! Raw records, typed by hand from the field tables and checked against Linux's masks.

use std::io;

use iopf::{Iova, Pasid};

use super::{Faults, HexLine, HexReader};
use crate::log::{Form, Kind, Record, Wanted, decode};

/// A write of 00:14.0 to page 0xffcda000 met an entry without write permission.
const WRITE: [u8; 16] = [
    0x00, 0xa0, 0xcd, 0xff, 0, 0, 0, 0, // FI
    0xa0, 0x00, 0x00, 0x00, // SID
    0x05, 0x00, 0x00, 0x80, // FR, PASID, AT, T1, F
];

/// A read of 6a:00.0 in PASID 0x12345, privileged, for execution.
const EXEC: [u8; 16] = [
    0x00, 0x00, 0x20, 0xab, 0x7d, 0x7f, 0, 0, // FI
    0x00, 0x6a, 0x00, 0xe0, // SID, PRIV, EXE, PP
    0x82, 0x45, 0x23, 0xc1, // FR, PASID, AT 0, T1, F
];

/// An interrupt of f0:1f.0 with index 0x1a met an entry that is not present.
const INTERRUPT: [u8; 16] = [
    0, 0, 0, 0, 0, 0, 0x1a, 0x00, // index
    0xf8, 0xf0, 0x00, 0x00, // SID
    0x22, 0x00, 0x00, 0x80, // FR, F
];

/// A page request of 6a:00.0 in PASID 5 for writing, last of its group.
const PAGE: [u8; 32] = [
    0x01, 0x01, 0x00, 0x6a, 0x05, 0x00, 0x00, 0x00, // type, PP, RID, PASID
    0x06, 0x00, 0xad, 0xde, 0xff, 0x7f, 0x00, 0x00, // W, L, group 0, page 0x7fffdead0000
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];

fn decoded(input: &[u8], form: Form) -> (Vec<Record>, u64) {
    let mut records = Vec::new();
    let summary = decode(io::Cursor::new(input), form, |record| {
        records.push(record);
        Ok(())
    })
    .expect("nothing fails in memory");
    (records, summary.not_faults)
}

#[test]
fn field_positions_agree_with_the_linux_driver() {
    // `dma_frcd_*` of drivers/iommu/intel/iommu.h, applied to the third and fourth 32-bit word.
    let word = |bytes: &[u8; 16], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    for (bytes, code, source, read) in [
        (&WRITE, 5, 0x00a0, 0),
        (&EXEC, 0x82, 0x6a00, 1),
        (&INTERRUPT, 0x22, 0xf0f8, 0),
    ] {
        assert_eq!(word(bytes, 12) >> 31, 1);
        assert_eq!(word(bytes, 12) & 0xff, code);
        assert_eq!(word(bytes, 12) >> 30 & 1, read);
        assert_eq!(word(bytes, 8) & 0xffff, source);
    }
    assert_eq!(word(&EXEC, 12) >> 8 & 0xf_ffff, 0x1_2345);
    assert_eq!(word(&EXEC, 8) >> 31, 1);
}

#[test]
fn binary_records_tell_themselves_apart() {
    let empty = [0; 16];
    let input = [&WRITE[..], &PAGE, &empty, &EXEC, &INTERRUPT, &[0; 5]].concat();
    let (records, not_faults) = decoded(&input, Form::Detect);
    let kinds: Vec<Kind> = records.iter().map(|record| record.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::Dma,
            Kind::PageRequest,
            Kind::Dma,
            Kind::InterruptRemapping
        ]
    );
    assert_eq!(not_faults, 1);
    let [write, page, exec, interrupt] = records.as_slice() else {
        panic!("four records");
    };
    assert_eq!(
        write.device.map(|d| d.to_string()).as_deref(),
        Some("0000:00:14.0")
    );
    assert_eq!(
        (write.address, write.code),
        (Some(Iova(0xffcd_a000)), Some(5))
    );
    assert_eq!(
        (write.access, write.pasid, write.privileged),
        (Wanted::Write, None, None)
    );
    assert_eq!(write.name.as_deref(), Some("PTE Write access is not set"));
    assert_eq!(
        page.device.map(|d| d.to_string()).as_deref(),
        Some("0000:6a:00.0")
    );
    assert_eq!((page.pasid, page.code), (Pasid::new(5), None));
    assert_eq!(
        (page.address, page.access),
        (Some(Iova(0x7fff_dead_0000)), Wanted::Write)
    );
    assert_eq!((exec.access, exec.privileged), (Wanted::Exec, Some(true)));
    assert_eq!((exec.pasid, exec.line), (Pasid::new(0x1_2345), 4));
    assert_eq!((interrupt.index, interrupt.address), (Some(0x1a), None));
    assert_eq!(interrupt.access, Wanted::Unknown);
}

#[test]
fn hexadecimal_comes_in_many_forms() {
    let forms = [
        "00 a0 cd ff 00 00 00 00 a0 00 00 00 05 00 00 80",
        "00a0cdff00000000a000000005000080",
        "0x80000005000000a000000000ffcda000",
        "0x80000005000000a0_00000000ffcda000",
        "00000000ffcda000 80000005000000a0",
        "0x80000005000000a0 0x00000000ffcda000",
        "ffcda000 00000000 000000a0 80000005",
        "0x80000005, 0x000000a0, 0x00000000, 0xffcda000",
        "00000000  00 a0 cd ff 00 00 00 00  a0 00 00 00 05 00 00 80  |................|",
        "00000000: 00a0 cdff 0000 0000 a000 0000 0500 0080  ................",
        "0000000 a000 ffcd 0000 0000 00a0 0000 0005 8000",
        "[   12.345678] FRCD: 0x00000000ffcda000 0x80000005000000a0",
        "lo=0x00000000ffcda000 hi=0x80000005000000a0",
        "00:a0:cd:ff:00:00:00:00:a0:00:00:00:05:00:00:80",
        "\\x00\\xa0\\xcd\\xff\\x00\\x00\\x00\\x00\\xa0\\x00\\x00\\x00\\x05\\x00\\x00\\x80",
        "fed90220 ffcda000 00000000 000000a0 80000005",
        "00000000fed90220: 0xffcda000 0x00000000 0x000000a0 0x80000005",
    ];
    let expected = Faults::new(&WRITE).next().flatten();
    for form in forms {
        let line = HexReader::default().line(form.as_bytes());
        let HexLine::Fault(fault) = line else {
            panic!("no record: {form}");
        };
        assert_eq!(Some(fault), expected, "{form}");
        let (records, _) = decoded(form.as_bytes(), Form::Detect);
        assert_eq!(records.len(), 1, "not found by itself: {form}");
    }
}

#[test]
fn a_line_may_hold_several_records_and_a_dump_ends_in_its_length() {
    let hex: String = [&WRITE[..], &PAGE, &[0; 16], &EXEC]
        .concat()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let spaced: Vec<&str> = hex
        .as_bytes()
        .chunks(2)
        .map(|two| std::str::from_utf8(two).unwrap())
        .collect();
    for line in [hex.clone(), spaced.join(" ")] {
        let (records, not_faults) = decoded(line.as_bytes(), Form::Detect);
        let kinds: Vec<Kind> = records.iter().map(|record| record.kind).collect();
        assert_eq!(kinds, [Kind::Dma, Kind::PageRequest, Kind::Dma], "{line}");
        assert_eq!(not_faults, 0);
    }
    let dump = "00000000  00 a0 cd ff 00 00 00 00  a0 00 00 00 05 00 00 80  |................|\n00000010\n";
    let (records, not_faults) = decoded(dump.as_bytes(), Form::Detect);
    assert_eq!((records.len(), not_faults), (1, 1));
}

#[test]
fn empty_registers_before_the_first_record_do_not_hide_it() {
    let input = [&[0; 48][..], &WRITE].concat();
    let (records, not_faults) = decoded(&input, Form::Detect);
    assert_eq!((records.len(), not_faults), (1, 3));
    assert_eq!(records[0].line, 4);
}

#[test]
fn a_descriptor_on_two_lines_is_one_record() {
    let dump = "00000000  01 01 00 6a 05 00 00 00  06 00 ad de ff 7f 00 00\n\
                00000010  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00\n\
                00000020  00 00 00 00 00 00 00 00  00 00 00 00 00 00 00 00\n";
    let (records, not_faults) = decoded(dump.as_bytes(), Form::Hex);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].pasid, Pasid::new(5));
    assert_eq!(not_faults, 1, "the third line is an empty register");
}

#[test]
fn empty_registers_and_text_are_no_faults() {
    for line in [
        "00000000 00000000 00000000 00000000",
        "hello",
        "",
        "0x12",
        "zz zz",
    ] {
        assert_eq!(
            HexReader::default().line(line.as_bytes()),
            HexLine::Nothing,
            "{line}"
        );
    }
}
