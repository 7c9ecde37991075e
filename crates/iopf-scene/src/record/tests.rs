//! Raw records, typed by hand from the field tables and checked against Linux's masks.

use std::io;

use iopf::{Iova, Pasid};

use super::{Faults, HexLine, HexReader};
use crate::log::{Arch, Form, Kind, Record, Wanted, decode, decode_of};

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

/// AMD-Vi: a write of 01:00.0 in domain 0xd to 0xcff49550 lacked the right. Typed by hand: dword 0 is
/// the device, dword 1 code 2, flags 0x070 and the domain, dwords 2 and 3 the address. Linux
/// `iommu_print_event` takes the code from bits 31:28 of dword 1 and the flags from 27:16.
const EVENT: [u8; 16] = [
    0x00, 0x01, 0x00, 0x00, // device 01:00.0
    0x0d, 0x00, 0x70, 0x20, // domain 0xd, PR RW PE, IO_PAGE_FAULT
    0x50, 0x95, 0xf4, 0xcf, 0x00, 0x00, 0x00, 0x00,
];

/// AMD-Vi: 00:05.0 asks for the page 0x7f001000 in PASID 0x10005, to read and write, as a user; group 3,
/// last. Linux `PPR_…`: PASID in 31:16 and 45:42, tag in 40:32, last in 41, flags in 59:48.
const PPR: [u8; 16] = [
    0x28, 0x00, 0x05, 0x00, // device 00:05.0, PASID 15:0
    0x03, 0x06, 0x64, 0x11, // group 3, last, PASID 19:16; READ WRITE US GN, code 1
    0x00, 0x10, 0x00, 0x7f, 0x00, 0x00, 0x00, 0x00,
];

fn amdvi(bytes: &[u8]) -> super::Fault {
    Faults::of(Arch::Amdvi, bytes).next().flatten().unwrap()
}

#[test]
fn an_amd_vi_event_is_read_from_literal_bytes() {
    let fault = amdvi(&EVENT);
    assert_eq!((fault.kind, fault.code), (Kind::Dma, Some(2)));
    assert_eq!(fault.device.unwrap().to_string(), "0000:01:00.0");
    assert_eq!(fault.address, Some(Iova(0xcff4_9550)));
    assert_eq!((fault.access, fault.pasid), (Wanted::Write, None));
    let flags = fault.flags.unwrap();
    assert!(flags.pr && flags.rw && flags.pe && !flags.gn && !flags.rz && !flags.i && !flags.tr);
    let record = fault.record(0, 1);
    assert_eq!(record.name.as_deref(), Some("IO_PAGE_FAULT"));
    assert!(
        record
            .text
            .starts_with("0000:01:00.0 was refused a write to 0xcff49550: ")
    );
}

#[test]
fn a_page_request_of_the_ppr_log_is_told_from_an_illegal_entry() {
    let fault = amdvi(&PPR);
    assert_eq!((fault.kind, fault.code), (Kind::PageRequest, None));
    assert_eq!(fault.device.unwrap().to_string(), "0000:00:05.0");
    assert_eq!(fault.pasid.map(Pasid::get), Some(0x1_0005));
    assert_eq!(fault.address, Some(Iova(0x7f00_1000)));
    assert_eq!(
        (fault.access, fault.privileged),
        (Wanted::Write, Some(false))
    );
    assert!(
        fault
            .record(0, 1)
            .text
            .contains("sent a page request for writing at 0x7f001000")
    );
    // ILLEGAL_DEV_TABLE_ENTRY: RW and RZ, which no page request of a user lacks US with.
    let mut illegal = EVENT;
    illegal[4..8].copy_from_slice(&[0x00, 0x00, 0xa0, 0x10]);
    let fault = amdvi(&illegal);
    assert_eq!((fault.kind, fault.code), (Kind::Configuration, Some(1)));
    assert!(fault.flags.unwrap().rz);
}

#[test]
fn amd_vi_events_of_commands_have_no_device_and_those_of_page_requests_their_own_pasid() {
    let mut command = EVENT;
    command[..8].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x50]);
    let fault = amdvi(&command);
    assert_eq!((fault.device, fault.flags), (None, None));
    assert_eq!((fault.kind, fault.code), (Kind::Command, Some(5)));
    // INVALID_PPR_REQUEST: PASID 5 in bits 31:16, GN is bit 57.
    let mut request = PPR;
    request[4..8].copy_from_slice(&[0x03, 0x02, 0x00, 0x92]);
    let fault = amdvi(&request);
    assert_eq!((fault.kind, fault.code), (Kind::PageRequest, Some(9)));
    assert_eq!(fault.pasid.map(Pasid::get), Some(5));
    // An empty slot and an unknown code.
    assert_eq!(Faults::of(Arch::Amdvi, &[0; 16]).next(), Some(None));
    command[7] = 0xb0;
    assert_eq!(Faults::of(Arch::Amdvi, &command).next(), Some(None));
}

#[test]
fn every_way_to_write_an_amd_vi_event_in_hex_gives_the_same() {
    let expected = amdvi(&EVENT);
    for form in [
        "00 01 00 00 0d 00 70 20 50 95 f4 cf 00 00 00 00",
        "0000:  00 01 00 00 0d 00 70 20  50 95 f4 cf 00 00 00 00  |....|",
        "0x00000100 0x2070000d 0xcff49550 0x00000000",
        "2070000d00000100 00000000cff49550",
        "00000000cff495502070000d00000100",
    ] {
        let line = HexReader::of(Arch::Amdvi).line(form.as_bytes());
        assert_eq!(line, HexLine::Fault(expected), "{form}");
    }
}

#[test]
fn a_log_of_amd_vi_entries_is_detected_in_binary_and_in_hex() {
    let binary = [EVENT, [0; 16], PPR].concat();
    let hex = "00 01 00 00 0d 00 70 20 50 95 f4 cf 00 00 00 00\n28 00 05 00 03 06 64 11 00 10 00 7f 00 00 00 00\n";
    for (input, slots) in [(binary.as_slice(), 3), (hex.as_bytes(), 2)] {
        let mut kinds = Vec::new();
        let summary = decode_of(
            Arch::Amdvi,
            io::Cursor::new(input),
            Form::Detect,
            |record| {
                assert_eq!(record.arch, Arch::Amdvi);
                kinds.push(record.kind);
                Ok(())
            },
        )
        .unwrap();
        assert_eq!(kinds, [Kind::Dma, Kind::PageRequest]);
        assert_eq!((summary.records, summary.lines), (2, slots));
    }
}
