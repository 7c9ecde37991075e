//! Unmodified Linux in front of `iopf serve`: it binds, translates, and sees its own faults.

mod served;

use served::Served;
use testkit::guest::Guest;
use testkit::kernel::{Stock, stock};

#[test]
fn first() {
    let mut served = Served::start(&[
        "--endpoint",
        "dma@04.0",
        "--endpoint",
        "dsa@07.0",
        "--trace",
        "--verbose",
    ]);
    let kernel = stock(Stock::Newest).unwrap();
    let guest = served.boot(
        Guest::builder(kernel)
            .append("intel_iommu=on,sm_on setcpuid=movdir64b")
            .module("idxd")
            .verbose(),
    );
    println!("{}", served.transcript());
    for line in guest.must("lspci").unwrap() {
        println!("{line}");
    }
    for line in guest.must("dmesg").unwrap() {
        println!("{line}");
    }
    println!("{:?}", guest.run("dma 00:04.0 0 read 0xdead000 16"));
    std::thread::sleep(std::time::Duration::from_millis(300));
    for line in guest.must("dmesg").unwrap().iter().rev().take(5) {
        println!("{line}");
    }
    served.catch_up();
    println!("{}", served.transcript());
    println!("{}", served.stop());
}
