//! The engine's memory, counted by the allocator.
// UNSAFETY: a global allocator is an unsafe trait; this one forwards to the system's.
#![expect(unsafe_code, reason = "only an allocator can count the heap")]

use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy, Tick};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

/// Bytes allocated now, and the most there ever were.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(live, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `block` came from `alloc` above with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

const DEVICES: u32 = 10_000;
const PAGES: u32 = 1_000_000;

#[test]
fn a_pending_page_takes_at_most_128_bytes_devices_and_all() {
    let before = LIVE.load(Ordering::Relaxed);
    let mut engine = Engine::new(Policy::default());
    for device in 0..DEVICES {
        let device = DeviceId(device);
        engine.add_device(device, DeviceConfig::default()).unwrap();
        let attachment = Attachment::new(DomainId(1));
        engine.attach(device, Pasid::new(1), attachment).unwrap();
    }
    let devices = LIVE.load(Ordering::Relaxed) - before;
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
    for page in 0..PAGES {
        let request = PageRequest {
            pasid: Pasid::new(1),
            group: GroupIndex(page),
            addr: Iova(u64::from(page) << 12),
            access: Access::RW,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        let device = DeviceId(page % DEVICES);
        let _ = engine
            .report(Tick(0), device, &Fault::PageRequest(request))
            .unwrap();
    }
    let pages = LIVE.load(Ordering::Relaxed) - before - devices;
    let peak = PEAK.load(Ordering::Relaxed) - before;
    println!(
        "a device: {} bytes; a pending page: {:.1} bytes; peak with devices: {:.1} bytes a page",
        devices / DEVICES as usize,
        pages as f64 / f64::from(PAGES),
        peak as f64 / f64::from(PAGES),
    );
    assert!(peak <= PAGES as usize * 128);
    assert_eq!(engine.pages_held().0, PAGES as usize);
}
