use super::*;
use iommu_walk::Updates;
use iommu_walk::vtd::{self, Unit};
use iopf::{Dma, Gpa, Iova};
use std::os::unix::fs::symlink;
use std::sync::Arc;
use viommu::vtd::{Diagnostic, Vtd};
use vm_memory::{GuestAddress, GuestMemoryMmap};

type Ram = GuestRam<Arc<GuestMemoryMmap<()>>>;

/// A unit in legacy mode with its root table at 0x1000, and memory that is all zeros.
fn scene() -> (Unit, Ram) {
    let unit = Unit::new(0, 0, 48).with_rtaddr(0x1000);
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10000)]).unwrap();
    (unit, GuestRam::new(Arc::new(memory)))
}

/// A read by `requester`, as it ends with the tables of now.
fn fault(unit: &Unit, ram: &Ram, requester: Rid) -> Diagnostic {
    let dma = Dma {
        requester,
        pasid: None,
        kind: DmaKind::Untranslated,
        addr: Iova(0x5000),
        access: Access::READ,
    };
    let failure = ram.view(|view| {
        let view = View::new(view.memory());
        vtd::translate(unit, &view, &dma, &mut Updates::new(), &mut ()).unwrap_err()
    });
    Diagnostic {
        dma,
        failure,
        recorded: true,
        page_request: false,
        stalled: None,
    }
}

fn name(event: Option<Event>) -> String {
    let Some(Event::Capture { file, .. }) = event else {
        panic!("{event:?}")
    };
    file.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_kind_is_captured_once_and_one_whose_tables_changed_another_time() {
    let dir = tempfile::tempdir().unwrap();
    let (unit, ram) = scene();
    let captures = Captures::<Vtd>::new(dir.path()).unwrap();
    // Reason 1: the root entry is not present.
    let first = fault(&unit, &ram, Rid(0x20));
    assert_eq!(name(captures.take(&unit, &ram, &first)), "001-04.0-01.json");
    assert!(captures.take(&unit, &ram, &first).is_none());
    // Reason 2: the context entry is not present; but when it is captured, the root entry is gone.
    ram.write(Gpa(0x1000), &[0x01, 0x20]).unwrap();
    let second = fault(&unit, &ram, Rid(0x20));
    ram.write(Gpa(0x1000), &[0, 0]).unwrap();
    let event = captures.take(&unit, &ram, &second);
    assert!(matches!(event, Some(Event::NoCapture { .. })), "{event:?}");
    assert_eq!(captures.written(), 1);
    ram.write(Gpa(0x1000), &[0x01, 0x20]).unwrap();
    assert_eq!(
        name(captures.take(&unit, &ram, &second)),
        "003-04.0-02.json"
    );
    assert_eq!(captures.written(), 2);
}

#[test]
fn a_guest_that_never_holds_still_is_tried_a_bounded_number_of_times() {
    let dir = tempfile::tempdir().unwrap();
    let (unit, ram) = scene();
    let captures = Captures::<Vtd>::new(dir.path()).unwrap();
    let fault = fault(&unit, &ram, Rid(0x20));
    ram.write(Gpa(0x1000), &[0x01, 0x20]).unwrap();
    let said = (0..1000).filter(|_| captures.take(&unit, &ram, &fault).is_some());
    assert_eq!(said.count(), MOST);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn what_is_in_the_folder_already_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (unit, ram) = scene();
    let fault = fault(&unit, &ram, Rid(0x20));
    let first = Captures::<Vtd>::new(dir.path()).unwrap();
    assert_eq!(name(first.take(&unit, &ram, &fault)), "001-04.0-01.json");
    fs::write(dir.path().join("notes"), "").unwrap();
    // The next run.
    let next = Captures::<Vtd>::new(dir.path()).unwrap();
    // Somebody guesses the name, and has it lead to a file of ours.
    let (target, link) = (dir.path().join("notes"), "002-04.0-01.json");
    symlink(&target, dir.path().join(link)).unwrap();
    let event = next.take(&unit, &ram, &fault);
    assert!(matches!(event, Some(Event::NoCapture { .. })), "{event:?}");
    assert_eq!(fs::read(target).unwrap(), b"");
    assert_eq!(next.written(), 0);
    let after = Captures::<Vtd>::new(dir.path()).unwrap();
    assert_eq!(name(after.take(&unit, &ram, &fault)), "003-04.0-01.json");
}
