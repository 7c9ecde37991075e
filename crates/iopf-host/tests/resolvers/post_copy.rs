//! Post-copy: threads touch memory and a device asks for it, and both wait for one slow source.

use super::world::{PATIENCE, Setting, World, until};
use iopf::{Access, Iova, Pasid, Response};
use iopf_host::Errno;
use iopf_host::postcopy::{Limits, PageSource, PostCopy, PostCopyError, SourceError};
use iopf_host::space::Area;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, MmapRegion, VolatileMemory};

const PAGE: usize = 4096;
const PASID: Option<Pasid> = Pasid::new(5);
const LONG: Duration = Duration::from_secs(600);

/// The bytes of a page.
fn content(page: usize) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    for (i, word) in bytes.chunks_mut(8).enumerate() {
        let value = (page as u64) << 32 | i as u64 | 1 << 63;
        word.copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

fn memory(pages: usize) -> Arc<MmapRegion> {
    Arc::new(MmapRegion::new(pages * PAGE).unwrap())
}

/// A thread of this process reads a page.
fn touch(memory: &MmapRegion, page: usize) -> [u8; PAGE] {
    let mut bytes = [0; PAGE];
    let slice = memory.as_volatile_slice();
    slice.read_slice(&mut bytes, page * PAGE).unwrap();
    bytes
}

/// Another computer, that the memory still lies on.
struct Far {
    /// Calls, and pages given, by page.
    calls: Vec<AtomicU32>,
    given: Vec<AtomicU32>,
}

impl Far {
    fn new(pages: usize) -> Arc<Self> {
        let zeros = || (0..pages).map(|_| AtomicU32::new(0)).collect();
        Arc::new(Self {
            calls: zeros(),
            given: zeros(),
        })
    }
}

/// Slow, and it fails the first time for every seventh page.
fn slow(far: &Arc<Far>) -> impl PageSource + 'static {
    let far = far.clone();
    move |offset: usize, bytes: &mut [u8]| {
        let page = offset / PAGE;
        thread::sleep(Duration::from_micros(200 + (page as u64 % 5) * 300));
        let calls = far.calls[page].fetch_add(1, Ordering::SeqCst);
        if page % 7 == 3 && calls == 0 {
            return Err(SourceError::NotNow);
        }
        bytes.copy_from_slice(&content(page));
        far.given[page].fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// A source that gives pages when it is let.
fn gated() -> (impl PageSource + 'static, Sender<()>) {
    let (open, gate) = channel();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let source = move |offset: usize, bytes: &mut [u8]| {
        // The test opens it, or is over.
        let _ = gate.lock().unwrap().recv();
        bytes.copy_from_slice(&content(offset / PAGE));
        Ok(())
    };
    (source, open)
}

fn start(
    memory: &Arc<MmapRegion>,
    source: impl PageSource + 'static,
    limits: Limits,
    timeout: Duration,
) -> (PostCopy, World, u64) {
    let mut setting = Setting::new(timeout);
    let handle = setting.handle();
    let area = Area::shared(memory.clone(), Access::RW);
    let base = area.iova.0;
    let answer = move |group, response| {
        // The pump may have stopped.
        let _ = handle.answer(group, response);
    };
    let post_copy = PostCopy::new(area, PASID, source, limits, answer).unwrap();
    setting.device(1, PASID, post_copy.resolver());
    (post_copy, setting.run(), base)
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[test]
fn threads_and_a_device_wait_for_the_same_pages_and_each_is_fetched_once() {
    const PAGES: usize = 512;
    let (memory, far) = (memory(PAGES), Far::new(PAGES));
    let (post_copy, mut world, base) = start(&memory, slow(&far), Limits::default(), LONG);
    let (cpu, device) = thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|seed| {
                let (memory, mut random) = (&memory, fastrand::Rng::with_seed(seed));
                scope.spawn(move || {
                    let mut times = Vec::new();
                    for _ in 0..200 {
                        let page = random.usize(..PAGES);
                        let start = Instant::now();
                        let bytes = touch(memory, page);
                        let time = start.elapsed();
                        assert!(bytes == content(page), "page {page}");
                        // Shorter ones met a page that was there.
                        if time > Duration::from_micros(150) {
                            times.push(time);
                        }
                    }
                    times
                })
            })
            .collect();
        let device = run_device(&mut world, &post_copy, &memory, base);
        let cpu: Vec<_> = threads
            .into_iter()
            .flat_map(|t| t.join().unwrap())
            .collect();
        (cpu, device)
    });
    post_copy.fetch_rest();
    assert!(post_copy.wait(PATIENCE));
    for page in 0..PAGES {
        assert!(touch(&memory, page) == content(page), "page {page}");
        assert_eq!(far.given[page].load(Ordering::SeqCst), 1, "page {page}");
    }
    let counts = post_copy.counts();
    assert_eq!(counts.fetched, PAGES as u64);
    assert_eq!(
        counts.failures,
        (0..PAGES).filter(|page| page % 7 == 3).count() as u64
    );
    assert_eq!((counts.lost, counts.misplaced, counts.refused), (0, 0, 0));
    println!(
        "post-copy, a source of 0.2 to 1.4 ms a page: a thread's fault {:?}, a device's group of \
         up to 4 pages {:?} (medians of {} and {})",
        median(cpu.clone()),
        median(device.clone()),
        cpu.len(),
        device.len()
    );
}

/// A device that asks for random pages, some groups at a time, and uses them when it is told to.
fn run_device(
    world: &mut World,
    post_copy: &PostCopy,
    memory: &MmapRegion,
    base: u64,
) -> Vec<Duration> {
    let pages = memory.size() / PAGE;
    let mut random = fastrand::Rng::with_seed(7);
    let mut open: Vec<(u64, Vec<usize>, Instant)> = Vec::new();
    let (mut asked, mut times) = (0, Vec::new());
    let mut failed = 0;
    let start = Instant::now();
    while asked < 200 || !open.is_empty() {
        assert!(
            start.elapsed() < PATIENCE,
            "{} groups never answered",
            open.len()
        );
        while open.len() < 8 && asked < 200 {
            let count = random.usize(1..=4);
            let of: Vec<_> = (0..count).map(|_| random.usize(..pages)).collect();
            open.push(send(world, base, of));
            asked += 1;
        }
        for (group, of, since) in std::mem::take(&mut open) {
            match world.answer(group) {
                None => open.push((group, of, since)),
                Some(Response::Success) => {
                    times.push(since.elapsed());
                    for page in of {
                        let at = Iova(base + (page * PAGE) as u64);
                        assert!(post_copy.is_present(at), "answered before page {page} came");
                        assert!(is_mapped(memory, page), "answered before page {page} came");
                        assert!(touch(memory, page) == content(page));
                    }
                }
                Some(_) => {
                    // One of its pages failed, and is given the next time.
                    assert!(of.iter().any(|page| page % 7 == 3), "{of:?}");
                    failed += 1;
                    open.push(send(world, base, of));
                }
            }
        }
        thread::yield_now();
    }
    assert!(failed > 0, "no group met a failure");
    times
}

fn send(world: &mut World, base: u64, of: Vec<usize>) -> (u64, Vec<usize>, Instant) {
    let since = Instant::now();
    let asked: Vec<_> = of
        .iter()
        .map(|page| (base + (page * PAGE) as u64, Access::WRITE))
        .collect();
    (world.ask(1, PASID, &asked), of, since)
}

#[test]
fn a_source_that_gives_at_once_shows_what_the_way_costs() {
    const PAGES: usize = 200;
    let memory = memory(2 * PAGES);
    let source = |offset: usize, bytes: &mut [u8]| {
        bytes.copy_from_slice(&content(offset / PAGE));
        Ok(())
    };
    let (post_copy, mut world, base) = start(&memory, source, Limits::default(), LONG);
    let threads = (0..PAGES).map(|page| {
        let start = Instant::now();
        let bytes = touch(&memory, page);
        let time = start.elapsed();
        assert!(bytes == content(page));
        time
    });
    let threads = median(threads.collect());
    let device = (PAGES..2 * PAGES).map(|page| {
        let (group, _, start) = send(&mut world, base, vec![page]);
        let response = loop {
            assert!(start.elapsed() < PATIENCE, "never answered");
            if let Some(response) = world.answer(group) {
                break response;
            }
            std::hint::spin_loop();
        };
        let time = start.elapsed();
        assert_eq!(response, Response::Success);
        time
    });
    let device = median(device.collect());
    assert!(post_copy.wait(PATIENCE));
    assert_eq!(post_copy.counts().fetched, 2 * PAGES as u64);
    println!(
        "post-copy, a source that gives at once: a thread's fault {threads:?}, a device's {device:?}"
    );
}

/// Whether a page is present, as the kernel says: bit 63 of its page map entry.
fn is_mapped(memory: &MmapRegion, page: usize) -> bool {
    use std::os::unix::fs::FileExt;
    let number = memory.as_ptr().addr() / PAGE + page;
    let mut entry = [0; 8];
    let map = std::fs::File::open("/proc/self/pagemap").unwrap();
    map.read_exact_at(&mut entry, number as u64 * 8).unwrap();
    u64::from_le_bytes(entry) >> 63 != 0
}

#[test]
fn a_group_is_answered_by_its_deadline_while_a_thread_goes_on_waiting() {
    let memory = memory(4);
    let (source, open) = gated();
    let limits = Limits {
        workers: 1,
        groups: 16,
    };
    let (post_copy, mut world, base) = start(&memory, source, limits, Duration::from_millis(50));
    let done = Arc::new(AtomicBool::new(false));
    let thread = thread::spawn({
        let (memory, done) = (memory.clone(), done.clone());
        move || {
            let bytes = touch(&memory, 2);
            done.store(true, Ordering::SeqCst);
            bytes
        }
    });
    until("the thread's fault", || {
        (post_copy.counts().touches > 0).then_some(())
    });
    let asked = [(base + 2 * PAGE as u64, Access::READ)];
    let group = world.ask(1, PASID, &asked);
    assert_eq!(world.wait(group), Response::Invalid);
    assert!(!done.load(Ordering::SeqCst));
    assert_eq!(post_copy.missing(), 4);
    open.send(()).unwrap();
    assert!(thread.join().unwrap() == content(2));
    // The answer to the group of then came too late, and was counted.
    until("the late answer", || {
        let counts = world.handle.exclusive(|pump| pump.counts()).unwrap();
        (counts.late == 1).then_some(())
    });
    // The device asks again.
    let group = world.ask(1, PASID, &asked);
    assert_eq!(world.wait(group), Response::Success);
    assert_eq!(post_copy.counts().fetched, 1);
}

#[test]
fn groups_beyond_the_limit_are_refused_and_those_that_wait_no_more_make_room() {
    let memory = memory(4);
    let (source, open) = gated();
    let limits = Limits {
        workers: 1,
        groups: 2,
    };
    let (post_copy, mut world, base) = start(&memory, source, limits, LONG);
    let page = |n: u64| [(base + n * PAGE as u64, Access::READ)];
    let first = world.ask(1, PASID, &page(0));
    let second = world.ask(1, PASID, &page(0));
    let third = world.ask(1, PASID, &page(1));
    assert_eq!(world.wait(third), Response::Invalid);
    assert_eq!(post_copy.counts().refused, 1);
    // Outside, and without the right: no page is fetched for those.
    let beyond = world.ask(1, PASID, &[page(0)[0], page(4)[0]]);
    let right = world.ask(1, PASID, &[(base, Access::EXEC)]);
    let space = world.ask(1, None, &page(0));
    for group in [beyond, right, space] {
        assert_eq!(world.wait(group), Response::Invalid);
    }
    open.send(()).unwrap();
    assert_eq!(world.wait(first), Response::Success);
    assert_eq!(world.wait(second), Response::Success);
    assert_eq!(post_copy.missing(), 3);
    drop(open);
}

#[test]
fn what_waits_when_post_copy_ends_is_answered() {
    let memory = memory(4);
    let (source, open) = gated();
    let limits = Limits {
        workers: 1,
        groups: 16,
    };
    let (post_copy, mut world, base) = start(&memory, source, limits, LONG);
    let pages = [(base, Access::READ), (base + PAGE as u64, Access::READ)];
    let group = world.ask(1, PASID, &pages);
    until("the group", || {
        (post_copy.counts().groups == 1).then_some(())
    });
    // The fetch that is under way ends with the gate.
    drop(open);
    drop(post_copy);
    let answer = world.wait(group);
    // It came in time, or not.
    assert!(matches!(answer, Response::Success | Response::Invalid));
    let group = world.ask(1, PASID, &[(base + 3 * PAGE as u64, Access::READ)]);
    assert_eq!(
        world.wait(group),
        Response::Invalid,
        "nothing comes any more"
    );
}

#[test]
fn a_page_that_never_came_reads_as_zeros_afterwards_though_a_pump_has_the_resolver() {
    let memory = memory(2);
    let source = |_: usize, _: &mut [u8]| Err(SourceError::NotNow);
    let (post_copy, _world, _) = start(&memory, source, Limits::default(), LONG);
    // In threads that nobody waits for: a failure is no hang.
    let (said, heard) = channel();
    let read = |page| {
        let (memory, said) = (memory.clone(), said.clone());
        thread::spawn(move || said.send(touch(&memory, page) == [0; PAGE]).is_ok());
    };
    read(0);
    until("the thread's fault", || {
        (post_copy.counts().touches > 0).then_some(())
    });
    drop(post_copy);
    read(1);
    for _ in 0..2 {
        let zeros = heard.recv_timeout(PATIENCE).expect("a thread waits on");
        assert!(zeros);
    }
}

#[test]
fn memory_of_huge_pages_is_refused_and_not_watched() {
    const HUGE: usize = 2 << 20;
    // None is set aside, and none is needed: they are not touched.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_NORESERVE;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let memory = Arc::new(MmapRegion::build(None, HUGE, rights, flags).unwrap());
    for _ in 0..2 {
        let area = Area::shared(memory.clone(), Access::RW);
        let source = |_: usize, _: &mut [u8]| Ok(());
        let made = PostCopy::new(area, PASID, source, Limits::default(), |_, _| ());
        let refused = PostCopyError::Register(Errno::INVAL);
        assert_eq!(made.map(|_| ()), Err(refused));
    }
}

#[test]
fn a_source_that_panics_is_asked_again() {
    let memory = memory(1);
    let calls = Arc::new(AtomicU32::new(0));
    let source = {
        let calls = calls.clone();
        move |_: usize, bytes: &mut [u8]| {
            assert!(
                calls.fetch_add(1, Ordering::SeqCst) > 0,
                "a defect of the source"
            );
            bytes.copy_from_slice(&content(0));
            Ok(())
        }
    };
    let (post_copy, _world, _) = start(&memory, source, Limits::default(), LONG);
    assert!(touch(&memory, 0) == content(0));
    // The thread goes on before it is counted.
    assert!(post_copy.wait(PATIENCE));
    let counts = post_copy.counts();
    assert_eq!((counts.failures, counts.fetched), (1, 1));
}

#[test]
fn a_defect_of_who_takes_the_answers_harms_no_page() {
    let memory = memory(2);
    let mut setting = Setting::new(LONG);
    let area = Area::shared(memory.clone(), Access::RW);
    let base = area.iova.0;
    let source = |offset: usize, bytes: &mut [u8]| {
        bytes.copy_from_slice(&content(offset / PAGE));
        Ok(())
    };
    let limits = Limits {
        workers: 1,
        groups: 16,
    };
    let answer = |_, _| panic!("a defect");
    let post_copy = PostCopy::new(area, PASID, source, limits, answer).unwrap();
    setting.device(1, PASID, post_copy.resolver());
    let mut world = setting.run();
    world.ask(1, PASID, &[(base, Access::READ)]);
    until("the first page", || {
        (post_copy.missing() == 1).then_some(())
    });
    post_copy.fetch_rest();
    assert!(post_copy.wait(PATIENCE));
}

/// In the process that is to die of it.
const VICTIM: &str = "IOPF_TEST_TOUCHES_A_LOST_PAGE";

#[test]
fn a_page_that_is_lost_is_invalid_to_a_device_and_a_bus_error_to_a_thread() {
    let memory = memory(2);
    let source = |offset: usize, bytes: &mut [u8]| {
        if offset == 0 {
            return Err(SourceError::Lost);
        }
        bytes.copy_from_slice(&content(offset / PAGE));
        Ok(())
    };
    let (post_copy, mut world, base) = start(&memory, source, Limits::default(), LONG);
    if std::env::var_os(VICTIM).is_some() {
        let bytes = touch(&memory, 0);
        unreachable!("read {}", bytes[0]);
    }
    let lost = [(base, Access::READ)];
    for _ in 0..2 {
        let group = world.ask(1, PASID, &lost);
        assert_eq!(world.wait(group), Response::Invalid);
    }
    let counts = post_copy.counts();
    assert_eq!((counts.failures, counts.lost), (1, 1), "asked for once");
    assert!(touch(&memory, 1) == content(1));
    assert!(post_copy.wait(PATIENCE));

    let name = "post_copy::a_page_that_is_lost_is_invalid_to_a_device_and_a_bus_error_to_a_thread";
    let victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(VICTIM, "1")
        .output()
        .unwrap();
    assert_eq!(victim.status.signal(), Some(7), "{victim:?}"); // SIGBUS
}
