//! How many raw records and how many bytes of log a second?

use std::hint::black_box;
use std::io;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use iopf_scene::log::{Form, decode};
use iopf_scene::record::Faults;

/// 4,096 fault recording registers, each of another device and page.
fn registers() -> Vec<u8> {
    (0..4096_u64)
        .flat_map(|n| {
            let low = n << 12;
            let high = 1 << 63 | (5 + (n & 1)) << 32 | (n & 0xffff);
            [low.to_le_bytes(), high.to_le_bytes()].concat()
        })
        .collect()
}

/// 1,000 lines of which one in `every` is a fault.
fn log(every: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..1000 {
        let line = if n % every == 0 {
            format!(
                "[{n:5}.000001] DMAR: [DMA Write NO_PASID] Request device [00:14.0] fault addr {:#x} [fault reason 0x05] PTE Write access is not set\n",
                (n + 1) << 12
            )
        } else {
            format!(
                "[{n:5}.000001] usb 1-1: New USB device found, idVendor=1d6b, idProduct=0002, bcdDevice= 6.01\n"
            )
        };
        out.extend_from_slice(line.as_bytes());
    }
    out
}

fn raw(c: &mut Criterion) {
    let bytes = registers();
    let mut group = c.benchmark_group("raw records");
    group.throughput(Throughput::Elements(4096));
    group.bench_function("fault recording registers to the normal form", |b| {
        b.iter(|| {
            let mut sum = 0;
            for fault in Faults::new(black_box(&bytes)).flatten() {
                sum += black_box(fault).code.map_or(0, u64::from);
            }
            sum
        });
    });
    group.bench_function(
        "fault recording registers to records with their text",
        |b| {
            b.iter(|| {
                decode(io::Cursor::new(&bytes), Form::Binary, |record| {
                    black_box(record);
                    Ok(())
                })
            });
        },
    );
    group.finish();
}

fn text(c: &mut Criterion) {
    let mut group = c.benchmark_group("log text");
    for every in [1, 100, 1001] {
        let log = log(every);
        group.throughput(Throughput::Bytes(log.len() as u64));
        group.bench_function(format!("one fault in {every} lines"), |b| {
            b.iter(|| {
                decode(io::Cursor::new(black_box(&log)), Form::Log, |record| {
                    black_box(record);
                    Ok(())
                })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, raw, text);
criterion_main!(benches);
