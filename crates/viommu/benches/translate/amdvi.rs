//! AMD-Vi: host tables, and guest tables of PASID 3.

use crate::{DEVICE, Memory, Nowhere, Subject, TABLES, made, memory, put};
use iopf::Pasid;
use std::sync::Arc;
use viommu::amdvi::{Amdvi, AmdviUnit, Config};
use viommu_api::Registers;

const DEVICE_TABLE: u64 = 0x1000;
const CR3_TABLE: u64 = 0x4000;
const EVENTS: u64 = 0x8_0000;
/// IR and IW.
const RW: u64 = 0x6000_0000_0000_0000;
/// Events that the log holds, one being free: of 512, as Linux has it.
const LOG: u64 = 511;

pub(crate) const SUBJECTS: [Subject<Amdvi>; 2] = [
    Subject {
        mode: "amdvi host",
        pasid: None,
        unit,
        room: LOG,
        make_room,
    },
    Subject {
        mode: "amdvi guest",
        pasid: Pasid::new(3),
        unit,
        room: LOG,
        make_room,
    },
];

fn unit(subject: &Subject<Amdvi>, iotlb_entries: usize) -> AmdviUnit<Memory> {
    let guest = subject.pasid.is_some();
    let memory = if guest {
        memory([0x67; 3], 0x67)
    } else {
        memory([3, 2, 1].map(|next| RW | next << 9 | 1), RW | 1)
    };
    let entry = DEVICE_TABLE + u64::from(DEVICE.0) * 32;
    if guest {
        put(&memory, entry, RW | 4 << 58 | 1 << 55 | 3);
        put(&memory, CR3_TABLE + 3 * 8, TABLES | 1);
    } else {
        put(&memory, entry, RW | TABLES | 4 << 9 | 3);
    }
    put(&memory, entry + 8, 5);
    let config = Config {
        iotlb_entries,
        ..Config::default()
    };
    let unit = made::<Amdvi>(memory, config, Arc::new(Nowhere));
    unit.write(0x00, &DEVICE_TABLE.to_le_bytes());
    unit.write(0x10, &(EVENTS | 9 << 56).to_le_bytes());
    // IommuEn, EventLogEn, EventIntEn, GTEn.
    unit.write(0x18, &0x1_000d_u64.to_le_bytes());
    unit
}

/// Software has read the log: its head is at the tail.
fn make_room(unit: &AmdviUnit<Memory>) {
    let mut tail = [0; 8];
    unit.read(0x2018, &mut tail);
    unit.write(0x2010, &tail);
    unit.write(0x2020, &3u32.to_le_bytes());
}
