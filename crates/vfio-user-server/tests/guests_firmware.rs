//! A real QEMU in front of a function: it is realized, the firmware finds it, memory arrives.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod client;

use client::{Rig, until};
use iopf::Gpa;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use vfio_user_server::Server;
use viommu_api::{MsiSink, PhysicalMemory};

/// What the guest has. The firmware remaps some of it, so less is reachable at times.
const MEMORY: u64 = 256 << 20;

/// A QEMU that is gone when the test is, whatever happens.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Qemu {
    fn start(sockets: &[(&str, &std::path::Path)], backend: &str) -> Self {
        let root = testkit::qemu::root::ensure().unwrap();
        println!("{}", root.version());
        let mut command: Command = root.command();
        command
            .args(["-M", "q35,memory-backend=m", "-object", backend])
            .args(["-accel", "tcg", "-cpu", "max", "-nodefaults"])
            .args(["-display", "none", "-monitor", "stdio"]);
        for (slot, path) in sockets {
            let socket = format!(
                "{{\"driver\":\"vfio-user-pci\",\"addr\":\"{slot}\",\"socket\":{{\"type\":\"unix\",\"path\":\"{}\"}}}}",
                path.display()
            );
            command.args(["-device", &socket]);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self(command.spawn().unwrap())
    }

    /// A command of its monitor.
    fn monitor(&mut self, line: &str) {
        let monitor = self.0.stdin.as_mut().unwrap();
        writeln!(monitor, "{line}").unwrap();
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

/// Memory that its owner can shrink is none for us, and the guest runs all the same.
#[test]
fn memory_that_a_real_qemu_keeps_in_a_file_is_refused_and_the_log_says_what_to_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("4.sock");
    let rig = Rig::new();
    let server = Server::bind(&path, rig.function()).unwrap();
    let file = dir.path().join("memory");
    let backend = format!(
        "memory-backend-file,id=m,size=256M,share=on,mem-path={}",
        file.display()
    );
    let mut qemu = Qemu::start(&[("04.0", &path)], &backend);
    until(|| rig.device.config.lock().unwrap()[4] & 2 != 0);
    assert!(qemu.runs());
    assert!(
        rig.log.contains("DMA_MAP answered with EPERM"),
        "{}",
        rig.log.text()
    );
    assert!(
        rig.log
            .contains("use sealed memory (QEMU: memory-backend-memfd)")
    );
    assert!(rig.guest.bytes() < MEMORY);
    rig.guest.read(Gpa(0x413), &mut [0; 2]).unwrap_err();
    drop(qemu);
    server.stop();
}

const MEMFD: &str = "memory-backend-memfd,id=m,size=256M,share=on";

#[test]
fn the_firmware_of_a_real_qemu_finds_two_functions_and_their_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("4.sock"), dir.path().join("5.sock"));
    let rig = Rig::new();
    let other = Rig::of(rig.guest.clone());
    let server = Server::bind(&first, rig.function()).unwrap();
    let other_server = Server::bind(&second, other.function()).unwrap();
    let started = Instant::now();
    let mut qemu = Qemu::start(&[("04.0", &first), ("05.0", &second)], MEMFD);
    // Memory decoding on: the firmware is done with the function.
    let decodes = |rig: &Rig| rig.device.config.lock().unwrap()[4] & 2 != 0;
    until(|| decodes(&rig) && decodes(&other));
    let base = |rig: &Rig| rig.device.sized.lock().unwrap().1;
    println!(
        "{:?} until both functions decode memory, at {:#x} and {:#x}; {} ranges, {:#x} bytes",
        started.elapsed(),
        base(&rig),
        base(&other),
        rig.guest.ranges(),
        rig.guest.bytes()
    );
    assert!(base(&rig) > 0x8000_0000 && base(&rig) != base(&other));
    assert!(rig.guest.bytes() >= MEMORY, "{:#x}", rig.guest.bytes());
    // The guest's memory is ours too: the firmware keeps its data area at 0x400.
    let mut memory_size = [0; 2];
    rig.guest.read(Gpa(0x413), &mut memory_size).unwrap();
    assert!((512..=640).contains(&u16::from_le_bytes(memory_size)));
    rig.guest
        .write(Gpa(0x80_0000), b"from the function")
        .unwrap();
    let mut back = [0; 17];
    rig.guest.read(Gpa(0x80_0000), &mut back).unwrap();
    assert_eq!(&back, b"from the function");
    // The firmware switched bus mastering on for neither: QEMU says so of a message.
    rig.port.msi(0xfee0_0000, 0);
    until(|| rig.port.counters().messages_refused == 1);
    // The machine is reset: so is the function, and the firmware finds it again.
    let sized = |rig: &Rig| rig.device.sized.lock().unwrap().0;
    let (resets, times) = (*rig.device.resets.lock().unwrap(), sized(&rig));
    qemu.monitor("system_reset");
    until(|| *rig.device.resets.lock().unwrap() > resets && sized(&rig) > times);
    until(|| rig.guest.bytes() >= MEMORY);
    assert!(qemu.runs());
    assert_eq!(rig.log.count("answered with"), 0);
    // A QEMU that is killed leaves nothing behind.
    drop(qemu);
    until(|| rig.log.contains("disconnected") && other.log.contains("disconnected"));
    assert_eq!(rig.guest.bytes(), 0);
    server.stop();
    other_server.stop();
}
