//! How fast does data go through the VT-d model?
//!
//! One thread, a device of this crate in front of a unit of `viommu` in scalable mode, 1 MiB a job,
//! 4 KiB pages, every page in the IOTLB:
//!
//! | bench | question | target |
//! |---|---|---|
//! | `write` | device to memory, untranslated: an IOTLB hit a page | ≥ 1 GB/s |
//! | `read` | memory to device | ≥ 1 GB/s |
//! | `write, ATS` | device to memory through the device TLB | – |
//! | `memcpy` | the same bytes page by page without an IOMMU: what the memory allows | – |

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use endpoint::{Config, Device, Job, Memory, Op, Ports, Status, Step, Via};
use iopf::{Access, Iova, Pasid, Rid};
use std::hint::black_box;
use std::sync::{Arc, Weak};
use std::time::Duration;
use testkit::vtd::{Guest, Setup};
use testkit::{Backing, Driver, Interrupts, Mm, Ram};
use viommu::mem::GuestRam;
use viommu::vtd::{self, VtdUnit};
use viommu_api::Endpoint;

const DEVICE: Rid = Rid(0x20);
const FROM: Iova = Iova(0x7000_0000);
const LEN: u32 = 1 << 20;

/// Runs one job to its end.
fn run(device: &Device, job: Job) {
    device.submit(job).expect("a slot is free");
    while device.step(Duration::ZERO) == Step::Worked {}
    let done = device.poll_completion().expect("it has ended");
    assert_eq!(done.status, Status::Done);
    black_box(done.data);
}

fn dma(criterion: &mut Criterion) {
    let ram = Arc::new(Ram::new(16 << 20).expect("memory"));
    let irqs = Arc::new(Interrupts::new());
    let parts = vtd::Setup {
        config: vtd::Config::default(),
        ram: GuestRam::new(ram.memory()),
    };
    let unit = Arc::new(VtdUnit::new(parts, irqs.clone()).expect("a good configuration"));
    let config = Config {
        atc_entries: 512,
        ..Config::default()
    };
    let memory = Arc::new(Memory(ram.memory()));
    let device = Arc::new(Device::new(DEVICE, config, Ports::of(unit.clone()), memory));
    let weak: Weak<Device> = Arc::downgrade(&device);
    unit.attach(DEVICE, weak as Weak<dyn Endpoint>);
    let guest = Guest::boot(unit, ram.clone(), irqs, Setup::default()).expect("the guest boots");
    let pasid = Pasid::truncate(5);
    let mm = Arc::new(Mm::new(&ram, pasid, 4).expect("tables"));
    mm.mmap(FROM, u64::from(LEN) >> 12, Access::RW, Backing::Pattern(1));
    for page in 0..u64::from(LEN) >> 12 {
        mm.fault(Iova(FROM.0 + (page << 12)), Access::WRITE)
            .expect("mapped");
    }
    guest.probe(DEVICE, true, 0).expect("a context entry");
    guest.bind(DEVICE, &mm).expect("a PASID entry");

    let bytes = vec![0x5a; LEN as usize];
    let job = |via, op| Job {
        via,
        ..Job::new(Some(pasid), op)
    };
    let write = |via| {
        let data = bytes.clone();
        job(via, Op::Write { to: FROM, data })
    };
    let mut group = criterion.benchmark_group("dma");
    group.throughput(Throughput::Bytes(u64::from(LEN)));
    group.bench_function("write", |bencher| {
        bencher.iter_batched(
            || write(Via::Untranslated),
            |job| run(&device, job),
            criterion::BatchSize::LargeInput,
        );
    });
    group.bench_function("read", |bencher| {
        let read = Op::Read {
            from: FROM,
            len: LEN,
        };
        bencher.iter(|| run(&device, job(Via::Untranslated, read.clone())));
    });
    group.bench_function("write, ATS", |bencher| {
        bencher.iter_batched(
            || write(Via::Ats),
            |job| run(&device, job),
            criterion::BatchSize::LargeInput,
        );
    });
    let mut to = vec![0u8; LEN as usize];
    group.bench_function("memcpy", |bencher| {
        bencher.iter(|| {
            for (to, from) in to.chunks_mut(4096).zip(bytes.chunks(4096)) {
                black_box(to).copy_from_slice(black_box(from));
            }
        });
    });
    group.finish();
}

criterion_group!(benches, dma);
criterion_main!(benches);
