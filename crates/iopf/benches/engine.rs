//! Question: what does a one-page group cost from report to fetched answer, while 1,000,000 other
//! groups of 10,000 devices wait?
//!
//! Target: 150 ns. `cargo bench -p iopf --bench engine`
//!
//! Three answers, by which group is answered when one more is reported: the one just reported (the
//! resolver is fast), the one that waits longest (steady state), any one (the worst for caches).

use criterion::{Criterion, criterion_group, criterion_main};
use iopf::engine::{
    Attachment, Delivery, DeviceConfig, DeviceId, DomainId, Engine, Handle, Policy, Tick,
};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use std::hint::black_box;

const DEVICES: u32 = 10_000;
const GROUPS: u32 = 1_000_000;

/// A small generator with a fixed seed: every run sees the same order.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        let [.., a, b, c, d] = self.0.to_le_bytes();
        let high = u64::from(u32::from_le_bytes([a, b, c, d]));
        u32::try_from((high * u64::from(bound)) >> 32).expect("below a u32")
    }
}

struct Crowd {
    engine: Engine,
    waiting: Vec<Handle>,
    random: Random,
    now: u64,
}

impl Crowd {
    fn new() -> Self {
        let mut engine = Engine::new(Policy::default());
        for device in 0..DEVICES {
            let device = DeviceId(device);
            engine
                .add_device(device, DeviceConfig::default())
                .expect("room");
            let attachment = Attachment::new(DomainId(1));
            engine
                .attach(device, Pasid::new(1), attachment)
                .expect("room");
        }
        let mut crowd = Self {
            engine,
            waiting: Vec::new(),
            random: Random(1),
            now: 0,
        };
        for _ in 0..GROUPS {
            let handle = crowd.report();
            crowd.waiting.push(handle);
        }
        crowd
    }

    /// Reports one group of any device, and has it delivered.
    fn report(&mut self) -> Handle {
        self.now += 100;
        let device = DeviceId(self.random.below(DEVICES));
        let page = PageRequest {
            pasid: Pasid::new(1),
            group: GroupIndex(7),
            addr: Iova(self.now << 12),
            access: Access::RW,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        let fault = Fault::PageRequest(page);
        let reported = self.engine.report(Tick(self.now), device, &fault);
        let _ = reported.expect("within the credits");
        match self.engine.poll_fault() {
            Some(Delivery::Group(group)) => group.handle,
            other => panic!("{other:?}"),
        }
    }

    fn answer(&mut self, handle: Handle) {
        let answered = self
            .engine
            .answer(Tick(self.now), handle, Response::Success);
        answered.expect("it waits");
        let _ = black_box(self.engine.poll_answer()).expect("the answer");
    }
}

fn group(c: &mut Criterion) {
    let mut bench = c.benchmark_group("a group among 1,000,000 of 10,000 devices");
    let mut crowd = Crowd::new();
    bench.bench_function("answered at once", |b| {
        b.iter(|| {
            let handle = crowd.report();
            crowd.answer(handle);
        });
    });
    let mut oldest = 0;
    bench.bench_function("the oldest answered", |b| {
        b.iter(|| {
            let new = crowd.report();
            let old = std::mem::replace(&mut crowd.waiting[oldest], new);
            oldest = (oldest + 1) % crowd.waiting.len();
            crowd.answer(old);
        });
    });
    bench.bench_function("any one answered", |b| {
        b.iter(|| {
            let new = crowd.report();
            let any = crowd.random.below(GROUPS) as usize;
            let old = std::mem::replace(&mut crowd.waiting[any], new);
            crowd.answer(old);
        });
    });
    bench.finish();
}

criterion_group!(benches, group);
criterion_main!(benches);
