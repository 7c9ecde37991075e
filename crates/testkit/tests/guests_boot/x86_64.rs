//! Guests on x86-64.

use crate::bed::{EDU, alive, boot, loaded, options, set, works_edu};
use std::path::{Path, PathBuf};
use std::time::Duration;
use testkit::guest::{Guest, GuestError, accel_config};
use testkit::kernel::{Stock, own, stock};

/// QEMU's own IOMMU: without one, vfio-pci takes no device.
const IOMMU: [&str; 2] = ["-device", "intel-iommu"];

#[test]
fn debians_stable_kernel_boots_with_vfio_and_without_iommufd() {
    let kernel = stock(Stock::Stable).unwrap();
    let guest = boot(kernel, Guest::builder(kernel).module("vfio-pci"));
    let uname = guest.must("uname").unwrap().remove(0);
    assert!(uname.starts_with("Linux 6.12."), "{uname}");
    let on = ["INTEL_IOMMU", "INTEL_IOMMU_SVM"];
    assert_eq!(options(kernel, &on), set(&on, Some("y")));
    assert_eq!(kernel.config("IOMMUFD"), None);
    let loaded = loaded(&guest);
    for name in ["vfio", "vfio_pci_core", "vfio_pci"] {
        assert!(loaded.iter().any(|other| other == name), "{loaded:?}");
    }
}

#[test]
fn debians_newest_kernel_boots_with_its_dsa_driver_and_with_vfio() {
    let kernel = stock(Stock::Newest).unwrap();
    let builder = Guest::builder(kernel)
        .append("setcpuid=movdir64b")
        .module("idxd")
        .module("vfio-pci");
    let guest = boot(kernel, builder);
    let on = ["INTEL_IOMMU", "INTEL_IOMMU_SVM", "INTEL_IDXD_SVM"];
    assert_eq!(options(kernel, &on), set(&on, Some("y")));
    assert_eq!(kernel.config("IOMMUFD"), None);
    let loaded = loaded(&guest);
    for name in ["idxd_bus", "idxd", "vfio_pci"] {
        assert!(loaded.iter().any(|other| other == name), "{loaded:?}");
    }
}

#[test]
fn our_own_kernel_boots_and_has_iommufd() {
    let kernel = own().unwrap();
    let guest = boot(kernel, Guest::builder(kernel).module("vfio-pci"));
    let uname = guest.must("uname").unwrap().remove(0);
    assert!(uname.contains("-iopf "), "{uname}");
    let on = [
        "INTEL_IOMMU",
        "INTEL_IOMMU_SVM",
        "IOMMUFD",
        "VFIO_DEVICE_CDEV",
        "UIO_PCI_GENERIC_SVA",
    ];
    assert_eq!(options(kernel, &on), set(&on, Some("y")));
    let devices = guest.must("ls /dev").unwrap();
    assert!(devices.iter().any(|name| name == "iommu"), "{devices:?}");
}

#[test]
fn the_agent_reaches_a_functions_configuration_and_registers() {
    let kernel = own().unwrap();
    let builder = Guest::builder(kernel).arguments(IOMMU).arguments(EDU);
    let firmware = builder.probe().unwrap();
    let guest = boot(kernel, builder);
    let address = works_edu(&guest);
    let line = format!("bdf=00:04.0  bar 0, addr {address}, size 00100000");
    assert!(firmware.contains(&line), "{line}\n{firmware}");
}

#[test]
fn debians_accel_config_runs_in_a_guest() {
    let kernel = own().unwrap();
    let program = accel_config().unwrap();
    let guest = boot(kernel, Guest::builder(kernel).program(program));
    let version = guest.must("exec /usr/bin/accel-config --version").unwrap();
    // The upstream version of the package, such as 4.1.8 of 4.1.8-1.
    let upstream = program.version().split('-').next().unwrap();
    assert!(version[0].starts_with(upstream), "{version:?}");
}

#[test]
fn a_command_can_run_beside_others_and_be_killed() {
    let kernel = own().unwrap();
    let guest = boot(kernel, Guest::builder(kernel));
    let pid = guest.must("spawn sleep 600000").unwrap().remove(0);
    let early = guest.run(&format!("wait {pid} 10")).unwrap();
    // ETIMEDOUT.
    assert_eq!(early.status, 110);
    guest.must(&format!("signal {pid} 9")).unwrap();
    // As a shell counts it: 128 and the signal's number.
    assert_eq!(guest.run(&format!("wait {pid}")).unwrap().status, 137);
    let pid = guest.must("spawn ping").unwrap().remove(0);
    assert_eq!(guest.must(&format!("wait {pid}")).unwrap(), ["pong"]);
}

#[test]
fn the_kernels_log_is_read_from_a_mark_on() {
    let kernel = own().unwrap();
    let guest = boot(kernel, Guest::builder(kernel));
    let mark = guest.must("kmsg-mark").unwrap().remove(0);
    guest.must("write /dev/kmsg <3>something is wrong").unwrap();
    let since = guest.must(&format!("kmsg-since {mark}")).unwrap();
    assert_eq!(since.len(), 1, "{since:?}");
    let (level, text) = since[0].split_once(' ').unwrap();
    assert_eq!(level, "<3>");
    assert!(text.ends_with("] something is wrong"), "{text}");
    let found = guest.must(&format!("kmsg-wait {mark} 1000 wrong")).unwrap();
    assert_eq!(found, since);
    let none = guest.run(&format!("kmsg-wait {mark} 10 right")).unwrap();
    assert_eq!(none.status, 110);
    // An error is on the console as well.
    guest
        .wait_log("something is wrong", Duration::from_secs(5))
        .unwrap();
}

#[test]
fn a_guest_that_panics_is_reported_with_its_log_and_is_gone() {
    let kernel = own().unwrap();
    let guest = boot(kernel, Guest::builder(kernel));
    let pid = guest.pid();
    guest.tell("panic").unwrap();
    guest.wait_end(Duration::from_secs(20)).unwrap();
    let error = guest.run("ping").unwrap_err();
    let GuestError::Down { why, log, .. } = &error else {
        panic!("{error}");
    };
    assert!(why.contains("QEMU ended with exit status: 0"), "{why}");
    assert!(
        log.contains("Kernel panic - not syncing: sysrq triggered crash"),
        "{log}"
    );
    drop(guest);
    assert!(!alive(pid));
}

#[test]
fn a_guest_that_hangs_is_reported_and_killed() {
    let kernel = own().unwrap();
    // A machine whose processor is not started.
    let late = Guest::builder(kernel)
        .arguments(["-S"])
        .patience(Duration::from_secs(1))
        .boot()
        .unwrap_err();
    let text = late.to_string();
    assert!(
        text.contains("did not answer \"hello\": no answer in time"),
        "{text}"
    );

    let guest = boot(kernel, Guest::builder(kernel));
    let pid = guest.pid();
    let late = guest.run_within("sleep 600000", Duration::from_millis(300));
    let text = late.unwrap_err().to_string();
    assert!(
        text.contains("did not answer \"sleep 600000\": no answer in time"),
        "{text}"
    );
    assert!(alive(pid));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        assert_eq!(
            guest.hello().release,
            "",
            "a test that fails with a guest in hand"
        );
    }));
    assert!(panicked.is_err());
    assert!(!alive(pid));
}

#[test]
fn a_module_that_does_not_load_fails_the_boot_and_is_named() {
    let kernel = stock(Stock::Newest).unwrap();
    let missing = Guest::builder(kernel).module("no-such").boot().unwrap_err();
    let text = missing.to_string();
    assert!(text.contains("has no module no_such"), "{text}");
    // TCG has no ENQCMD or MOVDIR64B, and idxd says so.
    let refused = Guest::builder(kernel).module("idxd").boot().unwrap_err();
    let text = refused.to_string();
    assert!(text.contains("loading /lib/modules/idxd.ko: "), "{text}");
}

#[test]
fn a_guest_reboots_and_its_agent_comes_back() {
    let kernel = own().unwrap();
    let guest = boot(kernel, Guest::builder(kernel).reboots());
    let first: PathBuf = guest.must("spawn sleep 600000").unwrap().remove(0).into();
    guest.tell("reboot").unwrap();
    let hello = guest.wait_hello(Duration::from_secs(60)).unwrap();
    assert_eq!(hello.release, guest.hello().release);
    assert_eq!(guest.must("ping").unwrap(), ["pong"]);
    let proc = Path::new("/proc").join(first);
    assert!(
        guest
            .run(&format!("cat {}/comm", proc.display()))
            .unwrap()
            .lines[0]
            != "sleep"
    );
    guest.tell("poweroff").unwrap();
    guest.wait_end(Duration::from_secs(20)).unwrap();
}
