use super::*;
use std::sync::mpsc::Receiver;

const DEVICE: DeviceId = DeviceId(2);

fn watch(trace: bool) -> (Arc<Watch>, Receiver<Event>) {
    let (events, lines) = Events::new();
    let names = BTreeMap::from([(DEVICE, "0000:00:04.0".to_owned())]);
    (Watch::new(&Arc::new(events), names, trace, None), lines)
}

fn page(cookie: u32, grpid: u32, addr: u64, last: bool) -> RawFault {
    RawFault {
        flags: if last { RawFault::LAST_PAGE } else { 0 },
        dev_id: DEVICE.0,
        grpid,
        // IOMMU_PGFAULT_PERM_READ
        perm: 1,
        addr,
        cookie,
        ..RawFault::default()
    }
}

fn answer(watch: &Watch, cookie: u32, code: u32) {
    watch.written(Duration::ZERO, RawAnswer { cookie, code }.as_bytes());
}

#[test]
fn a_group_is_one_line_with_its_first_page_and_its_answer() {
    let (watch, lines) = watch(false);
    watch.read([page(1, 7, 0x1000, false), page(1, 7, 0x2000, true)].as_bytes());
    assert_eq!(watch.groups(), (1, 0));
    answer(&watch, 1, RawAnswer::SUCCESS);
    assert_eq!(watch.groups(), (1, 1));
    let said: Vec<_> = lines.try_iter().map(|event| event.to_string()).collect();
    assert_eq!(said.len(), 1);
    let start = "0000:00:04.0: group 7, r at 0x1000 and 1 more: SUCCESS after ";
    assert!(said[0].starts_with(start), "{said:?}");
    let (books, open) = watch.close();
    let books = &books[&DEVICE];
    assert_eq!(
        (books.pages, books.groups, books.success, open),
        (2, 1, 1, 0)
    );
}

#[test]
fn a_cookie_that_the_kernel_gave_out_again_is_the_new_group() {
    let (watch, lines) = watch(false);
    watch.read(page(1, 7, 0x1000, true).as_bytes());
    // The clock's grain is far below this.
    std::thread::sleep(Duration::from_millis(1));
    watch.read(page(1, 8, 0x9000, true).as_bytes());
    answer(&watch, 1, RawAnswer::INVALID);
    // An answer to nothing that is known counts for nothing.
    answer(&watch, 1, RawAnswer::INVALID);
    let said: Vec<_> = lines.try_iter().map(|event| event.to_string()).collect();
    assert_eq!(said.len(), 1);
    assert!(
        said[0].contains("group 8, r at 0x9000: INVALID"),
        "{said:?}"
    );
    let (books, _) = watch.close();
    assert_eq!((books[&DEVICE].groups, books[&DEVICE].invalid), (2, 1));
}

#[test]
fn a_storm_is_a_few_lines_and_an_exact_count() {
    let (watch, lines) = watch(false);
    for n in 0..1000 {
        watch.read(page(1, n, 0x1000, true).as_bytes());
        answer(&watch, 1, RawAnswer::INVALID);
    }
    watch.end_intervals(Duration::MAX);
    let events: Vec<_> = lines.try_iter().collect();
    let unsaid = events.iter().map(|event| match event {
        Event::Unsaid { count, .. } => *count,
        _ => 0,
    });
    let faults = events
        .iter()
        .filter(|event| matches!(event, Event::Fault { .. }));
    let faults = faults.count() as u64;
    // More than one interval where this machine stands still for 5 s.
    assert!((32..1000).contains(&faults), "{faults}");
    assert_eq!(faults + unsaid.sum::<u64>(), 1000);
}

#[test]
fn the_steps_of_a_trace_have_the_times_before_and_after_the_write() {
    let (watch, lines) = watch(true);
    watch.read(page(3, 7, 0x1000, true).as_bytes());
    answer(&watch, 3, RawAnswer::SUCCESS);
    let steps: Vec<_> = lines
        .try_iter()
        .filter_map(|event| match event {
            Event::Step(step) => Some((step.step, step.nanos)),
            _ => None,
        })
        .collect();
    let names: Vec<_> = steps.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["fault read", "answer on its way", "answer written"]);
    // The caller says when it began.
    assert_eq!(steps[1].1, 0);
    assert!(steps[2].1 >= steps[0].1);
}
