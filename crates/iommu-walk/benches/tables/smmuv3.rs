//! The tables that the SMMUv3 benches walk, the twins of VT-d's: see `tests/bed/smmuv3.rs` for what lies
//! where.

use iommu_walk::smmuv3::{Features, Unit};
use iopf::{Access, Dma, DmaKind, Iova, Rid};
use std::sync::atomic::AtomicU64;

/// A context descriptor as Linux writes it: T0SZ 16, EPD1, 48 bits, AA64, R, A, ASID 7.
const CD: u64 = 0x0007_6205_c000_0010;
/// Stage 2: VMID 9, 48 bits, from level 0, R.
const STE2: u64 = 0x040d_0090_0000_0009;
const TABLES: [(u64, u64); 29] = [
    // Stream table entries of 00:05.0 (stage 1), 00:06.0 (stage 2) and 00:07.0 (both).
    (0x4a00, 0x3_000b),
    (0x4a08, 0x1000_1000_0000),
    (0x4c00, 0xd),
    (0x4c08, 0x1000_1000_0000),
    (0x4c10, STE2),
    (0x4c18, 0x1_0000),
    (0x4e00, 0x3_000f),
    (0x4e08, 0x1000_1000_0000),
    (0x4e10, STE2),
    (0x4e18, 0x1_0000),
    (0x3_0000, CD),
    (0x3_0008, 0x2_0000),
    (0x2_0008, 0x2_1003),
    (0x2_1008, 0x2_2003),
    (0x2_2008, 0x2_3003),
    (0x2_3008, 0x8_0443),
    // Stage 2: what stage 1 and the page need, then the page of 00:06.0.
    (0x1_0000, 0x1_1003),
    (0x1_1000, 0x1_2003),
    (0x1_2000, 0x1_3003),
    (0x1_3180, 0x3_04ff),
    (0x1_3100, 0x2_04ff),
    (0x1_3108, 0x2_14ff),
    (0x1_3110, 0x2_24ff),
    (0x1_3118, 0x2_34ff),
    (0x1_3400, 0x8_04ff),
    (0x1_0008, 0x1_4003),
    (0x1_4008, 0x1_5003),
    (0x1_5008, 0x1_6003),
    (0x1_6008, 0x8_04ff),
];

/// A write by 00:05.0 (stage 1), 00:06.0 (stage 2) or 00:07.0 (both).
pub(crate) fn request(devfn: u16, addr: u64) -> Dma {
    Dma {
        requester: Rid::from_pci(devfn),
        pasid: None,
        kind: DmaKind::Untranslated,
        addr: Iova(addr),
        access: Access::WRITE,
    }
}

/// The unit: both stages, a linear stream table of 2^8 entries.
pub(crate) fn unit() -> Unit {
    let features = Features {
        idr0: 0x084d_1c8b,
        idr1: 0x0400_0510,
        idr3: 0x14,
        idr5: 0x75,
    };
    Unit::new(features)
        .with_control(0x1, 0x2)
        .with_stream_table(0x4000, 8)
}

/// The tables as a run of words.
pub(crate) fn words() -> Vec<AtomicU64> {
    super::filled(&TABLES)
}
