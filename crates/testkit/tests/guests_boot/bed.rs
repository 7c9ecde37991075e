//! What the tests of both processors do.

use std::path::Path;
use testkit::guest::{Builder, Guest};
use testkit::kernel::Kernel;

/// QEMU's teaching device, 1234:11e8, with 1 MiB of registers (`docs/specs/edu.rst` of QEMU).
pub(crate) const EDU: [&str; 2] = ["-device", "edu,addr=04.0"];

/// Boots a guest and says how long it took.
pub(crate) fn boot(kernel: &Kernel, builder: Builder) -> Guest {
    let started = std::time::Instant::now();
    let guest = builder.boot().unwrap();
    println!(
        "{}: at its agent {:.1} s after power-on, {} s by its own clock",
        kernel.version(),
        started.elapsed().as_secs_f32(),
        guest.hello().uptime
    );
    assert_eq!(guest.must("ping").unwrap(), ["pong"]);
    guest
}

/// What a kernel is configured with.
pub(crate) fn options<'a>(kernel: &Kernel, names: &[&'a str]) -> Vec<(&'a str, Option<String>)> {
    let value = |name: &&'a str| (*name, kernel.config(name));
    names.iter().map(value).collect()
}

/// The same value for each.
pub(crate) fn set<'a>(names: &[&'a str], value: Option<&str>) -> Vec<(&'a str, Option<String>)> {
    let pair = |name: &&'a str| (*name, value.map(str::to_owned));
    names.iter().map(pair).collect()
}

/// The modules that a guest has loaded.
pub(crate) fn loaded(guest: &Guest) -> Vec<String> {
    let lines = guest.must("cat /proc/modules").unwrap();
    let name = |line: &String| line.split(' ').next().map(str::to_owned);
    lines.iter().filter_map(name).collect()
}

/// Whether a process of this machine is there.
pub(crate) fn alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Reads and writes configuration and registers of the teaching device, and binds vfio-pci to it; gives
/// the address of its registers.
pub(crate) fn works_edu(guest: &Guest) -> String {
    let edu = guest.must("lspci").unwrap();
    let edu = edu.iter().find(|line| line.contains("1234:11e8")).unwrap();
    let (_, bar) = edu.split_once("bar0=0x").unwrap();
    let (address, size) = bar.split_once('+').unwrap();
    assert_eq!(size, "0x100000");
    let vendor = guest.must("config 00:04.0 read 0 4").unwrap();
    assert_eq!(vendor, ["0x11e81234"]);
    // The identification register: version 1.0 and "ed".
    let id = guest.must("bar 00:04.0 0 read 0 4").unwrap();
    assert_eq!(id, ["0x10000ed"]);
    // The liveness check: what is written comes back inverted.
    guest.must("bar 00:04.0 0 write 4 4 0x12345678").unwrap();
    let inverted = guest.must("bar 00:04.0 0 read 4 4").unwrap();
    assert_eq!(inverted, ["0xedcba987"]);
    for (turn, bit) in [("on", 4), ("off", 0)] {
        guest.must(&format!("bus-master 00:04.0 {turn}")).unwrap();
        let command = guest.must("config 00:04.0 read 4 2").unwrap().remove(0);
        let command = u32::from_str_radix(&command[2..], 16).unwrap();
        assert_eq!(command & 4, bit, "{command:#x}");
    }
    guest.must("bind 00:04.0 vfio-pci").unwrap();
    let lines = guest.must("lspci").unwrap().join("\n");
    assert!(lines.contains("driver=vfio-pci"), "{lines}");
    // It is no DMA engine of ours, and is told so rather than driven.
    guest.must("unbind 00:04.0").unwrap();
    let refused = guest.run("dma 00:04.0 0 read 0 64").unwrap();
    assert_eq!(refused.status, 1);
    assert_eq!(
        refused.lines,
        ["error: not a DMA engine: its ID is 0x10000ed"]
    );
    address.to_owned()
}
