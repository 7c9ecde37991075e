//! Scripts against the virtio entropy device, rings included.

use super::{Step, steps};
use crate::Signals;
use crate::virtio_rng::VirtioRng;
use std::sync::Arc;
use viommu_api::{InterruptKind, IrqSink, PciFunction};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// Guest memory, small enough for a script to hit what it set up.
const MEMORY: usize = 1 << 18;

/// Steps of the device that one step of a script may take.
const WORK: usize = 32;

struct Irqs;

impl IrqSink for Irqs {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        match kind {
            InterruptKind::Intx => assert_eq!(vector, 0),
            InterruptKind::Msix => assert!(vector < 2, "vector {vector}"),
            InterruptKind::Msi => panic!("it has no MSI"),
        }
    }
}

type Device = VirtioRng<Arc<GuestMemoryMmap>>;

/// Plays a script against the device: registers, configuration space, and the guest's memory.
///
/// # Panics
/// When it raises an interrupt that it does not have, clears `DEVICE_NEEDS_RESET` without a reset, or
/// works on without a driver.
pub fn virtio_rng(data: &[u8]) {
    let Ok(memory) = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), MEMORY)]) else {
        return;
    };
    let memory = Arc::new(memory);
    let entropy = Box::new(|bytes: &mut [u8]| bytes.fill(0xa5));
    let (irqs, waker) = (Arc::new(Irqs), Arc::new(|| {}));
    let device = Device::new(memory.clone(), entropy, irqs, waker, Signals::Messages);
    let Ok(device) = device else { return };
    for step in steps(data) {
        let before = status(&device);
        play(&device, &memory, &step);
        let after = status(&device);
        assert!(before & 0x40 == 0 || after & 0x40 != 0 || after == 0);
    }
    device.reset();
    assert_eq!(
        (status(&device), device.step()),
        (0, crate::Step::Idle(None))
    );
}

fn status(device: &Device) -> u8 {
    let mut status = [0];
    device.read_bar(0, 0x14, &mut status);
    status[0]
}

fn play(device: &Device, memory: &GuestMemoryMmap, step: &Step) {
    let offset = u64::from(step.at & 0x3fff);
    match step.kind % 6 {
        0 => device.write_bar(0, offset, step.data()),
        1 => {
            let [bar, ..] = step.number.to_le_bytes();
            let mut bytes = [0; 16];
            device.read_bar(bar, u64::from(step.at), &mut bytes);
        }
        2 => device.write_config(step.config_offset(), step.data()),
        3 => {
            let mut bytes = [0; 16];
            device.read_config(step.config_offset(), &mut bytes);
        }
        4 => {
            for _ in 0..WORK {
                if device.step() != crate::Step::Worked {
                    break;
                }
            }
        }
        _ => {
            // Outside of memory is a refusal, not a failure of the script.
            let at = GuestAddress(u64::from(step.at));
            drop(memory.write_slice(step.data(), at));
        }
    }
}
