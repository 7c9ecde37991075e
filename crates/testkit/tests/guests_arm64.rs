//! Each arm64 kernel boots to our agent on QEMU's `virt`, behind QEMU's own SMMUv3.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use std::time::Duration;
use testkit::guest::Guest;
use testkit::kernel::{Kernel, Stock, Target, own_for, stock_for};

fn boot(kernel: &Kernel) -> Guest {
    let started = std::time::Instant::now();
    let guest = Guest::builder(kernel)
        .arguments(["-M", "iommu=smmuv3", "-device", "edu,addr=04.0"])
        .boot()
        .unwrap();
    println!(
        "{}: at its agent {:.1} s after power-on, {} s by its own clock",
        kernel.version(),
        started.elapsed().as_secs_f32(),
        guest.hello().uptime
    );
    guest
}

fn check(kernel: &Kernel) {
    let guest = boot(kernel);
    println!("{}", guest.must("dmesg").unwrap().join("\n"));
    println!("{}", guest.must("lspci").unwrap().join("\n"));
    println!("{}", guest.must("ls /dev").unwrap().join(" "));
    println!("{}", guest.must("cat /proc/modules").unwrap().join("\n"));
    guest.tell("poweroff").unwrap();
    guest.wait_end(Duration::from_secs(60)).unwrap();
}

#[test]
fn newest() {
    check(stock_for(Target::Aarch64, Stock::Newest).unwrap());
}
#[test]
fn stable() {
    check(stock_for(Target::Aarch64, Stock::Stable).unwrap());
}
#[test]
fn ours() {
    check(own_for(Target::Aarch64).unwrap());
}
