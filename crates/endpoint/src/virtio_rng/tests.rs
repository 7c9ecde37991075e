use super::*;
use std::sync::atomic::{AtomicU32, Ordering};
use viommu_api::PciFunction;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Memory = Arc<GuestMemoryMmap>;
type Device = VirtioRng<Memory>;

/// Where the driver puts its rings and its buffer. Memory ends at 1 MiB.
const TABLE: u64 = 0x1_0000;
const DRIVER: u64 = 0x1_1000;
const USED: u64 = 0x1_2000;
const BUFFER: u64 = 0x2_0000;
const END: u64 = 0x10_0000;

#[derive(Default)]
struct Irqs(Mutex<Vec<(InterruptKind, u16)>>);

impl IrqSink for Irqs {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        self.0.lock().unwrap().push((kind, vector));
    }
}

impl Irqs {
    fn take(&self) -> Vec<(InterruptKind, u16)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A device, and its driver as Linux's virtio_pci_modern and virtio-rng are.
struct Bench {
    memory: Memory,
    irqs: Arc<Irqs>,
    wakes: Arc<AtomicU32>,
    device: Arc<Device>,
    /// What happens on another vCPU while the device gets its next random bytes, once.
    meanwhile: Meanwhile,
}

type Meanwhile = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

impl Bench {
    fn new() -> Self {
        Self::with(Signals::Messages)
    }

    fn with(signals: Signals) -> Self {
        let range = (GuestAddress(0), usize::try_from(END).unwrap());
        let memory = Arc::new(GuestMemoryMmap::from_ranges(&[range]).unwrap());
        let irqs = Arc::new(Irqs::default());
        let wakes = Arc::new(AtomicU32::new(0));
        let woken = wakes.clone();
        let meanwhile = Meanwhile::default();
        let other = meanwhile.clone();
        let mut next = 0u8;
        let entropy = Box::new(move |bytes: &mut [u8]| {
            for byte in bytes {
                *byte = next;
                next = (next + 1) % 251;
            }
            let event = other.lock().unwrap().take();
            if let Some(event) = event {
                event();
            }
        });
        let waker = Arc::new(move || {
            woken.fetch_add(1, Ordering::SeqCst);
        });
        let device = Device::new(memory.clone(), entropy, irqs.clone(), waker, signals).unwrap();
        Self {
            memory,
            irqs,
            wakes,
            device: Arc::new(device),
            meanwhile,
        }
    }

    /// Through vp_modern_probe, vp_finalize_features and setup_vq, with MSI-X or the pin.
    fn probed(msix: bool) -> Self {
        let bench = Self::new();
        bench.device.write_config(4, &[6, 0]);
        bench.start(msix);
        bench
    }

    fn start(&self, msix: bool) {
        let device = &self.device;
        if msix {
            device.write_config(0x7e, &0x8000u16.to_le_bytes());
        }
        self.status(0);
        assert_eq!(self.get_status(), 0);
        self.status(1);
        self.status(3);
        device.write_bar(0, 0x08, &0u32.to_le_bytes());
        device.write_bar(0, 0x0c, &0u32.to_le_bytes());
        device.write_bar(0, 0x08, &1u32.to_le_bytes());
        device.write_bar(0, 0x0c, &3u32.to_le_bytes());
        self.status(0xb);
        assert_eq!(self.get_status(), 0xb);
        device.write_bar(0, 0x10, &0u16.to_le_bytes());
        device.write_bar(0, 0x16, &0u16.to_le_bytes());
        device.write_bar(0, 0x18, &16u16.to_le_bytes());
        for (at, ring) in [(0x20, TABLE), (0x28, DRIVER), (0x30, USED)] {
            let bytes = ring.to_le_bytes();
            device.write_bar(0, at, &bytes[..4]);
            device.write_bar(0, at + 4, &bytes[4..]);
        }
        device.write_bar(0, 0x1a, &1u16.to_le_bytes());
        device.write_bar(0, 0x1c, &1u16.to_le_bytes());
        self.status(0xf);
    }

    fn status(&self, status: u8) {
        self.device.write_bar(0, 0x14, &[status]);
    }

    fn get_status(&self) -> u8 {
        let mut status = [0];
        self.device.read_bar(0, 0x14, &mut status);
        status[0]
    }

    fn write<const N: usize>(&self, at: u64, bytes: [u8; N]) {
        self.memory.write_slice(&bytes, GuestAddress(at)).unwrap();
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory
            .read_slice(&mut bytes, GuestAddress(at))
            .unwrap();
        bytes
    }

    /// A descriptor: VIRTQ_DESC_F_NEXT is 1, VIRTQ_DESC_F_WRITE is 2.
    fn describe(&self, index: u64, addr: u64, len: u32, flags: u16, next: u16) {
        let at = TABLE + index * 16;
        self.write(at, addr.to_le_bytes());
        self.write(at + 8, len.to_le_bytes());
        self.write(at + 12, flags.to_le_bytes());
        self.write(at + 14, next.to_le_bytes());
    }

    /// Offers the chain that starts at `head` as the `n`th.
    fn offer(&self, n: u16, head: u16) {
        self.write(DRIVER + 4 + u64::from(n % 16) * 2, head.to_le_bytes());
        self.write(DRIVER + 2, (n + 1).to_le_bytes());
    }

    fn notify(&self) {
        self.device.write_bar(0, 0x3000, &0u16.to_le_bytes());
    }

    fn run(&self) {
        for _ in 0..1000 {
            if self.device.step() != Step::Worked {
                return;
            }
        }
        panic!("never idle");
    }

    /// The used ring's index, and the `n`th element.
    fn used(&self, n: u64) -> (u16, u32, u32) {
        let element = USED + 4 + n * 8;
        (
            u16::from_le_bytes(self.bytes(USED + 2)),
            u32::from_le_bytes(self.bytes(element)),
            u32::from_le_bytes(self.bytes(element + 4)),
        )
    }
}

#[test]
fn linux_finds_the_structures() {
    let device = Bench::new().device;
    let mut header = [0; 64];
    device.read_config(0, &mut header);
    assert_eq!(header[..4], [0xf4, 0x1a, 0x44, 0x10]);
    assert_eq!((header[8], header[0x3d]), (1, 1));
    let mut found = Vec::new();
    let mut at = u16::from(header[0x34]);
    while at != 0 {
        let mut cap = [0; 20];
        device.read_config(at, &mut cap);
        if cap[0] == 9 {
            let word = |i: usize| u32::from_le_bytes(cap[i..i + 4].try_into().unwrap());
            found.push((cap[2], cap[3], cap[4], word(8), word(12)));
        }
        at = u16::from(cap[1]);
    }
    // cap_len, cfg_type (common, notify, ISR, PCI window), BAR, offset, length.
    assert_eq!(
        found,
        [
            (16, 1, 0, 0, 0x38),
            (20, 2, 0, 0x3000, 4),
            (16, 3, 0, 0x1000, 1),
            (20, 5, 0, 0, 0),
        ]
    );
    let interrupts = device.interrupts();
    assert_eq!((interrupts.intx, interrupts.msix), (1, 2));
    assert_eq!(
        [0, 1, 2].map(|bar| device.bar_size(bar)),
        [0x4000, 0x1000, 0]
    );
}

#[test]
fn a_buffer_is_filled_with_our_bytes() {
    let bench = Bench::probed(true);
    bench.describe(3, BUFFER, 64, 2, 0);
    bench.offer(0, 3);
    let before = bench.wakes.load(Ordering::SeqCst);
    bench.notify();
    assert_eq!(bench.wakes.load(Ordering::SeqCst), before + 1);
    // Not on the register path.
    assert_eq!(bench.bytes::<4>(BUFFER), [0; 4]);
    bench.run();
    assert_eq!(bench.bytes::<5>(BUFFER), [0, 1, 2, 3, 4]);
    assert_eq!(bench.bytes::<2>(BUFFER + 63), [63, 0]);
    assert_eq!(bench.used(0), (1, 3, 64));
    assert_eq!(bench.irqs.take(), [(InterruptKind::Msix, 1)]);
}

#[test]
fn the_pin_is_raised_until_the_status_is_read() {
    let bench = Bench::probed(false);
    bench.describe(0, BUFFER, 8, 2, 0);
    bench.offer(0, 0);
    bench.notify();
    bench.run();
    assert_eq!(bench.irqs.take(), [(InterruptKind::Intx, 0)]);
    let pci_status = || {
        let mut bytes = [0];
        bench.device.read_config(6, &mut bytes);
        bytes[0] & 8
    };
    assert_eq!(pci_status(), 8);
    let mut isr = [0];
    bench.device.read_bar(0, 0x1000, &mut isr);
    assert_eq!((isr, pci_status()), ([1], 0));
    bench.device.read_bar(0, 0x1000, &mut isr);
    assert_eq!(isr, [0]);
    // Switched off, it waits; switched on, it is raised.
    bench.device.write_config(4, &[6, 4]);
    bench.offer(1, 0);
    bench.notify();
    bench.run();
    assert_eq!(bench.irqs.take(), []);
    bench.device.write_config(4, &[6, 0]);
    assert_eq!(bench.irqs.take(), [(InterruptKind::Intx, 0)]);
}

#[test]
fn without_messages_there_is_the_pin_alone() {
    let bench = Bench::with(Signals::Pin);
    let interrupts = bench.device.interrupts();
    assert_eq!((interrupts.intx, interrupts.msix), (1, 0));
    assert_eq!(bench.device.bar_size(1), 0);
    bench.device.write_config(4, &[6, 0]);
    bench.start(false);
    bench.describe(0, BUFFER, 8, 2, 0);
    bench.offer(0, 0);
    bench.notify();
    bench.run();
    assert_eq!(bench.used(0), (1, 0, 8));
    assert_eq!(bench.irqs.take(), [(InterruptKind::Intx, 0)]);
}

#[test]
fn chains_and_long_buffers_are_filled_as_far_as_one_go_allows() {
    let bench = Bench::probed(true);
    // Something to read first, then two buffers; the second is longer than a chain gets.
    bench.describe(0, BUFFER, 4, 1, 1);
    bench.describe(1, BUFFER + 0x100, 6, 3, 2);
    bench.describe(2, BUFFER + 0x1000, 0x8_0000, 2, 0);
    bench.offer(0, 0);
    bench.notify();
    bench.run();
    assert_eq!(bench.used(0), (1, 0, 0x1_0000));
    assert_eq!(bench.bytes::<4>(BUFFER), [0; 4]);
    assert_eq!(bench.bytes::<7>(BUFFER + 0x100), [0, 1, 2, 3, 4, 5, 0]);
    assert_eq!(bench.bytes::<2>(BUFFER + 0x1000), [6, 7]);
}

#[test]
fn more_chains_than_one_go_serves_are_all_served() {
    let bench = Bench::probed(true);
    bench.describe(0, BUFFER, 1, 2, 0);
    let mut offered = 0;
    for _ in 0..5 {
        for _ in 0..16 {
            bench.offer(offered, 0);
            offered += 1;
        }
        bench.notify();
        bench.run();
    }
    assert_eq!(bench.used(0).0, 80);
}

#[test]
fn bad_rings_stop_the_queue_and_ask_for_a_reset() {
    type Spoil = fn(&Bench);
    let cases: [(&str, Spoil); 5] = [
        ("a buffer beyond memory", |b| {
            b.describe(0, END - 4, 8, 2, 0);
            b.offer(0, 0);
        }),
        ("a buffer at the end of the address space", |b| {
            b.describe(0, u64::MAX - 3, 8, 2, 0);
            b.offer(0, 0);
        }),
        ("an index that jumps", |b| {
            b.write(DRIVER + 2, 17u16.to_le_bytes())
        }),
        ("a head beyond the table", |b| b.offer(0, 16)),
        ("a used ring beyond memory", |b| {
            b.device.write_bar(0, 0x14, &[0]);
            b.start(true);
            b.describe(0, BUFFER, 8, 2, 0);
            b.offer(0, 0);
            let mut state = b.device.state();
            state.common.queue.rings[2] = END;
        }),
    ];
    for (name, spoil) in cases {
        let bench = Bench::probed(true);
        spoil(&bench);
        bench.notify();
        bench.run();
        assert_eq!(bench.get_status(), 0x4f, "{name}");
        assert_eq!(bench.irqs.take(), [(InterruptKind::Msix, 0)], "{name}");
        bench.notify();
        assert_eq!(bench.device.step(), Step::Idle(None), "{name}");
        // And a reset helps.
        bench.write(DRIVER + 2, [0, 0]);
        bench.write(USED + 2, [0, 0]);
        bench.start(true);
        bench.describe(0, BUFFER, 8, 2, 0);
        bench.offer(0, 0);
        bench.notify();
        bench.run();
        assert_eq!(bench.used(0), (1, 0, 8), "{name}");
    }
}

#[test]
fn a_chain_that_loops_ends() {
    let bench = Bench::probed(true);
    bench.describe(0, BUFFER, 8, 3, 1);
    bench.describe(1, BUFFER, 8, 3, 0);
    bench.offer(0, 0);
    bench.notify();
    bench.run();
    // Each of the sixteen descriptors of the table at most once.
    assert_eq!(bench.used(0), (1, 0, 128));
}

#[test]
fn rings_that_break_the_alignment_rules_are_broken() {
    let bench = Bench::new();
    bench.device.write_config(4, &[6, 0]);
    bench.start(true);
    bench.device.state().common.queue.rings[0] = TABLE + 8;
    bench.notify();
    bench.run();
    assert_eq!(bench.get_status(), 0x4f);
}

#[test]
fn nothing_happens_before_the_driver_is_ready_or_without_bus_master() {
    let bench = Bench::new();
    bench.notify();
    assert_eq!(bench.device.step(), Step::Idle(None));
    bench.start(true);
    bench.describe(0, BUFFER, 8, 2, 0);
    bench.offer(0, 0);
    bench.notify();
    assert_eq!(bench.device.step(), Step::Idle(None));
    let before = bench.wakes.load(Ordering::SeqCst);
    bench.device.write_config(4, &[6, 0]);
    assert_eq!(bench.wakes.load(Ordering::SeqCst), before + 1);
    bench.run();
    assert_eq!(bench.used(0), (1, 0, 8));
}

#[test]
fn a_function_level_reset_forgets_the_driver() {
    let bench = Bench::probed(true);
    bench.describe(0, BUFFER, 8, 2, 0);
    bench.offer(0, 0);
    bench.notify();
    bench.device.write_config(0x48, &0x8000u16.to_le_bytes());
    assert_eq!(bench.get_status(), 0);
    bench.run();
    assert_eq!(bench.used(0).0, 0);
}

/// Two chains of 8 KiB on offer, and something that happens while the first one is filled.
fn interrupted(event: fn(&Arc<Device>)) -> Bench {
    let bench = Bench::probed(true);
    for n in 0..2 {
        bench.describe(u64::from(n), BUFFER + u64::from(n) * 0x2000, 0x2000, 2, 0);
        bench.offer(n, n);
    }
    bench.notify();
    let device = bench.device.clone();
    *bench.meanwhile.lock().unwrap() = Some(Box::new(move || event(&device)));
    bench.run();
    assert!(bench.meanwhile.lock().unwrap().is_none());
    bench
}

#[test]
fn a_reset_while_a_buffer_is_filled_leaves_memory_alone_from_then_on() {
    let events: [fn(&Arc<Device>); 3] = [
        |device| device.write_bar(0, 0x14, &[0]),
        |device| device.write_config(0x48, &0x8000u16.to_le_bytes()),
        |device| {
            // It waits for the device, so it is another thread's.
            let before = device.state().generation;
            let resetting = device.clone();
            std::thread::spawn(move || PciFunction::reset(&*resetting));
            while device.state().generation == before {
                std::thread::yield_now();
            }
        },
    ];
    for event in events {
        let bench = interrupted(event);
        assert_eq!(bench.bytes::<0x4000>(BUFFER), [0; 0x4000]);
        assert_eq!((bench.used(0).0, bench.get_status()), (0, 0));
        assert_eq!(bench.irqs.take(), []);
    }
}

#[test]
fn a_second_reset_does_not_hide_that_the_first_is_not_complete() {
    let bench = interrupted(|device| {
        let mut status = [0];
        for _ in 0..2 {
            device.write_bar(0, 0x14, &[0]);
            device.read_bar(0, 0x14, &mut status);
            assert_eq!(status, [0xf]);
        }
    });
    assert_eq!(bench.get_status(), 0);
}

#[test]
fn bus_master_turned_off_while_a_buffer_is_filled_only_puts_it_off() {
    let bench = interrupted(|device| device.write_config(4, &[2, 0]));
    assert_eq!(bench.bytes::<0x4000>(BUFFER), [0; 0x4000]);
    assert_eq!(bench.used(0).0, 0);
    bench.device.write_config(4, &[6, 0]);
    bench.run();
    assert_eq!(bench.used(0), (2, 0, 0x2000));
    assert_eq!(bench.used(1), (2, 1, 0x2000));
    assert_eq!(bench.irqs.take(), [(InterruptKind::Msix, 1)]);
}

#[test]
fn after_a_reset_nothing_is_written_any_more() {
    use std::sync::mpsc::channel;
    use std::time::Duration;
    let mut bench = Bench::new();
    let (asked, asks) = channel();
    let (give, given) = channel::<()>();
    let entropy = Box::new(move |bytes: &mut [u8]| {
        asked.send(()).unwrap();
        given.recv().unwrap();
        bytes.fill(7);
    });
    let (memory, irqs) = (bench.memory.clone(), bench.irqs.clone());
    bench.device = Device::new(memory, entropy, irqs, Arc::new(|| {}), Signals::Messages)
        .unwrap()
        .into();
    bench.device.write_config(4, &[6, 0]);
    bench.start(true);
    bench.describe(0, BUFFER, 64, 2, 0);
    bench.offer(0, 0);
    bench.notify();
    let (over, is_over) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| bench.device.step());
        asks.recv().unwrap();
        scope.spawn(|| {
            bench.device.reset();
            over.send(bench.bytes(BUFFER)).unwrap();
        });
        let early = is_over.recv_timeout(Duration::from_millis(100));
        give.send(()).unwrap();
        assert!(early.is_err(), "the reset waits for the access under way");
        let at_the_end: [u8; 64] = is_over.recv().unwrap();
        assert_eq!(at_the_end, [0; 64]);
    });
    assert_eq!(bench.device.step(), Step::Idle(None));
}

#[test]
fn the_window_in_configuration_space_reaches_the_structures() {
    let bench = Bench::probed(true);
    let device = &bench.device;
    // The last capability: express 0x3c bytes, MSI-X 12, then 16, 20 and 16.
    let at = 0x40 + 0x3c + 12 + 16 + 20 + 16;
    let mut kind = [0; 4];
    device.read_config(at, &mut kind);
    assert_eq!(kind, [9, 0, 20, 5]);
    let aim = |offset: u32, length: u32| {
        device.write_config(at + 4, &[0]);
        device.write_config(at + 8, &offset.to_le_bytes());
        device.write_config(at + 12, &length.to_le_bytes());
    };
    aim(0x14, 1);
    let mut status = [0];
    device.read_config(at + 16, &mut status);
    assert_eq!(status, [0xf]);
    // A notification through it.
    bench.describe(0, BUFFER, 8, 2, 0);
    bench.offer(0, 0);
    aim(0x3000, 2);
    device.write_config(at + 16, &[0, 0]);
    bench.run();
    assert_eq!(bench.used(0), (1, 0, 8));
    // What the window cannot show is not shown.
    for (offset, length) in [(0x14, 3), (0x15, 2), (0x14, 0), (0x14, u32::MAX)] {
        aim(offset, length);
        device.write_config(at + 16, &[0; 4]);
        assert_eq!(bench.get_status(), 0xf);
    }
}

#[test]
fn accesses_of_any_kind_outside_of_the_structures_read_zero() {
    let bench = Bench::probed(true);
    for (bar, offset) in [
        (0, 0x38),
        (0, 0x2000),
        (0, 0x3000),
        (0, 0x4000),
        (1, 0x20),
        (1, u64::MAX),
    ] {
        let mut bytes = [0xaa; 8];
        bench.device.write_bar(bar, offset, &[0xff; 8]);
        bench.device.read_bar(bar, offset, &mut bytes);
        assert_eq!(bytes, [0; 8], "BAR {bar} at {offset:#x}");
    }
    bench.device.read_bar(0, 0x1000, &mut []);
    bench.device.write_bar(0, 0x14, &[]);
    assert_eq!(bench.get_status(), 0xf);
}
