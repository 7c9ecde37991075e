//! VT-d: second-stage tables of legacy mode, and first-stage tables of PASID 3.

use crate::{DEVICE, Memory, Nowhere, Subject, TABLES, made, memory, put};
use iopf::Pasid;
use std::sync::Arc;
use viommu::vtd::{Config, Vtd, VtdUnit};
use viommu_api::Registers;

const ROOT: u64 = 0x1000;
const CONTEXT: u64 = 0x2000;
const DIRECTORY: u64 = 0x4000;

pub(crate) const SUBJECTS: [Subject<Vtd>; 2] = [
    Subject {
        mode: "legacy",
        pasid: None,
        unit,
        room: 256,
        make_room,
    },
    Subject {
        mode: "scalable",
        pasid: Pasid::new(3),
        unit,
        room: 256,
        make_room,
    },
];

fn unit(subject: &Subject<Vtd>, iotlb_entries: usize) -> VtdUnit<Memory> {
    let scalable = subject.pasid.is_some();
    let bits = if scalable { 0x67 } else { 3 };
    let memory = memory([bits; 3], bits);
    let device = u64::from(DEVICE.0);
    put(&memory, ROOT, CONTEXT | 1);
    if scalable {
        put(&memory, CONTEXT + device * 32, DIRECTORY | 1 << 3 | 1);
        put(&memory, DIRECTORY, (DIRECTORY + 0x1000) | 1);
        let entry = DIRECTORY + 0x1000 + 3 * 64;
        put(&memory, entry, 1 << 6 | 2 << 2 | 1);
        put(&memory, entry + 8, 1 << 23 | 1);
        put(&memory, entry + 16, TABLES);
    } else {
        put(&memory, CONTEXT + device * 16, TABLES | 1);
        put(&memory, CONTEXT + device * 16 + 8, 5 << 8 | 2);
    }
    let config = Config {
        fault_records: 256,
        iotlb_entries,
        ..Config::default()
    };
    let unit = made::<Vtd>(memory, config, Arc::new(Nowhere));
    let mode = if scalable { 1 << 10 } else { 0 };
    unit.write(0x20, &(ROOT | mode).to_le_bytes());
    unit.write(0x18, &(1u32 << 30).to_le_bytes());
    unit.write(0x18, &(1u32 << 31).to_le_bytes());
    unit
}

/// Software has cleared the registers.
fn make_room(unit: &VtdUnit<Memory>) {
    for register in 0..256u64 {
        unit.write(0x220 + register * 16 + 12, &(1u32 << 31).to_le_bytes());
    }
}
