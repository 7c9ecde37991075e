//! Unmodified Linux on arm64 in front of `iopf serve --arch smmuv3`: it binds, translates, and sees its
//! own faults.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod provoked;
mod served;

use provoked::{Mistake, Mode, binds, boot, prepare};
use served::Served;
use std::time::{Duration, Instant};
use testkit::guest::Guest;
use testkit::kernel::{Kernel, Stock, Target, stock_for};

const SMMUV3: [&str; 2] = ["--arch", "smmuv3"];
const LEGACY: [&str; 3] = ["--arch", "smmuv3", "--legacy"];
/// No ATS, since functions may stall that Linux lets do so: here none.
const NO_ATS: [&str; 4] = ["--arch", "smmuv3", "--stall", "04.0"];

fn stock(which: Stock) -> &'static Kernel {
    stock_for(Target::Aarch64, which).unwrap()
}

/// What each mode says (`arm_smmu_device_hw_probe`).
const SAID: [&str; 2] = ["arm-smmu-v3 3efc0000.iommu: ", "oas 48-bit (features 0x"];

/// Neither an error of a queue (`arm_smmu_gerror_handler`), nor a command that was waited for in vain
/// (`__arm_smmu_cmdq_poll_until_msi`), nor an event; and interrupts are messages.
const NEVER: [&str; 6] = [
    "unexpected global error",
    "CMD_SYNC timeout",
    "event 0x",
    "falling back to wired irqs",
    "WARNING",
    "BUG",
];

const MODES: [Mode; 3] = [
    Mode {
        arguments: &SMMUV3,
        words: "",
        said: &SAID,
    },
    Mode {
        arguments: &LEGACY,
        words: "",
        said: &SAID,
    },
    Mode {
        arguments: &["--arch", "smmuv3", "--force-stall"],
        words: "",
        said: &SAID,
    },
];

#[test]
fn debians_stable_kernel_binds_and_reads_our_bytes() {
    binds(stock(Stock::Stable), &MODES[..2], &NEVER);
}

#[test]
fn debians_newest_kernel_binds_in_every_mode_and_reads_our_bytes() {
    binds(stock(Stock::Newest), &MODES, &NEVER);
}

/// Something that goes wrong, and what must be said of it. Numbers and fields are typed from the
/// specification's event records (IHI 0070, "Event records") by way of Linux's masks
/// (`EVTQ_0_*`, `EVTQ_1_*` of `arm-smmu-v3.h`).
struct Cause {
    /// What is done in the guest, after `dma 00:04.0 0`.
    action: &'static str,
    /// How it ends for the device.
    ends: &'static str,
    /// Number of the event, and what Linux 7.3 calls it.
    event: (u64, &'static str),
    device: &'static str,
    address: u64,
    write: bool,
    /// The record.
    words: [u64; 4],
    /// What Linux 7.3 says last of it.
    decoded: &'static str,
}

const F_TRANSLATION: (u64, &str) = (0x10, "F_TRANSLATION");
/// It has no name for events of ATS (`event_str`).
const UNKNOWN: &str = "UNKNOWN";
const F_PERMISSION: (u64, &str) = (0x13, "F_PERMISSION");

/// RnW (bit 35 of the second doubleword), and CLASS IN (bits 41:40).
const READ: u64 = 1 << 35;
const IN: u64 = 2 << 40;

/// A read by the engine, stream 20h.
const A_READ: Cause = Cause {
    action: "",
    ends: "blocked",
    event: F_TRANSLATION,
    device: "00:04.0",
    address: 0,
    write: false,
    words: [0; 4],
    decoded: "unpriv data read s1 \"Input address caused fault\" stag: 0x0",
};

const A_WRITE: Cause = Cause {
    write: true,
    decoded: "unpriv data write s1 \"Input address caused fault\" stag: 0x0",
    ..A_READ
};

const CAUSES: [Cause; 9] = [
    Cause {
        action: "write 0x10000 16 via=untranslated data=11",
        event: F_PERMISSION,
        address: 0x1_0000,
        words: [0x20_0000_0013, IN, 0x1_0000, 0],
        ..A_WRITE
    },
    Cause {
        action: "read 0xbeef000 16 via=untranslated",
        address: 0xbee_f000,
        words: [0x20_0000_0010, IN | READ, 0xbee_f000, 0],
        ..A_READ
    },
    Cause {
        action: "write 0xbeef000 16 via=untranslated data=11",
        address: 0xbee_f000,
        words: [0x20_0000_0010, IN, 0xbee_f000, 0],
        ..A_WRITE
    },
    // In neither range: Linux lets the first have 48 bits.
    Cause {
        action: "read 0x1000000000000000 16 via=untranslated",
        address: 0x1000_0000_0000_0000,
        words: [0x20_0000_0010, IN | READ, 0x1000_0000_0000_0000, 0],
        ..A_READ
    },
    // In the second, which Linux does not use (EPD1).
    Cause {
        action: "read 0xffff000000000000 16 via=untranslated",
        address: 0xffff_0000_0000_0000,
        words: [0x20_0000_0010, IN | READ, 0xffff_0000_0000_0000, 0],
        ..A_READ
    },
    // Linux has no stream table for that bus.
    Cause {
        action: "write 0x1000 16 via=untranslated rid=55:00.0 data=11",
        event: (0x02, "C_BAD_STREAMID"),
        device: "55:00.0",
        address: 0x1000,
        words: [0x5500_0000_0002, 0, 0, 0],
        decoded: "event: C_BAD_STREAMID client: (unassigned sid) sid: 0x5500 ssid: 0x0",
        ..A_WRITE
    },
    // SSV is bit 11, the SubstreamID begins at bit 12.
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=5",
        event: (0x0a, "C_BAD_CD"),
        address: 0x1000,
        words: [0x20_0000_580a, 0, 0, 0],
        decoded: "event: C_BAD_CD client: 0000:00:04.0 sid: 0x20 ssid: 0x5",
        ..A_READ
    },
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=0x40000",
        event: (0x08, "C_BAD_SUBSTREAMID"),
        address: 0x1000,
        words: [0x20_4000_0008, 0, 0, 0],
        decoded: "event: C_BAD_SUBSTREAMID client: 0000:00:04.0 sid: 0x20 ssid: 0x0",
        ..A_READ
    },
    // Substream 0 is that of requests without one (S1DSS).
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=0",
        event: (0x06, "F_STREAM_DISABLED"),
        address: 0x1000,
        words: [0x20_0000_0006, 0, 0, 0],
        decoded: "event: F_STREAM_DISABLED client: 0000:00:04.0 sid: 0x20 ssid: 0x0",
        ..A_READ
    },
];

/// Requests that a device may make only where Linux lets it: here it has not, and ATS was turned on
/// behind its back.
const WITHOUT_ATS: [Cause; 2] = [
    Cause {
        action: "read 0x10000 16 via=ats",
        ends: "unsupported-request",
        // F_BAD_ATS_TREQ.
        event: (0x05, UNKNOWN),
        address: 0x1_0000,
        // Span 0, and R. UNCONFIRMED: Linux looks at neither.
        words: [0x20_0000_0005, 0x8000_0000, 0x1_0000, 0],
        decoded: "event: UNKNOWN client: 0000:00:04.0 sid: 0x20 ssid: 0x0",
        ..A_READ
    },
    Cause {
        action: "read 0x10000 16 via=translated",
        // F_TRANSL_FORBIDDEN.
        event: (0x07, UNKNOWN),
        address: 0x1_0000,
        words: [0x20_0000_0007, READ, 0x1_0000, 0],
        decoded: "event: UNKNOWN client: 0000:00:04.0 sid: 0x20 ssid: 0x0",
        ..A_READ
    },
];

/// Linux says no more than ten events in 5 s (`arm_smmu_evtq_thread`).
const EVENTS_IN_A_ROW: usize = 9;
const INTERVAL_MS: u64 = 5200;

/// What the driver has said since `mark`, at least so many lines if they come within 10 s.
fn said(guest: &Guest, mark: &str, wanted: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let log = guest.must(&format!("kmsg-since {mark}")).unwrap();
        let mine = log
            .iter()
            .filter_map(|line| line.split_once("arm-smmu-v3 3efc0000.iommu: "));
        let mine: Vec<_> = mine.map(|(_, text)| text.replace("\\x09", "\t")).collect();
        if mine.len() >= wanted || Instant::now() > deadline {
            return mine;
        }
    }
}

/// Does what a cause says and looks at what the guest says, and at what the capture says. `decodes`: the
/// guest's kernel does not only show the words.
fn provoke(cause: &Cause, decodes: bool, guest: &Guest, served: &mut Served) {
    let mark = guest.must("kmsg-mark").unwrap().concat();
    let words = cause.words.map(|word| format!("\t0x{word:016x}"));
    let mistake = Mistake {
        action: cause.action,
        ends: cause.ends,
        code: cause.event.0,
        device: cause.device,
        address: cause.address,
        write: cause.write,
        line: match decodes {
            true => cause.decoded,
            false => words[3].trim(),
        },
    };
    let (_, explained) = provoked::provoke(&mistake, guest, served);
    let (code, name) = cause.event;
    let mut expected = vec![format!("event 0x{code:02x} received:")];
    expected.extend(words);
    let mine = said(guest, &mark, expected.len());
    assert_eq!(mine[..5], expected, "{}", cause.action);
    if decodes {
        assert!(mine[5].contains(name), "{}: {mine:#?}", cause.action);
        assert_eq!(mine.last().unwrap(), cause.decoded, "{}", cause.action);
    } else {
        assert_eq!(mine.len(), 5, "{}: {mine:#?}", cause.action);
    }
    // The record that explain lays out is the same.
    let record = explained["record"].as_str().unwrap();
    let bytes: Vec<String> = cause
        .words
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(record, bytes.concat(), "{}", cause.action);
}

fn provoke_all(causes: &[Cause], decodes: bool, guest: &Guest, served: &mut Served) {
    for row in causes.chunks(EVENTS_IN_A_ROW) {
        for cause in row {
            provoke(cause, decodes, guest, served);
        }
        guest.must(&format!("sleep {INTERVAL_MS}")).unwrap();
    }
}

#[test]
fn debians_newest_kernel_is_told_the_cause_of_every_bad_dma_and_of_its_own_where_the_hosts_differs()
{
    let (mut served, guest, _file) = boot(stock(Stock::Newest), &SMMUV3, "");
    prepare(&guest);
    provoke_all(&CAUSES, true, &guest, &mut served);

    // The host's tables are VT-d's, and know nothing of the page (79h, SSL.2); the guest's say that it
    // is read-only.
    let mark = guest.must("kmsg-mark").unwrap().concat();
    let done = guest
        .run("dma 00:04.0 0 write 0x11000 16 via=host data=11")
        .unwrap();
    assert_eq!(done.value("code"), Some("blocked"));
    let host = served.wait("host_fault", |_| true);
    assert_eq!(
        (&host["host_code"], &host["guest_code"]),
        (&0x79.into(), &0x13.into())
    );
    let told = format!("kmsg-wait {mark} 10000 iova: 0x11000");
    let heard = guest.must(&told).unwrap().concat();
    assert!(heard.contains("event: F_PERMISSION"), "{heard}");

    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], CAUSES.len() + 1, "{counts}");
    assert_eq!(counts["recorded"], counts["faults"], "each had its record");
}

#[test]
fn debians_stable_kernel_is_told_the_cause_of_every_bad_dma() {
    let (mut served, guest, _file) = boot(stock(Stock::Stable), &SMMUV3, "");
    prepare(&guest);
    provoke_all(&CAUSES, false, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], CAUSES.len(), "{counts}");
    assert_eq!(counts["recorded"], counts["faults"], "each had its record");
}

/// Registers of the engine: the control register of ATS; control and allocation of PRI.
const ATS_CONTROL: &str = "0x106";
const PRI_CONTROL: &str = "0x10c";
const PRI_ALLOCATION: &str = "0x114";

#[test]
fn a_device_that_uses_ats_without_leave_is_found_out() {
    let (mut served, guest, _file) = boot(stock(Stock::Newest), &NO_ATS, "");
    prepare(&guest);
    let control = format!("config 00:04.0 read {ATS_CONTROL} 2");
    assert_eq!(guest.must(&control).unwrap(), ["0x0"]);
    guest
        .must(&format!("config 00:04.0 write {ATS_CONTROL} 2 0x8000"))
        .unwrap();
    provoke_all(&WITHOUT_ATS, true, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], WITHOUT_ATS.len(), "{counts}");
}

/// Linux takes page requests from its queue, shows them, and denies each group with its last
/// (`arm_smmu_handle_ppr`), which is a Response Failure for the device.
#[test]
fn a_device_that_asks_for_pages_is_heard_and_denied() {
    let (served, guest, _file) = boot(stock(Stock::Newest), &SMMUV3, "");
    prepare(&guest);
    // Linux turns ATS on, which is what the device tree says, and leaves page requests alone.
    let read = |register: &str| guest.must(&format!("config 00:04.0 read {register} 2"));
    assert_eq!(read(ATS_CONTROL).unwrap(), ["0x8000"]);
    assert_eq!(read(PRI_CONTROL).unwrap(), ["0x0"]);
    let translated = "dma 00:04.0 0 verify 0x10000 0x2000 pattern=0x1122334455667788";
    let done = guest.run(translated).unwrap();
    assert_eq!(
        (done.value("state"), done.value("check")),
        (Some("done"), Some("0x0"))
    );

    let mark = guest.must("kmsg-mark").unwrap().concat();
    for (asked, pages) in [("0x10000 4096", "1"), ("0x10000 8192 write", "2")] {
        // A Response Failure turns the interface off until it is reset.
        for (register, width, value) in [
            (PRI_CONTROL, 2, 2),
            (PRI_ALLOCATION, 4, 32),
            (PRI_CONTROL, 2, 1),
        ] {
            let write = format!("config 00:04.0 write {register} {width} {value}");
            guest.must(&write).unwrap();
        }
        let done = guest
            .run(&format!("dma 00:04.0 0 page-requests {asked}"))
            .unwrap();
        assert_eq!(done.value("code"), Some("response-failure"), "{done:?}");
        assert_eq!(done.value("pages"), Some(pages), "{done:?}");
        // Response Failure, and "PRG Response PASID Required".
        let status = guest.must("config 00:04.0 read 0x10e 2").unwrap();
        assert_eq!(status, ["0x8001"]);
    }
    let request = |group: &str, access: &str, at: u64| {
        [
            "unexpected PRI request received:".to_owned(),
            format!(
                "\tsid 0x00000020.0x00000: [{group}] unprivileged {access} access at iova 0x{at:016x}"
            ),
        ]
    };
    let expected = [
        request("0L", "R", 0x1_0000),
        request("1", "RW", 0x1_0000),
        request("1L", "RW", 0x1_1000),
    ]
    .concat();
    assert_eq!(said(&guest, &mark, expected.len()), expected);
    let counts = served.stop()["counts"].clone();
    for (name, count) in [
        ("page_requests", 3),
        ("page_requests_lost", 0),
        ("page_requests_refused", 0),
        ("groups", 2),
        ("groups_answered", 2),
        ("responses", 2),
        ("answers_unexpected", 0),
        ("faults", 0),
    ] {
        assert_eq!(counts[name], count, "{name}: {counts}");
    }
}
