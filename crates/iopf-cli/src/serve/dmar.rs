//! The ACPI table that tells a guest of the unit.
//!
//! Intel VT-d, "DMA Remapping Reporting Structure" and "DMA Remapping Hardware Unit Definition
//! Structure"; the second author is Linux `include/acpi/actbl1.h`.

use iopf::Rid;

/// Signature of the table.
pub(super) const SIGNATURE: &str = "DMAR";

/// Length of the type, length, flags, size, segment and address of a unit.
const UNIT: u16 = 16;
/// Length of a device scope whose path has one step.
const SCOPE: u8 = 8;
/// Device scope: a PCI endpoint.
const ENDPOINT: u8 = 1;

/// The table after its common header, which QEMU's `-acpitable` writes: one unit with its registers
/// at `base`, in front of `functions` of bus 0 and of nothing else.
///
/// Devices that QEMU models are not in it: their DMA does not come past the unit.
pub(super) fn body(base: u64, host_width: u8, functions: &[Rid]) -> Vec<u8> {
    let mut table = vec![host_width - 1, 0];
    table.extend([0; 10]);
    let scopes = functions.len() * usize::from(SCOPE);
    let length = UNIT + u16::try_from(scopes).unwrap_or(u16::MAX);
    table.extend(0u16.to_le_bytes());
    table.extend(length.to_le_bytes());
    // Flags (not all devices), size (a page of registers) and segment 0.
    table.extend([0, 0, 0, 0]);
    table.extend(base.to_le_bytes());
    for rid in functions {
        table.extend([ENDPOINT, SCOPE, 0, 0, 0, rid.bus()]);
        table.extend([rid.device(), rid.function()]);
    }
    table
}

#[cfg(test)]
mod tests;
