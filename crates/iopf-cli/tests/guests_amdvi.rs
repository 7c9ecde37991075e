//! Unmodified Linux in front of `iopf serve --arch amdvi`: it binds, translates, and sees its own
//! faults.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod provoked;
mod served;

use provoked::{Mistake, Mode, binds, boot, prepare};
use served::Served;
use testkit::guest::Guest;
use testkit::kernel::{Stock, stock};

const AMDVI: [&str; 2] = ["--arch", "amdvi"];
const LEGACY: [&str; 3] = ["--arch", "amdvi", "--legacy"];

/// What each mode says: the table was read.
const EFR: &str = "AMD-Vi: Using global IVHD EFR:";

/// Ways to bind, with what the kernel's log must say of the features it found (`print_iommu_info` in
/// Linux `drivers/iommu/amd/init.c`).
const MODES: [Mode; 3] = [
    Mode {
        arguments: &LEGACY,
        words: "",
        said: &[EFR, "AMD-Vi: Extended features ("],
    },
    Mode {
        arguments: &AMDVI,
        words: "",
        said: &[EFR, " PPR NX GT"],
    },
    Mode {
        arguments: &AMDVI,
        words: "amd_iommu=pgtbl_v2",
        said: &[EFR, "AMD-Vi: V2 page table enabled (Paging mode : 5 level)"],
    },
];

/// The table and the register say the same; no log was restarted, no command waited for.
const NEVER: [&str; 5] = [
    "EFR mismatch",
    "timed out",
    "log restarting",
    "WARNING",
    "BUG",
];

#[test]
fn debians_stable_kernel_binds_in_every_mode_and_reads_our_bytes() {
    binds(stock(Stock::Stable).unwrap(), &MODES, &NEVER);
}

#[test]
fn debians_newest_kernel_binds_in_every_mode_and_reads_our_bytes() {
    binds(stock(Stock::Newest).unwrap(), &MODES, &NEVER);
}

/// Something that goes wrong, and what must be said of it. Codes and flags are typed from the
/// specification's tables of events (48882, "Event Logging"); the form of the line is that of Linux
/// `drivers/iommu/amd/iommu.c`, `iommu_print_event` and `amd_iommu_report_page_fault`.
struct Cause {
    /// What is done in the guest, after `dma 00:04.0 0`.
    action: &'static str,
    /// How it ends for the device.
    ends: &'static str,
    /// Code and name of the event.
    event: (u64, &'static str),
    /// Bits 59:48 of the record.
    flags: u64,
    device: &'static str,
    address: u64,
    /// What stands where Linux prints `domain=`, if it is known beforehand.
    space: Option<&'static str>,
    /// What follows the flags.
    tail: &'static str,
}

const IO_PAGE_FAULT: (u64, &str) = (2, "IO_PAGE_FAULT");
const INVALID_DEVICE_REQUEST: (u64, &str) = (8, "INVALID_DEVICE_REQUEST");
const INVALID_PPR_REQUEST: (u64, &str) = (9, "INVALID_PPR_REQUEST");

/// Flags: guest address, user mode, present, write, permission, translation request.
const GN: u64 = 0x001;
const US: u64 = 0x004;
const PR: u64 = 0x010;
const RW: u64 = 0x020;
const PE: u64 = 0x040;
const TR: u64 = 0x100;
/// Types of an invalid device request, bits 11:9: a translated request or one for a translation, and a
/// range that is not valid. A read in the interrupt range is type 0.
const NOT_ALLOWED: u64 = 1 << 9;
const BAD_RANGE: u64 = 4 << 9;

/// A read by the engine that is blocked with an I/O page fault.
const READ: Cause = Cause {
    action: "",
    ends: "blocked",
    event: IO_PAGE_FAULT,
    flags: 0,
    device: "00:04.0",
    address: 0,
    space: None,
    tail: "]",
};

/// With host tables (version 1).
const HOST: [Cause; 9] = [
    Cause {
        action: "write 0x10000 16 via=untranslated data=11",
        flags: PR | RW | PE,
        address: 0x1_0000,
        ..READ
    },
    Cause {
        action: "read 0xbeef000 16 via=untranslated",
        address: 0xbee_f000,
        ..READ
    },
    Cause {
        action: "write 0xbeef000 16 via=untranslated data=11",
        flags: RW,
        address: 0xbee_f000,
        ..READ
    },
    Cause {
        action: "read 0x1000000000000000 16 via=untranslated",
        address: 0x1000_0000_0000_0000,
        ..READ
    },
    // No device is there: its entry is valid and allows nothing (`init_device_table_dma`).
    Cause {
        action: "read 0x1000 16 via=untranslated rid=00:03.0",
        flags: PR | PE,
        device: "00:03.0",
        address: 0x1000,
        space: Some("0x0000"),
        ..READ
    },
    Cause {
        action: "write 0x1000 16 via=untranslated rid=00:03.0 data=11",
        flags: PR | RW | PE,
        device: "00:03.0",
        address: 0x1000,
        space: Some("0x0000"),
        ..READ
    },
    // Linux makes the device table as long as the ACPI table asks for.
    Cause {
        action: "write 0x1000 16 via=untranslated rid=55:00.0 data=11",
        flags: RW,
        device: "55:00.0",
        address: 0x1000,
        space: Some("0x0000"),
        ..READ
    },
    Cause {
        action: "read 0xfee00000 4 via=untranslated",
        event: INVALID_DEVICE_REQUEST,
        address: 0xfee0_0000,
        ..READ
    },
    Cause {
        action: "read 0xfd00000000 16 via=untranslated",
        event: INVALID_DEVICE_REQUEST,
        flags: BAD_RANGE,
        address: 0xfd_0000_0000,
        ..READ
    },
];

/// With guest tables (version 2): requests without a PASID are those of PASID 0.
const GUEST: [Cause; 6] = [
    Cause {
        action: "write 0x10000 16 via=untranslated data=11",
        flags: GN | US | PR | RW | PE,
        address: 0x1_0000,
        space: Some("0x0000"),
        ..READ
    },
    Cause {
        action: "read 0xbeef000 16 via=untranslated",
        flags: GN | US,
        address: 0xbee_f000,
        space: Some("0x0000"),
        ..READ
    },
    Cause {
        action: "write 0xbeef000 16 via=untranslated data=11",
        flags: GN | US | RW,
        address: 0xbee_f000,
        space: Some("0x0000"),
        ..READ
    },
    Cause {
        action: "read 0x1000000000000000 16 via=untranslated",
        flags: GN | US,
        address: 0x1000_0000_0000_0000,
        space: Some("0x0000"),
        ..READ
    },
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=5",
        flags: GN | US,
        address: 0x1000,
        space: Some("0x0005"),
        ..READ
    },
    // Wider than the unit's PASIDs. Linux prints the low 16 bits.
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=0x40003",
        flags: GN | US,
        address: 0x1000,
        space: Some("0x0003"),
        ..READ
    },
];

/// Requests that a device may make only where Linux lets it: here it has not, and ATS was turned on
/// behind its back.
const NO_ATS: [Cause; 2] = [
    Cause {
        action: "read 0x10000 16 via=ats",
        ends: "unsupported-request",
        event: INVALID_DEVICE_REQUEST,
        flags: NOT_ALLOWED | TR,
        address: 0x1_0000,
        ..READ
    },
    Cause {
        action: "read 0x10000 16 via=translated",
        event: INVALID_DEVICE_REQUEST,
        flags: NOT_ALLOWED,
        address: 0x1_0000,
        ..READ
    },
];

/// A page request that Linux has not allowed (PPR of the device table entry). Flag 0 is RX: the unit has
/// answered, and Linux must not. The tag is that of the entry: group 0, and "last" above it.
const NO_PRI: [Cause; 1] = [Cause {
    action: "page-requests 0x10000 4096",
    ends: "response-invalid",
    event: INVALID_PPR_REQUEST,
    flags: 1,
    address: 0x1_0000,
    tail: " tag=0x200]",
    ..READ
}];

/// Does what a cause says and looks at what the guest says, and at what the capture says.
fn provoke(cause: &Cause, guest: &Guest, served: &mut Served) {
    let (code, name) = cause.event;
    let mistake = Mistake {
        action: cause.action,
        ends: cause.ends,
        code,
        device: cause.device,
        address: cause.address,
        write: cause.flags & RW != 0,
        line: "Event logged",
    };
    let (heard, explained) = provoked::provoke(&mistake, guest, served);
    let (address, flags) = (cause.address, cause.flags);
    let mut said = vec![
        format!("AMD-Vi: Event logged [{name} "),
        format!("address={address:#x} flags=0x{flags:04x}{}", cause.tail),
        cause.device.to_owned(),
    ];
    said.extend(cause.space.map(|space| format!("domain={space} ")));
    for said in said {
        assert!(
            heard.contains(&said),
            "{}: {heard:?} lacks {said:?}",
            cause.action
        );
    }
    // The record that explain lays out has the same words: device in the low half of the first, code
    // and flags in the upper half of the second, then the address (`EVENT_*_SHIFT` of Linux).
    let record = explained["record"].as_str().unwrap();
    let bytes: Vec<u8> = (0..record.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&record[at..at + 2], 16).unwrap())
        .collect();
    let words = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    assert_eq!(bytes.len(), 16, "{record}");
    assert_eq!(words(0) >> 48, code << 12 | flags, "{record}");
    assert_eq!(words(8), address, "{record}");
}

fn provoke_all(causes: &[Cause], guest: &Guest, served: &mut Served) {
    for cause in causes {
        provoke(cause, guest, served);
    }
}

#[test]
fn a_guest_with_host_tables_is_told_the_cause_of_every_bad_dma_and_of_its_own_where_the_hosts_differs()
 {
    let (mut served, guest, _file) = boot(stock(Stock::Newest).unwrap(), &AMDVI, "");
    prepare(&guest);
    provoke_all(&HOST, &guest, &mut served);

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
        (&0x79.into(), &2.into())
    );
    let heard = guest
        .must(&format!("kmsg-wait {mark} 10000 Event logged"))
        .unwrap()
        .concat();
    assert!(heard.contains("address=0x11000 flags=0x0070"), "{heard}");

    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], HOST.len() + 1, "{counts}");
    assert_eq!(counts["recorded"], counts["faults"], "each had its record");
    assert_eq!(
        (&counts["logged"], &counts["suppressed"]),
        (&0.into(), &0.into()),
        "no line for the host"
    );
}

#[test]
fn a_guest_with_guest_tables_is_told_the_cause_of_every_bad_dma() {
    let (mut served, guest, _file) =
        boot(stock(Stock::Newest).unwrap(), &AMDVI, "amd_iommu=pgtbl_v2");
    prepare(&guest);
    provoke_all(&GUEST, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], GUEST.len(), "{counts}");
    assert_eq!(counts["recorded"], counts["faults"], "each had its record");
}

/// Registers of the engine: the control register of ATS; control and allocation of PRI.
const ATS_CONTROL: &str = "0x106";
const PRI_CONTROL: &str = "0x10c";
const PRI_ALLOCATION: &str = "0x114";

#[test]
fn a_device_that_uses_ats_without_leave_is_found_out() {
    let (mut served, guest, _file) = boot(stock(Stock::Stable).unwrap(), &LEGACY, "");
    prepare(&guest);
    // Linux gives no device ATS where the unit has no page requests (`iommu_init_device`).
    let control = format!("config 00:04.0 read {ATS_CONTROL} 2");
    assert_eq!(guest.must(&control).unwrap(), ["0x0"]);
    guest
        .must(&format!("config 00:04.0 write {ATS_CONTROL} 2 0x8000"))
        .unwrap();
    provoke_all(&NO_ATS, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], NO_ATS.len(), "{counts}");
}

#[test]
fn a_device_that_asks_for_pages_without_leave_is_found_out_and_answered() {
    let (mut served, guest, _file) = boot(stock(Stock::Newest).unwrap(), &AMDVI, "");
    prepare(&guest);
    // Behind vfio, with host tables, Linux turns page requests off (`attach_device`).
    let control = format!("config 00:04.0 read {PRI_CONTROL} 2");
    assert_eq!(guest.must(&control).unwrap(), ["0x0"]);
    for (register, width, value) in [(PRI_ALLOCATION, 4, 32), (PRI_CONTROL, 2, 1)] {
        let write = format!("config 00:04.0 write {register} {width} {value}");
        guest.must(&write).unwrap();
    }
    provoke_all(&NO_PRI, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], 1, "{counts}");
    assert_eq!(counts["page_requests_refused"], 1, "{counts}");
    assert_eq!(counts["answers_unexpected"], 0, "one answer: {counts}");
}
