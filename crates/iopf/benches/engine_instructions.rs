//! Question: how many instructions does a one-page group take from report to fetched answer?
//!
//! Target: 650, a guard against growth: about 600 were counted when the 150 ns of `engine.rs` were
//! met, a tenth of them the bench's own. Counted by callgrind, so the figure is the same on a busy
//! machine.
//!
//! `cargo bench -p iopf --bench engine_instructions` needs valgrind and the runner:
//! `cargo install gungraun-runner --version 0.20.0`.
#![expect(missing_docs, reason = "the macros below make items without")]

use gungraun::{library_benchmark, library_benchmark_group, main};
use iopf::engine::{
    Attachment, Delivery, DeviceConfig, DeviceId, DomainId, Engine, Policy, Reported, Tick,
};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use std::hint::black_box;

const DEVICES: u32 = 100;

fn fault(group: u32, last: bool) -> Fault {
    Fault::PageRequest(PageRequest {
        pasid: Pasid::new(1),
        group: GroupIndex(group),
        addr: Iova(0x1000),
        access: Access::RW,
        last,
        response_needs_pasid: true,
        private_data: [0; 2],
    })
}

/// Ten groups of each device wait, delivered.
fn crowd() -> Engine {
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
        for group in 0..10 {
            let reported = engine.report(Tick(0), device, &fault(group, true));
            assert!(matches!(reported, Ok(Reported::Queued(_))));
        }
    }
    while engine.poll_fault().is_some() {}
    engine
}

/// Reports `pages` pages of one group, has it delivered, answers it and fetches the answer.
fn one_group(engine: &mut Engine, pages: u32) {
    let device = DeviceId(DEVICES / 2);
    for page in 1..=pages {
        let fault = black_box(fault(11, page == pages));
        let _ = black_box(engine.report(Tick(1), device, &fault));
    }
    let Some(Delivery::Group(group)) = engine.poll_fault() else {
        panic!("nothing delivered");
    };
    let answered = engine.answer(Tick(2), group.handle, Response::Success);
    answered.expect("it waits");
    let _ = black_box(engine.poll_answer());
}

#[library_benchmark]
#[bench::one_page(crowd(), 1)]
#[bench::eight_pages(crowd(), 8)]
fn report_to_answer(mut engine: Engine, pages: u32) -> Engine {
    one_group(&mut engine, pages);
    engine
}

library_benchmark_group!(name = engine, benchmarks = report_to_answer);
main!(library_benchmark_groups = engine);
