//! Mistakes with more than one act that a guest can make whatever the IOMMU.

use super::{
    Act, FIRST, Lab, Mistake, READ_ONLY, Shot, Special, Spoilt, TestResult, WRITABLE, outcome, told,
};
use endpoint::{Status, Via};
use iopf::{GroupIndex, Iova, Pasid, Response};
use testkit::Driver;

/// All of them.
pub(super) fn both<X: Spoilt>() -> &'static [Special] {
    &[forgotten_flush::<X>, answer_to_nobody::<X>]
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
