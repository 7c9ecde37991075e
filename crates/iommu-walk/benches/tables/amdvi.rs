//! The tables that the AMD-Vi benches walk, the twins of VT-d's: see `tests/bed/amdvi.rs` for what lies
//! where.

use iommu_walk::amdvi::Unit;
use iopf::{Access, Dma, DmaKind, Iova, Pasid, Rid};
use std::sync::atomic::AtomicU64;

const EFR: u64 = 0x0017_00f3_0000_981a;
const CONTROL: u64 = 0x1_8001;
const RW: u64 = 0x6000_0000_0000_0000;
const TABLES: [(u64, u64); 23] = [
    // Device table entries of 00:05.0 (host tables), 00:06.0 (guest) and 00:07.0 (nested).
    (0x1500, RW | 0x1_0803),
    (0x1508, 0x7),
    (0x1600, 0x7080_0000_0000_0003),
    (0x1608, 0x7),
    (0x1700, 0x7080_0000_0001_0803),
    (0x1708, 0x7),
    // The guest CR3 of PASID 5, and its tables.
    (0x4028, 0x2_0001),
    (0x2_0008, 0x2_1027),
    (0x2_1008, 0x2_2027),
    (0x2_2008, 0x2_3027),
    (0x2_3008, 0x8_0067),
    // Host tables: what guest tables and the page need, then the page of 00:05.0.
    (0x1_0000, RW | 0x1_1601),
    (0x1_1000, RW | 0x1_2401),
    (0x1_2000, RW | 0x1_3201),
    (0x1_3100, RW | 0x2_0001),
    (0x1_3108, RW | 0x2_1001),
    (0x1_3110, RW | 0x2_2001),
    (0x1_3118, RW | 0x2_3001),
    (0x1_3400, RW | 0x8_0001),
    // Level 4 straight to level 1, under index 2.
    (0x1_0010, RW | 0x3_0201),
    (0x3_0008, RW | 0x8_0001),
    (0x3_0010, 0),
    (0x3_0018, RW | 0x8_0001),
];

/// A write of 00:05.0 (host tables, no PASID).
pub(crate) fn host(addr: u64) -> Dma {
    Dma {
        requester: Rid(0x28),
        pasid: None,
        kind: DmaKind::Untranslated,
        addr: Iova(addr),
        access: Access::WRITE,
    }
}

/// A write of PASID 5, by 00:06.0 (guest tables) or 00:07.0 (nested).
pub(crate) fn guest(devfn: u16) -> Dma {
    Dma {
        requester: Rid::from_pci(devfn),
        pasid: Pasid::new(5),
        ..host(0x80_4020_1abc)
    }
}

/// The unit.
pub(crate) fn unit() -> Unit {
    Unit::new(EFR, 0)
        .with_control(CONTROL)
        .with_device_table(0x1000)
}

/// The tables as a run of words.
pub(crate) fn words() -> Vec<AtomicU64> {
    super::filled(&TABLES)
}
