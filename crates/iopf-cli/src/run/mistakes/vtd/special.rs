//! Mistakes with more than one act.

use super::{Mode, outcome};
use crate::run::mistakes::{FIRST, Lab, Mistake, Special, TestResult, WRITABLE};
use testkit::vtd::numbers::piotlb_pages;
use testkit::{Driver, QueueError};
use viommu::vtd::Vtd;

pub(super) const CASES: &[Special] = &[unknown_descriptor, reserved_bits_in_a_descriptor];

/// Queues a descriptor the IOMMU must refuse, then one it must not.
fn refused(name: &str, descriptor: [u64; 4]) -> TestResult<Mistake> {
    let lab = Lab::<Vtd>::new(Mode::Scalable)?;
    let guest = &lab.machine.guest;
    let (stopped, log) = match guest.submit(&[descriptor]) {
        Ok(()) => (false, String::new()),
        Err(QueueError::Invalid) => (true, "DMAR: invalidation queue error".to_owned()),
        Err(error) => (false, format!("DMAR: {error}")),
    };
    let after = guest.flush_everything().is_ok();
    let seen = format!("queue error {stopped}, goes on {after}");
    let expected = "queue error true, goes on true";
    Ok(outcome(name, expected, seen, "not involved".into(), log))
}

fn unknown_descriptor() -> TestResult<Mistake> {
    refused("invalidation of a kind nobody knows", [0xe0f, 0, 0, 0])
}

fn reserved_bits_in_a_descriptor() -> TestResult<Mistake> {
    let mut descriptor = piotlb_pages(1, FIRST, WRITABLE, 0);
    descriptor[2] = 1;
    refused("invalidation with reserved bits", descriptor)
}
