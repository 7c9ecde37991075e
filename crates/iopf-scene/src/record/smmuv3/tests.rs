//! Records typed by hand from the field tables, and taken from public kernel logs.

use std::io;

use iommu_wire::smmuv3::event::Class;
use iopf::{Gpa, Iova, Pasid};

use crate::capture::Device;
use crate::log::{Arch, Detail, Form, Kind, Record, Wanted, decode_of};
use crate::record::{Fault, Faults, HexLine, HexReader};

/// A stalled write of stream 0x7501, substream 1, to 0xaaaada7af000, without privilege: what Linux
/// printed as `0x0000750100001810 0x0000120080000176 …` and then as `F_TRANSLATION … unpriv data write
/// s1 "Input address caused fault" stall stag: 0x176`. The last word is no IPA, as S2 is clear.
const STALLED: [u8; 32] = [
    0x10, 0x18, 0x00, 0x00, 0x01, 0x75, 0x00, 0x00, // number, SSV, SubstreamID; StreamID
    0x76, 0x01, 0x00, 0x80, 0x00, 0x12, 0x00, 0x00, // STAG, Stall; CLASS, bit 44
    0x00, 0xf0, 0x7a, 0xda, 0xaa, 0xaa, 0x00, 0x00, // InputAddr
    0x00, 0xf0, 0x7a, 0xda, 0xaa, 0xaa, 0x00, 0x00,
];

/// A privileged read of stream 0x108 met stage 2 without the right, for a table of stage 1.
const NESTED: [u8; 32] = [
    0x13, 0x00, 0x00, 0x00, 0x08, 0x01, 0x00, 0x00, // number; StreamID
    0x00, 0x00, 0x00, 0x00, 0x8a, 0x11, 0x00, 0x00, // PnU, RnW, S2, CLASS 1, TTRnW
    0x34, 0x12, 0x00, 0x00, 0x00, 0x7f, 0x00, 0x00, // InputAddr
    0x00, 0x10, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, // IPA
];

/// A stream table entry of stream 0x100 could not be read.
const FETCH: [u8; 32] = [
    0x03, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, //
    0x00, 0x40, 0x00, 0x80, 0x00, 0x00, 0x00, 0x00, // FetchAddr
];

/// Stream 0x108 asks for the page 0x7f0000001000 in substream 5, to read and write; group 3, last.
const PAGE: [u8; 16] = [
    0x08, 0x01, 0x00, 0x00, 0x05, 0x00, 0x00, 0xf0, // StreamID; SubstreamID, R W Last SSV
    0x03, 0x10, 0x00, 0x00, 0x00, 0x7f, 0x00, 0x00, // PRGIndex, page
];

fn fault(bytes: &[u8]) -> Fault {
    Faults::of(Arch::Smmuv3, bytes).next().flatten().unwrap()
}

fn decoded(input: &[u8], form: Form) -> (Vec<Record>, u64) {
    let mut records = Vec::new();
    let summary = decode_of(Arch::Smmuv3, io::Cursor::new(input), form, |record| {
        records.push(record);
        Ok(())
    })
    .expect("nothing fails in memory");
    (records, summary.not_faults)
}

#[test]
fn a_stalled_write_is_read_from_literal_bytes() {
    assert_eq!(
        fault(&STALLED),
        Fault {
            arch: Arch::Smmuv3,
            kind: Kind::Dma,
            device: Some(Device::Number(0x7501)),
            pasid: Pasid::new(1),
            address: Some(Iova(0xaaaa_da7a_f000)),
            access: Wanted::Write,
            privileged: Some(false),
            code: Some(0x10),
            index: None,
            flags: None,
            detail: Some(Detail {
                stage: Some(1),
                class: Some(Class::IN),
                ipa: None,
                fetch: None,
                stalled: Some(0x176),
            }),
        }
    );
    let record = fault(&STALLED).record(0, 1);
    assert_eq!(record.name.as_deref(), Some("F_TRANSLATION"));
    assert!(
        record.text.contains("until the driver resumes it"),
        "{}",
        record.text
    );
}

#[test]
fn a_fault_of_stage_2_keeps_the_address_it_refused() {
    let fault = fault(&NESTED);
    assert_eq!((fault.code, fault.pasid), (Some(0x13), None));
    assert_eq!((fault.access, fault.privileged), (Wanted::Read, Some(true)));
    let detail = fault.detail.unwrap();
    assert_eq!(detail.stage, Some(2));
    assert_eq!(
        (detail.class, detail.ipa),
        (Some(Class::TT), Some(Gpa(0x4000_1000)))
    );
}

#[test]
fn a_table_that_cannot_be_read_gives_its_address_and_none_of_the_request() {
    let fault = fault(&FETCH);
    assert_eq!((fault.kind, fault.code), (Kind::Hardware, Some(3)));
    assert_eq!((fault.address, fault.access), (None, Wanted::Unknown));
    assert_eq!(fault.privileged, None);
    assert_eq!(fault.detail.unwrap().fetch, Some(Gpa(0x8000_4000)));
}

#[test]
fn a_page_request_waits_for_its_answer() {
    let fault = fault(&PAGE);
    assert_eq!((fault.kind, fault.code), (Kind::PageRequest, None));
    assert_eq!(fault.device, Some(Device::Number(0x108)));
    assert_eq!(
        (fault.pasid, fault.privileged),
        (Pasid::new(5), Some(false))
    );
    assert_eq!(fault.address, Some(Iova(0x7f00_0000_1000)));
    let text = fault.record(0, 1).text;
    let said = "StreamID 0x108 sent a page request for writing at 0x7f0000001000 in substream 0x5; it waits until the driver answers with CMD_PRI_RESP";
    assert!(text.starts_with(said), "{text}");
}

#[test]
fn events_and_page_requests_of_one_file_are_told_apart() {
    let mut unknown = FETCH;
    unknown[0] = 0xe0;
    let input = [&STALLED[..], &PAGE, &[0; 32], &NESTED, &unknown, &FETCH].concat();
    for form in [Form::Binary, Form::Detect] {
        let (records, nothing) = decoded(&input, form);
        let kinds: Vec<Kind> = records.iter().map(|record| record.kind).collect();
        assert_eq!(
            kinds,
            [Kind::Dma, Kind::PageRequest, Kind::Dma, Kind::Hardware]
        );
        assert_eq!(nothing, 4, "two empty slots, an unknown event of two");
    }
}

#[test]
fn every_way_to_write_an_event_in_hex_gives_the_same() {
    let expected = fault(&STALLED);
    for form in [
        "10 18 00 00 01 75 00 00 76 01 00 80 00 12 00 00 00 f0 7a da aa aa 00 00 00 f0 7a da aa aa 00 00",
        "10180000017500007601008000120000 00f07adaaaaa000000f07adaaaaa0000",
        "1018000001750000760100800012000000f07adaaaaa000000f07adaaaaa0000",
        "0x0000750100001810 0x0000120080000176 0x0000aaaada7af000 0x0000aaaada7af000",
        "00001810 00007501 80000176 00001200 da7af000 0000aaaa da7af000 0000aaaa",
        "0000aaaada7af0000000aaaada7af00000001200800001760000750100001810",
    ] {
        let line = HexReader::of(Arch::Smmuv3).line(form.as_bytes());
        assert_eq!(line, HexLine::Fault(expected), "{form}");
        let (records, _) = decoded(form.as_bytes(), Form::Detect);
        assert_eq!(records.len(), 1, "not found by itself: {form}");
    }
}

#[test]
fn an_event_on_two_lines_is_one_record_of_the_first() {
    let dump = "\
00000000: 1018 0000 0175 0000 7601 0080 0012 0000  .....u..v.......
00000010: 00f0 7ada aaaa 0000 00f0 7ada aaaa 0000  ..z.......z.....
00000020: 0801 0000 0500 00f0 0310 0000 007f 0000  ................
00000030: 0300 0000 0001 0000 0000 0000 0000 0000  ................
00000040: 0000 0000 0000 0000 0040 0080 0000 0000  .........@......
";
    let (records, nothing) = decoded(dump.as_bytes(), Form::Detect);
    let found: Vec<(u64, Kind)> = records.iter().map(|r| (r.line, r.kind)).collect();
    assert_eq!(
        found,
        [(1, Kind::Dma), (3, Kind::PageRequest), (4, Kind::Hardware)]
    );
    assert_eq!(records[0].address, Some(Iova(0xaaaa_da7a_f000)));
    assert_eq!(nothing, 0);
}

#[test]
fn a_first_half_without_its_second_is_no_record() {
    let (records, _) = decoded(
        b"1018 0000 0175 0000 7601 0080 0012 0000\nhello\n00f0 7ada aaaa 0000 00f0 7ada aaaa 0000\n",
        Form::Hex,
    );
    assert_eq!(records, []);
}

#[test]
fn an_smmuv2_has_no_records() {
    let mut faults = Faults::of(Arch::Smmuv2, &STALLED);
    assert_eq!(faults.next(), Some(None));
    assert_eq!(
        HexReader::of(Arch::Smmuv2).line(b"0x0000750100001810 0x0000120080000176"),
        HexLine::Nothing
    );
}
