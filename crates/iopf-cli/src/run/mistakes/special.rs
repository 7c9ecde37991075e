//! Mistakes with more than one act that a guest can make whatever the IOMMU.

use super::{
    Act, FIRST, Lab, Mistake, READ_ONLY, Shot, Special, Spoilt, TestResult, WRITABLE, outcome, told,
};
use endpoint::{Status, Via};
use iopf::{Access, Dma, DmaKind, GroupIndex, Iova, Pasid, Response};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use testkit::Driver;
use viommu_api::Translate;

/// All of them.
pub(super) fn both<X: Spoilt>() -> &'static [Special] {
    &[
        forgotten_flush::<X>,
        flush_under_way::<X>,
        answer_to_nobody::<X>,
    ]
}

/// Whether a job was served.
pub(super) fn word(status: Status) -> &'static str {
    if status == Status::Done {
        "served"
    } else {
        "refused"
    }
}

/// A guest that unmaps and does not flush: the device goes on, until the flush.
fn forgotten_flush<X: Spoilt>() -> TestResult<Mistake> {
    let lab = Lab::<X>::new(X::PROCESS)?;
    let shot = Shot::new(Act::Read, READ_ONLY).pasid(FIRST).via(Via::Ats);
    let before = lab.run(shot.job())?.status;
    X::first(&lab.tables).unmap(Iova(READ_ONLY));
    let stale = lab.run(shot.job())?.status;
    let pasid = Pasid::truncate(FIRST);
    lab.machine.guest.flush_pasid(X::DEVICE, pasid)?;
    let flushed = lab.run(shot.job())?.status;
    let seen = format!(
        "{}, unmapped and not flushed: {}, flushed: {}",
        word(before),
        word(stale),
        word(flushed)
    );
    Ok(outcome(
        "unmapping without a flush",
        "served, unmapped and not flushed: served, flushed: refused",
        seen,
        told(flushed),
        String::new(),
    ))
}

/// How long an access lasts that a flush has to wait for: enough for one that does not wait to come back.
const ACCESS: Duration = Duration::from_millis(100);

/// A guest that flushes while the device uses what goes away: the flush is over when the access is.
fn flush_under_way<X: Spoilt>() -> TestResult<Mistake> {
    let lab = Lab::<X>::new(X::PROCESS)?;
    let dma = Dma {
        requester: X::DEVICE,
        pasid: Some(Pasid::truncate(FIRST)),
        kind: DmaKind::Untranslated,
        addr: Iova(WRITABLE),
        access: Access::READ,
    };
    let flushed = AtomicBool::new(false);
    let (begun, begin) = mpsc::channel();
    let mut early = None;
    let (unit, guest) = (&lab.machine.unit, &lab.machine.guest);
    let flush = thread::scope(|scope| {
        let flushed = &flushed;
        let flush = scope.spawn(move || {
            // Closed without a word, the access was refused.
            let _begun = begin.recv();
            let done = guest.flush_everything();
            flushed.store(true, Ordering::SeqCst);
            done
        });
        let access = unit.with_translation(&dma, 8, &mut |_, _| {
            // The other side is there until it is told.
            let _heard = begun.send(());
            thread::sleep(ACCESS);
            early = Some(flushed.load(Ordering::SeqCst));
        });
        drop(begun);
        (access, flush.join())
    });
    let (access, flush) = flush;
    flush.map_err(|_| "the flushing thread died")??;
    let seen = match (access, early) {
        (Ok(()), Some(false)) => "the flush waits for the access",
        (Ok(()), Some(true)) => "the flush is over before the access",
        _ => "no access",
    };
    Ok(outcome(
        "flush while the device uses a page",
        "the flush waits for the access",
        seen.to_owned(),
        "not involved".into(),
        String::new(),
    ))
}

/// An answer to a page request group that nobody waits for.
fn answer_to_nobody<X: Spoilt>() -> TestResult<Mistake> {
    let lab = Lab::<X>::new(X::PROCESS)?;
    let pasid = Some(Pasid::truncate(FIRST));
    let (group, answer) = (GroupIndex(77), Response::Success);
    let guest = &lab.machine.guest;
    guest.answer_page_group(X::DEVICE, pasid, group, answer)?;
    let unexpected = lab.device.stats().unexpected_responses;
    let shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST).via(Via::Ats);
    let after = lab.run(shot.job())?.status;
    Ok(outcome(
        "page group response that nobody waits for",
        "1 unexpected response, device goes on: done",
        format!(
            "{unexpected} unexpected response, device goes on: {}",
            told(after)
        ),
        told(after),
        String::new(),
    ))
}
