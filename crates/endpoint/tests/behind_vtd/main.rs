//! The PCI functions of this crate behind the VT-d model, driven by a scripted guest: what a guest
//! program writes into registers, and what its kernel then reads from the IOMMU.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod machine;
mod stall;

use endpoint::virtio_rng::VirtioRng;
use endpoint::{Signals, Step};
use iopf::{Gpa, Iova, Rid};
use machine::{ENGINE, Irqs, Machine, Unit};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use testkit::paging::{Format, PageTable};
use testkit::vtd::numbers;
use testkit::{Backing, Driver, Prot};
use viommu::vm_memory::Behind;
use viommu_api::{InterruptKind, PciFunction};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap, IommuMemory};

const RNG: Rid = Rid(0x0030); // 00:06.0
const DOMAIN: u16 = 7;

#[test]
fn a_bad_dma_is_what_the_guest_reads_in_its_log() {
    let machine = Machine::new(false);
    let table = PageTable::new(&machine.ram, Format::VtdSecond, 4).unwrap();
    machine.guest.attach(ENGINE, 0, &table, DOMAIN).unwrap();
    machine.go(0, 0, 1 | 1 << 6, 0xdead_0000, 0, 64);
    machine.run();
    // Error 1, blocked, at the address; reason 06h is a read without the right in legacy mode.
    assert_eq!(machine.u32(0x24), 0x0103);
    assert_eq!(machine.u32(0x28), 0xdead_0000);
    let lines = |machine: &Machine| -> Vec<String> {
        let log = machine.guest.poll_faults();
        log.latest.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        lines(&machine),
        [
            "DMAR: [DMA Read NO_PASID] Request device [00:04.0] fault addr 0xdead0000 [fault reason 0x06]"
        ]
    );
    // A false requester ID, which has no context entry: reason 02h.
    machine
        .engine
        .write_bar(0, 0x40, &0x8000_0128u32.to_le_bytes());
    machine.go(0, 0, 4 | 1 << 6, 0, 0x5000, 64);
    machine.run();
    let last = lines(&machine).pop().unwrap();
    assert!(
        last.contains("[DMA Write NO_PASID] Request device [01:05.0] fault addr 0x5000"),
        "{last}"
    );
}

#[test]
fn twelve_mebibytes_of_untouched_memory_come_in_through_page_requests() {
    let (machine, mm) = Machine::shared();
    let (base, pages) = (0x7f00_0000_0000u64, 3072);
    mm.mmap(Iova(base), pages, Prot::RW, Backing::Zero);
    machine.engine.write_bar(0, 0x38, &[0xa5; 8]);
    machine.go(0, 0x8000_0005, 4, 0, base, 12 << 20);
    machine.run();
    assert_eq!(machine.u32(0x24), 3072 << 16 | 2);
    let mut end = [0; 16];
    mm.read(Iova(base + (12 << 20) - 16), &mut end).unwrap();
    assert_eq!(end, [0xa5; 16]);
    machine.go(0, 0x8000_0005, 5, base, 0, 12 << 20);
    machine.run();
    assert_eq!((machine.u32(0x24), machine.u32(0x54)), (2, 0));
    // What the process may not touch is refused, and the refusal is the guest's own.
    machine.go(0, 0x8000_0005, 1, 0x1000, 0, 8);
    machine.run();
    assert_eq!(machine.u32(0x24), 1 << 16 | 0x0303);
}

#[test]
fn no_frame_is_written_after_its_invalidation_while_jobs_run() {
    let (machine, mm) = Machine::shared();
    let base = 0x7f00_0000_0000u64;
    mm.mmap(Iova(base), 4, Prot::RW, Backing::Zero);
    let stop = AtomicBool::new(false);
    let mut given_back = 0;
    thread::scope(|scope| {
        let (machine, stop) = (&machine, &stop);
        let start = Instant::now();
        let worker = scope.spawn(move || {
            let mut value = 0u8;
            while !stop.load(Ordering::SeqCst) {
                if machine.engine.busy() == 0 {
                    value = value.wrapping_add(1);
                    machine.engine.write_bar(0, 0x38, &[value; 8]);
                    machine.go(0, 0x8000_0005, 4, 0, base, 0x4000);
                }
                machine.engine.step(start.elapsed());
            }
        });
        while start.elapsed() < Duration::from_millis(500) {
            machine.guest.service();
            let frames = machine.guest.discard(&mm, Iova(base), 4).unwrap();
            for &frame in &frames {
                machine.ram.write(frame, &[0xee; 4096]);
            }
            for _ in 0..200 {
                std::hint::spin_loop();
            }
            for frame in frames {
                let mut bytes = [0; 4096];
                machine.ram.read(frame, &mut bytes);
                assert!(bytes == [0xee; 4096], "written after the invalidation");
                machine.ram.free(frame);
                given_back += 1;
            }
        }
        stop.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
    assert!(given_back > 20, "{given_back}");
    assert!(machine.engine.stats().invalidations > 20);
}

/// Guest memory behind the unit, as the entropy device reaches it.
#[derive(Clone)]
struct Translated(Arc<IommuMemory<GuestMemoryMmap, Behind<Unit>>>);

impl GuestAddressSpace for Translated {
    type M = IommuMemory<GuestMemoryMmap, Behind<Unit>>;
    type T = Arc<Self::M>;

    fn memory(&self) -> Self::T {
        self.0.clone()
    }
}

/// An entropy device whose driver has set it up with rings at these addresses, and its interrupts.
fn entropy(machine: &Machine, rings: [u64; 3]) -> (VirtioRng<Translated>, Arc<Irqs>) {
    let behind = Behind::new(machine.unit.clone(), RNG, None);
    let memory = IommuMemory::new((*machine.ram.memory()).clone(), behind, true, ());
    let irqs = Arc::new(Irqs::default());
    let device = VirtioRng::new(
        Translated(Arc::new(memory)),
        Box::new(|bytes| bytes.fill(0x77)),
        irqs.clone(),
        Arc::new(|| {}),
        Signals::Messages,
    )
    .unwrap();
    device.write_config(0x04, &[6, 0]);
    device.write_config(0x7e, &[0, 0x80]);
    device.write_bar(0, 0x14, &[3]);
    device.write_bar(0, 0x08, &1u32.to_le_bytes());
    device.write_bar(0, 0x0c, &3u32.to_le_bytes());
    device.write_bar(0, 0x14, &[0xb]);
    device.write_bar(0, 0x10, &0u16.to_le_bytes());
    device.write_bar(0, 0x18, &16u16.to_le_bytes());
    device.write_bar(0, 0x1a, &1u16.to_le_bytes());
    for (at, ring) in [0x20, 0x28, 0x30].into_iter().zip(rings) {
        let bytes = ring.to_le_bytes();
        device.write_bar(0, at, &bytes[..4]);
        device.write_bar(0, at + 4, &bytes[4..]);
    }
    device.write_bar(0, 0x1c, &1u16.to_le_bytes());
    device.write_bar(0, 0x14, &[0xf]);
    (device, irqs)
}

#[test]
fn the_entropy_device_reaches_its_rings_and_buffers_through_the_iommu() {
    let machine = Machine::new(false);
    let table = PageTable::new(&machine.ram, Format::VtdSecond, 4).unwrap();
    machine.guest.attach(RNG, 0, &table, DOMAIN).unwrap();
    let map = |at: u64| -> Gpa {
        let frame = machine.ram.frame().unwrap();
        let rights = numbers::SS_R | numbers::SS_W;
        table.map(Iova(at), frame, rights, 1).unwrap();
        frame
    };
    let (rings, buffer) = (map(0xffff_e000), map(0xffff_d000));
    let (device, irqs) = entropy(&machine, [0xffff_e000, 0xffff_e400, 0xffff_e800]);
    let offer = |n: u16, addr: u64| {
        let mut raw = addr.to_le_bytes().to_vec();
        raw.extend(32u32.to_le_bytes());
        raw.extend(2u16.to_le_bytes()); // VIRTQ_DESC_F_WRITE
        raw.extend(0u16.to_le_bytes());
        machine.ram.write(rings, &raw);
        machine
            .ram
            .write(Gpa(rings.0 + 0x402), &(n + 1).to_le_bytes());
        device.write_bar(0, 0x3000, &[0, 0]);
        while device.step() == Step::Worked {}
    };
    offer(0, 0xffff_d010);
    let mut bytes = [0; 33];
    machine.ram.read(Gpa(buffer.0 + 0x10), &mut bytes);
    assert_eq!((bytes[0], bytes[31], bytes[32]), (0x77, 0x77, 0));
    assert_eq!(*irqs.0.lock().unwrap(), [(InterruptKind::Msix, 1)]);
    assert_eq!(machine.guest.poll_faults().total(), 0);
    // A buffer that the driver has not mapped: the guest sees the fault, and the device stops.
    offer(1, 0xffff_c000);
    let mut status = [0];
    device.read_bar(0, 0x14, &mut status);
    assert_eq!(status, [0x4f]);
    let log = machine.guest.poll_faults();
    let fault = log.latest.front().unwrap();
    assert_eq!((fault.addr, log.total()), (Iova(0xffff_c000), 1));
    // The used ring still has its one element.
    let mut index = [0; 2];
    machine.ram.read(Gpa(rings.0 + 0x802), &mut index);
    assert_eq!(index, [1, 0]);
}
