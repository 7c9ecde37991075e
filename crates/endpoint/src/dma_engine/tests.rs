use super::*;
use crate::Memory;
use iopf::{Access, Dma, Gpa, GroupIndex, Iova, Pasid, Response};
use std::sync::atomic::{AtomicU32, Ordering};
use testkit::{FakeClock, FakeIommu, Ram};
use viommu_api::{Blocked, Endpoint, Invalidation, PageRequestOutcome, PciFunction, Translate};

const RID: Rid = Rid(0x20);
const PASID: Option<Pasid> = Pasid::new(5);

#[derive(Default)]
struct Irqs(Mutex<Vec<(InterruptKind, u16)>>);

impl IrqSink for Irqs {
    fn raise(&self, kind: InterruptKind, vector: u16) {
        self.0.lock().unwrap().push((kind, vector));
    }
}

struct Bench {
    iommu: Arc<FakeIommu>,
    ram: Ram,
    irqs: Arc<Irqs>,
    wakes: Arc<AtomicU32>,
    clock: FakeClock,
    engine: DmaEngine,
}

// Control words: READ, WRITE, COPY, FILL, VERIFY, PAGE_REQUESTS, STOP_MARKER.
const READ: u32 = 1;
const WRITE: u32 = 2;
const COPY: u32 = 3;
const FILL: u32 = 4;
const VERIFY: u32 = 5;
const PAGES: u32 = 6;
const STOP: u32 = 7;
const UNTRANSLATED: u32 = 1 << 6;
const TRANSLATED: u32 = 2 << 6;
const HOST: u32 = 3 << 6;
const INTERRUPT: u32 = 1 << 8;

impl Bench {
    fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let iommu = Arc::new(FakeIommu::new());
        let ram = Ram::new(32 << 20).unwrap();
        let irqs = Arc::new(Irqs::default());
        let wakes = Arc::new(AtomicU32::new(0));
        let woken = wakes.clone();
        let mut setup = Setup {
            rid: RID,
            config: Config::default(),
            ports: Ports::of(iommu.clone()),
            memory: Arc::new(Memory(ram.memory())),
            irq: irqs.clone(),
            waker: Arc::new(move || {
                woken.fetch_add(1, Ordering::SeqCst);
            }),
        };
        change(&mut setup);
        Self {
            iommu,
            ram,
            irqs,
            wakes,
            clock: FakeClock::new(),
            engine: DmaEngine::new(setup).unwrap(),
        }
    }

    /// As Linux leaves it after probing with SVA: everything on.
    fn new() -> Self {
        let bench = Self::with(|_| {});
        bench.enable();
        bench
    }

    fn enable(&self) {
        let engine = &self.engine;
        engine.write_config(0x04, &[6, 0]);
        engine.write_config(0x7e, &0x8000u16.to_le_bytes()); // MSI-X
        engine.write_config(0x11e, &[7, 0]); // PASID
        engine.write_config(0x106, &[0, 0x80]); // ATS
        engine.write_config(0x10c, &[2, 0]); // PRI: reset, allocation, enable
        engine.write_config(0x114, &64u32.to_le_bytes());
        engine.write_config(0x10c, &[1, 0]);
    }

    fn set(&self, at: u64, bytes: &[u8]) {
        self.engine.write_bar(0, at, bytes);
    }

    fn u32(&self, at: u64) -> u32 {
        let mut bytes = [0; 4];
        self.engine.read_bar(0, at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn u64(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.engine.read_bar(0, at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Writes the registers of channel 0 and GO, with PASID 5.
    fn go(&self, control: u32, from: u64, to: u64, len: u32) {
        self.go_as(0x8000_0005, control, from, to, len);
    }

    fn go_as(&self, pasid: u32, control: u32, from: u64, to: u64, len: u32) {
        self.set(0x08, &from.to_le_bytes());
        self.set(0x10, &to.to_le_bytes());
        self.set(0x18, &len.to_le_bytes());
        self.set(0x1c, &pasid.to_le_bytes());
        self.set(0x20, &(control | 1 << 31).to_le_bytes());
    }

    /// Steps until idle.
    fn run(&self) -> Option<Duration> {
        for _ in 0..1_000_000 {
            if let Step::Idle(at) = self.engine.step(self.clock.now()) {
                return at;
            }
        }
        panic!("never idle");
    }

    /// State, error code and pages requested.
    fn status(&self) -> (u32, u32, u32) {
        let status = self.u32(0x24);
        (status & 3, status >> 8 & 0xff, status >> 16)
    }

    fn map(&self, at: u64, to: u64, perms: Access) {
        self.iommu.map(PASID, Iova(at), Gpa(to), perms);
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.ram.read(Gpa(at), &mut bytes);
        bytes
    }

    /// Answers every group that is complete.
    fn answer(&self, response: Response) -> usize {
        let requests = self.iommu.take_requests();
        for (_, request) in &requests {
            if request.last {
                self.engine
                    .page_response(request.pasid, request.group, response);
            }
        }
        requests.len()
    }
}

#[test]
fn linux_sees_the_function_and_its_capabilities() {
    let bench = Bench::with(|_| {});
    let mut header = [0; 64];
    bench.engine.read_config(0, &mut header);
    assert_eq!(
        header[..12],
        [0x4f, 0x49, 0x46, 0x50, 0, 0, 0x10, 0, 1, 0, 0x80, 8]
    );
    assert_eq!(header[0x3d], 0);
    let sizes = [0, 1, 2].map(|bar| bench.engine.bar_size(bar));
    assert_eq!(sizes, [0x8000, 0x1000, 0]);
    assert_eq!(bench.engine.interrupts().msix, 8);
    let mut pri = [0; 16];
    bench.engine.read_config(0x108, &mut pri);
    assert_eq!(pri[6..12], [0x00, 0x81, 64, 0, 0, 0]);
}

#[test]
fn go_does_nothing_but_wake_the_worker() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW);
    let before = bench.wakes.load(Ordering::SeqCst);
    bench.go(READ, 0x1000, 0, 8);
    assert_eq!(bench.wakes.load(Ordering::SeqCst), before + 1);
    assert_eq!(bench.status(), (1, 0, 0));
    assert_eq!(bench.engine.stats().bytes, 0);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 0));
}

#[test]
fn a_read_shows_its_data_and_its_checksum() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::READ);
    bench.ram.write(Gpa(0x20_0000), b"123456789");
    bench.go(READ | INTERRUPT, 0x1000, 0, 9);
    bench.clock.advance(Duration::from_micros(5));
    bench.run();
    // The check value of CRC-32C in every catalogue.
    assert_eq!(bench.u32(0x54), 0xe306_9283);
    assert_eq!(bench.u64(0x800), u64::from_le_bytes(*b"12345678"));
    assert_eq!((bench.u64(0x30), bench.u32(0x64)), (9, 1));
    assert_eq!(*bench.irqs.0.lock().unwrap(), [(InterruptKind::Msix, 0)]);
}

#[test]
fn without_messages_an_order_ends_without_an_interrupt() {
    let bench = Bench::with(|setup| setup.config.signals = Signals::Pin);
    assert_eq!(bench.engine.interrupts(), viommu_api::Interrupts::default());
    assert_eq!(bench.engine.bar_size(1), 0);
    bench.engine.write_config(4, &[6, 0]);
    let (at, to) = (Iova(0x1000), Gpa(0x20_0000));
    bench.iommu.map(None, at, to, Access::READ);
    bench.go_as(0, READ | UNTRANSLATED | INTERRUPT, 0x1000, 0, 9);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 0));
    assert_eq!(*bench.irqs.0.lock().unwrap(), []);
}

#[test]
fn a_write_stores_the_window_again_and_again() {
    let bench = Bench::new();
    for page in 0..2 {
        bench.map(
            0x4000 + page * 0x1000,
            0x20_0000 + page * 0x1000,
            Access::RW,
        );
    }
    let window: Vec<u8> = (0u32..0x800).map(|i| (i % 251).to_le_bytes()[0]).collect();
    bench.set(0x800, &window);
    bench.go(WRITE, 0, 0x4000, 0x1804);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 0));
    let stored: [u8; 0x1804] = bench.bytes(0x20_0000);
    assert_eq!(stored[..0x800], window[..]);
    assert_eq!(stored[0x1000..0x1800], window[..]);
    assert_eq!(stored[0x1800..], [0, 1, 2, 3]);
}

#[test]
fn fill_and_verify_use_the_pattern_from_their_first_byte_on() {
    let bench = Bench::new();
    bench.map(0x5000, 0x20_0000, Access::RW);
    bench.set(0x38, &[1, 2, 3, 4, 5, 6, 7, 8]);
    bench.go(FILL, 0, 0x5003, 11);
    bench.run();
    assert_eq!(
        bench.bytes(0x20_0000),
        [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 0]
    );
    bench.go(VERIFY, 0x5003, 0, 12);
    bench.run();
    assert_eq!((bench.status(), bench.u32(0x54)), ((2, 0, 0), 1));
}

#[test]
fn a_copy_onto_untouched_pages_asks_for_them_and_goes_on() {
    let bench = Bench::new();
    bench.ram.write(Gpa(0x20_0000), &[7; 0x2000]);
    bench.go(COPY, 0x1000, 0x8000, 0x2000);
    bench.run();
    assert_eq!(bench.status(), (1, 0, 0));
    for page in 0..2 {
        bench.map(
            0x1000 + (page << 12),
            0x20_0000 + (page << 12),
            Access::READ,
        );
        bench.map(0x8000 + (page << 12), 0x30_0000 + (page << 12), Access::RW);
    }
    let before = bench.wakes.load(Ordering::SeqCst);
    assert_eq!(bench.answer(Response::Success), 4);
    assert_eq!(bench.wakes.load(Ordering::SeqCst), before + 1);
    bench.run();
    assert_eq!((bench.status(), bench.u64(0x30)), ((2, 0, 4), 0x2000));
    assert_eq!(bench.bytes(0x30_0000), [7; 0x2000]);
}

#[test]
fn each_error_has_its_code_and_its_address() {
    let bench = Bench::new();
    let error = |control: u32, from: u64| {
        bench.go(control, from, 0, 8);
        bench.run();
        let (state, code, _) = bench.status();
        assert_eq!(state, 3);
        (code, bench.u64(0x28))
    };
    assert_eq!(error(READ | UNTRANSLATED, 0x1000), (1, 0x1000));
    bench.go(READ, 0x2000, 0, 8);
    bench.run();
    bench.answer(Response::Invalid);
    bench.run();
    assert_eq!((bench.status(), bench.u64(0x28)), ((3, 3, 1), 0x2000));
    bench.go(READ, 0x3000, 0, 8);
    bench.run();
    bench.clock.advance(Duration::from_secs(11));
    bench.run();
    assert_eq!(bench.status(), (3, 5, 1));
    bench
        .iommu
        .complete_next(viommu_api::AtsCompletion::UnsupportedRequest);
    assert_eq!(error(READ, 0x4000), (7, 0x4000));
    bench
        .iommu
        .complete_next(viommu_api::AtsCompletion::CompleterAbort);
    assert_eq!(error(READ, 0x5000), (8, 0x5000));
    assert_eq!(
        error(READ | TRANSLATED, 0xffff_ffff_0000),
        (9, 0xffff_ffff_0000)
    );
    assert_eq!(error(8, 0), (11, 0));
    assert_eq!(error(READ | HOST, 0), (11, 0));
    // Response Failure turns the interface off.
    bench.go(READ, 0x6000, 0, 8);
    bench.run();
    bench.answer(Response::Failure);
    bench.run();
    assert_eq!(bench.status(), (3, 4, 1));
    let mut status = [0; 2];
    bench.engine.read_config(0x10e, &mut status);
    assert_eq!(status, [1, 0x80]);
    assert_eq!(error(READ, 0x6000), (2, 0x6000));
}

#[test]
fn lengths_and_numbers_out_of_range_are_refused() {
    let bench = Bench::new();
    for (control, from, len) in [
        (READ, 0, 0),
        (READ, 0, (16 << 20) + 1),
        (READ, u64::MAX - 3, 8),
        (PAGES, 0, 0xfff),
        (0, 0, 8),
        (15, 0, 8),
    ] {
        bench.go(control, from, 0, len);
        bench.run();
        assert_eq!(bench.status(), (3, 11, 0), "{control} {from:#x} {len:#x}");
    }
    bench.go_as(0, STOP, 0, 0, 0);
    bench.run();
    assert_eq!(bench.status(), (3, 11, 0));
    // A false requester ID with anything but the untranslated path.
    bench.set(0x40, &0x8000_0010u32.to_le_bytes());
    bench.go(READ, 0, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (3, 11, 0));
}

#[test]
fn bus_master_gates_all_dma_unless_the_device_is_broken() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.engine.write_config(0x04, &[2, 0]);
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (3, 12, 0));
    bench.set(0x60, &4u32.to_le_bytes());
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 0));
}

#[test]
fn bus_master_turned_off_ends_what_is_under_way() {
    let bench = Bench::new();
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    bench.engine.write_config(0x04, &[2, 0]);
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.answer(Response::Success);
    bench.run();
    assert_eq!(bench.status(), (3, 12, 1));
}

#[test]
fn a_pasid_needs_to_be_enabled_with_its_modes() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW | Access::EXEC);
    let run = |control: u32| {
        bench.go(control, 0x1000, 0, 8);
        bench.run();
        bench.status()
    };
    bench.engine.write_config(0x11e, &[1, 0]);
    assert_eq!(run(READ), (2, 0, 0));
    assert_eq!(run(READ | 1 << 4), (3, 13, 0));
    assert_eq!(run(READ | 1 << 5), (3, 13, 0));
    bench.engine.write_config(0x11e, &[7, 0]);
    assert_eq!(run(READ | 1 << 4 | 1 << 5), (2, 0, 0));
    bench.engine.write_config(0x11e, &[0, 0]);
    assert_eq!(run(READ), (3, 13, 0));
    // Without a PASID nothing of this matters.
    bench.iommu.map(None, Iova(0x1000), Gpa(0), Access::READ);
    bench.go_as(5, READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 0));
}

#[test]
fn without_ats_requests_leave_untranslated_and_the_tlb_is_empty() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!((bench.engine.cached(), bench.iommu.translations()), (1, 1));
    bench.engine.write_config(0x106, &[0, 0]);
    assert_eq!(bench.engine.cached(), 0);
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!((bench.status(), bench.iommu.translations()), ((2, 0, 0), 1));
    bench.go(READ, 0x2000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (3, 1, 0));
}

#[test]
fn a_switch_counts_for_an_order_under_way() {
    // The register, its value while off, its value while on, and how the order ends.
    let ats = (0x106, [0, 0], [0, 0x80], (2, 0, 0));
    let pasid = (0x11e, [0, 0], [7, 0], (3, 13, 0));
    for (at, off, on, end) in [ats, pasid] {
        let bench = Bench::new();
        for page in 1..=64 {
            bench.map(page << 12, 0x10_0000 + (page << 12), Access::READ);
        }
        bench.go(READ, 0x1000, 0, 64 << 12);
        bench.engine.step(bench.clock.now());
        assert_eq!((bench.status(), bench.engine.cached()), ((1, 0, 0), 16));
        bench.engine.write_config(at, &off);
        assert_eq!(bench.engine.cached(), 0);
        bench.run();
        bench.engine.write_config(at, &on);
        assert_eq!((bench.status(), bench.engine.cached()), (end, 0));
    }
}

#[test]
fn a_switch_counts_for_page_requests_that_are_left() {
    // The register, its value while off, and how the order ends.
    for (at, off, error) in [(0x11e, [0, 0], 13), (0x04, [2, 0], 12), (0x10c, [0, 0], 13)] {
        let bench = Bench::new();
        bench.go(PAGES, 0x1000, 0, 1000 << 12);
        bench.run();
        assert_eq!(bench.iommu.take_requests().len(), 64);
        bench.engine.write_config(at, &off);
        bench.run();
        assert_eq!(bench.status(), (3, error, 64));
        assert_eq!(bench.iommu.take_requests(), []);
    }
}

#[test]
fn without_page_requests_a_missing_page_is_an_error_and_asking_is_refused() {
    let bench = Bench::new();
    bench.engine.write_config(0x10c, &[0, 0]);
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (3, 2, 0));
    for control in [PAGES, STOP] {
        bench.go(control, 0x1000, 0, 0x1000);
        bench.run();
        assert_eq!(bench.status(), (3, 13, 0));
    }
    assert_eq!(bench.iommu.take_requests(), []);
}

#[test]
fn the_allocation_register_bounds_what_is_outstanding() {
    let bench = Bench::new();
    bench.engine.write_config(0x10c, &[0, 0]);
    bench.engine.write_config(0x114, &3u32.to_le_bytes());
    bench.engine.write_config(0x10c, &[1, 0]);
    bench.go(READ, 0x1000, 0, 0x8000);
    bench.run();
    assert_eq!(bench.iommu.take_requests().len(), 3);
    // Off with requests under way: not stopped before the answer.
    bench.engine.write_config(0x10c, &[0, 0]);
    let status = || {
        let mut status = [0; 2];
        bench.engine.read_config(0x10e, &mut status);
        status
    };
    assert_eq!(status(), [0, 0x80]);
    bench
        .engine
        .page_response(PASID, GroupIndex(0), Response::Invalid);
    bench.run();
    assert_eq!((status(), bench.status()), ([0, 0x81], (3, 3, 3)));
}

#[test]
fn a_reset_of_the_interface_ends_the_wait() {
    let bench = Bench::new();
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    bench.engine.write_config(0x10c, &[2, 0]);
    bench.run();
    assert_eq!(bench.status(), (3, 5, 1));
    bench.go(PAGES, 0x1000, 0, 0x1000);
    bench.run();
    assert_eq!(bench.status(), (3, 13, 0));
}

#[test]
fn a_function_level_reset_aborts_everything() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    bench.go(COPY | INTERRUPT, 0x1000, 0x9000, 0x1000);
    bench.run();
    let taken = bench.iommu.take_requests();
    assert_eq!(taken.len(), 1);
    bench.engine.write_config(0x48, &0x8000u16.to_le_bytes());
    assert_eq!((bench.status(), bench.u64(0x10)), ((0, 0, 0), 0));
    assert_eq!((bench.engine.cached(), bench.engine.busy()), (0, 0));
    // The answer comes too late, and nothing comes of it.
    bench
        .engine
        .page_response(PASID, taken[0].1.group, Response::Success);
    bench.map(0x9000, 0x30_0000, Access::RW);
    bench.run();
    assert_eq!((bench.status(), bench.u32(0x64)), ((0, 0, 0), 0));
    assert_eq!(bench.irqs.0.lock().unwrap().len(), 0);
    // And it works again.
    bench.enable();
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 0));
}

#[test]
fn the_jobs_of_before_a_reset_take_no_slot_from_those_after_it() {
    let bench = Bench::with(|setup| setup.config.jobs = 1);
    bench.enable();
    bench.map(0x1000, 0x20_0000, Access::READ);
    let go_on_all = || {
        for channel in 0..8 {
            let at = channel * 0x1000;
            bench.set(at + 0x08, &0x1000u64.to_le_bytes());
            bench.set(at + 0x18, &8u32.to_le_bytes());
            bench.set(at + 0x1c, &0x8000_0005u32.to_le_bytes());
            bench.set(at + 0x20, &(READ | 1 << 31).to_le_bytes());
        }
    };
    go_on_all();
    bench.engine.step(bench.clock.now());
    bench.engine.reset();
    bench.enable();
    go_on_all();
    bench.run();
    for channel in 0..8 {
        assert_eq!(bench.u32(channel * 0x1000 + 0x24), 2, "channel {channel}");
    }
}

#[test]
fn a_storm_counts_its_errors_and_shows_the_first() {
    let bench = Bench::new();
    bench.map(0x3000, 0x20_0000, Access::RW);
    bench.set(0x44, &1000u32.to_le_bytes());
    bench.set(0x48, &0x1000u64.to_le_bytes());
    bench.go(READ | UNTRANSLATED, 0x2000, 0, 8);
    bench.run();
    assert_eq!((bench.status(), bench.u64(0x28)), ((3, 1, 0), 0x2000));
    // All but the one that is mapped.
    assert_eq!((bench.u32(0x50), bench.u64(0x30)), (999, 8));
    assert_eq!(bench.u32(0x64), 1);
}

#[test]
fn a_device_can_lie_about_who_it_is() {
    struct Spy(Mutex<Vec<Rid>>);
    impl Translate for Spy {
        fn with_translation(
            &self,
            dma: &Dma,
            _: u64,
            _: &mut dyn FnMut(Gpa, u64),
        ) -> Result<(), Blocked> {
            self.0.lock().unwrap().push(dma.requester);
            Err(Blocked::aborted(dma.addr))
        }
    }
    let spy = Arc::new(Spy(Mutex::default()));
    let bench = Bench::with(|setup| {
        setup.ports.translate = spy.clone();
        setup.ports.host = Some(spy.clone());
    });
    bench.enable();
    bench.set(0x40, &0x8000_0055u32.to_le_bytes());
    bench.go(READ | UNTRANSLATED, 0x1000, 0, 8);
    bench.run();
    bench.set(0x40, &0x55u32.to_le_bytes());
    bench.go(READ | UNTRANSLATED, 0x1000, 0, 8);
    bench.run();
    bench.go(READ | HOST, 0x1000, 0, 8);
    bench.run();
    assert_eq!(bench.status(), (3, 1, 0));
    assert_eq!(*spy.0.lock().unwrap(), [Rid(0x55), RID, RID]);
}

#[test]
fn page_requests_go_out_in_groups_and_their_answers_are_counted() {
    let bench = Bench::new();
    bench.set(0x44, &2u32.to_le_bytes());
    bench.set(0x48, &0x10_0000u64.to_le_bytes());
    bench.go(PAGES | 1 << 9, 0x1234, 0, 80 << 12);
    bench.run();
    // Four groups of 16, as many as the allocation of 64 holds.
    let first = bench.iommu.take_requests();
    assert_eq!(first.len(), 64);
    assert_eq!(first[0].1.addr, Iova(0x1000));
    assert_eq!(first[63].1.addr, Iova(0x4_0000));
    assert!(first.iter().all(|(_, r)| r.access == Access::RW));
    for group in 0..4 {
        bench
            .engine
            .page_response(PASID, GroupIndex(group), Response::Success);
    }
    bench.run();
    assert_eq!(bench.answer(Response::Success), 16);
    bench.run();
    assert_eq!(bench.u64(0x30), 5);
    assert_eq!(bench.answer(Response::Invalid), 64);
    bench.run();
    assert_eq!(bench.answer(Response::Success), 16);
    bench.run();
    assert_eq!(bench.status(), (3, 3, 160));
    assert_eq!((bench.u64(0x30), bench.u32(0x50)), (10, 1));
}

#[test]
fn a_flood_minds_neither_the_allocation_nor_the_answers() {
    let bench = Bench::new();
    bench.set(0x44, &10u32.to_le_bytes());
    bench.set(0x60, &2u32.to_le_bytes());
    for _ in 0..159 {
        bench.iommu.outcome_next(PageRequestOutcome::Queued);
    }
    bench
        .iommu
        .outcome_next(PageRequestOutcome::Answered(Response::Invalid));
    bench.go(PAGES, 0x1000, 0, 64 << 12);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 640));
    // The one group that was answered at once.
    assert_eq!(bench.u64(0x30), 1);
    let requests = bench.iommu.take_requests();
    assert_eq!(requests.len(), 640);
    assert!(requests.iter().all(|(_, r)| r.group.0 >= 256));
    // Others still get their pages.
    bench.set(0x60, &0u32.to_le_bytes());
    bench.set(0x44, &0u32.to_le_bytes());
    bench.go(READ, 0x9000, 0, 8);
    bench.run();
    bench.map(0x9000, 0x20_0000, Access::RW);
    bench.answer(Response::Success);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 1));
}

#[test]
fn a_stop_marker_is_a_message_of_its_own() {
    let bench = Bench::new();
    bench.go(STOP, 0, 0, 0);
    bench.run();
    assert_eq!(bench.status().0, 2);
    let requests = bench.iommu.take_requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (requests[0].1.access, requests[0].1.last),
        (Access::empty(), true)
    );
}

#[test]
fn a_deaf_device_keeps_using_what_it_was_told_to_forget() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    let everything = Invalidation {
        pasid: PASID,
        global: false,
        addr: Iova(0),
        size_shift: 64,
    };
    bench.set(0x3060, &1u32.to_le_bytes()); // on another channel
    bench.engine.invalidate(&everything);
    assert_eq!(bench.engine.cached(), 1);
    bench.set(0x3060, &0u32.to_le_bytes());
    bench.engine.invalidate(&everything);
    assert_eq!(bench.engine.cached(), 0);
}

#[test]
fn channels_run_beside_each_other_and_a_busy_one_takes_no_second_order() {
    let bench = Bench::new();
    bench.map(0x1000, 0x20_0000, Access::RW);
    bench.ram.write(Gpa(0x20_0000), &[0x5a; 8]);
    bench.go(READ, 0x9000, 0, 8);
    bench.run();
    // Channel 7, with one write over all of its registers.
    let mut regs = [0; 0x24];
    regs[0x08..0x10].copy_from_slice(&0x1000u64.to_le_bytes());
    regs[0x18..0x1c].copy_from_slice(&8u32.to_le_bytes());
    regs[0x1c..0x20].copy_from_slice(&0x8000_0005u32.to_le_bytes());
    regs[0x20..0x24].copy_from_slice(&(READ | INTERRUPT | 1 << 31).to_le_bytes());
    bench.set(0x7000, &regs);
    // Channel 0 waits for its page; a second order changes nothing.
    bench.go(READ, 0x1000, 0, 8);
    bench.run();
    assert_eq!(
        (bench.u32(0x7024), bench.u64(0x7800)),
        (2, 0x5a5a_5a5a_5a5a_5a5a)
    );
    assert_eq!(*bench.irqs.0.lock().unwrap(), [(InterruptKind::Msix, 7)]);
    assert_eq!((bench.status().0, bench.engine.busy()), (1, 1));
    bench.map(0x9000, 0x20_0000, Access::RW);
    bench.answer(Response::Success);
    bench.run();
    assert_eq!(bench.status(), (2, 0, 1));
}

#[test]
fn an_access_across_channels_reaches_both() {
    let bench = Bench::new();
    bench.set(0x0ffc, &[1, 2, 3, 4, 9, 9, 9, 9]);
    assert_eq!(bench.u64(0x0ffc), 0x4650_4f49_0403_0201);
    let mut end = [0xaa; 8];
    bench.engine.read_bar(0, 0x7ffc, &mut end);
    assert_eq!(end, [0; 8]);
    for (bar, offset) in [(0, u64::MAX), (0, 0x8000), (1, 0x1000), (2, 0), (9, 0)] {
        let mut bytes = [0xaa; 8];
        bench.engine.write_bar(bar, offset, &[0xff; 8]);
        bench.engine.read_bar(bar, offset, &mut bytes);
        assert_eq!(bytes, [0; 8], "BAR {bar} at {offset:#x}");
    }
}

#[test]
fn the_msix_table_lies_in_its_own_bar() {
    let bench = Bench::new();
    bench.engine.write_bar(1, 0x10, &[0xff; 16]);
    let mut entry = [0; 16];
    bench.engine.read_bar(1, 0x10, &mut entry);
    assert_eq!(entry[12..], [1, 0, 0, 0]);
    let mut pending = [0xaa; 8];
    bench.engine.write_bar(1, 0x800, &[0xff; 8]);
    bench.engine.read_bar(1, 0x800, &mut pending);
    assert_eq!(pending, [0; 8]);
}

#[test]
fn twelve_mebibytes_go_through_an_allocation_of_64() {
    let bench = Bench::new();
    bench.set(0x38, &[0xa5; 8]);
    bench.go(FILL, 0, 0x10_0000_0000, 12 << 20);
    let mut groups = 0;
    for _ in 0..1000 {
        bench.run();
        let requests = bench.iommu.take_requests();
        assert!(requests.len() <= 64);
        if requests.is_empty() {
            break;
        }
        for (_, request) in requests {
            let to = request.addr.0 - 0x10_0000_0000 + 0x10_0000;
            bench.map(request.addr.0, to, Access::RW);
            if request.last {
                groups += 1;
                bench
                    .engine
                    .page_response(request.pasid, request.group, Response::Success);
            }
        }
    }
    assert_eq!(bench.status(), (2, 0, 3072));
    assert_eq!((groups, bench.u64(0x30)), (192, 12 << 20));
    assert_eq!(bench.bytes(0x10_0000 + (12 << 20) - 8), [0xa5; 8]);
}
