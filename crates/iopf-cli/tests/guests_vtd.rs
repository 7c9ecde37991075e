//! Unmodified Linux in front of `iopf serve`: it binds, translates, and sees its own faults.
#![expect(clippy::unwrap_used, reason = "a test ends where something is missing")]

mod served;

use served::Served;
use std::process::Command;
use testkit::guest::{Builder, Guest};
use testkit::kernel::{Kernel, Stock, stock};

/// What the entropy device of these tests gives.
const BYTES: &str = "iopf: these are our bytes, over and over. ";

/// The two modes: arguments of the server, and words for the kernel.
const MODES: [(&[&str], &str); 2] = [
    (&["--legacy"], "intel_iommu=on,sm_off"),
    (&[], "intel_iommu=on,sm_on"),
];

/// Serves an entropy device of known bytes and a DMA engine.
fn serve(arguments: &[&str]) -> (Served, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), BYTES).unwrap();
    let entropy = file.path().to_str().unwrap();
    let functions = ["--endpoint", "rng@06.0", "--endpoint", "dma@04.0"];
    let arguments = [arguments, &functions, &["--entropy", entropy]].concat();
    (Served::start(&arguments), file)
}

fn guest(kernel: &Kernel, words: &str) -> Builder {
    Guest::builder(kernel)
        .append(words)
        .module("virtio_pci")
        .module("virtio-rng")
        .module("vfio-pci")
        // Interrupt remapping cannot be had: QEMU delivers messages without asking.
        .module_with("vfio_iommu_type1", "allow_unsafe_interrupts=1")
}

/// Binds, and `/dev/hwrng` returns our bytes by translated DMA.
fn binds(which: Stock) {
    let kernel = stock(which).unwrap();
    for (arguments, words) in MODES {
        let (mut served, _file) = serve(arguments);
        let guest = served.boot(guest(kernel, words));
        println!(
            "{} {words}: up after {} s",
            guest.hello().release,
            guest.hello().uptime
        );
        // Firmware does not choose what the server guessed; the table was right when the guest read it.
        let bars = served.events.iter().filter(|event| event["event"] == "bar");
        let fits: Vec<_> = bars.map(|event| event["fits"] == true).collect();
        assert_eq!(fits, [false, true], "{}", served.transcript());
        let log = guest.must("dmesg").unwrap().join("\n");
        for said in [
            "DMAR: dmar0: reg_base_addr",
            "DMAR: Intel(R) Virtualization Technology for Directed I/O",
        ] {
            assert!(log.contains(said), "{log}");
        }
        let current = guest
            .must("cat /sys/class/misc/hw_random/rng_current")
            .unwrap();
        assert_eq!(current, ["virtio_rng.0"]);
        let read = guest.must("hwrng 64").unwrap().concat();
        let ours: String = BYTES
            .bytes()
            .cycle()
            .take(200)
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(read.len(), 128);
        // The kernel has taken some for itself before.
        assert!(ours.contains(&read), "{read} are not our bytes");
        let last = served.stop();
        assert_eq!(last["counts"]["faults"], 0, "{last}");
        assert!(last["counts"]["bytes"].as_u64() >= Some(64), "{last}");
    }
}

#[test]
fn debians_stable_kernel_binds_in_both_modes_and_reads_our_bytes() {
    binds(Stock::Stable);
}

#[test]
fn debians_newest_kernel_binds_in_both_modes_and_reads_our_bytes() {
    binds(Stock::Newest);
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

/// Maps a page for reading only at 0x10000.
fn prepare(guest: &Guest) {
    for command in [
        "bind 00:04.0 vfio-pci",
        "vfio-open 00:04.0",
        "vfio-map 0x10000 0x2000 r 0x1122334455667788",
        "bus-master 00:04.0 on",
    ] {
        guest.must(command).unwrap();
    }
    let read = "dma 00:04.0 0 verify 0x10000 0x2000 pattern=0x1122334455667788 via=untranslated";
    assert_eq!(guest.run(read).unwrap().value("state"), Some("done"));
}

/// Does what a cause says and looks at what the guest says and what the capture says.
fn provoke(cause: &Cause, guest: &Guest, served: &mut Served) {
    let mark = guest.must("kmsg-mark").unwrap().concat();
    let done = guest
        .run(&format!("dma 00:04.0 0 {}", cause.action))
        .unwrap();
    assert_eq!(
        done.value("code"),
        Some("blocked"),
        "{}: {done:?}",
        cause.action
    );
    let capture = served.wait("capture", |event| event["code"] == cause.code);
    let heard = guest
        .must(&format!("kmsg-wait {mark} 5000 fault reason"))
        .unwrap()
        .concat();
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
    explained(cause, capture["file"].as_str().unwrap());
    println!("{:<55} {:#04x}  {heard}", cause.action, cause.code);
}

/// `iopf explain` says the same of the capture.
fn explained(cause: &Cause, file: &str) {
    let iopf = || Command::new(assert_cmd::cargo::cargo_bin!("iopf"));
    let output = iopf().args(["explain", "--json", file]).output().unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["outcome"], "fault", "{line}");
    assert_eq!(line["code"], cause.code, "{line}");
    let capture = std::fs::read_to_string(file).unwrap();
    let capture: serde_json::Value = serde_json::from_str(&capture).unwrap();
    let request = &capture["requests"][0];
    assert_eq!(request["device"], format!("0000:{}", cause.device));
    assert_eq!(request["addr"], format!("{:#x}", cause.address));
    let access = if cause.direction.contains("Write") {
        "w"
    } else {
        "r"
    };
    assert!(
        request["access"].as_str().unwrap().starts_with(access),
        "{request}"
    );
    let check = iopf().args(["explain", "--check", file]).output().unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
}

fn provoke_all(causes: &[Cause], guest: &Guest, served: &mut Served) {
    for row in causes.chunks(FAULTS_IN_A_ROW) {
        for cause in row {
            provoke(cause, guest, served);
        }
        guest.must(&format!("sleep {INTERVAL_MS}")).unwrap();
    }
}

#[test]
fn a_guest_in_scalable_mode_is_told_the_cause_of_every_bad_dma_and_of_its_own_where_the_hosts_differs()
 {
    let (mut served, _file) = serve(MODES[1].0);
    let guest = served.boot(guest(stock(Stock::Newest).unwrap(), MODES[1].1));
    prepare(&guest);
    provoke_all(&SCALABLE, &guest, &mut served);

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
    let (mut served, _file) = serve(MODES[0].0);
    let guest = served.boot(guest(stock(Stock::Stable).unwrap(), MODES[0].1));
    prepare(&guest);
    provoke_all(&LEGACY, &guest, &mut served);
    let counts = served.stop()["counts"].clone();
    assert_eq!(counts["faults"], LEGACY.len(), "{counts}");
}
