//! What the host half makes of a kernel that has no memory or no descriptors left: an error, nothing
//! lost, nothing left behind, and it goes on.

use crate::answerer::{Answerer as _, Pumped};
use crate::failing::{Failing, descriptors, without_descriptors};
use crate::mock::{Mock, again};
use crate::oracle::{DISCARD, Log, NOT_LAST, RETURN};
use crate::{Outcome, ensure};
use iopf::Iova;
use iopf::Response;
use iopf_host::pump::Notice;
use iopf_host::queue::Read;
use iopf_host::selftest::{MockDevice, Tables};
use iopf_host::veventq::VeventqKind;
use iopf_host::{
    Device as _, Errno, FaultQueue, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd, OpenError,
    Pump, ReadError, Refused, Stage1, Vdevice, Veventq, Viommu, ViommuKind,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs all of it.
pub(crate) fn run() -> Outcome<()> {
    let failing = Failing::new()?;
    objects(&failing)?;
    reads(&failing)?;
    pumped(&failing)?;
    reports(&failing)?;
    limits()
}

/// What shows that something was left behind.
#[derive(Debug, PartialEq, Eq)]
struct Ledger {
    /// Open descriptors.
    descriptors: usize,
    /// The lowest object number that is free.
    free: u32,
    /// Objects that the kernel would not destroy.
    left: u64,
}

fn ledger(iommufd: &Iommufd) -> Outcome<Ledger> {
    Ok(Ledger {
        descriptors: descriptors()?,
        free: Ioas::new(iommufd)?.id(),
        left: iommufd.left_behind(),
    })
}

/// Why something was not done: the kernel's error number.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<Errno> {
    match (error.downcast_ref(), error.downcast_ref()) {
        (Some(Refused { errno, .. }), _) => Some(*errno),
        (_, Some(OpenError::Other { errno, .. } | OpenError::TooManyFiles { errno, .. })) => {
            Some(*errno)
        }
        _ => None,
    }
}

/// One of each object, and a device that is put on the tables.
fn all(iommufd: &Iommufd) -> Outcome<()> {
    drop(Iommufd::open()?);
    let ioas = Ioas::new(iommufd)?;
    let device = MockDevice::new(&ioas)?;
    let parent = Hwpt::paging(&ioas, device.id(), HwptFlags::NEST_PARENT, None)?;
    let viommu = Viommu::new(&parent, device.id(), ViommuKind::SELFTEST)?;
    let _name = Vdevice::new(&viommu, &device, 7)?;
    let _events = Veventq::new(&viommu, VeventqKind::SELFTEST, 4)?;
    let (faults, _file) = FaultQueueObject::new(iommufd)?;
    let stage1 = Stage1::Selftest { iotlb: 0x0bad_beef };
    let flags = HwptFlags::empty();
    let nested = Hwpt::nested(&viommu, device.id(), flags, &stage1, Some(&faults))?;
    device.replace(Tables::Hwpt(&nested))?;
    iommufd.hw_info(device.id())?;
    Ok(())
}

/// Each allocation on the way to one of each object fails once.
fn objects(failing: &Failing) -> Outcome<()> {
    let iommufd = Iommufd::open()?;
    // The heap grows now, and not when the kernel has no memory for it.
    all(&iommufd)?;
    let before = ledger(&iommufd)?;
    let mut errors: BTreeMap<i32, u32> = BTreeMap::new();
    let (mut n, mut survived) = (1, 0);
    loop {
        let (came, failed) = failing.nth(n, || all(&iommufd))?;
        if !failed {
            came?;
            break;
        }
        match came {
            Ok(()) => survived += 1,
            Err(error) => {
                let number = errno(&*error).ok_or_else(|| error.to_string())?;
                *errors.entry(number.raw_os_error()).or_default() += 1;
            }
        }
        let after = ledger(&iommufd)?;
        ensure(after == before, format!("{n}: {after:?} after {before:?}"))?;
        n += 1;
    }
    let errors: Vec<_> = errors.iter().map(|(e, n)| format!("{e}:{n}")).collect();
    println!(
        "objects failures={} survived={survived} errors={}",
        n - 1,
        errors.join(",")
    );
    Ok(())
}

/// How often a read is to fail.
const READS: u64 = 20;

/// A read fails: the group stays where it is, and the next read brings it, whole. One allocation
/// that fails is not enough for that: the kernel makes two attempts at a cookie.
fn reads(failing: &Failing) -> Outcome<()> {
    let (mut mock, file) = Mock::new()?;
    let mut queue = FaultQueue::new(file);
    for _ in 0..READS {
        mock.ask()?;
        let came = failing.all(|| queue.read(64))?;
        let expected = Err(ReadError::Io(Errno::NOMEM));
        ensure(came == expected, format!("without memory: {came:?}"))?;
        let again = queue.read(64)?;
        ensure(again == Read::Pages(1), format!("with memory: {again:?}"))?;
        let cookie = queue.next_group().ok_or("no group")??.cookie();
        queue.answer(cookie, Response::Success);
        queue.flush()?;
    }
    let counts = queue.counts();
    println!(
        "reads failures={READS} asked={READS} answered={} stale={}",
        counts.answered, counts.stale
    );
    Ok(())
}

/// The same with the pump: it says so, and goes on.
fn pumped(failing: &Failing) -> Outcome<()> {
    let (mut mock, file) = Mock::new()?;
    let told = Arc::new(AtomicU64::new(0));
    let count = told.clone();
    let mut pump = Pumped::new(&mock, again(&file)?, move |notice| {
        let expected = matches!(
            notice,
            Notice::Read {
                error: ReadError::Io(Errno::NOMEM),
                ..
            }
        );
        // Another one would not be counted, and missed.
        count.fetch_add(u64::from(expected), Ordering::Relaxed);
    })?;
    for asked in 1..=READS {
        mock.ask()?;
        failing.all(|| pump.turn())??;
        ensure(pump.answered() < asked, "answered without memory")?;
        // It sleeps for as long as it has to.
        while pump.answered() < asked {
            pump.turn()?;
        }
    }
    let answered = pump.answered();
    let told = told.load(Ordering::Relaxed);
    println!("pump failures={READS} asked={READS} answered={answered} told={told}");
    Ok(())
}

/// What became of pages that a device asked for.
#[derive(Debug, Default)]
struct Pages {
    asked: u64,
    /// Read, and answered by us.
    read: u64,
    /// Of a group that the kernel had no memory for, and answered FAILURE.
    failed: u64,
    /// The report, or the request to report, was refused.
    refused: u64,
    /// Their group lost its last page.
    dropped: u64,
}

/// Each allocation of a report fails once, of a group of two pages. Nothing reaches the queue half,
/// and each page is in one of the counts.
fn reports(failing: &Failing) -> Outcome<()> {
    let (mock, file) = Mock::new()?;
    let mut queue = FaultQueue::new(file);
    let mut log = Log::open()?;
    let mut text = String::with_capacity(1 << 16);
    let (mut pages, mut n) = (Pages::default(), 1);
    loop {
        let ask = |perm, at| {
            mock.device
                .trigger_page_request(None, 3, perm | 1, Iova(at))
        };
        let both = || (ask(NOT_LAST | RETURN, 0x1000), ask(RETURN, 0x2000));
        let ((first, last), failed) = failing.nth(n, both)?;
        pages.asked += 2;
        let mut whole = 2;
        for came in [first, last] {
            // No memory, or a request that the kernel's own test of iommufd made fail.
            match came.map_err(|refused| refused.errno) {
                Ok(()) => {}
                Err(Errno::NOMEM | Errno::NOENT) if failed => {
                    whole -= 1;
                    pages.refused += 1;
                }
                Err(other) => return Err(format!("{n}: {other}").into()),
            }
        }
        text.clear();
        log.read_into(&mut text)?;
        let answered = text.matches(" code=2 ").count();
        match (queue.read(64)?, answered) {
            (Read::Pages(came), 0) if came == whole && last.is_ok() => {
                pages.read += came as u64;
                let cookie = queue.next_group().ok_or("no group")??.cookie();
                queue.answer(cookie, Response::Success);
                queue.flush()?;
            }
            (Read::Nothing, 1) if failed && last.is_ok() => pages.failed += whole as u64,
            (Read::Nothing, 0) if failed && last.is_err() => {
                ask(DISCARD, 0)?;
                pages.dropped += whole as u64;
            }
            other => return Err(format!("{n}: {first:?} {last:?} {other:?}; {text}").into()),
        }
        if !failed {
            break;
        }
        n += 1;
    }
    let Pages {
        asked,
        read,
        failed,
        refused,
        dropped,
    } = pages;
    println!(
        "reports failures={} asked={asked} read={read} failed={failed} refused={refused} \
         dropped={dropped}",
        n - 1
    );
    Ok(())
}

/// No descriptor is left.
fn limits() -> Outcome<()> {
    let iommufd = Iommufd::open()?;
    let ioas = Ioas::new(&iommufd)?;
    let device = MockDevice::new(&ioas)?;
    let parent = Hwpt::paging(&ioas, device.id(), HwptFlags::NEST_PARENT, None)?;
    let viommu = Viommu::new(&parent, device.id(), ViommuKind::SELFTEST)?;
    let before = ledger(&iommufd)?;
    let mut seen = Vec::new();
    for _ in 0..100 {
        seen.clear();
        let queue = without_descriptors(|| FaultQueueObject::new(&iommufd).map(|_| ()))?;
        seen.push(("FaultQueueObject", queue.err().map(|refused| refused.errno)));
        let events =
            without_descriptors(|| Veventq::new(&viommu, VeventqKind::SELFTEST, 4).map(|_| ()))?;
        seen.push(("Veventq", events.err().map(|refused| refused.errno)));
        let open = without_descriptors(|| Iommufd::open().map(|_| ()))?;
        seen.push(("Iommufd", open.err().and_then(|error| errno(&error))));
        let engine = iopf::engine::Engine::new(iopf::engine::Policy::default());
        let pump =
            without_descriptors(|| Pump::<iopf_host::FaultFd>::new(engine, |_| ()).map(|_| ()))?;
        seen.push(("Pump", pump.err()));
    }
    let after = ledger(&iommufd)?;
    ensure(after == before, format!("{after:?} after {before:?}"))?;
    // And then it works, as if nothing had been.
    Veventq::new(&viommu, VeventqKind::SELFTEST, 4)?;
    FaultQueueObject::new(&iommufd)?;
    let seen: Vec<_> = seen
        .iter()
        .map(|(what, errno)| format!("{what}={}", errno.map_or(0, Errno::raw_os_error)))
        .collect();
    println!("limits times=100 {}", seen.join(" "));
    Ok(())
}
