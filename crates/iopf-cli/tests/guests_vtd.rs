//! Unmodified Linux in front of `iopf serve`: it binds, translates, and sees its own faults.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod provoked;
mod served;

use provoked::{Mistake, Mode, binds, boot, prepare};
use served::Served;
use testkit::guest::Guest;
use testkit::kernel::{Stock, stock};

const SAID: &[&str] = &[
    "DMAR: dmar0: reg_base_addr",
    "DMAR: Intel(R) Virtualization Technology for Directed I/O",
];

/// The two modes.
const MODES: [Mode; 2] = [
    Mode {
        arguments: &["--legacy"],
        words: "intel_iommu=on,sm_off",
        said: SAID,
    },
    Mode {
        arguments: &[],
        words: "intel_iommu=on,sm_on",
        said: SAID,
    },
];

#[test]
fn debians_stable_kernel_binds_in_both_modes_and_reads_our_bytes() {
    binds(stock(Stock::Stable).unwrap(), &MODES, &[]);
}

#[test]
fn debians_newest_kernel_binds_in_both_modes_and_reads_our_bytes() {
    binds(stock(Stock::Newest).unwrap(), &MODES, &[]);
}

/// Something that goes wrong, and what must be said of it. Codes are typed from the specification's
/// table of fault conditions, words from Linux `drivers/iommu/intel/dmar.c`.
struct Cause {
    /// What is done in the guest, after `dma 00:04.0 0`.
    action: &'static str,
    code: u64,
    /// How the guest's log names direction and address space.
    direction: &'static str,
    device: &'static str,
    address: u64,
    words: &'static str,
}

const SCALABLE: [Cause; 9] = [
    Cause {
        action: "write 0x10000 16 via=untranslated data=11",
        code: 0x85,
        direction: "DMA Write NO_PASID",
        device: "00:04.0",
        address: 0x10000,
        words: "SM: No write permission for Write/AtomicOp request",
    },
    Cause {
        action: "read 0xbeef000 16 via=untranslated",
        code: 0x71,
        direction: "DMA Read NO_PASID",
        device: "00:04.0",
        address: 0xbeef000,
        words: "SM: Present bit in first-level paging entry is clear",
    },
    Cause {
        action: "read 0x1000000000000000 16 via=untranslated",
        code: 0x80,
        direction: "DMA Read NO_PASID",
        device: "00:04.0",
        address: 0x1000_0000_0000_0000,
        words: "SM: Address in first-level translation is not canonical",
    },
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=5",
        code: 0x59,
        direction: "DMA Read PASID 0x5",
        device: "00:04.0",
        address: 0x1000,
        words: "SM: Present bit in PASID Table Entry is clear",
    },
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=0x40000",
        code: 0x51,
        direction: "DMA Read PASID 0x40000",
        device: "00:04.0",
        address: 0x1000,
        words: "SM: Present bit in Directory Entry is clear",
    },
    Cause {
        action: "read 0x1000 16 via=untranslated pasid=0 priv",
        code: 0x48,
        direction: "DMA Read PASID 0x0",
        device: "00:04.0",
        address: 0x1000,
        words: "SM: RID_PASID field error in Context-Entry",
    },
    Cause {
        action: "read 0x1000 16 via=untranslated rid=00:03.0",
        code: 0x41,
        direction: "DMA Read NO_PASID",
        device: "00:03.0",
        address: 0x1000,
        words: "SM: Present bit in Context Entry is clear",
    },
    Cause {
        action: "write 0x1000 16 via=untranslated rid=55:00.0 data=11",
        code: 0x39,
        direction: "DMA Write NO_PASID",
        device: "55:00.0",
        address: 0x1000,
        words: "SM: Present bit in Root Entry is clear",
    },
    Cause {
        action: "read 0xfee00000 4 via=untranslated",
        code: 0x87,
        direction: "DMA Read NO_PASID",
        device: "00:04.0",
        address: 0xfee0_0000,
        words: "SM: Invalid address-interrupt address",
    },
];

const LEGACY: [Cause; 6] = [
    Cause {
        action: "write 0x10000 16 via=untranslated data=11",
        code: 0x05,
        direction: "DMA Write NO_PASID",
        device: "00:04.0",
        address: 0x10000,
        words: "PTE Write access is not set",
    },
    Cause {
        action: "read 0xbeef000 16 via=untranslated",
        code: 0x06,
        direction: "DMA Read NO_PASID",
        device: "00:04.0",
        address: 0xbeef000,
        words: "PTE Read access is not set",
    },
    Cause {
        action: "read 0x1000000000000000 16 via=untranslated",
        code: 0x04,
        direction: "DMA Read NO_PASID",
        device: "00:04.0",
        address: 0x1000_0000_0000_0000,
        words: "Access beyond MGAW",
    },
    Cause {
        action: "read 0x1000 16 via=untranslated rid=00:03.0",
        code: 0x02,
        direction: "DMA Read NO_PASID",
        device: "00:03.0",
        address: 0x1000,
        words: "Present bit in context entry is clear",
    },
    Cause {
        action: "write 0x1000 16 via=untranslated rid=55:00.0 data=11",
        code: 0x01,
        direction: "DMA Write NO_PASID",
        device: "55:00.0",
        address: 0x1000,
        words: "Present bit in root entry is clear",
    },
    Cause {
        action: "read 0xfee00000 4 via=untranslated",
        code: 0x0e,
        direction: "DMA Read NO_PASID",
        device: "00:04.0",
        address: 0xfee0_0000,
        // It knows the numbers up to 0dh.
        words: "Unknown",
    },
];

/// The guest's driver says no more than three faults in 5 s, since it asks its limit three times for
/// each (`dmar_fault`, ten in 5 s).
const FAULTS_IN_A_ROW: usize = 3;
const INTERVAL_MS: u64 = 5200;

/// Does what a cause says and looks at what the guest says and what the capture says.
fn provoke(cause: &Cause, guest: &Guest, served: &mut Served) {
    let mistake = Mistake {
        action: cause.action,
        ends: "blocked",
        code: cause.code,
        device: cause.device,
        address: cause.address,
        write: cause.direction.contains("Write"),
        line: "fault reason",
    };
    let (heard, _) = provoked::provoke(&mistake, guest, served);
    // 7.x puts the segment before the device.
    let (address, code) = (cause.address, cause.code);
    for said in [
        format!("[{}] Request device [", cause.direction),
        format!(
            "{}] fault addr {address:#x} [fault reason {code:#04x}]",
            cause.device
        ),
        cause.words.to_owned(),
    ] {
        assert!(
            heard.contains(&said),
            "{}: {heard:?} lacks {said:?}",
            cause.action
        );
    }
}

fn provoke_all(causes: &[Cause], guest: &Guest, served: &mut Served) {
    for (turn, row) in causes.chunks(FAULTS_IN_A_ROW).enumerate() {
        if turn > 0 {
            an_interval(guest);
        }
        for cause in row {
            provoke(cause, guest, served);
        }
    }
}

/// Lets the guest's driver speak again.
fn an_interval(guest: &Guest) {
    guest.must(&format!("sleep {INTERVAL_MS}")).unwrap();
}

#[test]
fn a_guest_in_scalable_mode_is_told_the_cause_of_every_bad_dma_and_of_its_own_where_the_hosts_differs()
 {
    let (mut served, guest, _file) = boot(
        stock(Stock::Newest).unwrap(),
        MODES[1].arguments,
        MODES[1].words,
    );
    prepare(&guest);
    provoke_all(&SCALABLE, &guest, &mut served);
    an_interval(&guest);

    // The host's tables know nothing of the page (79h, SSL.2); the guest's say that it is read-only.
    let mark = guest.must("kmsg-mark").unwrap().concat();
    let done = guest
        .run("dma 00:04.0 0 write 0x11000 16 via=host data=11")
        .unwrap();
    assert_eq!(done.value("code"), Some("blocked"));
    let host = served.wait("host_fault", |_| true);
    assert_eq!(
        (&host["host_code"], &host["guest_code"]),
        (&0x79.into(), &0x85.into())
    );
    let heard = guest
        .must(&format!("kmsg-wait {mark} 5000 fault reason"))
        .unwrap()
        .concat();
    assert!(
        heard.contains("fault addr 0x11000 [fault reason 0x85]"),
        "{heard}"
    );

    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], SCALABLE.len() + 1, "{counts}");
    assert_eq!(counts["recorded"], counts["faults"], "each had its record");
    assert_eq!(
        (&counts["logged"], &counts["suppressed"]),
        (&0.into(), &0.into()),
        "no line for the host"
    );
}

#[test]
fn a_guest_in_legacy_mode_is_told_the_cause_of_every_bad_dma() {
    let (mut served, guest, _file) = boot(
        stock(Stock::Stable).unwrap(),
        MODES[0].arguments,
        MODES[0].words,
    );
    prepare(&guest);
    provoke_all(&LEGACY, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], LEGACY.len(), "{counts}");
}
