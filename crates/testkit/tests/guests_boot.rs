//! Each kernel boots to our agent, and a guest that goes wrong is reported with its log.

use testkit::guest::Guest;
use testkit::kernel::{Stock, stock};

#[test]
fn debians_newest_kernel_boots_with_the_modules_of_its_dsa_driver_and_of_vfio() {
    let kernel = stock(Stock::Newest).unwrap();
    let guest = Guest::builder(kernel)
        .append("setcpuid=movdir64b")
        .module("idxd")
        .module("vfio-pci")
        .boot()
        .unwrap();
    println!("{}: {:?}", kernel.version(), guest.hello());
    assert_eq!(guest.must("ping").unwrap(), ["pong"]);
    let modules = guest.must("cat /proc/modules").unwrap().join("\n");
    for name in ["idxd", "idxd_bus", "vfio_pci", "vfio_pci_core", "vfio"] {
        assert!(modules.contains(&format!("{name} ")), "{modules}");
    }
}
