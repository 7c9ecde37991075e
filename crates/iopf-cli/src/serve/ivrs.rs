//! The ACPI table that tells a guest of an AMD IOMMU.
//!
//! AMD I/O Virtualization Technology (IOMMU) Specification (48882), "I/O Virtualization Reporting
//! Structure (IVRS)"; the second authors are AMD's own firmware sources (`GnbIommu.h` of AGESA) and
//! Linux `drivers/iommu/amd/init.c`.

use iopf::Rid;

/// Signature of the table.
pub(super) const SIGNATURE: &str = "IVRS";
/// Revision of the table: 2 is the first with blocks of type 11h.
pub(super) const REVISION: u8 = 2;

/// Lengths of the two kinds of block before their device entries.
const SHORT: u16 = 24;
const LONG: u16 = 40;
/// Length of a device entry of type 2, "select".
const ENTRY: u16 = 4;
const SELECT: u8 = 2;

/// EFRSup: the blocks of type 11h have the extended features.
const EFR_SUP: u32 = 1;
/// GVAsize: 48 bits, the only value that the specification has.
const GUEST_VIRTUAL_48: u32 = 2 << 5;

/// Flags of a block: ATS is understood, tables are read coherently, prefetches, page requests.
const IOTLB_SUP: u8 = 1 << 4;
const COHERENT: u8 = 1 << 5;
const PREF_SUP: u8 = 1 << 6;
const PPR_SUP: u8 = 1 << 7;

/// What the table says of an IOMMU.
#[derive(Clone, Debug)]
pub(super) struct Iommu {
    /// Its PCI function.
    pub(super) place: Rid,
    /// Where its capability block is in configuration space.
    pub(super) capability: u16,
    /// It understands ATS.
    pub(super) iotlb: bool,
    /// The extended feature registers, as they read at 0x30 and 0x1a0.
    pub(super) features: [u64; 2],
    /// Bits of a physical address.
    pub(super) physical_bits: u8,
    /// Bits of a virtual address that host tables translate.
    pub(super) virtual_bits: u8,
    /// What is behind it.
    pub(super) functions: Vec<Rid>,
}

impl Iommu {
    /// The table after its common header, which QEMU's `-acpitable` writes: one IOMMU with its
    /// registers at `base`, in front of some functions of segment 0 and of nothing else. It is there
    /// twice, once for software that knows only the first kind of block.
    ///
    /// Devices that QEMU models are not in it: their DMA does not come past the IOMMU. Nor is the
    /// I/O APIC, so that no guest turns interrupt remapping on, which cannot be had.
    pub(super) fn table(&self, base: u64) -> Vec<u8> {
        let sizes = u32::from(self.physical_bits) << 8 | u32::from(self.virtual_bits) << 15;
        let mut table = (EFR_SUP | GUEST_VIRTUAL_48 | sizes).to_le_bytes().to_vec();
        table.extend([0; 8]);
        self.block(&mut table, 0x10, SHORT, base);
        table.extend(short_features(self.features[0]).to_le_bytes());
        self.entries(&mut table);
        self.block(&mut table, 0x11, LONG, base);
        // Attributes: no performance counters, and page requests share the one message.
        table.extend([0; 4]);
        for register in self.features {
            table.extend(register.to_le_bytes());
        }
        self.entries(&mut table);
        table
    }

    /// A block up to what the two kinds have in common; `size` is without device entries.
    fn block(&self, table: &mut Vec<u8>, kind: u8, size: u16, base: u64) {
        let entries = u16::try_from(self.functions.len()).unwrap_or(u16::MAX);
        let length = size.saturating_add(entries.saturating_mul(ENTRY));
        table.extend([kind, self.flags(kind)]);
        table.extend(length.to_le_bytes());
        table.extend(self.place.pci().to_le_bytes());
        table.extend(self.capability.to_le_bytes());
        table.extend(base.to_le_bytes());
        // Segment 0; message number 0, unit 0.
        table.extend([0; 4]);
    }

    fn flags(&self, kind: u8) -> u8 {
        let mut flags = COHERENT;
        if self.iotlb {
            flags |= IOTLB_SUP;
        }
        // With type 11h they are in the features only.
        if kind == 0x10 {
            let [low, ..] = self.features[0].to_le_bytes();
            // PreFSup and PPRSup.
            flags |= ((low & 1) * PREF_SUP) | ((low >> 1 & 1) * PPR_SUP);
        }
        flags
    }

    fn entries(&self, table: &mut Vec<u8>) {
        for rid in &self.functions {
            table.push(SELECT);
            table.extend(rid.pci().to_le_bytes());
            // Data setting: no interrupt passes that the guest has not let through.
            table.push(0);
        }
    }
}

/// "IOMMU Feature Reporting" of a block of type 10h: fields of the extended feature register, moved.
fn short_features(register: u64) -> u32 {
    // First bit there, width, first bit here.
    const FIELDS: [(u32, u32, u32); 10] = [
        (2, 1, 0),   // XTSup
        (3, 1, 1),   // NXSup
        (4, 1, 2),   // GTSup
        (14, 2, 3),  // GLXSup
        (6, 1, 5),   // IASup
        (7, 1, 6),   // GASup
        (8, 1, 7),   // HESup
        (32, 5, 8),  // PASmax
        (12, 2, 28), // GATS
        (10, 2, 30), // HATS
    ];
    FIELDS.into_iter().fold(0, |features, (from, width, to)| {
        let [a, b, c, d, ..] = (register >> from & ((1 << width) - 1)).to_le_bytes();
        features | u32::from_le_bytes([a, b, c, d]) << to
    })
}

#[cfg(test)]
mod tests;
