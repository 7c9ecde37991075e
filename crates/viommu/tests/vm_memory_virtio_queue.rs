//! A device of rust-vmm behind the VT-d model: a real split virtqueue whose every address, of rings
//! and of buffers, is an IOVA of a scripted guest.
//!
//! The driver's half writes the rings as bytes, laid out by hand from the virtio specification,
//! "Split Virtqueues"; the device's half is the `virtio-queue` crate.

#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use iopf::{Access, Gpa, Iova, Pasid, Rid};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use testkit::paging::{Format, PageTable};
use testkit::vtd::{self, Guest, numbers};
use testkit::{Backing, Driver as _, Interrupts, Mm, Prot, Ram};
use viommu::mem::GuestRam;
use viommu::vm_memory::Behind;
use viommu::vtd::{Config, Setup, VtdUnit};
use virtio_queue::{Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap, IommuMemory};

type Unit = VtdUnit<Arc<GuestMemoryMmap>>;
type Memory = IommuMemory<GuestMemoryMmap, Behind<Unit>>;

const NET: Rid = Rid(0x0100);
const DOMAIN: u16 = 7;
const RW: u64 = numbers::SS_R | numbers::SS_W;

/// Where the driver put the queue: one page, 16 descriptors.
const RINGS: u64 = 0xffff_e000;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x800;

struct Machine {
    ram: Arc<Ram>,
    unit: Arc<Unit>,
    guest: Guest,
    table: PageTable,
}

impl Machine {
    fn new(scalable: bool) -> Self {
        let ram = Arc::new(Ram::new(32 << 20).unwrap());
        let irqs = Arc::new(Interrupts::new());
        let setup = Setup {
            config: Config::default(),
            ram: GuestRam::new(ram.memory()),
        };
        let unit = Arc::new(VtdUnit::new(setup, irqs.clone()).unwrap());
        let setup = vtd::Setup {
            scalable,
            ..vtd::Setup::default()
        };
        let guest = Guest::boot(unit.clone(), ram.clone(), irqs, setup).unwrap();
        let table = PageTable::new(&ram, Format::VtdSecond, 4).unwrap();
        Self {
            ram,
            unit,
            guest,
            table,
        }
    }

    /// With the device in a legacy domain.
    fn legacy() -> Self {
        let machine = Self::new(false);
        machine
            .guest
            .attach(NET, 0, &machine.table, DOMAIN)
            .unwrap();
        machine
    }

    /// What the device model is given instead of guest memory.
    fn memory(&self, pasid: Option<Pasid>) -> Memory {
        let behind = Behind::new(self.unit.clone(), NET, pasid);
        IommuMemory::new((*self.ram.memory()).clone(), behind, true, ())
    }

    /// Maps a fresh frame.
    fn map(&self, at: u64, flags: u64) -> Gpa {
        let frame = self.ram.frame().unwrap();
        self.table.map(Iova(at), frame, flags, 1).unwrap();
        frame
    }

    /// What Linux does after a page was unmapped or replaced.
    fn flush(&self, at: u64) {
        let descriptor = numbers::iotlb_pages(DOMAIN, at, 0);
        self.guest.submit(&[descriptor]).unwrap();
    }

    fn bytes<const N: usize>(&self, at: Gpa) -> [u8; N] {
        let mut bytes = [0; N];
        self.ram.read(at, &mut bytes);
        bytes
    }
}

/// The driver's half of the queue, in the frame behind [`RINGS`].
struct Driver {
    ram: Arc<Ram>,
    rings: Gpa,
    offered: u16,
    next: u16,
}

/// A buffer for the device: address, length, and whether the device writes it.
type Buffer = (u64, u32, bool);

impl Driver {
    fn new(machine: &Machine) -> Self {
        Self {
            ram: machine.ram.clone(),
            rings: machine.map(RINGS, RW),
            offered: 0,
            next: 0,
        }
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.ram.write(Gpa(self.rings.0 + at), bytes);
    }

    /// Offers one chain.
    fn offer(&mut self, buffers: &[Buffer]) {
        let head = self.next;
        for (index, &(addr, len, writable)) in buffers.iter().enumerate() {
            let more = u16::from(index + 1 < buffers.len());
            let mut raw = Vec::new();
            raw.extend(addr.to_le_bytes());
            raw.extend(len.to_le_bytes());
            // VIRTQ_DESC_F_NEXT is 1, VIRTQ_DESC_F_WRITE is 2.
            raw.extend((more | u16::from(writable) << 1).to_le_bytes());
            raw.extend((self.next + 1).to_le_bytes());
            self.put(u64::from(self.next) * 16, &raw);
            self.next += 1;
        }
        let slot = AVAIL + 4 + u64::from(self.offered % 16) * 2;
        self.put(slot, &head.to_le_bytes());
        self.offered += 1;
        self.put(AVAIL + 2, &self.offered.to_le_bytes());
    }

    /// Index of the used ring, and its `n`th element: head and bytes written.
    fn used(&self, n: u64) -> (u16, u32, u32) {
        let mut raw = [0; 8];
        self.ram
            .read(Gpa(self.rings.0 + USED + 4 + n * 8), &mut raw);
        let mut index = [0; 2];
        self.ram.read(Gpa(self.rings.0 + USED + 2), &mut index);
        let [a, b, c, d, e, f, g, h] = raw;
        (
            u16::from_le_bytes(index),
            u32::from_le_bytes([a, b, c, d]),
            u32::from_le_bytes([e, f, g, h]),
        )
    }
}

fn queue(memory: &Memory) -> Queue {
    let mut queue = Queue::new(16).unwrap();
    let half = |at: u64| u32::try_from(RINGS + at).ok();
    queue.set_desc_table_address(half(0), Some(0));
    queue.set_avail_ring_address(half(AVAIL), Some(0));
    queue.set_used_ring_address(half(USED), Some(0));
    queue.set_ready(true);
    assert!(queue.is_valid(memory));
    queue
}

/// A device that answers each chain with its readable bytes in upper case. Says how many bytes it
/// wrote, or that an address of the chain did not work.
fn serve(queue: &mut Queue, memory: &Memory) -> Vec<Result<u32, ()>> {
    let mut served = Vec::new();
    while let Some(chain) = queue.pop_descriptor_chain(memory) {
        let head = chain.head_index();
        let done = answer(chain.collect(), memory);
        queue.add_used(memory, head, done.unwrap_or(0)).unwrap();
        served.push(done);
    }
    served
}

fn answer(chain: Vec<virtio_queue::desc::split::Descriptor>, memory: &Memory) -> Result<u32, ()> {
    let mut text = Vec::new();
    let mut written = 0u32;
    for descriptor in chain {
        let (at, len) = (descriptor.addr(), descriptor.len() as usize);
        if descriptor.is_write_only() {
            let part: Vec<u8> = text.drain(..len.min(text.len())).collect();
            memory.write_slice(&part, at).map_err(drop)?;
            written += u32::try_from(part.len()).unwrap();
        } else {
            let mut part = vec![0; len];
            memory.read_slice(&mut part, at).map_err(drop)?;
            part.make_ascii_uppercase();
            text.extend(part);
        }
    }
    Ok(written)
}

#[test]
fn a_queue_at_iovas_is_served() {
    let machine = Machine::legacy();
    let mut driver = Driver::new(&machine);
    // Two pages that follow each other for the device only.
    let [low, high] = [0x5000, 0x6000].map(|at| machine.map(at, numbers::SS_R));
    let reply = machine.map(0x9000, RW);
    machine.ram.write(Gpa(low.0 + 0xffd), b"abc");
    machine.ram.write(high, b"def");
    driver.offer(&[(0x5ffd, 6, false), (0x9800, 64, true)]);

    let memory = machine.memory(None);
    assert_eq!(serve(&mut queue(&memory), &memory), [Ok(6)]);
    assert_eq!(&machine.bytes(Gpa(reply.0 + 0x800)), b"ABCDEF\0\0");
    assert_eq!(driver.used(0), (1, 0, 6));
    assert_eq!(machine.guest.poll_faults().total(), 0);
}

#[test]
fn a_buffer_that_is_not_mapped_is_a_fault_the_guest_reads() {
    let machine = Machine::legacy();
    let mut driver = Driver::new(&machine);
    machine.map(0x5000, numbers::SS_R);
    // Not mapped at all; mapped for reading only; and one that works, after both.
    driver.offer(&[(0x5000, 4, false), (0x7010, 64, true)]);
    driver.offer(&[(0x5000, 4, false), (0x5800, 64, true)]);
    driver.offer(&[(0x5000, 4, false)]);

    let memory = machine.memory(None);
    let served = serve(&mut queue(&memory), &memory);
    assert_eq!(served, [Err(()), Err(()), Ok(0)]);
    assert_eq!(driver.used(2).0, 3);

    // One recording register: the second fault found it full, and says so.
    let log = machine.guest.poll_faults();
    let lines: Vec<_> = log.latest.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x7000 [fault reason 0x05]"
        ]
    );
    assert_eq!(machine.unit.counters().faults, 2);
    assert_eq!(machine.unit.counters().lost, 1);
}

#[test]
fn rings_that_are_not_mapped_make_an_invalid_queue() {
    let machine = Machine::legacy();
    let memory = machine.memory(None);
    let mut queue = Queue::new(16).unwrap();
    queue.set_desc_table_address(Some(0x1000), Some(0));
    queue.set_avail_ring_address(Some(0x1400), Some(0));
    queue.set_used_ring_address(Some(0x1800), Some(0));
    queue.set_ready(true);
    assert!(!queue.is_valid(&memory));
    let log = machine.guest.poll_faults();
    assert_eq!(log.latest.front().unwrap().addr, Iova(0x1000));
}

#[test]
fn a_page_is_stale_without_its_invalidation_and_never_with_it() {
    let machine = Machine::legacy();
    let old = machine.map(0x5000, RW);
    let memory = machine.memory(None);
    let at = GuestAddress(0x5000);
    memory.write_obj(1u64, at).unwrap();

    let new = machine.map(0x5000, RW);
    memory.write_obj(2u64, at).unwrap();
    // The guest has not invalidated yet: as hardware may, the model uses what it has.
    assert_eq!((machine.ram.load(old), machine.ram.load(new)), (2, 0));

    machine.flush(0x5000);
    memory.write_obj(3u64, at).unwrap();
    assert_eq!((machine.ram.load(old), machine.ram.load(new)), (2, 3));
}

#[test]
fn requests_with_a_pasid_use_that_address_space() {
    let machine = Machine::new(true);
    machine.guest.probe(NET, false, 0).unwrap();
    let spaces = [5, 6].map(|number| {
        let pasid = Pasid::truncate(number);
        let mm = Arc::new(Mm::new(&machine.ram, pasid, 4).unwrap());
        let at = Iova(0x7f00_0000_1000);
        mm.mmap(at, 1, Prot::RW, Backing::Zero);
        mm.fault(at, Access::RW).unwrap();
        machine.guest.bind(NET, &mm).unwrap();
        (machine.memory(Some(pasid)), mm)
    });
    let at = GuestAddress(0x7f00_0000_1008);
    for (value, (memory, _)) in [(0x55u64, &spaces[0]), (0x66, &spaces[1])] {
        memory.write_obj(value, at).unwrap();
    }
    for (value, (memory, mm)) in [(0x55u64, &spaces[0]), (0x66, &spaces[1])] {
        assert_eq!(memory.read_obj::<u64>(at).unwrap(), value);
        let (pa, _) = mm.translate(Iova(at.0)).unwrap();
        assert_eq!(machine.ram.load(pa), value);
    }
    let nobody = machine.memory(Some(Pasid::truncate(9)));
    assert!(nobody.read_obj::<u64>(at).is_err());
    let log = machine.guest.poll_faults();
    assert_eq!(log.latest.front().unwrap().pasid, Some(Pasid::truncate(9)));
}

/// The frames that take turns behind an address; after each turn and its wait, the frame that is out
/// must not change any more.
fn unchanged_after_the_wait(machine: &Machine, turns: Duration, at: u64) -> u32 {
    let frames = [(); 2].map(|()| machine.ram.frame().unwrap());
    let (mut count, end) = (0u32, Instant::now() + turns);
    while Instant::now() < end {
        let [out, into] = match count % 2 {
            0 => frames,
            _ => [frames[1], frames[0]],
        };
        machine.table.map(Iova(at), into, RW, 1).unwrap();
        machine.flush(at);
        let before: [u8; 64] = machine.bytes(out);
        for _ in 0..count % 400 {
            std::hint::spin_loop();
        }
        assert_eq!(before, machine.bytes(out), "written after the wait");
        count += 1;
    }
    count
}

/// Stops the device however the test ends.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

#[test]
fn no_frame_is_written_after_the_wait_for_its_invalidation() {
    let machine = Machine::legacy();
    machine.map(0x5000, RW);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = |seed: u64| {
            let memory = machine.memory(None);
            let mut value = seed;
            while !stop.load(SeqCst) {
                value += 1;
                let bytes = [value.to_le_bytes()[0]; 64];
                memory.write_slice(&bytes, GuestAddress(0x5000)).unwrap();
            }
        };
        scope.spawn(move || writer(0));
        let _stop = Stop(&stop);
        let turns = unchanged_after_the_wait(&machine, Duration::from_millis(800), 0x5000);
        assert!(turns > 10, "{turns}");
    });
}

#[test]
fn slices_kept_for_longer_are_safe_within_a_session() {
    let machine = Machine::legacy();
    machine.map(0x5000, RW);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (machine, stop) = (&machine, &stop);
        scope.spawn(move || {
            let memory = machine.memory(None);
            let mut value = 0u8;
            while !stop.load(SeqCst) {
                value = value.wrapping_add(1);
                let session = memory.iommu().session();
                // As `Reader` and `Writer` of `virtio-queue` do.
                let slices: Vec<_> = memory
                    .get_slices(GuestAddress(0x5000), 64, vm_memory::Permissions::Write)
                    .unwrap()
                    .collect();
                for slice in slices {
                    slice.unwrap().copy_from(&[value; 64]);
                }
                drop(session);
            }
        });
        let _stop = Stop(stop);
        let turns = unchanged_after_the_wait(machine, Duration::from_millis(800), 0x5000);
        assert!(turns > 10, "{turns}");
    });
}
