//! The scripted guest of the test kit, a second author's driver, on top of the model.

use crate::bed::{DEVICE, Ear, Heard};
use iommu_walk::vtd::Failure;
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, PageRequest, Pasid, Response};
use std::sync::{Arc, Mutex, Weak};
use testkit::paging::{Format, PageTable};
use testkit::vtd::{Guest, Setup};
use testkit::{Backing, Driver, Interrupts, Mm, Ram};
use viommu::Watch;
use viommu::mem::GuestRam;
use viommu::vtd::{self, Config, Notice, VtdUnit};
use viommu_api::{Ats, AtsCompletion, PageRequestOutcome, Pri, Translate};
use vm_memory::GuestMemoryMmap;

struct Machine {
    guest: Guest,
    unit: Arc<VtdUnit<Arc<GuestMemoryMmap<()>>>>,
    ear: Arc<Ear>,
}

fn boot(config: Config, setup: Setup) -> Machine {
    boot_watched(config, setup, Arc::new(Nobody))
}

struct Nobody;

impl Watch<Failure> for Nobody {
    fn notice(&self, _: Notice<'_>) {}
}

fn boot_watched(config: Config, setup: Setup, watch: Arc<dyn Watch<Failure>>) -> Machine {
    let ram = Arc::new(Ram::new(8 << 20).expect("memory"));
    let irqs = Arc::new(Interrupts::new());
    let parts = vtd::Setup {
        config,
        ram: GuestRam::new(ram.memory()),
    };
    let unit = VtdUnit::new(parts, irqs.clone()).expect("a good configuration");
    let unit = Arc::new(unit.watched(watch));
    let ear = Arc::new(Ear::default());
    let weak: Weak<Ear> = Arc::downgrade(&ear);
    unit.attach(DEVICE, weak);
    let guest = Guest::boot(unit.clone(), ram, irqs, setup).expect("the guest boots");
    Machine { guest, unit, ear }
}

fn dma(pasid: Option<Pasid>, addr: u64, access: Access) -> Dma {
    Dma {
        requester: DEVICE,
        pasid,
        kind: DmaKind::Untranslated,
        addr: Iova(addr),
        access,
    }
}

#[test]
fn a_page_that_was_never_touched_is_asked_for_and_then_there() {
    let Machine { guest, unit, ear } = boot(Config::default(), Setup::default());
    let pasid = Pasid::new(5).unwrap();
    let mm = Arc::new(Mm::new(guest.ram(), pasid, 4).unwrap());
    mm.mmap(Iova(0x7000_0000), 4, Access::RW, Backing::Pattern(7));
    guest.probe(DEVICE, true, 0).unwrap();
    guest.bind(DEVICE, &mm).unwrap();

    let ask = Dma {
        kind: DmaKind::Translation { no_write: false },
        ..dma(Some(pasid), 0x7000_1008, Access::RW)
    };
    let rights = |completion| match completion {
        AtsCompletion::Success { granted, .. } => granted.perms,
        other => panic!("{other:?}"),
    };
    assert_eq!(rights(unit.translation_request(&ask)), Access::empty());
    let request = PageRequest {
        pasid: Some(pasid),
        group: GroupIndex(9),
        addr: Iova(0x7000_1000),
        access: Access::RW,
        last: true,
        response_needs_pasid: true,
        private_data: [0; 2],
    };
    let outcome = unit.page_request(DEVICE, &request);
    assert_eq!(outcome, PageRequestOutcome::Queued);
    assert!(guest.service(), "the event woke the guest");
    assert_eq!(
        ear.take(),
        [Heard::Response(
            Some(pasid),
            GroupIndex(9),
            Response::Success
        )]
    );
    assert_eq!(rights(unit.translation_request(&ask)), Access::RW);

    // The bytes are those of the mapping.
    let mut bytes = [0; 8];
    let access = dma(Some(pasid), 0x7000_1008, Access::READ);
    let read = unit.with_translation(&access, 8, &mut |at, _| guest.ram().read(at, &mut bytes));
    assert_eq!(read, Ok(()));
    let expected: Vec<u8> = (0..8)
        .map(|at| Backing::Pattern(7).byte(0x7000_1008 + at))
        .collect();
    assert_eq!(bytes, *expected);

    // Unmapped, the page is gone from every cache once the guest says so.
    guest.munmap(&mm, Iova(0x7000_0000), 4).unwrap();
    assert!(unit.with_translation(&access, 8, &mut |_, _| {}).is_err());
    guest.drain(DEVICE, pasid).unwrap();
    guest.unbind(DEVICE, pasid).unwrap();
    assert!(guest.service(), "the fault of the late access");
    let faults = guest.faults();
    assert_eq!(faults.total(), 1);
    assert_eq!(faults.latest[0].reason, 0x71);
    assert_eq!(faults.latest[0].addr, Iova(0x7000_1000));
}

#[test]
fn a_request_outside_of_every_mapping_is_answered_invalid() {
    let Machine { guest, unit, ear } = boot(Config::default(), Setup::default());
    let pasid = Pasid::new(6).unwrap();
    let mm = Arc::new(Mm::new(guest.ram(), pasid, 4).unwrap());
    guest.probe(DEVICE, true, 0).unwrap();
    guest.bind(DEVICE, &mm).unwrap();
    let request = PageRequest {
        pasid: Some(pasid),
        group: GroupIndex(1),
        addr: Iova(0x1000),
        access: Access::READ,
        last: true,
        response_needs_pasid: true,
        private_data: [0; 2],
    };
    unit.page_request(DEVICE, &request);
    assert!(guest.service());
    assert_eq!(
        ear.take(),
        [Heard::Response(
            Some(pasid),
            GroupIndex(1),
            Response::Invalid
        )]
    );
}

#[test]
fn a_storm_overflows_the_queue_and_the_guest_recovers() {
    let setup = Setup {
        prq_order: 0,
        ..Setup::default()
    };
    let Machine { guest, unit, ear } = boot(Config::default(), setup);
    let pasid = Pasid::new(7).unwrap();
    let mm = Arc::new(Mm::new(guest.ram(), pasid, 4).unwrap());
    mm.mmap(Iova(0x10_0000), 512, Access::RW, Backing::Zero);
    guest.probe(DEVICE, true, 0).unwrap();
    guest.bind(DEVICE, &mm).unwrap();
    let (mut queued, mut again) = (0u64, 0u64);
    for page in 0..300u32 {
        let request = PageRequest {
            pasid: Some(pasid),
            group: GroupIndex(page),
            addr: Iova(0x10_0000 + u64::from(page) * 0x1000),
            access: Access::READ,
            last: true,
            response_needs_pasid: true,
            private_data: [0; 2],
        };
        match unit.page_request(DEVICE, &request) {
            PageRequestOutcome::Queued => queued += 1,
            PageRequestOutcome::Answered(Response::Success) => again += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((queued, again), (127, 173));
    while guest.service() {}
    assert_eq!(
        ear.take().len(),
        127,
        "every group that was queued is answered"
    );
    assert_eq!(guest.page_requests().overflows, 1);
    let counters = unit.counters();
    assert_eq!(counters.page_requests_lost, 173);
    assert_eq!(counters.responses, 127);
}

#[test]
fn a_legacy_domain_is_mapped_used_and_unmapped() {
    let config = Config {
        scalable: None,
        ..Config::default()
    };
    let setup = Setup {
        scalable: false,
        ..Setup::default()
    };
    let Machine { guest, unit, .. } = boot(config, setup);
    let table = PageTable::new(guest.ram(), Format::VtdSecond, 4).unwrap();
    let page = guest.ram().frame().unwrap();
    table.map(Iova(0x4000), page, 3, 1).unwrap();
    guest.attach(DEVICE, 0, &table, 9).unwrap();
    let write = dma(None, 0x4010, Access::WRITE);
    let wrote = unit.with_translation(&write, 4, &mut |at, _| guest.ram().write(at, &[1, 2, 3, 4]));
    assert_eq!(wrote, Ok(()));
    assert_eq!(guest.ram().load32(iopf::Gpa(page.0 + 0x10)), 0x0403_0201);
    guest.unmap_page(&table, 9, &[], Iova(0x4000)).unwrap();
    assert!(unit.with_translation(&write, 4, &mut |_, _| {}).is_err());
    assert!(guest.service());
    let faults = guest.faults();
    assert_eq!((faults.total(), faults.latest[0].reason), (1, 5));
    assert!(!faults.latest[0].read);
}

/// Writes down what a unit tells, one line a notice.
#[derive(Default)]
struct Diary(Mutex<String>);

impl Watch<Failure> for Diary {
    fn notice(&self, notice: Notice<'_>) {
        let line = match notice {
            Notice::Fault(fault) => format!("fault {}", fault.failure.cause.code()),
            Notice::PageRequest {
                requester,
                request,
                outcome,
            } => format!("request {requester} {:?} {outcome:?}", request.group),
            // Where and what is the guest's choice.
            Notice::Interrupt(_) => "message".to_owned(),
            Notice::Tail => "tail".to_owned(),
            Notice::Response(response) => format!("response {:?}", response.group),
            Notice::Resume { tag, how, .. } => format!("resume {tag:?} {how:?}"),
        };
        let mut lines = self.0.lock().expect("it holds");
        lines.push_str(&line);
        lines.push('\n');
    }
}

#[test]
fn a_watcher_is_told_of_a_request_before_the_guest_is_and_of_the_answer_after_it_was_given() {
    let diary = Arc::new(Diary::default());
    let Machine { guest, unit, .. } =
        boot_watched(Config::default(), Setup::default(), diary.clone());
    let pasid = Pasid::new(5).unwrap();
    let mm = Arc::new(Mm::new(guest.ram(), pasid, 4).unwrap());
    mm.mmap(Iova(0x7000_0000), 1, Access::READ, Backing::Pattern(7));
    guest.probe(DEVICE, true, 0).unwrap();
    guest.bind(DEVICE, &mm).unwrap();
    diary.0.lock().unwrap().clear();
    let request = PageRequest {
        pasid: Some(pasid),
        group: GroupIndex(9),
        addr: Iova(0x7000_0000),
        access: Access::READ,
        last: true,
        response_needs_pasid: true,
        private_data: [0; 2],
    };
    unit.page_request(DEVICE, &request);
    assert!(guest.service());
    let write = dma(Some(pasid), 0x7000_0000, Access::WRITE);
    assert!(unit.with_translation(&write, 1, &mut |_, _| {}).is_err());
    assert_eq!(
        *diary.0.lock().unwrap(),
        "request 00:04.0 GroupIndex(9) Queued\n\
         message\n\
         tail\n\
         response GroupIndex(9)\n\
         fault SGN.6\n\
         message\n"
    );
}
