use super::*;
use iopf::Access;

fn parse(text: &str) -> Capture {
    Capture::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str) -> String {
    match Capture::parse(text.as_bytes()) {
        Ok(capture) => panic!("taken: {capture:?}"),
        Err(error) => error.to_string(),
    }
}

/// Every key that a VT-d capture has.
const FULL: &str = r#"{ "iopf_capture": 1,
  "arch": "vtd",
  "note": "free text, \u00e9\ud83d\ude00",
  "registers": { "GSTS_REG": "0x80000000", "RTADDR_REG": "0x10400", "HAW": "0x30" },
  "memory_base": "0x0", "memory_limit": "0x1000000",
  "memory": [ { "addr": "0x20000", "words": ["0x0000000000012001", "0xFF"] },
              { "addr": "0x10003", "data": "01aBff" } ],
  "aborts": [ { "addr": "0x18000", "len": "0x8" } ],
  "requests": [ { "device": "0001:00:05.3", "pasid": 5, "type": "page_request",
                  "addr": "0x7f001000", "access": "rwxp", "no_write": false, "group": 3, "last": true },
                { "device": "ff:1f.7", "addr": "0x10", "access": "w", "len": "0x8" } ],
  "expect": [ { "outcome": "translated", "pa": "0x1", "perms": "rw", "writes": [] },
              { "outcome": "fault", "code": [121, 122], "record": "00ff", "record_mask": "ff00" } ] }"#;

#[test]
fn every_key_of_the_format_is_read() {
    let capture = parse(FULL);
    assert_eq!(capture.arch, Arch::Vtd);
    assert_eq!(capture.note, "free text, é😀");
    assert_eq!(capture.registers.get("RTADDR_REG"), Some(0x10400));
    assert_eq!(capture.registers.get("CAP_REG"), None);
    assert_eq!(capture.memory_limit, Some(Gpa(0x100_0000)));
    assert_eq!(capture.memory[0].addr, Gpa(0x10003));
    assert_eq!(capture.memory[0].data, [1, 0xab, 0xff]);
    assert_eq!(
        capture.memory[1].data,
        [1, 0x20, 1, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(capture.aborts[0].len, 8);
    let Device::Pci { segment, rid } = capture.requests[0].device else {
        panic!("no PCI address");
    };
    assert_eq!((segment, rid.0), (1, 0x2b));
    assert_eq!(capture.requests[0].pasid.map(iopf::Pasid::get), Some(5));
    assert_eq!(capture.requests[0].kind, RequestKind::PageRequest);
    assert_eq!(
        capture.requests[0].access,
        Access::RW | Access::EXEC | Access::PRIV
    );
    assert_eq!(capture.requests[0].group, GroupIndex(3));
    assert!(capture.requests[0].last);
    assert_eq!(capture.requests[1].kind, RequestKind::Untranslated);
    assert_eq!(capture.requests[1].len, 8);
    assert_eq!(capture.requests[1].device.to_string(), "0000:ff:1f.7");
    assert_eq!(capture.expect.len(), 2);
}

#[test]
fn what_is_written_is_read_back_the_same() {
    let capture = parse(FULL);
    assert_eq!(parse(&capture.to_line()), capture);
    assert!(!capture.to_line().contains('\n'));
    assert_eq!(parse(&capture.to_text()), capture);
    let packed = Capture::parse(&capture.to_gzip()).unwrap();
    assert_eq!(packed, capture);
}

#[test]
fn a_builder_joins_neighbouring_words_and_writes_what_a_reader_takes() {
    let mut builder = Builder::new(Arch::Vtd);
    builder.note("quotes \" and \\ and\nnew lines");
    assert!(builder.register("HAW", 48));
    assert!(!builder.register("ddtp", 1));
    assert!(builder.word(Gpa(0x1008), 2));
    assert!(builder.word(Gpa(0x1000), 1));
    assert!(builder.word(Gpa(u64::MAX - 7), 3));
    assert!(!builder.word(Gpa(0x1001), 3));
    builder.abort(Gpa(0x2000), 16);
    builder.memory_bounds(Gpa(0), Gpa(0x1_0000));
    assert!(builder.request(parse(FULL).requests[0]));
    let capture = builder.build();
    assert_eq!(capture.memory.len(), 2);
    assert_eq!(capture.memory[0].data.len(), 16);
    assert_eq!(parse(&capture.to_line()), capture);
}

/// `FULL` with one thing changed.
fn with(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from}");
    refused(&FULL.replacen(from, to, 1))
}

#[test]
fn an_unknown_key_is_named_with_its_place() {
    let mut wrong = Vec::new();
    for (from, to, said) in [
        (
            "\"note\"",
            "\"notes\"",
            "notes (line 3, column 9): unknown key `notes`, expected one of `iopf_capture`, `arch`, ",
        ),
        (
            "\"HAW\"",
            "\"HOW\"",
            "registers.HOW (line 4, column 73): unknown key `HOW`: not a register that captures hold (vtd: CAP_REG, ECAP_REG, GSTS_REG, RTADDR_REG, HAW)",
        ),
        (
            "\"HAW\"",
            "\"ddtp\"",
            "registers.ddtp: unknown key: vtd has no register of this name; known here: CAP_REG, ",
        ),
        (
            "\"words\"",
            "\"word\"",
            "memory[0].word (line 6, column 41): unknown key `word`, expected one of `addr`, `data`, `words`",
        ),
        (
            "\"len\": \"0x8\" } ]",
            "\"length\": \"0x8\" } ]",
            "aborts[0].length (line 8, column 43): unknown key `length`, expected `addr` or `len`",
        ),
        (
            "\"last\"",
            "\"lost\"",
            "requests[0].lost (line 10, column 95): unknown key `lost`, expected one of `device`, ",
        ),
        (
            "\"perms\"",
            "\"permissions\"",
            "expect[0].permissions (line 12, column 67): unknown key `permissions`, expected one of `outcome`, ",
        ),
        (
            "\"note\": \"free",
            "\"bypass\": false, \"note\": \"free",
            "bypass: unknown key: only a virtio capture has it",
        ),
    ] {
        let error = with(from, to);
        if !error.starts_with(said) {
            wrong.push(format!("{from} -> {to}\n  said: {error}\n  not:  {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wrong_values_are_named_with_their_place() {
    let mut wrong = Vec::new();
    for (from, to, said) in [
        (
            "\"01aBff\"",
            "\"01aBf\"",
            "memory[1].data (line 7, column 50): odd number of hex digits (5)",
        ),
        (
            "\"01aBff\"",
            "\"01xBff\"",
            "memory[1].data (line 7, column 51): 'x' at position 2 is not a hex digit",
        ),
        (
            "\"0x20000\"",
            "\"0x20004\"",
            "memory[0] (line 6, column 76): words at 0x20004, which is not a multiple of 8",
        ),
        (
            "\"0x20000\"",
            "\"20000\"",
            "memory[0].addr (line 6, column 31): invalid value: string \"20000\", expected a hex string of 0x and 1 to 16 digits",
        ),
        ("\"0x20000\"", "\"0X20000\"", "memory[0].addr"),
        ("\"0x20000\"", "\"0x\"", "memory[0].addr"),
        ("\"0x20000\"", "\"0x+1\"", "memory[0].addr"),
        (
            "\"0x20000\"",
            "131072",
            "memory[0].addr (line 6, column 30): invalid type: integer `131072`, expected a hex string of 0x and 1 to 16 digits",
        ),
        (
            "\"0xFF\"",
            "\"0x10000000000000000\"",
            "memory[0].words[1] (line 6, column 88): invalid value: ",
        ),
        (
            "\"0x20000\"",
            "\"0xfffffffffffffff8\"",
            "memory[0] (line 6, column 87): 16 bytes from 0xfffffffffffffff8 on leave the 64-bit space",
        ),
        (
            "\"0x10003\"",
            "\"0x20005\"",
            "memory[1] (line 7, column 53): 0x20005 to 0x20007 overlaps memory[0] (0x20000 to 0x2000f)",
        ),
        (
            "\"0x10003\"",
            "\"0x1fffe\"",
            "memory[1] (line 7, column 53): 0x1fffe to 0x20000 overlaps memory[0]",
        ),
        (
            "\"words\": [\"0x0000000000012001\", \"0xFF\"]",
            "\"data\": \"\", \"words\": []",
            "memory[0] (line 6, column 60): both `data` and `words`",
        ),
        (
            ", \"words\": [\"0x0000000000012001\", \"0xFF\"]",
            "",
            "memory[0] (line 6, column 35): missing key `data` or `words`",
        ),
        (
            "\"pasid\": 5",
            "\"pasid\": 1048576",
            "requests[0] (line 10, column 103): pasid 1048576 needs more than its 20 bits",
        ),
        (
            "\"pasid\": 5",
            "\"pasid\": \"5\"",
            "requests[0].pasid (line 9, column 56): invalid type: string \"5\", expected u32",
        ),
        ("\"pasid\": 5", "\"pasid\": -5", "requests[0].pasid"),
        (
            "\"rwxp\"",
            "\"rwr\"",
            "requests[0].access (line 10, column 55): invalid value: string \"rwr\", expected made of the letters r, w, x, p, each at most once",
        ),
        (
            "\"page_request\"",
            "\"page\"",
            "requests[0].type (line 9, column 70): invalid value: string \"page\", expected one of untranslated, ",
        ),
        (
            "0001:00:05.3",
            "0001:00:25.3",
            "requests[0].device (line 9, column 42): invalid value: string \"0001:00:25.3\", expected a PCI address",
        ),
        (
            "\"0001:00:05.3\"",
            "43",
            "requests[0]: this architecture names devices by PCI address",
        ),
        (
            "\"group\": 3",
            "\"group\": 512",
            "requests[0]: a PCI page request group index is 0 to 511",
        ),
        (
            "true",
            "1",
            "requests[0].last (line 10, column 98): invalid type: integer `1`, expected a boolean",
        ),
        (
            "\"iopf_capture\": 1",
            "\"iopf_capture\": 2",
            "iopf_capture: 0x2 is not 0x1, the version of the format",
        ),
        (
            "\"vtd\"",
            "\"intel\"",
            "arch (line 2, column 17): invalid value: string \"intel\", expected one of vtd, amdvi, smmuv3, riscv, virtio",
        ),
        (
            "\"note\"",
            "\"arch\"",
            "line 3, column 8: key given twice: `arch`",
        ),
        (
            "\"HAW\"",
            "\"GSTS_REG\"",
            "registers (line 4, column 78): key given twice: `GSTS_REG`",
        ),
        (
            "\"0x80000000\"",
            "\"0x180000000\"",
            "registers.GSTS_REG: 0x180000000 is not a value of a 32-bit register",
        ),
        (
            "\"0x30\"",
            "\"0x40\"",
            "registers.HAW: 0x40 is not a host address width of 0xc to 0x34 bits",
        ),
        (
            "\"memory_base\": \"0x0\"",
            "\"memory_base\": \"0x1000001\"",
            "memory_limit: memory_limit is below memory_base",
        ),
        (
            "\"0x1000000\"",
            "\"0x1000000",
            "memory_limit (line 6, column 0): not JSON: control character",
        ),
        (
            "\"len\": \"0x8\" } ],\n  \"expect\"",
            "\"len\": \"0xff1\" } ],\n  \"expect\"",
            "requests[1] (line 11, column 86): len 0xff1 from 0x10 on crosses 4 KiB",
        ),
        (
            "\"iopf_capture\": 1,",
            "",
            "line 13, column 101: missing key `iopf_capture`",
        ),
        (
            "\"00ff\"",
            "\"00f\"",
            "expect[1].record (line 13, column 71): odd number of hex digits (3)",
        ),
        (
            "[121, 122]",
            "\"121\"",
            "expect[1].code (line 13, column 49): a number, null, or a list of numbers",
        ),
        (
            "{ \"device\": \"ff:1f.7\"",
            "{ \"device\": null",
            "requests[1].device (line 11, column 32): invalid type: null, expected a PCI address",
        ),
    ] {
        let error = with(from, to);
        if !error.starts_with(said) {
            wrong.push(format!("{from} -> {to}\n  said: {error}\n  not:  {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_are_no_captures_say_what_they_are() {
    for (bytes, said) in [
        (&b""[..], "whole file: empty: not a capture"),
        (b" \n", "whole file: empty: not a capture"),
        (
            b"\x7fELF\xff\xfe",
            "whole file: not UTF-8 text, so not a capture",
        ),
        (
            b"[1]",
            "line 1, column 0: invalid type: sequence, expected an object",
        ),
        (b"{} x", "line 1, column 2: missing key `iopf_capture`"),
        (
            b"{\"iopf_capture\":1",
            "line 1, column 17: not JSON: EOF while parsing an object",
        ),
        (
            b"\x1f\x8b\x08\x00rubbish",
            "whole file: starts like gzip and does not unpack: ",
        ),
    ] {
        let error = Capture::parse(bytes).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
}

#[test]
fn one_more_than_a_list_may_hold_is_refused() {
    let many = |item: &str, n: usize| vec![item; n].join(",");
    let list = |key: &str, items: &str| {
        format!(r#"{{"iopf_capture":1,"arch":"vtd","requests":[],"{key}":[{items}]}}"#)
    };
    let empty = r#"{"addr":"0x0","data":""}"#;
    parse(&list("memory", &many(empty, 65_536)));
    assert!(refused(&list("memory", &many(empty, 65_537))).contains("more than 65536 ranges"));
    let abort = r#"{"addr":"0x0","len":"0x1"}"#;
    parse(&list("aborts", &many(abort, 4_096)));
    assert!(refused(&list("aborts", &many(abort, 4_097))).contains("more than 4096 in this list"));
    let expect = format!(r#"{{"code":[{}]}}"#, many("1", 65));
    assert!(refused(&list("expect", &expect)).starts_with("expect[0].code"));
    let expect = format!(r#"{{"trail":[{}]}}"#, many("{}", 65));
    assert!(refused(&list("expect", &expect)).starts_with("expect[0].trail"));
    // What a reader does not keep it passes over without recursion; the rest recurses to a bound.
    let deep = "[".repeat(1_000_000);
    assert!(refused(&format!(r#"{{"endpoints":{deep}"#)).contains("EOF"));
    assert!(refused(&format!(r#"{{"memory":{deep}"#)).starts_with("memory[0]"));
}

#[test]
fn a_gzip_bomb_costs_the_limit_and_no_more() {
    let bomb = gzip::pack(&vec![b' '; (32 << 20) + 1]);
    assert!(bomb.len() < 64 << 10);
    let error = Capture::parse(&bomb).unwrap_err();
    assert_eq!(error.problem, Problem::TooLarge(32 << 20));
}

#[test]
fn every_prefix_of_a_capture_is_refused_without_a_panic() {
    for end in 0..FULL.len() {
        if let Some(prefix) = FULL.get(..end) {
            assert!(Capture::parse(prefix.as_bytes()).is_err(), "{prefix}");
        }
    }
}

#[test]
fn errors_repeat_no_more_than_a_line_of_a_hostile_file() {
    let key = "k".repeat(100_000);
    let error = refused(&format!("{{\"{key}\":1}}"));
    assert!(error.len() < 1500, "{}", error.len());
    let error = refused(&format!("{{\"arch\":\"{key}\"}}"));
    assert!(error.len() < 1500, "{}", error.len());
}

#[test]
fn a_byte_order_mark_is_passed_in_plain_text_and_in_gzip() {
    let text = "\u{feff}{\"iopf_capture\": 1, \"arch\": \"vtd\", \"requests\": []}";
    assert!(Capture::parse(text.as_bytes()).is_ok());
    assert!(Capture::parse(&gzip::pack(text.as_bytes())).is_ok());
}
