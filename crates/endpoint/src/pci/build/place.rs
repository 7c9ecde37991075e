//! What the capabilities with more than a few registers hold.

use super::{Impossible, Layout, MsixCapability, Port, PriCapability};
use crate::pci::store::Store;
use crate::pci::{bit, reg};

/// PCI Express Base Specification, "PCI Express Capability Structure", version 2.
pub(super) fn express(store: &mut Store, at: u16, port: Port, prefixes: bool) {
    let kind: u16 = match port {
        Port::Endpoint => 0x0,
        Port::Integrated => 0x9,
    };
    store.define(at, &[0x10]);
    store.define(at + 2, &(2 | kind << 4).to_le_bytes());
    // Payloads of 128 bytes, role-based error reporting, function-level reset.
    let device: u32 = 1 << 15 | 1 << 28;
    store.define(at + 4, &device.to_le_bytes());
    // Reads of 512 bytes at most, relaxed ordering and no-snoop on.
    store.define(at + reg::EXP_DEVICE_CONTROL, &0x2810u16.to_le_bytes());
    store.allow(at + reg::EXP_DEVICE_CONTROL, &0x78ffu16.to_le_bytes());
    store.allow_clear(at + 10, &0x000fu16.to_le_bytes());
    if port == Port::Endpoint {
        // One lane of 2.5 GT/s, in the capability and in the status.
        store.define(at + 0x0c, &0x0000_0011u32.to_le_bytes());
        store.allow(at + 0x10, &0x00c8u16.to_le_bytes());
        store.define(at + 0x12, &0x0011u16.to_le_bytes());
        store.define(at + 0x2c, &0x0000_0002u32.to_le_bytes());
        store.define(at + 0x30, &0x0001u16.to_le_bytes());
    }
    // Completion timeouts can be disabled; the extended format field, and one prefix.
    let prefix: u32 = if prefixes {
        1 << 20 | 1 << 21 | 1 << 22
    } else {
        0
    };
    store.define(at + 0x24, &(1 << 4 | prefix).to_le_bytes());
    store.allow(at + 0x28, &(1u16 << 4).to_le_bytes());
}

pub(super) fn pri(store: &mut Store, at: u16, pri: &PriCapability) {
    let needs = if pri.response_needs_pasid {
        bit::PRI_NEEDS_PASID
    } else {
        0
    };
    store.allow(at + reg::PRI_CONTROL, &bit::PRI_ENABLE.to_le_bytes());
    let status = bit::PRI_STOPPED | needs;
    store.define(at + reg::PRI_STATUS, &status.to_le_bytes());
    let clear = bit::PRI_FAILURE | bit::PRI_UNEXPECTED;
    store.allow_clear(at + reg::PRI_STATUS, &clear.to_le_bytes());
    store.define(at + reg::PRI_CAPACITY, &pri.capacity.to_le_bytes());
    store.allow(at + reg::PRI_ALLOCATION, &u32::MAX.to_le_bytes());
}

pub(super) fn msi(store: &mut Store, at: u16) {
    store.define(at, &[0x05]);
    store.define(at + reg::MSI_CONTROL, &bit::MSI_WIDE.to_le_bytes());
    // How many of the messages software takes can be written, though there is one.
    let control = bit::MSI_ENABLE | bit::MSI_TAKEN;
    store.allow(at + reg::MSI_CONTROL, &control.to_le_bytes());
    store.allow(at + reg::MSI_ADDRESS, &(!3_u64).to_le_bytes());
    store.allow(at + reg::MSI_DATA, &u16::MAX.to_le_bytes());
}

pub(super) fn msix(store: &mut Store, at: u16, msix: &MsixCapability) {
    store.define(at, &[0x11]);
    store.define(at + reg::MSIX_CONTROL, &(msix.vectors - 1).to_le_bytes());
    let control = bit::MSIX_ENABLE | bit::MSIX_MASK;
    store.allow(at + reg::MSIX_CONTROL, &control.to_le_bytes());
    for (offset, (bar, place)) in [(4, msix.table), (8, msix.pending)] {
        store.define(at + offset, &(place | u32::from(bar)).to_le_bytes());
    }
}

/// Table and pending bits have to be apart, each within its BAR.
pub(super) fn check_msix(msix: &MsixCapability, layout: &Layout) -> Result<(), Impossible> {
    if !(1..=2048).contains(&msix.vectors) {
        return Err(Impossible::Vectors(msix.vectors));
    }
    let vectors = u64::from(msix.vectors);
    let parts = [
        (msix.table, vectors * 16),
        (msix.pending, vectors.div_ceil(64) * 8),
    ];
    for ((bar, offset), len) in parts {
        let room = layout.bar(bar).map_or(0, |bar| bar.size());
        if offset % 8 != 0 || u64::from(offset) + len > room {
            return Err(Impossible::MsixPlace { bar, offset });
        }
    }
    let [
        ((bar, table), table_len),
        ((pending_bar, pending), pending_len),
    ] = parts;
    let (table, pending) = (u64::from(table), u64::from(pending));
    let apart = table + table_len <= pending || pending + pending_len <= table;
    if bar == pending_bar && !apart {
        let offset = msix.pending.1;
        return Err(Impossible::MsixPlace { bar, offset });
    }
    Ok(())
}
