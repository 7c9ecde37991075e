//! Page requests of the kernel's devices, answered by a guest: the kernel's descriptor, the pump, the
//! injector, the page request queue of our VT-d unit, a scripted guest that drives it as Linux does,
//! and all the way back.
//!
//! A scene says every response that the devices got, until everything was closed.

mod machine;

use crate::{Outcome, ensure};
use iopf::{Access, Iova};
use machine::{Machine, PAGES, PASID, page, rid};
use std::time::{Duration, Instant};
use testkit::{Driver, PageGroup};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);
/// How long groups wait where the guest is too slow on purpose.
const SHORT: Duration = Duration::from_millis(50);

/// Plays a scene.
pub(crate) fn run(scene: &str) -> Outcome<()> {
    match scene {
        "answers" => answers(),
        "pages" => pages(),
        "no-pasid" => no_pasid(),
        "full" => full(),
        "silent" => silent(),
        "reset" => reset(),
        "devices" => devices(),
        _ => Err(format!("no scene is called {scene}").into()),
    }
}

/// The guest makes one page present, and refuses one that its process may not touch.
fn answers() -> Outcome<()> {
    let mut machine = Machine::new(1, LONG, 4)?;
    machine.ask(0, Some(PASID), 7, &[page(0)])?;
    machine.serve(1)?;
    let present = machine.booted.mm.is_present(Iova(page(0)));
    ensure(present, "the page is not there")?;
    machine.ask(0, Some(PASID), 8, &[page(PAGES)])?;
    machine.serve(2)?;
    machine.end()
}

/// Groups of several pages: whole, in error, and two at the same time.
fn pages() -> Outcome<()> {
    let mut machine = Machine::new(1, LONG, 4)?;
    let some = Some(PASID);
    let four: Vec<u64> = (0..4).map(page).collect();
    machine.ask(0, some, 7, &four)?;
    machine.serve(1)?;
    let mm = &machine.booted.mm;
    let present = four.iter().all(|at| mm.is_present(Iova(*at)));
    ensure(present, "pages are missing")?;
    // The second of three may not be touched.
    machine.ask(0, some, 8, &[page(4), page(PAGES), page(5)])?;
    machine.serve(2)?;
    machine.begin(some, 9, page(6))?;
    machine.begin(some, 10, page(7))?;
    machine.ask(0, some, 10, &[page(8)])?;
    machine.serve(3)?;
    machine.ask(0, some, 9, &[page(9)])?;
    machine.serve(4)?;
    machine.end()
}

/// Without a PASID, and beside it a group of the same index that has one.
fn no_pasid() -> Outcome<()> {
    let mut machine = Machine::new(1, LONG, 4)?;
    machine.ask(0, None, 7, &[page(0), page(1), page(2)])?;
    machine.ask(0, Some(PASID), 7, &[page(3), page(4)])?;
    let mut groups = take(&mut machine, 2)?;
    // The second comes first.
    groups.reverse();
    for (index, group) in groups.iter().enumerate() {
        let booted = &machine.booted;
        let (mm, pages) = match group.pasid {
            None => (&booted.own, 3),
            Some(_) => (&booted.mm, 2),
        };
        let came = group.pages.len();
        ensure(came == pages, format!("{came} pages in place of {pages}"))?;
        let there = |(at, access): &(Iova, Access)| mm.fault(*at, *access).is_ok();
        let resolved = group.pages.iter().all(there);
        booted.guest.answer_group(group, resolved);
        machine.wait(index + 1)?;
    }
    // And one that is refused.
    machine.ask(0, None, 8, &[page(5), page(PAGES)])?;
    machine.serve(3)?;
    machine.end()
}

/// The guest's page request queue overflows.
fn full() -> Outcome<()> {
    let mut machine = Machine::new(1, LONG, 0)?;
    // 128 entries, one of which stays free; the guest does not look.
    for group in 0..130 {
        let at = page(u64::from(group) % PAGES);
        machine.ask(0, Some(PASID), group, &[at])?;
    }
    // Neither of its pages finds room.
    machine.ask(0, Some(PASID), 130, &[page(0), page(1)])?;
    machine.wait(4)?;
    machine.queued(127)?;
    let responded = machine.responded()?;
    ensure(responded == 4, format!("{responded} were answered"))?;
    machine.serve(131)?;
    // The devices ask again.
    machine.ask(0, Some(PASID), 130, &[page(0), page(1)])?;
    machine.serve(132)?;
    machine.end()
}

/// The guest does not answer before the deadline, and then it does.
fn silent() -> Outcome<()> {
    let mut machine = Machine::new(1, SHORT, 4)?;
    let asked = Instant::now();
    machine.ask(0, Some(PASID), 7, &[page(0)])?;
    machine.wait(1)?;
    let waited = asked.elapsed();
    ensure(waited >= SHORT, format!("an answer after {waited:?}"))?;
    machine.queued(1)?;
    // It still owes that answer, so another group of that index is not for it.
    machine.ask(0, Some(PASID), 7, &[page(1)])?;
    machine.wait(2)?;
    machine.until("late answer", |machine| {
        machine.booted.guest.service();
        Ok(machine.counts()?.late > 0)
    })?;
    machine.end()
}

/// The guest is reset while it owes two answers and a third group is not yet read.
fn reset() -> Outcome<()> {
    let mut machine = Machine::new(1, LONG, 4)?;
    machine.ask(0, Some(PASID), 7, &[page(0), page(1)])?;
    machine.ask(0, None, 8, &[page(2)])?;
    machine.queued(3)?;
    let responded = machine.responded()?;
    ensure(responded == 0, format!("{responded} were answered"))?;
    machine.reset(9, page(3))?;
    let responded = machine.responded()?;
    ensure(responded == 3, format!("{responded} were answered"))?;
    // The new guest has the same indices to itself.
    machine.ask(0, Some(PASID), 7, &[page(0)])?;
    machine.serve(4)?;
    machine.end()
}

/// Two devices ask in groups of the same index; the guest answers the second one first, and otherwise.
fn devices() -> Outcome<()> {
    let mut machine = Machine::new(2, LONG, 4)?;
    machine.ask(0, Some(PASID), 7, &[page(0)])?;
    machine.ask(1, Some(PASID), 7, &[page(1)])?;
    let mut groups = take(&mut machine, 2)?;
    groups.sort_by_key(|group| group.rid.0);
    let rids: Vec<_> = groups.iter().map(|group| group.rid).collect();
    ensure(rids == [rid(0)?, rid(1)?], format!("{rids:?}"))?;
    for (index, resolved) in [(1, false), (0, true)] {
        machine.booted.guest.answer_group(&groups[index], resolved);
        machine.wait(2 - index)?;
    }
    machine.end()
}

/// Takes so many groups from the guest's page request queue.
fn take(machine: &mut Machine, count: usize) -> Outcome<Vec<PageGroup>> {
    let mut groups = Vec::new();
    machine.until("group", |machine| {
        groups.extend(machine.booted.guest.take_groups());
        Ok(groups.len() >= count)
    })?;
    Ok(groups)
}
