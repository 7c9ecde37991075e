//! Requests that stall, and every way in which they end.

use super::{
    C_BAD_CD, DEVICE, Event, F_TRANSLATION, PAGE, Start, VMID, fault, fault2, outcome, words,
};
use crate::run::mistakes::{Act, FIRST, Lab, Mistake, NOTHING, Shot, TestResult, told};
use endpoint::{Completion, Status, Step};
use iopf::Iova;
use testkit::Driver;
use testkit::smmuv3::Seen;
use testkit::smmuv3::numbers::{
    CD_V, RESUME_ABORT, RESUME_RETRY, RESUME_TERMINATE, STE_EATS, STE_S2S, stall_term,
};
use testkit::smmuv3::tables::second_stage as entry;
use viommu::smmuv3::Smmuv3;

const MISSING: Shot = Shot::new(Act::Read, NOTHING + 0x128).pasid(FIRST);

/// F_TRANSLATION of [`MISSING`].
const EVENT: Event = fault(F_TRANSLATION);

/// Steps the device until it has nothing to do; nobody serves the guest's interrupts.
fn settle(lab: &Lab<Smmuv3>) -> TestResult<()> {
    for _ in 0..10_000 {
        if lab.device.step(lab.clock.now()) != Step::Worked {
            return Ok(());
        }
    }
    Err("the device never rests".into())
}

/// Has the device stall at `shot`. Returns what the guest's queue has of it.
fn stall(lab: &Lab<Smmuv3>, shot: Shot) -> TestResult<Vec<Seen>> {
    lab.device.submit(shot.job())?;
    settle(lab)?;
    Ok(lab.machine.guest.take_events())
}

/// The tag of the one event there is, if it is `event` of a request that stalls.
fn tag(lab: &Lab<Smmuv3>, events: &[Seen], event: Event, shot: Shot) -> TestResult<u16> {
    let [seen] = events else {
        return Err(format!("{} events, not one", events.len()).into());
    };
    let tag = seen.stalled().ok_or("the event is not of a stall")?;
    let mut expected = event.words(lab, shot)?;
    expected[1] |= 1 << 31 | u64::from(tag);
    if seen.words == expected {
        Ok(tag)
    } else {
        Err(format!("{:x?} instead of {expected:x?}", seen.words).into())
    }
}

/// A device that stalls at [`MISSING`], and the tag.
fn stalled(start: Start) -> TestResult<(Lab<Smmuv3>, u16)> {
    let lab = Lab::<Smmuv3>::new(start)?;
    let events = stall(&lab, MISSING)?;
    let tag = tag(&lab, &events, EVENT, MISSING)?;
    Ok((lab, tag))
}

/// Lets a request go, and steps the device.
fn resume(lab: &Lab<Smmuv3>, tag: u16, how: u8) -> TestResult<()> {
    lab.machine.guest.resume(DEVICE, tag, how)?;
    settle(lab)
}

/// What became of the job: how it ended, or that it has not.
fn end(lab: &Lab<Smmuv3>) -> (String, Option<Completion>) {
    let completion = lab.device.poll_completion();
    let text = completion
        .as_ref()
        .map_or("stalled".to_owned(), |c| told(c.status));
    (text, completion)
}

/// The end of a case whose `seen` says all.
fn over(name: &str, expected: &str, lab: &Lab<Smmuv3>, seen: String) -> Mistake {
    let [retried, aborted, ignored] = lab.device.stats().resumed;
    let device = format!("{retried} retried, {aborted} aborted, {ignored} ignored");
    outcome(name, expected, seen, device, String::new())
}

/// Maps the page of [`MISSING`], which is not empty.
fn page_comes(lab: &Lab<Smmuv3>) -> TestResult<()> {
    let frame = lab.machine.ram.frame()?;
    lab.machine.ram.write(frame, &[0x55; 4096]);
    Ok(lab.tables.first.map(Iova(NOTHING), frame, PAGE, 1)?)
}

pub(super) fn page_that_comes() -> TestResult<Mistake> {
    let (lab, tag) = stalled(Start::Stalling)?;
    let (before, _) = end(&lab);
    page_comes(&lab)?;
    resume(&lab, tag, RESUME_RETRY)?;
    let (after, _) = end(&lab);
    Ok(over(
        "page that comes while a request stalls for it",
        "stalled, then done",
        &lab,
        format!("{before}, then {after}"),
    ))
}

pub(super) fn page_that_does_not_come() -> TestResult<Mistake> {
    let (lab, first) = stalled(Start::Stalling)?;
    resume(&lab, first, RESUME_RETRY)?;
    let (again, _) = end(&lab);
    let events = lab.machine.guest.take_events();
    let second = tag(&lab, &events, EVENT, MISSING)?;
    resume(&lab, second, RESUME_ABORT)?;
    let (after, _) = end(&lab);
    Ok(over(
        "RESUME with retry, and the page is not there",
        "stalled again, then blocked at 0x12128",
        &lab,
        format!("{again} again, then {after}"),
    ))
}

pub(super) fn refused() -> TestResult<Mistake> {
    let (lab, tag) = stalled(Start::Stalling)?;
    page_comes(&lab)?;
    resume(&lab, tag, RESUME_ABORT)?;
    let (after, _) = end(&lab);
    Ok(over(
        "RESUME with abort, whatever is there by now",
        "blocked at 0x12128",
        &lab,
        after,
    ))
}

pub(super) fn ignored() -> TestResult<Mistake> {
    let (lab, tag) = stalled(Start::Stalling)?;
    page_comes(&lab)?;
    resume(&lab, tag, RESUME_TERMINATE)?;
    let (after, completion) = end(&lab);
    Ok(over(
        "RESUME with terminate, whatever is there by now",
        "done, read [0, 0, 0, 0, 0, 0, 0, 0]",
        &lab,
        format!("{after}, read {:?}", completion.unwrap_or_else(none).data),
    ))
}

/// A job that has not ended.
fn none() -> Completion {
    Completion {
        id: endpoint::JobId(0),
        pasid: None,
        status: Status::Aborted,
        moved: 0,
        data: Vec::new(),
        failed: None,
        pages_requested: 0,
    }
}

pub(super) fn unknown_tag() -> TestResult<Mistake> {
    let (lab, tag) = stalled(Start::Stalling)?;
    let guest = &lab.machine.guest;
    for (rid, other) in [
        (DEVICE, tag + 1),
        (DEVICE, 0xffff),
        (iopf::Rid(DEVICE.0 + 1), tag),
    ] {
        guest.resume(rid, other, RESUME_ABORT)?;
    }
    let goes_on = guest.submit(&[]).is_ok();
    settle(&lab)?;
    let (before, _) = end(&lab);
    resume(&lab, tag, RESUME_ABORT)?;
    let (after, _) = end(&lab);
    Ok(over(
        "RESUME with a tag, or a stream, that nothing stalls under",
        "stalled, queue goes on true, the right one: blocked at 0x12128",
        &lab,
        format!("{before}, queue goes on {goes_on}, the right one: {after}"),
    ))
}

pub(super) fn answered_twice() -> TestResult<Mistake> {
    let (lab, first) = stalled(Start::Stalling)?;
    resume(&lab, first, RESUME_ABORT)?;
    let (one, _) = end(&lab);
    let events = stall(&lab, MISSING)?;
    let second = tag(&lab, &events, EVENT, MISSING)?;
    resume(&lab, first, RESUME_ABORT)?;
    let (other, _) = end(&lab);
    resume(&lab, second, RESUME_ABORT)?;
    let (after, _) = end(&lab);
    Ok(over(
        "RESUME twice, and something else stalls by then",
        "blocked at 0x12128, the other: stalled, then blocked at 0x12128",
        &lab,
        format!("{one}, the other: {other}, then {after}"),
    ))
}

pub(super) fn all_of_a_stream() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::Stalling)?;
    let mut events = 0;
    for _ in 0..3 {
        events += stall(&lab, MISSING)?.len();
    }
    let guest = &lab.machine.guest;
    guest.post(&[stall_term(DEVICE.0 + 1)])?;
    settle(&lab)?;
    let other = lab.device.poll_completion().is_some();
    guest.post(&[stall_term(DEVICE.0)])?;
    settle(&lab)?;
    let mut ends = Vec::new();
    while let Some(completion) = lab.device.poll_completion() {
        ends.push(told(completion.status));
    }
    ends.dedup();
    Ok(over(
        "STALL_TERM of a stream, and of another one",
        "3 events, ended by the other: false, then blocked at 0x12128, 3 aborted",
        &lab,
        format!(
            "{events} events, ended by the other: {other}, then {}, {} aborted",
            ends.join(", "),
            lab.device.stats().resumed[1]
        ),
    ))
}

/// As Linux answers it: nobody is bound to the PASID.
pub(super) fn no_such_memory() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::Stalling)?;
    let after = lab.run(MISSING.job())?.status;
    let stats = lab.machine.guest.stall_stats();
    let records = lab.records().len();
    Ok(over(
        "stall of a PASID that no process has",
        "blocked at 0x12128, 1 event, 1 aborted, 0 other records",
        &lab,
        format!(
            "{}, {} event, {} aborted, {records} other records",
            told(after),
            stats.events,
            stats.aborted
        ),
    ))
}

/// A retry meets what is there by then.
pub(super) fn context_that_goes_away() -> TestResult<Mistake> {
    let (lab, tag) = stalled(Start::Stalling)?;
    lab.context(FIRST, 0, |first| first & !CD_V)?;
    let (before, _) = end(&lab);
    resume(&lab, tag, RESUME_RETRY)?;
    let (after, _) = end(&lab);
    let records = lab.records();
    let names: Vec<String> = records.iter().map(|r| words(r.id, r.words[1])).collect();
    Ok(over(
        "PASID that goes away while a request stalls",
        &format!("stalled, then blocked at 0x12128, {}", words(C_BAD_CD, 0)),
        &lab,
        format!("{before}, then {after}, {}", names.join(", ")),
    ))
}

pub(super) fn switched_off() -> TestResult<Mistake> {
    let (lab, tag) = stalled(Start::Stalling)?;
    lab.machine.guest.translate(false, true);
    settle(&lab)?;
    let (off, _) = end(&lab);
    lab.machine.guest.translate(true, true);
    // Nothing stalls under that tag any more.
    resume(&lab, tag, RESUME_RETRY)?;
    Ok(over(
        "translation switched off while a request stalls",
        "blocked at 0x12128, 0 stalled",
        &lab,
        format!(
            "{off}, {} stalled",
            crate::run::collect::stalled(&lab.device)
        ),
    ))
}

/// Requests that stall while the guest reads nothing: more than its queue holds.
const MANY: u64 = (1 << super::FEW_EVENTS) + 4;

/// Has [`MANY`] requests stall. Returns how many events there are, and whether any counts as lost.
fn flood(lab: &Lab<Smmuv3>) -> TestResult<(usize, bool)> {
    for _ in 0..MANY {
        lab.device.submit(MISSING.job())?;
    }
    settle(lab)?;
    let overflow = lab.machine.guest.overflow_pending();
    Ok((lab.machine.guest.take_events().len(), overflow))
}

/// An event of a request that stalls is never lost: it waits for room.
pub(super) fn full_queue() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::Stalling)?;
    let (events, overflow) = flood(&lab)?;
    let held = crate::run::collect::stalled(&lab.device);
    Ok(over(
        "more stalls than the Event queue holds",
        "12 stalled, 12 events read, overflow false",
        &lab,
        format!("{held} stalled, {events} events read, overflow {overflow}"),
    ))
}

/// A guest that makes room in one go finds the queue empty, and is told of what comes into it then.
pub(super) fn emptied_queue() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::Stalling)?;
    for _ in 0..MANY {
        lab.device.submit(MISSING.job())?;
    }
    settle(&lab)?;
    let guest = &lab.machine.guest;
    let events = guest.take_events_at_once().len();
    let told = guest.service();
    let aborted = guest.stall_stats().aborted;
    Ok(over(
        "more stalls than the Event queue holds, which is emptied in one go",
        "8 events, interrupt true, 4 aborted",
        &lab,
        format!("{events} events, interrupt {told}, {aborted} aborted"),
    ))
}

/// A CMD_SYNC makes events stale that wait for room: their requests are tried again, and say what they meet
/// then.
pub(super) fn stale_records() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::Stalling)?;
    for _ in 0..MANY {
        lab.device.submit(MISSING.job())?;
    }
    settle(&lab)?;
    page_comes(&lab)?;
    let guest = &lab.machine.guest;
    guest.submit(&[])?;
    let events = guest.take_events();
    settle(&lab)?;
    let mut done = 0;
    while let Some(completion) = lab.device.poll_completion() {
        done += u64::from(completion.status == Status::Done);
    }
    for seen in &events {
        let tag = seen.stalled().ok_or("the event is not of a stall")?;
        guest.resume(DEVICE, tag, RESUME_RETRY)?;
    }
    settle(&lab)?;
    let later = std::iter::from_fn(|| lab.device.poll_completion());
    let later = later.filter(|c| c.status == Status::Done).count();
    Ok(over(
        "CMD_SYNC while events of stalls wait for room",
        "8 events, 4 done without one, 8 done after RESUME",
        &lab,
        format!(
            "{} events, {done} done without one, {later} done after RESUME",
            events.len()
        ),
    ))
}

/// Faults of stage 2 stall as well (S2S), where there are no device TLBs.
pub(super) fn second_stage() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::Second)?;
    let mut stalls = entry(lab.tables.second.root(), VMID);
    stalls[1] &= !STE_EATS;
    stalls[2] |= STE_S2S;
    lab.set_stream(&stalls)?;
    let shot = Shot::new(Act::Write, NOTHING + 0x128);
    let events = stall(&lab, shot)?;
    let event = fault2(F_TRANSLATION, super::CLASS_IN, NOTHING);
    let tag = tag(&lab, &events, event, shot)?;
    let (before, _) = end(&lab);
    let frame = lab.machine.ram.frame()?;
    let rights = super::PAGE2 | testkit::paging::S2_READ | testkit::paging::S2_WRITE;
    lab.tables.second.map(Iova(NOTHING), frame, rights, 1)?;
    resume(&lab, tag, RESUME_RETRY)?;
    let (after, _) = end(&lab);
    Ok(over(
        "page of stage 2 that comes while a request stalls for it",
        "stalled, then done",
        &lab,
        format!("{before}, then {after}"),
    ))
}
