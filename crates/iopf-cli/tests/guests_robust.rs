//! What breaks around a server, and what it leaves: killed servers, vanished guests, resets.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod process;
mod served;

use process::Usage;
use serde_json::{Value, json};
use served::Served;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use testkit::guest::{Builder, Guest};
use testkit::kernel::{Stock, Target, own, stock_for};

/// How long something may take that is to be over at once.
const SOON: Duration = Duration::from_secs(10);

/// Our own kernel, where any will do: it is up in two seconds.
fn quick() -> Builder {
    Guest::builder(own().unwrap()).append("intel_iommu=on,sm_on")
}

/// Tells QEMU something over its control socket.
fn qmp(socket: &Path, command: &str) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let mut answer = |wanted: &str| {
        for line in &mut lines {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert!(line.get("error").is_none(), "{line}");
            if line.get(wanted).is_some() {
                return;
            }
        }
        panic!("QEMU let go without {wanted}");
    };
    answer("QMP");
    for command in ["qmp_capabilities", command] {
        writeln!(stream, "{}", json!({ "execute": command })).unwrap();
        answer("return");
    }
}

/// An IOMMU and its driver.
struct Side {
    /// Arguments of the server.
    arguments: &'static [&'static str],
    /// Words for the kernel.
    words: &'static str,
    /// What the driver says when it has found its unit.
    found: &'static str,
    /// What it says of a read at 0xbeef000.
    told: &'static str,
    /// The processor, and an address where its guests have memory.
    target: Target,
    memory: u64,
}

const VTD: Side = Side {
    arguments: &[],
    words: "intel_iommu=on,sm_on",
    found: "DMAR: dmar0: reg_base_addr",
    told: "fault addr 0xbeef000",
    target: Target::X86_64,
    memory: 0x1000_0000,
};

/// Without PASIDs, so that Linux gives the engines address spaces.
const AMDVI: Side = Side {
    arguments: &["--arch", "amdvi", "--legacy"],
    words: "",
    found: "AMD-Vi: Using global IVHD EFR:",
    told: "address=0xbeef000",
    target: Target::X86_64,
    memory: 0x1000_0000,
};

const SMMUV3: Side = Side {
    arguments: &["--arch", "smmuv3"],
    words: "",
    found: "arm-smmu-v3 3efc0000.iommu: oas 48-bit",
    told: "iova: 0xbeef000",
    target: Target::Aarch64,
    memory: 0x5000_0000,
};

/// A bad read of the engine at 04.0 reaches the guest's log: the IOMMU works, and so does the driver.
fn translates(guest: &Guest) {
    translates_as(guest, &VTD);
}

fn translates_as(guest: &Guest, side: &Side) {
    guest.must("bus-master 00:04.0 on").unwrap();
    let mark = guest.must("kmsg-mark").unwrap().join("");
    let order = "dma 00:04.0 0 read 0xbeef000 16 via=untranslated";
    let done = guest.run(order).unwrap();
    assert_eq!(done.value("code"), Some("blocked"), "{done:?}");
    let told = guest.must(&format!("kmsg-wait {mark} 10000 {}", side.told));
    println!("{}", told.unwrap().join("\n"));
}

/// Sends the engines on an endless errand to an address that is memory of the guest, and that its
/// IOMMU does not translate.
fn keeps_at_it(guest: &Guest, engines: &[&str], memory: u64) {
    for engine in engines {
        guest.must(&format!("bus-master {engine} on")).unwrap();
        let order = format!(
            "dma {engine} 0 fill {memory:#x} 16 pattern=0xbad via=untranslated repeat=0xffffffff nowait"
        );
        guest.must(&order).unwrap();
        let status = guest.run(&format!("dma-status {engine} 0")).unwrap();
        assert_eq!(status.value("state"), Some("busy"), "{status:?}");
    }
}

fn found_translation_off(guest: &Guest, side: &Side) {
    let log = guest.must("dmesg").unwrap().join("\n");
    assert!(log.contains(side.found), "{log}");
    // Linux, drivers/iommu/intel/iommu.c, drivers/iommu/amd/init.c and arm/arm-smmu-v3/arm-smmu-v3.c:
    // what it says where translation is on when it comes.
    for said in [
        "Translation already enabled",
        "Translation was enabled",
        "SMMU currently enabled",
    ] {
        assert!(!log.contains(said), "{log}");
    }
}

#[test]
fn a_reset_of_the_machine_stops_its_dma_and_the_next_boot_binds_again() {
    survives_resets(&VTD);
}

#[test]
fn a_reset_of_a_machine_with_an_amd_iommu_does_the_same() {
    survives_resets(&AMDVI);
}

#[test]
fn a_reset_of_a_machine_with_an_smmu_does_the_same() {
    survives_resets(&SMMUV3);
}

fn survives_resets(side: &Side) {
    let functions = ["--endpoint", "dma@04.0", "--endpoint", "dma@08.0"];
    let builder = Guest::builder(stock_for(side.target, Stock::Newest).unwrap());
    let arguments = [side.arguments, &functions].concat();
    let mut served = Served::start_before(&builder, &arguments);
    // So the IOMMU is reset, and translation off, while the engines are still at work.
    served.put_unit_last();
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("qmp");
    let control = format!("unix:{},server=on,wait=off", socket.display());
    let builder = builder
        .append(side.words)
        .arguments(["-qmp", &control])
        .reboots();
    let guest = served.boot(builder);
    translates_as(&guest, side);
    keeps_at_it(&guest, &["00:04.0", "00:08.0"], side.memory);
    for how in ["system_reset", "reboot"] {
        if how == "reboot" {
            guest.tell(how).unwrap();
        } else {
            qmp(&socket, how);
        }
        served.wait("reset", |_| true);
        let started = Instant::now();
        let hello = guest.wait_hello(Duration::from_secs(60)).unwrap();
        println!("{how}: up again after {:?}, {hello:?}", started.elapsed());
        found_translation_off(&guest, side);
        let status = guest.run("dma-status 00:04.0 0").unwrap();
        assert_eq!(status.value("state"), Some("idle"), "{status:?}");
        translates_as(&guest, side);
    }
    let last = served.stop();
    println!("{last}");
    assert_eq!(last["counts"]["bytes"], 0, "no write went past the IOMMU");
}

#[test]
fn a_server_that_is_killed_takes_no_test_with_it_and_a_new_one_takes_its_place() {
    let arguments = ["--endpoint", "dma@04.0"];
    let mut served = Served::start(&arguments);
    let guest = served.boot(quick());
    keeps_at_it(&guest, &["00:04.0"], VTD.memory);
    let folder = served.folder();
    served.kill();
    let started = Instant::now();
    // Seen of QEMU 11.1, and up to chance: it ends by an assertion of its own, or the guest lives on
    // and reads ones.
    match guest.run_within("dma-status 00:04.0 0", SOON) {
        Ok(output) => {
            println!("the guest lives on: {output:?}");
            assert_ne!(output.status, 0, "no registers are there");
            assert!(output.lines[0].ends_with("its ID is 0xffffffff"));
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("QEMU ended with"), "{error}");
            let said: Vec<_> = error
                .lines()
                .filter(|line| !line.starts_with('['))
                .collect();
            println!("the guest is gone: {}", said.join("\n"));
        }
    }
    println!("known after {:?}", started.elapsed());
    assert!(started.elapsed() < SOON + Duration::from_secs(1));
    let stale = std::fs::read_dir(folder.path()).unwrap().flatten();
    let stale = stale.filter(|file| file.path().extension().is_some_and(|e| e == "sock"));
    assert_eq!(stale.count(), 2, "it had no time to clean up");

    let mut served = Served::start_in(folder, &arguments);
    let next = served.boot(quick());
    translates(&next);
    served.stop();
}

/// Memory of guests that process `pid` has mapped.
fn maps(pid: u32) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("memfd:")).count()
}

/// Waits until both functions have said that their client is gone, which they say first.
fn say_goodbye(served: &mut Served) {
    let mut gone = Vec::new();
    while gone.len() < 2 {
        let event = served.wait("disconnected", |_| true);
        assert_eq!(event["why"], "the client left");
        gone.push(event["function"].clone());
    }
    assert_ne!(gone[0], gone[1]);
}

#[test]
fn guests_that_vanish_leave_nothing_and_the_next_one_is_served_at_once() {
    const FLAT: u64 = 512;
    let mut served = Served::start(&["--endpoint", "dma@04.0"]);
    let pid = served.pid();
    let idle = Usage::of(pid);
    let guest = served.boot(quick());
    keeps_at_it(&guest, &["00:04.0"], VTD.memory);
    println!(
        "before: {idle}\nserving: {}, {} maps",
        Usage::of(pid),
        maps(pid)
    );
    assert!(maps(pid) > 0);

    let second = served.attach(quick()).probe().unwrap_err().to_string();
    println!("a second QEMU: {}", second.lines().next().unwrap());
    assert!(second.contains("Device or resource busy"), "{second}");
    let refused = served.wait("refused", |_| true);
    println!("the server: {refused}");
    let why = refused["why"].as_str().unwrap();
    assert!(why.ends_with("turned away: another client is connected"));
    let status = guest.run("dma-status 00:04.0 0").unwrap();
    assert_eq!(status.value("state"), Some("busy"), "the first one goes on");

    // In the middle of DMA, and of page requests: each piece is memory that is not there yet.
    guest.must("bind 00:04.0 uio_pci_sva").unwrap();
    let opened = guest.run("sva-open 00:04.0 0x8000000").unwrap();
    let (pasid, at) = (
        opened.value("pasid").unwrap(),
        opened.value("addr").unwrap(),
    );
    let order = format!(
        "dma 00:04.0 1 fill {at} 0x10000 pattern=1 pasid={pasid} repeat=2048 stride=0x10000 nowait"
    );
    guest.must(&order).unwrap();
    served.wait("counts", |event| event["responses"].as_u64() > Some(0));
    let killed = Instant::now();
    drop(guest.kill());
    let next = served.attach(quick()).boot().unwrap();
    println!("the next guest is up {:?} after the kill", killed.elapsed());
    say_goodbye(&mut served);
    translates(&next);
    drop(next.kill());
    say_goodbye(&mut served);

    let held = idle.held();
    let mut seen = vec![Usage::settled(pid, held)];
    for _ in 0..5 {
        served.attach(quick()).probe().unwrap();
        say_goodbye(&mut served);
        seen.push(Usage::settled(pid, held));
    }
    for usage in &seen {
        println!("nobody there: {usage}");
        assert_eq!(usage.held(), held);
        assert!(usage.resident.abs_diff(seen[0].resident) <= FLAT);
    }
    assert_eq!(maps(pid), 0);
    let last = served.stop();
    println!("{last}");
    assert_eq!(last["counts"]["queue_errors"], 0);
}
