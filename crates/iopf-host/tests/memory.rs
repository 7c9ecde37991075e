//! What the pump allocates for a fault: nothing, once its buffers have grown.
// UNSAFETY: a global allocator is an unsafe trait; this one forwards to the system's.
#![expect(unsafe_code, reason = "only an allocator can count allocations")]

use iopf::Response;
use iopf::engine::{
    Attachment, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages, Policy, Stray, Verdict,
};
use iopf::resolve::{Decision, Resolver};
use iopf_host::fake::Mill;
use iopf_host::pump::Serving;
use iopf_host::{FaultQueue, Pump, Worker};
use std::alloc::{GlobalAlloc, Layout, System};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `alloc` above with this layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: `block` came from `alloc` above with this layout.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

struct Yes;

impl Resolver for Yes {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

/// Allocations for so many rounds of `waiting` groups.
fn rounds(pump: &mut Pump<Mill>, mill: &Mill, waiting: u32, rounds: u32) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let (_, _, mut answered) = mill.calls();
    for _ in 0..rounds {
        mill.supply(waiting);
        answered += u64::from(waiting);
        while mill.calls().2 < answered {
            pump.turn(None).expect("poll");
        }
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

// One test: others in this process would be counted too.
#[test]
fn a_fault_in_steady_state_allocates_nothing_inline_or_through_a_worker() {
    type Make = fn(&Pump<Mill>) -> Serving;
    let inline: Make = |_| Yes.into();
    let worker: Make = |pump| {
        Worker::spawn("yes", 128, pump.handle(), Yes)
            .unwrap()
            .into()
    };
    for serving in [inline, worker] {
        let mill = Mill::new(7);
        let mut pump = Pump::new(Engine::new(Policy::default()), |_| ()).unwrap();
        let queue = pump.add_queue(FaultQueue::new(mill.clone())).unwrap();
        let serving = serving(&pump);
        let device = DeviceId(1);
        pump.add_device(device, DeviceConfig::default(), serving)
            .unwrap();
        assert!(pump.route(queue, 7, device));
        let attachment = Attachment::new(DomainId(1));
        pump.attach(device, None, attachment, || Ok::<_, Infallible>(()))
            .unwrap();
        for waiting in [1, 64] {
            rounds(&mut pump, &mill, waiting, 200);
            assert_eq!(rounds(&mut pump, &mill, waiting, 1000), 0);
        }
        let totals = pump.engine().totals();
        assert_eq!(totals.completed, 1200 * 65);
    }
}
