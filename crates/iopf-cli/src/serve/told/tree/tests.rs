use super::*;

/// A tree like that of QEMU's `virt` machine, as far as it is looked at here.
fn virt(change: impl FnOnce(&mut DeviceTree)) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    let node = |name: &str| DeviceTreeNode::new_unchecked(name);
    let text = |node: &mut DeviceTreeNode, name: &str, value: &str| {
        let value = [value.as_bytes(), &[0]].concat();
        node.add_property(DeviceTreeProperty::new_unchecked(name, value));
    };
    set(&mut tree.root, "#address-cells", &[2]);
    set(&mut tree.root, "#size-cells", &[2]);
    let mut memory = node("memory@40000000");
    text(&mut memory, "device_type", "memory");
    set(&mut memory, "reg", &[0, 0x4000_0000, 0, 0x2000_0000]);
    let mut its = node("its@8080000");
    set(&mut its, "phandle", &[0x8003]);
    set(&mut its, "#msi-cells", &[1]);
    let mut intc = node("intc@8000000");
    set(&mut intc, "phandle", &[0x8002]);
    intc.add_child(its);
    let mut pcie = node("pcie@10000000");
    text(&mut pcie, "compatible", "pci-host-ecam-generic");
    set(&mut pcie, "reg", &[0x40, 0x1000_0000, 0, 0x1000_0000]);
    set(&mut pcie, "msi-map", &[0, 0x8003, 0, 0x1_0000]);
    let io = [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000];
    let low = [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2eff_0000];
    let high = [0x300_0000, 0x80, 0, 0x80, 0, 0x80, 0];
    set(&mut pcie, "ranges", &[io, low, high].concat());
    for child in [memory, intc, pcie] {
        tree.root.add_child(child);
    }
    change(&mut tree);
    tree.to_dtb()
}

fn wish() -> Wish {
    Wish {
        size: 0x2_0000,
        unit: Rid(0x28),
        functions: vec![Rid(0x20), Rid(0x30)],
        stalls: vec![Rid(0x20)],
        ats: true,
    }
}

fn read(blob: &[u8]) -> DeviceTree {
    DeviceTree::from_fdt(&Fdt::new(blob).expect("a tree"))
}

#[test]
fn the_registers_take_the_end_of_the_window_and_the_guest_is_told_of_the_rest() {
    let site = add(&virt(|_| {}), &wish(), None).expect("it fits");
    // The window ends at 3eff0000h: the last multiple of 128 KiB that leaves room.
    assert_eq!(
        (site.base, site.function, site.memory),
        (0x3efc_0000, 0x40_1002_8000, 0x4000_0000)
    );
    assert_eq!(site.base, BASE);
    let tree = read(&site.blob);
    let unit = tree.find_node("/iommu@3efc0000").expect("a unit");
    assert!(says(unit, "compatible", "arm,smmu-v3"));
    for (name, value) in [
        ("reg", &[0, 0x3efc_0000, 0, 0x2_0000][..]),
        ("#iommu-cells", &[1]),
        // Device 0 of the ITS.
        ("msi-parent", &[0x8003, 0]),
        ("dma-coherent", &[]),
        ("phandle", &[0x8004]),
    ] {
        assert_eq!(cells(unit, name).as_deref(), Some(value), "{name}");
    }
    let pcie = tree.find_node("/pcie@10000000").expect("a bridge");
    let map = cells(pcie, "iommu-map").expect("a map");
    assert_eq!(map, [0x20, 0x8004, 0x20, 1, 0x30, 0x8004, 0x30, 1]);
    assert_eq!(cells(pcie, "ats-supported").as_deref(), Some(&[][..]));
    let ranges = cells(pcie, "ranges").expect("ranges");
    assert_eq!(
        ranges[7..14],
        [0x200_0000, 0, 0x1000_0000, 0, 0x1000_0000, 0, 0x2efc_0000]
    );
    let staller = tree
        .find_node("/pcie@10000000/dma@4,0")
        .expect("a function");
    assert_eq!(
        cells(staller, "reg").as_deref(),
        Some(&[0x2000, 0, 0, 0, 0][..])
    );
    assert_eq!(cells(staller, "dma-can-stall").as_deref(), Some(&[][..]));
    // What is not ours is as it was.
    assert_eq!(ranges[..7], [0x100_0000, 0, 0, 0, 0x3eff_0000, 0, 0x1_0000]);
    assert!(tree.find_node("/intc@8000000/its@8080000").is_some());
}

#[test]
fn a_controller_without_device_ids_is_named_without_one() {
    let blob = virt(|tree| {
        let its = tree
            .find_node_mut("/intc@8000000/its@8080000")
            .expect("it is there");
        its.remove_property("#msi-cells");
    });
    let wish = Wish {
        ats: false,
        ..wish()
    };
    let tree = read(&add(&blob, &wish, None).expect("it fits").blob);
    let unit = tree.find_node("/iommu@3efc0000").expect("a unit");
    assert_eq!(cells(unit, "msi-parent").as_deref(), Some(&[0x8003][..]));
    let pcie = tree.find_node("/pcie@10000000").expect("a bridge");
    assert_eq!(cells(pcie, "ats-supported"), None);
}

#[test]
fn the_registers_are_where_somebody_wants_them_or_nowhere() {
    let blob = virt(|_| {});
    let at = |base: u64| add(&blob, &wish(), Some(base)).map(|site| site.base);
    assert_eq!(at(0x3000_0000), Ok(0x3000_0000));
    for base in [
        0x3efe_0000,
        0x1000_0000,
        0x0fff_0000,
        0x3001_0000,
        !0x1_ffff,
    ] {
        let wrong = Wrong::Place {
            base,
            size: 0x2_0000,
            from: 0x1000_0000,
            end: 0x3eff_0000,
        };
        assert_eq!(at(base), Err(wrong));
    }
}

#[test]
fn what_a_tree_lacks_is_named() {
    let wrong = |change: &dyn Fn(&mut DeviceTree)| {
        add(&virt(|tree| change(tree)), &wish(), None)
            .map(|_| ())
            .expect_err("it lacks something")
            .to_string()
    };
    let without = |property: &'static str| {
        wrong(&|tree| {
            let pcie = tree.find_node_mut("/pcie@10000000").expect("it is there");
            pcie.remove_property(property);
        })
    };
    assert!(without("msi-map").contains("no MSI controller"));
    assert!(without("ranges").contains("no PCI window"));
    assert!(without("reg").contains("no configuration space"));
    assert!(without("compatible").contains("no generic PCI host bridge"));
    assert!(wrong(&|tree| drop(tree.root.remove_child("memory@40000000"))).contains("no memory"));
    assert!(wrong(&|tree| set(&mut tree.root, "#size-cells", &[1])).contains("no 64-bit sizes"));
    let taken = wrong(&|tree| {
        let pcie = tree.find_node_mut("/pcie@10000000").expect("it is there");
        set(pcie, "iommu-map", &[0, 1, 0, 0x1_0000]);
    });
    assert!(taken.contains("has an IOMMU already"));
    let none = add(b"no tree at all", &wish(), None)
        .map(|_| ())
        .expect_err("no tree");
    assert!(none.to_string().starts_with("no device tree: "), "{none}");
}

#[test]
fn the_part_for_a_person_says_the_same() {
    let text = part(&wish(), BASE);
    for line in [
        "smmu: iommu@3efc0000 {",
        "reg = <0 0x3efc0000 0 0x20000>;",
        "msi-parent = <&its 0>;",
        "iommu-map = <0x20 &smmu 0x20 1>, <0x30 &smmu 0x30 1>;",
        "ats-supported;",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
