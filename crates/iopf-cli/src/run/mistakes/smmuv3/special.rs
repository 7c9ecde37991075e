//! Mistakes with more than one act, and what is no mistake.

use super::stalls;
use super::{DEVICE, NOBODY, Start, VMID, outcome, queues, words};
use crate::run::mistakes::special::word;
use crate::run::mistakes::{
    Act, FIRST, Lab, Mistake, NOTHING, Shot, Special, TestResult, WRITABLE, told,
};
use iopf::{Iova, Pasid};
use testkit::Driver;
use testkit::paging::{AF, AP_READ_ONLY, DBM};
use testkit::smmuv3::Guest;
use testkit::smmuv3::numbers::{
    CD_A, CD_V, Command, STE_CONFIG, cfgi_cd, cfgi_cd_all, cfgi_ste, tlbi_all, tlbi_asid, tlbi_ipa,
    tlbi_range, tlbi_va, tlbi_vmid,
};
use viommu::smmuv3::Smmuv3;

pub(super) const CASES: &[Special] = &[
    queues::unknown_command,
    queues::reserved_bits_in_a_command,
    queues::sync_with_a_reserved_signal,
    queues::device_that_is_not_there,
    queues::commands_outside_of_memory,
    queues::events_outside_of_memory,
    forgotten_entry,
    forgotten_context,
    forgotten_first_context,
    forgotten_contexts,
    forgotten_second_stage,
    forgotten_pages,
    read_as_zero,
    first_write,
    translation_off,
    stalls::page_that_comes,
    stalls::page_that_does_not_come,
    stalls::refused,
    stalls::ignored,
    stalls::unknown_tag,
    stalls::answered_twice,
    stalls::all_of_a_stream,
    stalls::no_such_memory,
    stalls::context_that_goes_away,
    stalls::switched_off,
    stalls::full_queue,
    stalls::emptied_queue,
    stalls::stale_records,
    stalls::second_stage,
];

const READ: Shot = Shot::new(Act::Read, WRITABLE).pasid(FIRST);

/// Has the device read, spoils something, then gives one command after the other; after each of them the
/// device reads again.
fn step_by_step(
    name: &str,
    start: Start,
    shot: Shot,
    expected: &str,
    spoil: impl FnOnce(&Lab<Smmuv3>) -> TestResult<()>,
    commands: &[(&str, Command)],
) -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(start)?;
    let mut end = lab.run(shot.job())?.status;
    let mut seen = word(end).to_owned();
    spoil(&lab)?;
    end = lab.run(shot.job())?.status;
    seen += &format!(", not flushed: {}", word(end));
    for (what, command) in commands {
        lab.machine.guest.submit(&[*command])?;
        end = lab.run(shot.job())?.status;
        seen += &format!(", {what}: {}", word(end));
    }
    let line = lab.records().first().map(ToString::to_string);
    Ok(outcome(
        name,
        expected,
        seen,
        told(end),
        line.unwrap_or_default(),
    ))
}

/// A guest that blocks a device and does not invalidate its entry.
fn forgotten_entry() -> TestResult<Mistake> {
    let other = DEVICE.0 + 1;
    step_by_step(
        "blocking a device without CFGI_STE",
        Start::First,
        READ,
        "served, not flushed: served, pages flushed: served, another flushed: served, \
         flushed: refused",
        |lab| {
            let slot = lab.machine.guest.streams().slot(DEVICE)?;
            let ram = &lab.machine.ram;
            ram.store(slot, ram.load(slot) & !STE_CONFIG);
            Ok(())
        },
        &[
            ("pages flushed", tlbi_all()),
            ("another flushed", cfgi_ste(other)),
            ("flushed", cfgi_ste(DEVICE.0)),
        ],
    )
}

/// A guest that takes a PASID away and does not invalidate its context descriptor.
fn forgotten_context() -> TestResult<Mistake> {
    step_by_step(
        "taking a PASID away without CFGI_CD",
        Start::First,
        READ,
        "served, not flushed: served, pages flushed: served, another flushed: served, \
         flushed: refused",
        |lab| {
            let (_, slot) = lab.contexts(FIRST)?;
            let ram = &lab.machine.ram;
            ram.store(slot, ram.load(slot) & !CD_V);
            Ok(())
        },
        &[
            ("pages flushed", tlbi_all()),
            ("another flushed", cfgi_cd(DEVICE.0, FIRST + 1, true)),
            ("flushed", cfgi_cd(DEVICE.0, FIRST, true)),
        ],
    )
}

/// The same of requests without a PASID, whose descriptor is the first.
fn forgotten_first_context() -> TestResult<Mistake> {
    step_by_step(
        "taking the first context descriptor away without CFGI_CD",
        Start::First,
        Shot::new(Act::Read, WRITABLE),
        "served, not flushed: served, another flushed: served, flushed: refused",
        |lab| {
            let (_, slot) = lab.contexts(0)?;
            let ram = &lab.machine.ram;
            ram.store(slot, ram.load(slot) & !CD_V);
            Ok(())
        },
        &[
            ("another flushed", cfgi_cd(DEVICE.0, FIRST, true)),
            ("flushed", cfgi_cd(DEVICE.0, 0, true)),
        ],
    )
}

/// The same where all descriptors are flushed.
fn forgotten_contexts() -> TestResult<Mistake> {
    step_by_step(
        "taking a PASID away without CFGI_CD_ALL",
        Start::First,
        READ,
        "served, not flushed: served, another stream flushed: served, flushed: refused",
        |lab| {
            let (_, slot) = lab.contexts(FIRST)?;
            let ram = &lab.machine.ram;
            ram.store(slot, ram.load(slot) & !CD_V);
            Ok(())
        },
        &[
            ("another stream flushed", cfgi_cd_all(DEVICE.0 + 1)),
            ("flushed", cfgi_cd_all(DEVICE.0)),
        ],
    )
}

/// A guest that takes a page out of stage 2 and flushes something else.
fn forgotten_second_stage() -> TestResult<Mistake> {
    step_by_step(
        "unmapping in stage 2 without TLBI",
        Start::Second,
        Shot::new(Act::Read, WRITABLE),
        "served, not flushed: served, an ASID: served, another VMID: served, \
         its page: served, another page: served, the page: refused",
        |lab| {
            lab.tables.second.unmap(Iova(WRITABLE));
            Ok(())
        },
        &[
            ("an ASID", tlbi_asid(Guest::asid(NOBODY))),
            ("another VMID", tlbi_vmid(VMID + 1)),
            ("its page", tlbi_ipa(VMID + 1, WRITABLE)),
            ("another page", tlbi_ipa(VMID, WRITABLE + 0x1000)),
            ("the page", tlbi_ipa(VMID, WRITABLE)),
        ],
    )
}

/// A guest that unmaps a page and flushes something else. Only what the page was used through is cached:
/// requests without a PASID have an ASID of their own.
fn forgotten_pages() -> TestResult<Mistake> {
    let (mine, other) = (Guest::asid(Pasid::truncate(FIRST)), Guest::asid(NOBODY));
    step_by_step(
        "unmapping without TLBI",
        Start::First,
        READ,
        "served, not flushed: served, another ASID: served, another page: served, \
         the range before: served, the page: refused",
        |lab| {
            lab.tables.first.unmap(Iova(WRITABLE));
            Ok(())
        },
        &[
            ("another ASID", tlbi_asid(other)),
            ("another page", tlbi_va(mine, WRITABLE + 0x1000)),
            (
                "the range before",
                tlbi_range(mine, WRITABLE - 0x4000, 1, 1),
            ),
            ("the page", tlbi_va(mine, WRITABLE)),
        ],
    )
}

/// With A clear, a read gives zeros and a write goes nowhere; the event comes all the same.
fn read_as_zero() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    lab.context(FIRST, 0, |first| first & !CD_A)?;
    let read = lab.run(Shot::new(Act::Read, NOTHING).pasid(FIRST).job())?;
    let write = lab.run(Shot::new(Act::Write, NOTHING).pasid(FIRST).job())?;
    let records = lab.records();
    let names: Vec<String> = records.iter().map(|r| words(r.id, r.words[1])).collect();
    let line = records.first().map(ToString::to_string);
    Ok(outcome(
        "faults that are ignored (CD.A)",
        "read [0, 0, 0, 0, 0, 0, 0, 0], written: done, \
         F_TRANSLATION stage 1 class IN, F_TRANSLATION stage 1 class IN",
        format!(
            "read {:?}, written: {}, {}",
            read.data,
            told(write.status),
            names.join(", ")
        ),
        told(read.status),
        line.unwrap_or_default(),
    ))
}

/// A page that was never accessed and is writable-clean: hardware sets the access flag when it is read, and
/// makes it writable when it is written.
fn first_write() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    let slot = lab.slot(&lab.tables.first, WRITABLE, 1)?;
    lab.poke(slot, |raw| raw & !AF | DBM | AP_READ_ONLY)?;
    let state = || {
        let raw = lab.machine.ram.load(slot);
        (raw & AF != 0, raw & AP_READ_ONLY == 0)
    };
    let before = state();
    let read = lab.run(READ.job())?.status;
    let after_read = state();
    let write = lab.run(Shot::new(Act::Write, WRITABLE).pasid(FIRST).job())?;
    let after_write = state();
    Ok(outcome(
        "page that hardware finds accessed, then written",
        "accessed and writable: (false, false), read: (true, false), written: (true, true)",
        format!(
            "accessed and writable: {before:?}, read: {after_read:?}, written: {after_write:?}"
        ),
        format!("{}, {}", told(read), told(write.status)),
        String::new(),
    ))
}

/// While translation is off, requests pass, or are aborted, as GBPA says.
fn translation_off() -> TestResult<Mistake> {
    let lab = Lab::<Smmuv3>::new(Start::First)?;
    let shot = Shot::new(Act::Read, NOTHING);
    let guest = &lab.machine.guest;
    guest.translate(false, false);
    let passes = lab.run(shot.job())?.status;
    guest.translate(false, true);
    let aborted = lab.run(shot.job())?.status;
    guest.translate(true, true);
    let translated = lab.run(shot.job())?.status;
    let events = guest.poll_faults().total();
    Ok(outcome(
        "translation switched off and on",
        "off: served, off and GBPA aborts: refused, on: refused, 1 event",
        format!(
            "off: {}, off and GBPA aborts: {}, on: {}, {events} event",
            word(passes),
            word(aborted),
            word(translated)
        ),
        told(translated),
        String::new(),
    ))
}
