//! Guests on arm64: QEMU's `virt` with its own SMMUv3.

use crate::bed::{EDU, alive, boot, loaded, options, set, works_edu};
use std::time::Duration;
use testkit::guest::{Builder, Guest, GuestError};
use testkit::kernel::{Kernel, Stock, Target, own, own_for, stock_for};

/// QEMU's own SMMUv3, for all of its PCI bus.
const IOMMU: [&str; 2] = ["-M", "iommu=smmuv3"];

/// QEMU's random number generator, whose ring and buffers are reached through the IOMMU.
const RNG: [&str; 2] = [
    "-device",
    "virtio-rng-pci,addr=05.0,iommu_platform=on,disable-legacy=on",
];

fn builder(kernel: &Kernel) -> Builder {
    Guest::builder(kernel)
        .arguments(IOMMU)
        .arguments(EDU)
        .arguments(RNG)
}

/// The SMMU is taken by its driver, and translates what the random number generator's DMA reaches.
fn has_an_smmu(guest: &Guest) {
    let log = guest.must("dmesg").unwrap();
    let entries = "arm-smmu-v3 9050000.smmuv3: allocated ";
    assert!(log.iter().any(|line| line.contains(entries)), "{log:#?}");
    let device = guest
        .must("lspci")
        .unwrap()
        .into_iter()
        .find(|line| line.contains("0000:00:05.0"));
    let device = device.unwrap();
    let (_, rest) = device.split_once("group=").unwrap();
    let group = rest.split(' ').next().unwrap();
    let kind = guest
        .must(&format!("cat /sys/kernel/iommu_groups/{group}/type"))
        .unwrap();
    assert_eq!(kind, ["DMA"], "{device}");
    assert!(device.contains("driver=virtio-pci"), "{device}");
    let random = guest.must("hwrng 64").unwrap();
    assert_eq!(random.len(), 2, "{random:?}");
    assert_ne!(random[0], random[1], "{random:?}");
}

/// vfio takes the teaching device, and maps memory for it.
fn has_vfio(guest: &Guest) {
    guest.must("bind 00:04.0 vfio-pci").unwrap();
    guest.must("vfio-open 00:04.0").unwrap();
    guest.must("vfio-map 0x10000 8192 rw 0x5a5a").unwrap();
    // EEXIST: there are tables, and they hold it.
    let again = guest.run("vfio-map 0x11000 4096 r 0").unwrap();
    assert_eq!(again.status, 17, "{again:?}");
    guest.must("vfio-close").unwrap();
    guest.must("unbind 00:04.0").unwrap();
}

#[test]
fn debians_stable_arm64_kernel_boots_behind_an_smmu_without_sva_and_iommufd() {
    let kernel = stock_for(Target::Aarch64, Stock::Stable).unwrap();
    let builder = builder(kernel)
        .module("virtio-pci")
        .module("virtio-rng")
        .module("vfio-pci")
        .module("vfio_iommu_type1");
    let guest = boot(kernel, builder);
    let uname = guest.must("uname").unwrap().remove(0);
    assert!(uname.starts_with("Linux 6.12."), "{uname}");
    assert!(uname.ends_with(" aarch64"), "{uname}");
    assert_eq!(
        options(kernel, &["ARM_SMMU_V3"]),
        set(&["ARM_SMMU_V3"], Some("y"))
    );
    let off = ["ARM_SMMU_V3_SVA", "IOMMUFD"];
    assert_eq!(options(kernel, &off), set(&off, None));
    let loaded = loaded(&guest);
    for name in ["vfio", "vfio_pci_core", "vfio_pci"] {
        assert!(loaded.iter().any(|other| other == name), "{loaded:?}");
    }
    has_an_smmu(&guest);
    has_vfio(&guest);
}

#[test]
fn debians_newest_arm64_kernel_boots_behind_an_smmu_without_sva_and_iommufd() {
    let kernel = stock_for(Target::Aarch64, Stock::Newest).unwrap();
    let builder = builder(kernel)
        .module("virtio-pci")
        .module("virtio-rng")
        .module("vfio-pci")
        .module("vfio_iommu_type1");
    let guest = boot(kernel, builder);
    assert_eq!(
        options(kernel, &["ARM_SMMU_V3"]),
        set(&["ARM_SMMU_V3"], Some("y"))
    );
    let off = ["ARM_SMMU_V3_SVA", "IOMMUFD"];
    assert_eq!(options(kernel, &off), set(&off, None));
    has_an_smmu(&guest);
    has_vfio(&guest);
    works_edu(&guest);
}

#[test]
fn our_own_arm64_kernel_boots_behind_an_smmu_and_has_sva_and_iommufd() {
    let kernel = own_for(Target::Aarch64).unwrap();
    let guest = boot(kernel, builder(kernel));
    let uname = guest.must("uname").unwrap().remove(0);
    assert!(
        uname.contains("-iopf ") && uname.ends_with(" aarch64"),
        "{uname}"
    );
    let on = [
        "ARM_SMMU_V3",
        "ARM_SMMU_V3_SVA",
        "ARM_GIC_V3_ITS",
        "IOMMUFD",
        "VFIO_DEVICE_CDEV",
        "UIO_PCI_GENERIC_SVA",
    ];
    assert_eq!(options(kernel, &on), set(&on, Some("y")));
    let devices = guest.must("ls /dev").unwrap();
    assert!(devices.iter().any(|name| name == "iommu"), "{devices:?}");
    has_an_smmu(&guest);
    has_vfio(&guest);
    works_edu(&guest);
}

#[test]
fn an_arm64_guest_powers_off_reboots_and_panics_as_one_of_x86_64() {
    let kernel = own_for(Target::Aarch64).unwrap();
    let guest = boot(kernel, Guest::builder(kernel).reboots());
    guest.tell("reboot").unwrap();
    let hello = guest.wait_hello(Duration::from_secs(120)).unwrap();
    assert_eq!(hello.release, guest.hello().release);
    assert_eq!(guest.must("ping").unwrap(), ["pong"]);
    let pid = guest.pid();
    guest.tell("poweroff").unwrap();
    guest.wait_end(Duration::from_secs(60)).unwrap();
    drop(guest);
    assert!(!alive(pid));

    let guest = boot(kernel, Guest::builder(kernel));
    guest.tell("panic").unwrap();
    guest.wait_end(Duration::from_secs(60)).unwrap();
    let error = guest.run("ping").unwrap_err();
    let GuestError::Down { why, log, .. } = &error else {
        panic!("{error}");
    };
    assert!(why.contains("QEMU ended with exit status: 0"), "{why}");
    let panic = "Kernel panic - not syncing: sysrq triggered crash";
    assert!(log.contains(panic), "{log}");
}

#[test]
fn a_machine_is_described_and_boots_with_a_changed_description() {
    let kernel = own_for(Target::Aarch64).unwrap();
    let builder = Guest::builder(kernel).arguments(IOMMU);
    let tree = builder.describe().unwrap();
    // Devicetree specification, "Flattened Devicetree (DTB) Format": the magic number.
    assert_eq!(tree[..4], [0xd0, 0x0d, 0xfe, 0xed]);
    let compatible = b"arm,smmu-v3\0";
    let at = tree
        .windows(compatible.len())
        .position(|window| window == compatible);
    let mut without = tree.clone();
    // A unit that no driver knows.
    without[at.unwrap()..][..3].copy_from_slice(b"our");
    let guest = boot(kernel, builder.device_tree(without));
    let log = guest.must("dmesg").unwrap().join("\n");
    assert!(log.contains("Linux version"), "{log}");
    assert!(!log.contains("arm-smmu-v3"), "{log}");
    let node = "cat /sys/firmware/devicetree/base/smmuv3@9050000/compatible";
    let compatible = guest.must(node).unwrap().concat();
    assert!(compatible.starts_with("our,smmu-v3"), "{compatible}");
}

#[test]
fn a_machine_has_a_device_tree_or_firmware() {
    let arm64 = Guest::builder(own_for(Target::Aarch64).unwrap());
    let text = arm64.probe().unwrap_err().to_string();
    assert_eq!(text, "this machine starts its kernel without firmware");
    let text = Guest::builder(own().unwrap())
        .describe()
        .unwrap_err()
        .to_string();
    assert!(text.contains("the device tree"), "{text}");
}
