//! Promises of the decoder on any input, and on damaged copies of known lines.

use std::io;

use proptest::prelude::*;

use super::{Form, Record, decode, fuzz};

fn records(log: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    decode(io::Cursor::new(log), Form::Log, |record| {
        records.push(record);
        Ok(())
    })
    .expect("nothing fails in memory");
    records
}

/// Pieces that messages, and what pasting does to them, are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "DMAR: ",
        "dmar: ",
        "[DMA Write NO_PASID] ",
        "[DMA Read PASID 0x1] ",
        "DMAR:[DMA Write] ",
        "[INTR-REMAP] ",
        "INTR-REMAP: ",
        "Request device [",
        "00:14.0",
        "] ",
        "[[f0:1f.0] ",
        "PASID ffffffff ",
        "fault addr ",
        "fault index ",
        "0xffcda000",
        "ffffd000",
        " ",
        "[fault reason ",
        "0x05] ",
        "05] ",
        "reason 06 - ",
        "PTE Write access is not set",
        "SM: Present bit in Directory",
        " Entry is clear",
        ", iommu reg = ffff82c0",
        "\n",
        "\n",
        "\r\n",
        "=\n",
        "\n> > ",
        "[   12.345678] ",
        "Jun 10 12:00:00 host kernel: ",
        "\n<3>",
        "{\"MESSAGE\":\"",
        "\"}",
        "\u{1b}[31m",
        "\0",
        "(XEN) [VT-D]",
        "dmar_fault: 44 callbacks suppressed\n",
        "Dump dmar0 table entries for IOVA 0xffcda000\n",
        "DMAR: scalable mode root entry: hi 0x1, low 0x2\n",
        "DMAR: context entry: hi 0x102, low 0x1001",
        "DMAR: pasid table entry[0]: 0x109\n",
        "DMAR: pte level: 5, pte value: 0x3\n",
        "IOMMU: dmar0: Address is not canonical\n",
        "dmar0: Invalid page request: 101 1007\n",
        "AMD-Vi: ",
        "nvme 0000:01:00.0: AMD-Vi: Event logged [",
        "iommu ivhd0: ",
        "Event logged [",
        "IO_PAGE_FAULT ",
        "ILLEGAL_DEV_TABLE_ENTRY device=0000:43:00.0 ",
        "domain=0x000d ",
        "address=0xfc189000 ",
        "flags=0x0070]",
        "UNKNOWN event[0]=0x00000108 event[1]=0xa0000000 event[2]=0x0 ",
        "AMD-Vi: DTE[0]: 6000000000000003\n",
        "AMD-Vi: IO_PAGE_FAULT: domain = 0, device id = 0x2600, ",
        "AMD-Vi: Event logged [Device not attached to domain properly]\n",
        "arm-smmu-v3 arm-smmu-v3.0.auto: ",
        "arm-smmu 5000000.iommu: ",
        "(XEN) SMMUv3: /smmuv3@9050000: ",
        "event 0x10 received:\n",
        "\t0x0000010000005810\n",
        "\t0x0000020880000022",
        "event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ",
        "ssid: 0x5 iova: 0x1000 ipa: 0x0\n",
        "unpriv data write s1 \"Input address caused fault\" stall ",
        "stag: 0x0\n",
        "unexpected PRI request received:\n",
        "\tsid 0x00000100.0x00001: [3L] unprivileged RW access ",
        "at iova 0x0000000000001000\n",
        "CMDQ error (cons 0x01000022): Illegal command\n",
        "skipping command in error state:\n",
        "EVTQ write aborted -- events may have been lost\n",
        "Unhandled context fault: fsr=0x402, ",
        "iova=0xff3cf000, fsynr=0x300003, cbfrsynra=0x409, cb=10\n",
        "FSR    = 00000402 [Format=2 TF], SID=0x409\n",
        "FSYNR0 = 00300003 [S1CBNDX=48 PLVL=3]\n",
        "soft iova-to-phys=0x0\n",
        "Blocked unknown Stream ID 0x429; boot with \n",
        "GFSR 0x00000002, GFSYNR0 0x00000002, GFSYNR1 0x00000429\n",
    ]);
    prop_oneof![
        8 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ]
}

proptest! {
    #[test]
    fn any_bytes_keep_the_promises(data in prop::collection::vec(any::<u8>(), 0..400)) {
        fuzz::log(&data);
    }

    #[test]
    fn any_mixture_of_pieces_keeps_the_promises(pieces in prop::collection::vec(piece(), 0..60)) {
        fuzz::log(&pieces.concat());
    }

    #[test]
    fn a_log_cut_anywhere_keeps_the_promises(cut in 0..2000_usize) {
        let log = KNOWN.iter().map(|known| known.log).collect::<Vec<_>>().join("\n");
        fuzz::log(&log.as_bytes()[..cut.min(log.len())]);
    }
}

/// A message and its values.
struct Known {
    log: &'static str,
    device: &'static str,
    address: Option<&'static str>,
    index: Option<u32>,
    pasid: Option<u32>,
    code: u32,
    /// The digits of each value, as printed, in this order: device, address or index, PASID.
    digits: [&'static str; 3],
    /// Those of the code, where nothing else in the message confirms it.
    number: &'static str,
}

const KNOWN: [Known; 14] = [
    Known {
        log: "[   12.345678] DMAR: [DMA Write NO_PASID] Request device [00:14.0] fault addr 0xffcda000 [fault reason 0x05] PTE Write access is not set",
        device: "0000:00:14.0",
        address: Some("0xffcda000"),
        index: None,
        pasid: None,
        code: 5,
        digits: ["00:14.0", "ffcda000", ""],
        number: "",
    },
    Known {
        log: "[   12.345678] DMAR: [DMA Read PASID 0x1f] Request device [0001:6a:01.0] fault addr 0x7f7dab200000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear",
        device: "0001:6a:01.0",
        address: Some("0x7f7dab200000"),
        index: None,
        pasid: Some(31),
        code: 0x71,
        digits: ["0001:6a:01.0", "7f7dab200000", "1f"],
        number: "",
    },
    Known {
        log: "[    0.929877] DMAR: [DMA Read] Request device [00:02.0] PASID ffffffff fault addr 70e67000 [fault reason 06] PTE Read access is not set",
        device: "0000:00:02.0",
        address: Some("0x70e67000"),
        index: None,
        pasid: None,
        code: 6,
        digits: ["00:02.0", "70e67000", "ffffffff"],
        number: "",
    },
    Known {
        log: "DMAR: [INTR-REMAP] Request device [01:05.0] fault index 0x2f [fault reason 0x26] Blocked an interrupt request due to source-id verification failure",
        device: "0000:01:05.0",
        address: None,
        index: Some(0x2f),
        pasid: None,
        code: 0x26,
        digits: ["01:05.0", "2f", ""],
        number: "",
    },
    Known {
        log: "[ 9731.055098] dmar: DMAR:[DMA Read] Request device [01:00.1] fault addr 2231b8000 \nDMAR:[fault reason 12] non-zero reserved fields in PTE",
        device: "0000:01:00.1",
        address: Some("0x2231b8000"),
        index: None,
        pasid: None,
        code: 12,
        digits: ["01:00.1", "2231b8000", ""],
        number: "",
    },
    Known {
        log: "[    0.057770] DMAR: INTR-REMAP: Request device [[f0:1f.0] fault index 1a\n               INTR-REMAP:[fault reason 37] Blocked a compatibility format interrupt request",
        device: "0000:f0:1f.0",
        address: None,
        index: Some(0x1a),
        pasid: None,
        code: 37,
        digits: ["f0:1f.0", "1a", ""],
        number: "",
    },
    Known {
        log: "(XEN) [VT-D]DMAR:[DMA Read] Request device [0000:00:02.0] fault addr 8e480000, iommu reg = ffff82c00021d000\n(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set",
        device: "0000:00:02.0",
        address: Some("0x8e480000"),
        index: None,
        pasid: None,
        code: 6,
        digits: ["0000:00:02.0", "8e480000", ""],
        number: "",
    },
    Known {
        log: "[   40.182570] ath10k_pci 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000d address=0xcff49550 flags=0x0070]",
        device: "0000:01:00.0",
        address: Some("0xcff49550"),
        index: None,
        pasid: None,
        code: 2,
        digits: ["0000:01:00.0", "cff49550", ""],
        number: "",
    },
    Known {
        log: "[  221.562629] AMD-Vi: Event logged [\n[  221.565929] IO_PAGE_FAULT device=05:00.0 domain=0x0012 address=0x00000000ff6101b0 flags=0x0070]",
        device: "0000:05:00.0",
        address: Some("0xff6101b0"),
        index: None,
        pasid: None,
        code: 2,
        digits: ["05:00.0", "00000000ff6101b0", ""],
        number: "",
    },
    Known {
        log: "iommu ivhd0: AMD-Vi: Event logged [PAGE_TAB_HARDWARE_ERROR device=0000:20:00.0 pasid=0x00007 address=0x7fee00123 flags=0x0001]",
        device: "0000:20:00.0",
        address: Some("0x7fee00123"),
        index: None,
        pasid: Some(7),
        code: 4,
        digits: ["0000:20:00.0", "7fee00123", "00007"],
        number: "",
    },
    Known {
        log: "[   70.386109] arm-smmu-v3 arm-smmu-v3.5.auto: event: F_TRANSLATION client: 0001:06:00.0 sid: 0x20645 ssid: 0x7 iova: 0xff9bc123 ipa: 0x0\n[   70.398531] arm-smmu-v3 arm-smmu-v3.5.auto: unpriv data write s1 \"Input address caused fault\" stag: 0x0",
        device: "132677",
        address: Some("0xff9bc123"),
        index: None,
        pasid: Some(7),
        code: 0x10,
        digits: ["20645", "ff9bc123", "7 iova"],
        number: "",
    },
    Known {
        log: "[8.5] arm-smmu-v3 b.auto: event 0x10 received:\n[8.5] arm-smmu-v3 b.auto:  0x0000310200007810\n[8.5] arm-smmu-v3 b.auto:  0x0000020880000022\n[8.5] arm-smmu-v3 b.auto:  0x00000000fe321000\n[8.5] arm-smmu-v3 b.auto:  0x0000000000000000",
        device: "12546",
        address: Some("0xfe321000"),
        index: None,
        pasid: Some(7),
        code: 0x10,
        digits: ["0000310200007810", "00000000fe321000", "0000310200007810"],
        number: "",
    },
    Known {
        log: "arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0xff3cf120, fsynr=0x300003, cbfrsynra=0x459, cb=10",
        device: "1113",
        address: Some("0xff3cf120"),
        index: None,
        pasid: None,
        code: 0x402,
        digits: ["459", "ff3cf120", ""],
        number: "402",
    },
    Known {
        log: "[1.5] arm-smmu 64000000.mmu: Blocked unknown Stream ID 0x2130; boot with \"arm-smmu.disable_bypass=0\" to allow, but this may have security implications\n[1.5] arm-smmu 64000000.mmu: \tGFSR 0x80000002, GFSYNR0 0x00000001, GFSYNR1 0x00002130, GFSYNR2 0x00000000",
        device: "8496",
        address: None,
        index: None,
        pasid: None,
        code: 0x8000_0002,
        digits: ["2130", "", ""],
        number: "80000002",
    },
];

/// Whether the damage at `at` lies in the digits of the value, where nothing can show it.
fn within(log: &str, digits: &str, at: usize) -> bool {
    let start = log.find(digits).expect("typed from the line");
    let end = start + digits.len();
    // A digit in place of what ends the line makes a longer number.
    let line_end =
        log[end..].starts_with([' ', '\n']) && log[end..].trim_start_matches(' ').starts_with('\n');
    !digits.is_empty() && (start..end + usize::from(line_end)).contains(&at)
}

/// Decodes a damaged copy of `known` and checks that what it says is what the line said, or nothing.
fn check(known: &Known, damaged: &[u8], at: usize, blind: &mut u32) {
    let shown = || String::from_utf8_lossy(damaged).into_owned();
    for record in records(damaged) {
        let [device, place, pasid] = known.digits.map(|digits| within(known.log, digits, at));
        if let Some(got) = record.device {
            assert!(
                device || got.to_string() == known.device,
                "{got}: {}",
                shown()
            );
        }
        if let Some(got) = record.address {
            let right = Some(got.to_string()) == known.address.map(str::to_owned);
            assert!(place || right, "{got}: {}", shown());
        }
        if let Some(got) = record.index {
            assert!(place || Some(got) == known.index, "{got}: {}", shown());
        }
        if let Some(got) = record.pasid {
            // AMD-Vi's flags say whether there is a PASID.
            let flags = known.log.find("flags=0x");
            let flags = flags.is_some_and(|start| (start + 8..start + 12).contains(&at));
            assert!(
                pasid || flags || Some(got.get()) == known.pasid,
                "{got}: {}",
                shown()
            );
        }
        if let Some(got) = record.code {
            // The words confirm most numbers: damage to either shows.
            let number = within(known.log, known.number, at);
            assert!(number || got == known.code, "{got}: {}", shown());
        } else {
            *blind += 1;
        }
    }
}

#[test]
fn one_damaged_byte_never_makes_a_value_that_the_line_did_not_have() {
    let mut blind = 0;
    for known in &KNOWN {
        let log = known.log.as_bytes();
        for at in 0..log.len() {
            for byte in [
                b'?', b'0', b'7', b'b', b' ', b'[', b']', b':', b'.', b'x', b'\n', 0, 0xff,
            ] {
                let mut damaged = log.to_vec();
                damaged[at] = byte;
                check(known, &damaged, at, &mut blind);
            }
            let mut shorter = log.to_vec();
            shorter.remove(at);
            check(known, &shorter, at, &mut blind);
        }
    }
    assert!(blind > 0, "some damage hides the number");
}

#[test]
fn an_undamaged_line_keeps_all_its_values() {
    for known in &KNOWN {
        let records = records(known.log.as_bytes());
        let [record] = records.as_slice() else {
            panic!("one message: {}", known.log);
        };
        assert_eq!(
            record.device.map(|device| device.to_string()).as_deref(),
            Some(known.device)
        );
        assert_eq!(
            record.address.map(|at| at.to_string()).as_deref(),
            known.address
        );
        assert_eq!(record.index, known.index);
        assert_eq!(record.pasid.map(iopf::Pasid::get), known.pasid);
        assert_eq!(record.code, Some(known.code));
    }
}

#[test]
fn memory_stays_bounded_under_endless_first_halves_and_long_lines() {
    let mut decoder = super::Decoder::new();
    let mut taken = 0;
    for _ in 0..10_000 {
        decoder.handle_line(b"DMAR:[DMA Write] Request device [00:1f.2] fault addr ffffd000");
        while decoder.poll_record().is_some() {
            taken += 1;
        }
    }
    assert!(
        taken >= 10_000 - 64,
        "only the last 64 may wait, {taken} came"
    );
    let long = vec![b'a'; 8 << 20];
    decoder.handle_line(&long);
    let summary = decoder.finish();
    assert_eq!(
        (summary.records, summary.lines, summary.not_faults),
        (10_000, 10_001, 1)
    );
}

#[test]
fn crlf_colours_wide_characters_and_damaged_bytes_do_not_hide_a_line() {
    let line = "[   12.345678] DMAR: [DMA Write NO_PASID] Request device [00:14.0] fault addr 0xffcda000 [fault reason 0x05] PTE Write access is not set";
    let wide: Vec<u8> = line
        .bytes()
        .chain(*b"\r\n")
        .flat_map(|byte| [byte, 0])
        .collect();
    let coloured = line.replace("DMAR", "\u{1b}[0;1;31mDMAR\u{1b}[0m");
    let damaged = [&b"\xff\xfe\0\0\0"[..], line.as_bytes()].concat();
    let spaced = line.replace(' ', "\u{a0}");
    let inputs = [
        format!("{line}\r\n").into_bytes(),
        coloured.into_bytes(),
        wide,
        damaged,
        spaced.into_bytes(),
    ];
    for input in inputs {
        let records = records(&input);
        assert_eq!(records.len(), 1, "{}", String::from_utf8_lossy(&input));
        assert_eq!(records[0].code, Some(5));
        assert_eq!(records[0].time.as_deref(), Some("12.345678"));
        assert_eq!(records[0].address, Some(iopf::Iova(0xffcd_a000)));
        assert_eq!(
            records[0].name.as_deref(),
            Some("PTE Write access is not set")
        );
    }
}

#[test]
fn a_record_comes_with_the_next_line_or_with_a_flush() {
    let mut decoder = super::Decoder::new();
    decoder.handle_line(KNOWN[0].log.as_bytes());
    assert_eq!(decoder.poll_record(), None);
    decoder.handle_line(b"usb 1-1: new device");
    assert_eq!(decoder.poll_record().map(|record| record.line), Some(1));
    decoder.handle_line(KNOWN[1].log.as_bytes());
    decoder.flush();
    assert_eq!(decoder.poll_record().map(|record| record.line), Some(3));
}

#[test]
fn the_pasted_logs_keep_the_promises_as_fuzz_corpus_too() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/log");
    let mut files = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let log = std::fs::read(entry.expect("readable").path()).expect("readable");
        fuzz::log(&log);
        files += 1;
    }
    assert!(files >= 7);
}
