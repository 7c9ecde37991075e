//! Mistakes with more than one act.

use super::{DEVICE, FIRST, Lab, Mistake, READ_ONLY, Shot, Special, TestResult, WRITABLE, told};
use crate::run::mistakes::Act;
use endpoint::{Status, Via};
use iopf::Iova;
use testkit::vtd::numbers::{page_group_response, piotlb_pages};
use testkit::{Driver, QueueError};

pub(super) const CASES: &[Special] = &[
    unknown_descriptor,
    reserved_bits_in_a_descriptor,
    forgotten_flush,
    answer_to_nobody,
];

fn mistake(name: &str, expected: &str, seen: String, device: String, log: String) -> Mistake {
    Mistake {
        name: name.to_owned(),
        expected: expected.to_owned(),
        ok: seen == expected,
        seen,
        device,
        guest_log: log,
    }
}

/// Queues a descriptor the IOMMU must refuse, then one it must not.
fn refused(name: &str, descriptor: [u64; 4]) -> TestResult<Mistake> {
    let lab = Lab::new(true)?;
    let guest = &lab.machine.guest;
    let (stopped, log) = match guest.submit(&[descriptor]) {
        Ok(()) => (false, String::new()),
        Err(QueueError::Invalid) => (true, "DMAR: invalidation queue error".to_owned()),
        Err(error) => (false, format!("DMAR: {error}")),
    };
    let after = guest.flush_everything().is_ok();
    let seen = format!("queue error {stopped}, goes on {after}");
    let expected = "queue error true, goes on true";
    Ok(mistake(name, expected, seen, "not involved".into(), log))
}

fn unknown_descriptor() -> TestResult<Mistake> {
    refused("invalidation of a kind nobody knows", [0xe0f, 0, 0, 0])
}

fn reserved_bits_in_a_descriptor() -> TestResult<Mistake> {
    let mut descriptor = piotlb_pages(1, FIRST, WRITABLE, 0);
    descriptor[2] = 1;
    refused("invalidation with reserved bits", descriptor)
}

/// A guest that unmaps and does not flush: the device goes on, until the flush.
fn forgotten_flush() -> TestResult<Mistake> {
    let lab = Lab::new(true)?;
    let shot = Shot::new(Act::Read, READ_ONLY).pasid(FIRST).via(Via::Ats);
    let before = lab.run(shot.job())?.status;
    lab.first.unmap(Iova(READ_ONLY));
    let stale = lab.run(shot.job())?.status;
    let pasid = iopf::Pasid::truncate(FIRST);
    lab.machine.guest.flush_pasid(DEVICE, pasid)?;
    let flushed = lab.run(shot.job())?.status;
    let word = |status| {
        if status == Status::Done {
            "served"
        } else {
            "refused"
        }
    };
    let seen = format!(
        "{}, unmapped and not flushed: {}, flushed: {}",
        word(before),
        word(stale),
        word(flushed)
    );
    Ok(mistake(
        "unmapping without a flush",
        "served, unmapped and not flushed: served, flushed: refused",
        seen,
        told(flushed),
        String::new(),
    ))
}

/// A page group response that nobody waits for.
fn answer_to_nobody() -> TestResult<Mistake> {
    let lab = Lab::new(true)?;
    let answer = page_group_response(DEVICE.0, Some(FIRST), 77, 0);
    lab.machine.guest.submit(&[answer])?;
    let unexpected = lab.device.stats().unexpected_responses;
    let shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST).via(Via::Ats);
    let after = lab.run(shot.job())?.status;
    Ok(mistake(
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
