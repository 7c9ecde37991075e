//! Bad DMA in a guest, and what the guest, the server and `iopf explain` must say of it.
#![allow(dead_code, reason = "each test binary uses its own part of this")]

use crate::served::Served;
use serde_json::Value;
use std::process::Command;
use testkit::guest::{Builder, Guest};
use testkit::kernel::Kernel;

/// What the entropy device of these tests gives.
const BYTES: &str = "iopf: these are our bytes, over and over. ";

/// Serves an entropy device of known bytes and a DMA engine to such a guest.
pub(crate) fn serve(before: &Builder, arguments: &[&str]) -> (Served, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), BYTES).expect("it is ours");
    let entropy = file.path().to_str().expect("a path");
    let functions = ["--endpoint", "rng@06.0", "--endpoint", "dma@04.0"];
    // Where firmware puts the registers is found out, where there is firmware.
    let guess: &[&str] = match arguments.contains(&"smmuv3") {
        true => &[],
        false => &["--bar", "0xfe000000"],
    };
    let arguments = [arguments, &functions, guess, &["--entropy", entropy]].concat();
    (Served::start_before(before, &arguments), file)
}

/// A server, and a guest in front of it with drivers for both functions.
pub(crate) fn boot(
    kernel: &Kernel,
    arguments: &[&str],
    words: &str,
) -> (Served, Guest, tempfile::NamedTempFile) {
    let guest = guest(kernel, words);
    let (mut served, file) = serve(&guest, arguments);
    let guest = served.boot(guest);
    (served, guest, file)
}

/// A guest with drivers for both.
fn guest(kernel: &Kernel, words: &str) -> Builder {
    Guest::builder(kernel)
        .append(words)
        .module("virtio_pci")
        .module("virtio-rng")
        .module("vfio-pci")
        // Interrupt remapping cannot be had: QEMU delivers messages without asking.
        .module_with("vfio_iommu_type1", "allow_unsafe_interrupts=1")
}

/// A way to bind: arguments of the server, words for the kernel, and what its log must say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mode {
    pub(crate) arguments: &'static [&'static str],
    pub(crate) words: &'static str,
    pub(crate) said: &'static [&'static str],
}

/// A kernel binds in each of these modes, and `/dev/hwrng` returns our bytes by translated DMA. Its log
/// says none of `never`.
pub(crate) fn binds(kernel: &Kernel, modes: &[Mode], never: &[&str]) {
    for mode in modes {
        let (served, guest, _file) = boot(kernel, mode.arguments, mode.words);
        let hello = guest.hello();
        println!("{} {mode:?}: up after {} s", hello.release, hello.uptime);
        let log = guest.must("dmesg").expect("a log").join("\n");
        for said in mode.said {
            assert!(log.contains(said), "{said:?}: {log}");
        }
        for bad in never {
            assert!(!log.contains(bad), "{bad:?}: {log}");
        }
        reads_our_bytes(&guest, &served);
        let last = served.stop();
        assert_eq!(last["counts"]["faults"], 0, "{last}");
        assert_eq!(last["counts"]["queue_errors"], 0, "{last}");
        assert!(last["counts"]["bytes"].as_u64() >= Some(64), "{last}");
    }
}

/// Firmware did not choose what the server guessed; the table was right when the guest read it; and
/// `/dev/hwrng` returns our bytes by translated DMA. With a device tree there is nothing to guess.
pub(crate) fn reads_our_bytes(guest: &Guest, served: &Served) {
    let bars = served.events.iter().filter(|event| event["event"] == "bar");
    let fits: Vec<_> = bars.map(|event| event["fits"] == true).collect();
    let expected: &[bool] = match served.arch() {
        "smmuv3" => &[true],
        _ => &[false, true],
    };
    assert_eq!(fits, expected, "{}", served.transcript());
    let current = guest
        .must("cat /sys/class/misc/hw_random/rng_current")
        .expect("a file of the kernel");
    assert_eq!(current, ["virtio_rng.0"]);
    let read = guest.must("hwrng 64").expect("random bytes").concat();
    let ours: String = BYTES
        .bytes()
        .cycle()
        .take(200)
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(read.len(), 128);
    // The kernel has taken some for itself before.
    assert!(ours.contains(&read), "{read} are not our bytes");
}

/// Maps two pages for reading only at 0x10000.
pub(crate) fn prepare(guest: &Guest) {
    for command in [
        "bind 00:04.0 vfio-pci",
        "vfio-open 00:04.0",
        "vfio-map 0x10000 0x2000 r 0x1122334455667788",
        "bus-master 00:04.0 on",
    ] {
        guest.must(command).expect("the guest does this");
    }
    let read = "dma 00:04.0 0 verify 0x10000 0x2000 pattern=0x1122334455667788 via=untranslated";
    let done = guest.run(read).expect("the guest answers");
    assert_eq!(done.value("state"), Some("done"), "{done:?}");
}

/// Something that goes wrong, whatever the architecture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mistake<'a> {
    /// What is done in the guest, after `dma 00:04.0 0`.
    pub(crate) action: &'a str,
    /// How it ends for the device.
    pub(crate) ends: &'a str,
    /// The number in the record.
    pub(crate) code: u64,
    /// Who is to blame.
    pub(crate) device: &'a str,
    /// Where.
    pub(crate) address: u64,
    /// It was a write.
    pub(crate) write: bool,
    /// What the line of the guest's log has for certain.
    pub(crate) line: &'a str,
}

/// Does what a mistake says. Gives what the guest's kernel said, and what `iopf explain` makes of the
/// capture that was taken at that moment.
pub(crate) fn provoke(
    mistake: &Mistake<'_>,
    guest: &Guest,
    served: &mut Served,
) -> (String, Value) {
    let Mistake { action, code, .. } = *mistake;
    let mark = guest.must("kmsg-mark").expect("a mark").concat();
    let done = guest
        .run(&format!("dma 00:04.0 0 {action}"))
        .expect("the guest answers");
    assert_eq!(done.value("code"), Some(mistake.ends), "{action}: {done:?}");
    let capture = served.wait("capture", |event| {
        event["code"] == code
            && mistake
                .device
                .ends_with(event["device"].as_str().unwrap_or("?"))
    });
    let heard = guest
        .must(&format!("kmsg-wait {mark} 10000 {}", mistake.line))
        .expect("the guest is told")
        .concat();
    let line = explained(mistake, capture["file"].as_str().expect("a file"));
    println!("{action:<55} {code:#04x}  {heard}");
    (heard, line)
}

/// The requester ID of `BUS:DEVICE.FUNCTION`.
fn requester(place: &str) -> u64 {
    let (bus, rest) = place.split_once(':').expect("a bus");
    let (device, function) = rest.split_once('.').expect("a function");
    let [bus, device, function] =
        [bus, device, function].map(|part| u64::from_str_radix(part, 16).expect("in hex"));
    bus << 8 | device << 3 | function
}

/// `iopf explain` finds the same fault in the capture.
fn explained(mistake: &Mistake<'_>, file: &str) -> Value {
    let iopf = || Command::new(assert_cmd::cargo::cargo_bin!("iopf"));
    let output = iopf()
        .args(["explain", "--json", file])
        .output()
        .expect("it runs");
    let line: Value = serde_json::from_slice(&output.stdout).expect("an object");
    assert_eq!(line["outcome"], "fault", "{line}");
    assert_eq!(line["code"], mistake.code, "{line}");
    let capture = std::fs::read_to_string(file).expect("a capture");
    let capture: Value = serde_json::from_str(&capture).expect("JSON");
    let request = &capture["requests"][0];
    match request["device"].as_u64() {
        // A StreamID is one number.
        Some(stream) => assert_eq!(stream, requester(mistake.device)),
        None => assert_eq!(request["device"], format!("0000:{}", mistake.device)),
    }
    assert_eq!(request["addr"], format!("{:#x}", mistake.address));
    let access = if mistake.write { "w" } else { "r" };
    let asked = request["access"].as_str().expect("letters");
    assert!(asked.starts_with(access), "{request}");
    let check = iopf()
        .args(["explain", "--check", file])
        .output()
        .expect("it runs");
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stdout)
    );
    line
}
