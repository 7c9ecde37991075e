//! Mistakes with more than one act.

use super::{DEVICE, DOMAIN, Start, outcome, words};
use crate::run::mistakes::special::word;
use crate::run::mistakes::{
    Act, Lab, Mistake, NOTHING, NOWHERE, Shot, Special, TestResult, WRITABLE, told,
};
use iopf::{Gpa, Rid};
use testkit::amdvi::numbers::{
    Command, DTE_SE, DTE_TV, DTE_V, completion_wait, invalidate_device, invalidate_device_tlb,
};
use testkit::amdvi::tables::DeviceEntry;
use testkit::{Driver, QueueError};
use viommu::amdvi::Amdvi;

pub(super) const CASES: &[Special] = &[
    unknown_command,
    reserved_bits_in_a_command,
    store_outside_of_memory,
    buffer_outside_of_memory,
    device_that_is_not_there,
    first_fault_only,
    entry_without_valid,
    forgotten_entry,
];

/// Queues a command that has an event of its own, then one that has not. `stops`: whether the buffer stands
/// still at the first; `at`: the address of the event, where it is not that of the command.
fn told_of(
    name: &str,
    (code, flags): (u8, u16),
    command: Command,
    stops: bool,
    at: Option<u64>,
) -> TestResult<Mistake> {
    let lab = Lab::<Amdvi>::new(Start::Host)?;
    commands(&lab, name, (code, flags), &[command], stops, at)
}

fn commands(
    lab: &Lab<Amdvi>,
    name: &str,
    (code, flags): (u8, u16),
    queued: &[Command],
    stops: bool,
    at: Option<u64>,
) -> TestResult<Mistake> {
    let guest = &lab.machine.guest;
    let place = at.unwrap_or(guest.next_command().0);
    let stopped = match guest.submit(queued) {
        Ok(()) => false,
        Err(QueueError::Invalid) => true,
        Err(error) => return Err(error.into()),
    };
    let after = guest.flush_everything().is_ok();
    let records = lab.records();
    let told = match records.as_slice() {
        [] => "no record".to_owned(),
        [one] if one.addr == place => words(one.code, one.flags),
        [one] => format!("{} of another address", words(one.code, one.flags)),
        more => format!("{} records", more.len()),
    };
    let line = records.first().map(ToString::to_string).unwrap_or_default();
    Ok(outcome(
        name,
        &format!("{}, stops {stops}, goes on true", words(code, flags)),
        format!("{told}, stops {stopped}, goes on {after}"),
        "not involved".into(),
        line,
    ))
}

fn unknown_command() -> TestResult<Mistake> {
    let name = "command of a kind nobody knows";
    told_of(name, (5, 0x000), [0xf << 60, 0], true, None)
}

fn reserved_bits_in_a_command() -> TestResult<Mistake> {
    let [low, high] = invalidate_device(DEVICE.pci());
    let name = "command with reserved bits";
    told_of(name, (5, 0x000), [low | 1 << 20, high], true, None)
}

fn store_outside_of_memory() -> TestResult<Mistake> {
    let command = completion_wait(NOWHERE, 1);
    let name = "completion wait that stores outside of memory";
    told_of(name, (6, 0x200), command, true, Some(NOWHERE))
}

fn buffer_outside_of_memory() -> TestResult<Mistake> {
    let lab = Lab::<Amdvi>::new(Start::Host)?;
    let first = lab.machine.guest.misplace_commands(Gpa(NOWHERE));
    let name = "command buffer outside of memory";
    commands(&lab, name, (6, 0x200), &[], true, Some(first.0))
}

/// The buffer goes on: software is told, and has waited for the time-out.
fn device_that_is_not_there() -> TestResult<Mistake> {
    let gone = Rid(0x00b8);
    let command = invalidate_device_tlb(gone.pci(), None, 0, 52);
    let name = "device TLB invalidation of a device that is not there";
    told_of(name, (7, 0x000), command, false, None)
}

/// A device whose entry has only the first of its faults logged, until the entry is invalidated.
fn first_fault_only() -> TestResult<Mistake> {
    let lab = Lab::<Amdvi>::new(Start::Host)?;
    lab.device(1, |second| second | DTE_SE)?;
    let shot = Shot::new(Act::Read, NOTHING);
    let mut counts = Vec::new();
    let mut fault = || -> TestResult<_> {
        let end = lab.run(shot.job())?.status;
        counts.push(lab.machine.guest.poll_faults().total());
        Ok(end)
    };
    fault()?;
    fault()?;
    lab.machine
        .guest
        .submit(&[invalidate_device(DEVICE.pci())])?;
    let end = fault()?;
    let line = lab.records().first().map(ToString::to_string);
    Ok(outcome(
        "repeated faults suppressed in the device table entry",
        "events after a fault, a second one, and one after an invalidation: [1, 1, 2]",
        format!("events after a fault, a second one, and one after an invalidation: {counts:?}"),
        told(end),
        line.unwrap_or_default(),
    ))
}

/// Without V, an entry says nothing, and nothing holds the device back.
fn entry_without_valid() -> TestResult<Mistake> {
    let lab = Lab::<Amdvi>::new(Start::Host)?;
    lab.device(0, |first| first & !DTE_V)?;
    let end = lab.run(Shot::new(Act::Read, NOTHING).job())?.status;
    let seen = format!("{}, {} events", word(end), lab.records().len());
    Ok(outcome(
        "device table entry without its valid bit",
        "served, 0 events",
        seen,
        told(end),
        String::new(),
    ))
}

/// A guest that blocks a device and does not invalidate its entry: the device goes on, until that is done.
fn forgotten_entry() -> TestResult<Mistake> {
    let lab = Lab::<Amdvi>::new(Start::Host)?;
    let guest = &lab.machine.guest;
    let shot = Shot::new(Act::Read, WRITABLE);
    let before = lab.run(shot.job())?.status;
    let blocked: DeviceEntry = [DTE_V | DTE_TV, u64::from(DOMAIN), 0, 0];
    guest.table().set(DEVICE, &blocked);
    let stale = lab.run(shot.job())?.status;
    guest.submit(&[invalidate_device(DEVICE.pci())])?;
    let flushed = lab.run(shot.job())?.status;
    let line = lab.records().first().map(ToString::to_string);
    Ok(outcome(
        "blocking a device without invalidating its entry",
        "served, blocked and not invalidated: served, invalidated: refused",
        format!(
            "{}, blocked and not invalidated: {}, invalidated: {}",
            word(before),
            word(stale),
            word(flushed)
        ),
        told(flushed),
        line.unwrap_or_default(),
    ))
}
