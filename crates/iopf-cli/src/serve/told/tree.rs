//! The SMMU in a guest's device tree.
//!
//! Sources: Linux `Documentation/devicetree/bindings/iommu/arm,smmu-v3.yaml` and
//! `pci/pci-iommu.txt`; Devicetree Specification 0.4; IEEE 1275, "PCI Bus Binding", for `ranges`.
//!
//! The tree is the one that QEMU makes for its `virt` machine; what else has a generic ECAM bridge with
//! an MSI controller will do. The registers take the end of the bridge's window, and the guest is told
//! of a window that ends before them, so that its kernel puts nothing else there.

use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node, Property};
use iopf::Rid;
use std::fmt::Write as _;

/// What the unit is.
#[derive(Clone, Debug)]
pub(in crate::serve) struct Wish {
    /// Bytes of its registers: a power of two.
    pub(in crate::serve) size: u64,
    /// Its own function on bus 0.
    pub(in crate::serve) unit: Rid,
    /// The functions behind it, each a stream of its requester ID.
    pub(in crate::serve) functions: Vec<Rid>,
    /// Those whose transactions may be held.
    pub(in crate::serve) stalls: Vec<Rid>,
    /// They may use ATS.
    pub(in crate::serve) ats: bool,
}

/// The end of the PCI window of QEMU's `virt` machine, less the registers.
pub(super) const BASE: u64 = 0x3efc_0000;

/// Where things are once the unit is in the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Site {
    /// The tree.
    pub(super) blob: Vec<u8>,
    /// What BAR 0 must be.
    pub(super) base: u64,
    /// Where the processor finds the unit's configuration space.
    pub(super) function: u64,
    /// Where memory begins.
    pub(super) memory: u64,
}

/// Why the unit cannot be put into a tree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    /// It is no flattened tree.
    #[error("no device tree: {0}")]
    Tree(String),
    /// Something that QEMU's `virt` has is not there.
    #[error("the tree has no {0}")]
    Lacks(&'static str),
    /// There is an IOMMU.
    #[error("the tree has an IOMMU already: start the machine without iommu=")]
    Taken,
    /// The registers do not fit there.
    #[error(
        "the IOMMU's {size:#x} bytes do not fit at {base:#x}: the PCI window is {from:#x}-{end:#x}"
    )]
    Place {
        base: u64,
        size: u64,
        from: u64,
        end: u64,
    },
}

/// A property of 32-bit cells.
fn cells(node: &DeviceTreeNode, name: &str) -> Option<Vec<u32>> {
    let property = node.property(name)?;
    let (words, rest) = property.value().as_chunks();
    let words = words.iter().map(|word| u32::from_be_bytes(*word));
    rest.is_empty().then(|| words.collect())
}

fn set(node: &mut DeviceTreeNode, name: &str, cells: &[u32]) {
    let value: Vec<u8> = cells.iter().flat_map(|cell| cell.to_be_bytes()).collect();
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

fn wide(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_be_bytes();
    [[a, b, c, d], [e, f, g, h]].map(u32::from_be_bytes)
}

fn says(node: &DeviceTreeNode, name: &str, word: &str) -> bool {
    node.property(name).is_some_and(|property| {
        let mut texts = property.value().split(|byte| *byte == 0);
        texts.any(|text| text == word.as_bytes())
    })
}

/// The first node for which `wanted` holds, by depth.
fn find<'a>(
    node: &'a DeviceTreeNode,
    wanted: &impl Fn(&DeviceTreeNode) -> bool,
) -> Option<&'a DeviceTreeNode> {
    if wanted(node) {
        return Some(node);
    }
    node.children().find_map(|child| find(child, wanted))
}

/// The greatest handle in use.
fn handles(node: &DeviceTreeNode) -> u32 {
    let own = cells(node, "phandle").and_then(|cells| cells.first().copied());
    node.children().map(handles).chain(own).max().unwrap_or(0)
}

/// The window for 32-bit memory: the range's number, its first address on PCI and for the processor,
/// and its size.
fn window(ranges: &[u32]) -> Option<(usize, u64, u64, u64)> {
    let (ranges, _) = ranges.as_chunks::<7>();
    let mut ranges = ranges.iter().enumerate();
    ranges.find_map(|(number, range)| {
        let [space, a, b, c, d, e, f] = *range;
        // Memory of 32 bits (space code 2), not prefetchable (bit 30).
        let memory = space & 0x4300_0000 == 0x0200_0000;
        memory.then(|| (number, wide(a, b), wide(c, d), wide(e, f)))
    })
}

/// Puts the unit into a flattened tree, with its registers at `base` of the PCI window or at its end.
pub(super) fn add(blob: &[u8], wish: &Wish, base: Option<u64>) -> Result<Site, Wrong> {
    let fdt = Fdt::new(blob).map_err(|error| Wrong::Tree(error.to_string()))?;
    let mut tree = DeviceTree::from_fdt(&fdt);
    let root = &tree.root;
    for (name, lacks) in [
        ("#address-cells", "64-bit addresses"),
        ("#size-cells", "64-bit sizes"),
    ] {
        if cells(root, name).as_deref() != Some(&[2]) {
            return Err(Wrong::Lacks(lacks));
        }
    }
    let memory = root
        .children()
        .find(|node| says(node, "device_type", "memory"))
        .and_then(|node| cells(node, "reg"))
        .and_then(|reg| reg.first_chunk().map(|[high, low]| wide(*high, *low)))
        .ok_or(Wrong::Lacks("memory"))?;
    let bridge = root
        .children()
        .find(|node| says(node, "compatible", "pci-host-ecam-generic"))
        .ok_or(Wrong::Lacks("generic PCI host bridge"))?;
    if bridge.property("iommu-map").is_some() {
        return Err(Wrong::Taken);
    }
    let ecam = cells(bridge, "reg")
        .and_then(|reg| reg.first_chunk().map(|[high, low]| wide(*high, *low)))
        .ok_or(Wrong::Lacks("configuration space"))?;
    let mut ranges = cells(bridge, "ranges").ok_or(Wrong::Lacks("PCI window"))?;
    let (number, from, processor, len) = window(&ranges).ok_or(Wrong::Lacks("PCI window"))?;
    let end = from.saturating_add(len);
    let base = base.unwrap_or(end.saturating_sub(wish.size) & !(wish.size - 1));
    let fits = base.is_multiple_of(wish.size)
        && base > from
        && base.checked_add(wish.size).is_some_and(|last| last <= end);
    if !fits {
        return Err(Wrong::Place {
            base,
            size: wish.size,
            from,
            end,
        });
    }
    ranges[7 * number + 5..7 * number + 7].copy_from_slice(&halves(base - from));
    let interrupts = controller(root, bridge)?;
    let handle = handles(root) + 1;
    let name = bridge.name().to_owned();

    tree.root
        .add_child(unit(wish, processor + (base - from), handle, &interrupts));
    let bridge = tree
        .root
        .child_mut(&name)
        .ok_or(Wrong::Lacks("generic PCI host bridge"))?;
    set(bridge, "ranges", &ranges);
    let map: Vec<u32> = wish
        .functions
        .iter()
        .flat_map(|rid| [rid.0, handle, rid.0, 1])
        .collect();
    set(bridge, "iommu-map", &map);
    if wish.ats {
        set(bridge, "ats-supported", &[]);
    }
    for rid in &wish.stalls {
        bridge.add_child(staller(*rid));
    }
    Ok(Site {
        blob: tree.to_dtb(),
        base,
        function: ecam + (u64::from(wish.unit.0) << 12),
        memory,
    })
}

/// `msi-parent` of the unit: the controller of the bridge. QEMU gives the messages of every vfio-user
/// function as those of requester 0, so with an ITS the unit is device 0, which is no function with
/// messages: it is the host bridge.
fn controller(root: &DeviceTreeNode, bridge: &DeviceTreeNode) -> Result<Vec<u32>, Wrong> {
    let lacks =
        || Wrong::Lacks("MSI controller for PCI (gic-version=3, or the GICv2m of gic-version=2)");
    // Requester ID, controller, device ID, and how many.
    let map = cells(bridge, "msi-map").ok_or_else(lacks)?;
    let handle = *map.get(1).ok_or_else(lacks)?;
    let is = |node: &DeviceTreeNode| cells(node, "phandle").as_deref() == Some(&[handle]);
    let node = find(root, &is).ok_or_else(lacks)?;
    let device = cells(node, "#msi-cells").is_some_and(|cells| cells == [1]);
    Ok(if device {
        vec![handle, 0]
    } else {
        vec![handle]
    })
}

/// The node of a unit whose registers the processor has at `at`.
fn unit(wish: &Wish, at: u64, handle: u32, interrupts: &[u32]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new_unchecked(format!("iommu@{at:x}"));
    let text = DeviceTreeProperty::new_unchecked("compatible", b"arm,smmu-v3\0".as_slice());
    node.add_property(text);
    let ([a, b], [c, d]) = (halves(at), halves(wish.size));
    set(&mut node, "reg", &[a, b, c, d]);
    set(&mut node, "#iommu-cells", &[1]);
    set(&mut node, "msi-parent", interrupts);
    set(&mut node, "dma-coherent", &[]);
    set(&mut node, "phandle", &[handle]);
    node
}

/// The node of a function whose transactions may be held: of what is on PCI, a tree says what PCI cannot.
fn staller(rid: Rid) -> DeviceTreeNode {
    let (device, function) = (rid.device(), rid.function());
    let mut node = DeviceTreeNode::new_unchecked(format!("dma@{device:x},{function:x}"));
    // IEEE 1275, "PCI Bus Binding", "reg": bus, device and function of configuration space.
    set(&mut node, "reg", &[rid.0 << 8, 0, 0, 0, 0]);
    set(&mut node, "dma-can-stall", &[]);
    node
}

/// The same as source, for QEMU's `virt` machine, whose tree has no labels: `&its` is the MSI
/// controller, `&pcie` the host bridge.
pub(super) fn part(wish: &Wish, base: u64) -> String {
    let size = wish.size;
    let mut map = String::new();
    for rid in &wish.functions {
        // A string takes everything.
        let _ = write!(map, " <{0:#x} &smmu {0:#x} 1>,", rid.0);
    }
    let map = map.trim_end_matches(',');
    let ats = if wish.ats { "\n\tats-supported;" } else { "" };
    format!(
        "/ {{\n\tsmmu: iommu@{base:x} {{\n\t\tcompatible = \"arm,smmu-v3\";\n\
         \t\treg = <0 {base:#x} 0 {size:#x}>;\n\t\t#iommu-cells = <1>;\n\
         \t\tmsi-parent = <&its 0>;\n\t\tdma-coherent;\n\t}};\n}};\n\n\
         /* And its window in \"ranges\" must end before {base:#x}. */\n\
         &pcie {{\n\tiommu-map ={map};{ats}\n}};\n"
    )
}

#[cfg(test)]
mod tests;
