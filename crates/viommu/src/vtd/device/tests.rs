use super::*;
use crate::vtd::Setup;
use iopf::Iova;
use std::sync::Arc;
use vm_memory::{GuestAddress, GuestMemoryMmap};

#[derive(Debug)]
struct Nowhere;

impl MsiSink for Nowhere {
    fn msi(&self, _: u64, _: u32) {}
}

fn unit() -> VtdUnit<Arc<GuestMemoryMmap<()>>> {
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    let setup = Setup {
        config: Config::default(),
        ram: GuestRam::new(Arc::new(memory)),
    };
    VtdUnit::new(setup, Arc::new(Nowhere)).unwrap()
}

#[test]
fn a_device_that_did_not_answer_before_a_reset_is_not_late_after_it() {
    let unit = unit();
    let nobody = DeviceTlb {
        source: Rid(0x20),
        physical: Rid(0x20),
        max_pending: 0,
        range: Range {
            addr: Iova(0),
            size_shift: 12,
        },
    };
    let before = unit.state().regs.queue.place();
    unit.device_tlb(before, &nobody, None, false);
    assert_eq!(unit.state().regs.unanswered, Some(0x20));
    // A reset while another thread works the queue off, in the middle of the next descriptor.
    unit.reset();
    unit.device_tlb(before, &nobody, None, false);
    assert_eq!(unit.state().regs.unanswered, None);
}
