//! What stops the queues: illegal commands, and queues outside of memory.

use super::{DEVICE, Start, outcome};
use crate::run::mistakes::{Act, Lab, Mistake, NOTHING, NOWHERE, Shot, TestResult, told};
use iopf::Gpa;
use testkit::smmuv3::numbers::{Command, atc_inv, cfgi_ste, sync};
use testkit::{Driver, QueueError};
use viommu::smmuv3::Smmuv3;

/// What became of commands, and whether the queue goes on.
fn queued(lab: &Lab<Smmuv3>, name: &str, commands: &[Command], error: &str) -> TestResult<Mistake> {
    let guest = &lab.machine.guest;
    let (told, line) = match guest.submit(commands) {
        Ok(()) => ("none".to_owned(), String::new()),
        Err(error) => (
            error.to_string(),
            format!("arm-smmu-v3: CMDQ error: {error}"),
        ),
    };
    let after = guest.submit(&[]).is_ok();
    Ok(outcome(
        name,
        &format!("error: {error}, goes on true"),
        format!("error: {told}, goes on {after}"),
        "not involved".into(),
        line,
    ))
}

fn illegal(name: &str, command: Command) -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    queued(&lab, name, &[command], &QueueError::Invalid.to_string())
}

pub(super) fn unknown_command() -> TestResult<Mistake> {
    illegal("command of a kind nobody knows", [0xff, 0])
}

pub(super) fn reserved_bits_in_a_command() -> TestResult<Mistake> {
    let [low, high] = cfgi_ste(DEVICE.0);
    illegal("command with reserved bits", [low | 1 << 8, high])
}

pub(super) fn sync_with_a_reserved_signal() -> TestResult<Mistake> {
    let [low, high] = sync();
    illegal("CMD_SYNC with a signal nobody knows", [low | 3 << 12, high])
}

/// CMD_SYNC finds out that nobody has answered.
pub(super) fn device_that_is_not_there() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    let name = "ATC_INV of a device that is not there";
    let command = atc_inv(DEVICE.0 + 8, None, 0, 52);
    let error = QueueError::DeviceTimeout.to_string();
    queued(&lab, name, &[command], &error)
}

pub(super) fn commands_outside_of_memory() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    lab.machine.guest.misplace_commands(Gpa(NOWHERE));
    let name = "Command queue outside of memory";
    let error = QueueError::Invalid.to_string();
    queued(&lab, name, &[], &error)
}

/// The event is lost, which is a global error; after that is acknowledged, and the queue put right, events
/// come again.
pub(super) fn events_outside_of_memory() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    let guest = &lab.machine.guest;
    let shot = Shot::new(Act::Read, NOTHING);
    guest.place_events(Some(Gpa(NOWHERE)));
    let end = lab.run(shot.job())?.status;
    // The interrupt may have come after the job's last look.
    while guest.service() {}
    let line = guest.lines().pop().unwrap_or_default();
    guest.place_events(None);
    lab.run(shot.job())?;
    let events = lab.records().len();
    let lost = lab.machine.unit.counters().lost;
    Ok(outcome(
        "Event queue outside of memory",
        "told of it, 1 lost, then 1 read",
        format!(
            "{}, {lost} lost, then {events} read",
            if line.contains("EVTQ write aborted") {
                "told of it"
            } else {
                "not told of it"
            }
        ),
        told(end),
        line,
    ))
}
