//! SMMUv3: stage 2 alone, and stage 1 of substream 3.

use crate::{DEVICE, Memory, Nowhere, Subject, TABLES, made, memory, put};
use iopf::Pasid;
use std::sync::Arc;
use viommu::smmuv3::{Config, Smmuv3, Smmuv3Unit};
use viommu_api::Registers;

const STREAMS: u64 = 0x1000;
const CONTEXTS: u64 = 0x4000;
const EVENTS: u64 = 0x8_0000;
/// Events that the queue holds, as Linux has it.
const QUEUE: u64 = 1024;

pub(crate) const SUBJECTS: [Subject<Smmuv3>; 2] = [
    Subject {
        mode: "smmuv3 stage 2",
        pasid: None,
        unit,
        room: QUEUE,
        make_room,
    },
    Subject {
        mode: "smmuv3 stage 1",
        pasid: Pasid::new(3),
        unit,
        room: QUEUE,
        make_room,
    },
];

fn unit(subject: &Subject<Smmuv3>, iotlb_entries: usize) -> Smmuv3Unit<Memory> {
    let first = subject.pasid.is_some();
    let memory = memory([3; 3], if first { 0xf43 } else { 0x7ff });
    let entry = STREAMS + u64::from(DEVICE.0) * 64;
    if first {
        // Eight context descriptors; S1DSS is 2.
        put(&memory, entry, 3 << 59 | CONTEXTS | 5 << 1 | 1);
        put(&memory, entry + 8, 1 << 44 | 2);
        let context = CONTEXTS + 3 * 64;
        // ASID 5, ASET, A, R, AA64, IPS 5, V, EPD1, T0SZ 16.
        let word = 5 << 48 | 0xe2 << 40 | 5 << 32 | 3 << 30 | 16;
        put(&memory, context, word);
        put(&memory, context + 8, TABLES);
    } else {
        put(&memory, entry, 6 << 1 | 1);
        put(&memory, entry + 8, 1 << 44);
        // S2R, S2AA64, S2PS 5, S2SL0 2, S2T0SZ 16; VMID 5.
        let word = 1 << 58 | 1 << 51 | 5 << 48 | 2 << 38 | 16 << 32 | 5;
        put(&memory, entry + 16, word);
        put(&memory, entry + 24, TABLES);
    }
    let config = Config {
        iotlb_entries,
        ..Config::default()
    };
    let unit = made::<Smmuv3>(memory, config, Arc::new(Nowhere));
    unit.write(0x80, &STREAMS.to_le_bytes());
    unit.write(0x88, &6u32.to_le_bytes());
    unit.write(0xa0, &(EVENTS | 10).to_le_bytes());
    // EVENTQ_IRQEN; SMMUEN, EVENTQEN.
    unit.write(0x50, &4u32.to_le_bytes());
    unit.write(0x20, &5u32.to_le_bytes());
    unit
}

/// Software has read the queue.
fn make_room(unit: &Smmuv3Unit<Memory>) {
    let mut prod = [0; 4];
    unit.read(0x1_00a8, &mut prod);
    unit.write(0x1_00ac, &prod);
}
