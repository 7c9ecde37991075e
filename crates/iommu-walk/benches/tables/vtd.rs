//! The tables that the VT-d benches walk.

use iommu_walk::vtd::Unit;
use iopf::{Access, Dma, DmaKind, Iova, Pasid, Rid};
use std::sync::atomic::AtomicU64;

const CAP: u64 = 0x1100_000c_006f_0e06;
const ECAP: u64 = 0x0133_e99e_e400_00c6;
pub(crate) const TABLES: [(u64, u64); 31] = [
    (0x1000, 0x2001),
    (0x1008, 0x3001),
    // Scalable context entries 00:05.0, 00:06.0 and 00:07.0, then their PASID directories.
    (0x2500, 0x401d),
    (0x2600, 0x601d),
    (0x2700, 0x701d),
    (0x4000, 0x5001),
    (0x6000, 0x8001),
    (0x7000, 0x9001),
    // PASID 5: first stage, second stage, nested, with the switches that Linux sets.
    (0x5140, 0x41),
    (0x5148, 0x80_0007),
    (0x5150, 0x2_0000),
    (0x8140, 0x1_0089),
    (0x8148, 0x80_0007),
    (0x9140, 0x1_00c9),
    (0x9148, 0x80_0007),
    (0x9150, 0x2_0000),
    (0x2_0008, 0x2_1027),
    (0x2_1008, 0x2_2027),
    (0x2_2008, 0x2_3027),
    (0x2_3008, 0x8_0067),
    (0x1_0000, 0x1_1003),
    (0x1_1000, 0x1_2003),
    (0x1_2000, 0x1_3003),
    (0x1_3100, 0x2_0003),
    (0x1_3108, 0x2_1003),
    (0x1_3110, 0x2_2003),
    (0x1_3118, 0x2_3003),
    (0x1_3400, 0x8_0003),
    // Legacy: another root table.
    (0x3_0000, 0x3_1001),
    (0x3_1280, 0x1_0001),
    (0x3_1288, 0x0702),
];

/// A write of PASID 5, by 00:05.0 (first stage), 00:06.0 (second) or 00:07.0 (nested).
pub(crate) fn request(devfn: u16, addr: u64) -> Dma {
    Dma {
        requester: Rid::from_pci(devfn),
        pasid: Pasid::new(5),
        kind: DmaKind::Untranslated,
        addr: Iova(addr),
        access: Access::WRITE,
    }
}

/// A write without a PASID, for the legacy tables.
pub(crate) fn plain() -> Dma {
    Dma {
        pasid: None,
        ..request(0x28, 0x2_0abc)
    }
}

/// The unit with its scalable-mode tables.
pub(crate) fn scalable() -> Unit {
    Unit::new(CAP, ECAP, 46).with_rtaddr(0x1400)
}

/// The unit with its legacy tables.
pub(crate) fn legacy() -> Unit {
    Unit::new(CAP, ECAP, 46).with_rtaddr(0x3_0000)
}

/// The tables as a run of words.
pub(crate) fn words() -> Vec<AtomicU64> {
    super::filled(&TABLES)
}
