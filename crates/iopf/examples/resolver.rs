//! Write a resolver of your own: a ring buffer that a device may fault in, and nothing else.
//!
//! `cargo run -p iopf --example resolver`

use iopf::engine::{
    Attachment, DeviceConfig, DeviceId, DomainId, Engine, Group, Pages, Policy, Reported, Stray,
    Tick, Verdict,
};
use iopf::resolve::{Decision, Resolver, serve};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Response};
use std::error::Error;
use std::ops::Range;

/// Pages of the ring become present on demand; anything else is the device's mistake.
struct Ring {
    window: Range<u64>,
    present: Vec<Iova>,
}

impl Resolver for Ring {
    fn group(&mut self, _: &Group, pages: Pages<'_>) -> Decision {
        // All or nothing: one bad page, and the device is told not to retry the group.
        if !pages.clone().all(|page| self.window.contains(&page.addr.0)) {
            return Decision::Answer(Response::Invalid);
        }
        // Here you would map memory. The answer must come after the mapping.
        self.present.extend(pages.map(|page| page.addr));
        Decision::Answer(Response::Success)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut engine = Engine::new(Policy::default());
    let device = DeviceId(0x18);
    engine.add_device(device, DeviceConfig::default())?;
    engine.attach(device, None, Attachment::new(DomainId(1)))?;

    // In real life these come from a hardware queue or from iommufd.
    for (group, addr) in [(1, 0x10_0000), (2, 0x7fff_0000)] {
        let page = PageRequest {
            pasid: None,
            group: GroupIndex(group),
            addr: Iova(addr),
            access: Access::RW,
            last: true,
            response_needs_pasid: false,
            private_data: [0; 2],
        };
        match engine.report(Tick(0), device, &Fault::PageRequest(page))? {
            Reported::Answered(answer, why) => println!("{answer:?}: {why:?}"),
            other => println!("group {group} at {addr:#x}: {other:?}"),
        }
    }

    let mut ring = Ring {
        window: 0x10_0000..0x11_0000,
        present: Vec::new(),
    };
    serve(&mut engine, Tick(1_000), &mut ring, usize::MAX);
    while let Some(answer) = engine.poll_answer() {
        println!("group {}: {:?}", answer.group.0, answer.response);
    }
    println!("present: {:?}", ring.present);
    Ok(())
}
