//! What is played with a fault queue. Each function is a script; its lines are its result, and who
//! asked for it knows what they must be.

use super::bench::{Bench, PASID};
use super::faults::{Code, RECORD};
use super::tables::Rights::{Read, Write};
use crate::reply::{Done, Failure};

/// A script.
pub(super) type Script = fn(&mut Bench<'_, '_>) -> Done;

/// Every script and its name.
pub(super) const ALL: &[(&str, Script)] = &[
    ("present", present),
    ("missing", |bench| missing(bench, None)),
    ("missing-pasid", |bench| missing(bench, Some(PASID))),
    ("group", group),
    ("invalid", invalid),
    ("read-only", read_only),
    ("out-of-order", out_of_order),
    ("detach", |bench| detach(bench, None)),
    ("detach-pasid", |bench| detach(bench, Some(PASID))),
    ("detach-unread", detach_unread),
    ("close", close),
    ("replace", |bench| replace(bench, None)),
    ("replace-pasid", |bench| replace(bench, Some(PASID))),
    ("invalidate", |bench| invalidate(bench, None)),
    ("invalidate-pasid", |bench| invalidate(bench, Some(PASID))),
    ("wrong-calls", wrong_calls),
];

/// Where the device is told to go.
const AT: u64 = 0x2000_0000;

/// The words of a job that reads `len` bytes from AT on and counts those that are not 0x5a.
fn verify(len: u64, pasid: Option<u32>) -> String {
    let pasid = pasid.map_or(String::new(), |pasid| format!(" pasid={pasid}"));
    format!("verify {AT:#x} {len} pattern=0x5a5a5a5a5a5a5a5a{pasid}")
}

/// The words of a job that fills a page at AT with 0xc3.
const FILL: &str = "fill 0x20000000 4096 pattern=0xc3c3c3c3c3c3c3c3";

fn first(faults: &[super::faults::Fault]) -> Result<u32, Failure> {
    let fault = faults.first();
    Ok(fault.ok_or_else(|| Failure::new("no fault"))?.cookie)
}

/// What is mapped is used, and nobody hears of it.
fn present(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.fill(1, 0x5a)?;
    bench.map(&space, AT, 1, Write)?;
    bench.start(0, &verify(4096, None))?;
    bench.end(0)?;
    bench.start(0, FILL)?;
    bench.end(0)?;
    bench.look(1)?;
    bench.quiet()?;
    bench.close()
}

/// Attaches the device to tables, and with a PASID also the PASID to tables of its own.
fn on(bench: &mut Bench<'_, '_>, pasid: Option<u32>) -> Result<[super::bench::Space; 2], Failure> {
    let (plain, own) = (bench.space()?, bench.space()?);
    bench.attach(None, &plain)?;
    if pasid.is_none() {
        return Ok([plain, own]);
    }
    bench.attach(pasid, &own)?;
    Ok([own, plain])
}

/// A page that is missing is asked for, mapped, and used.
fn missing(bench: &mut Bench<'_, '_>, pasid: Option<u32>) -> Done {
    let [space, _other] = on(bench, pasid)?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, pasid))?;
    let faults = bench.faults(1)?;
    bench.still(0)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(first(&faults)?, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.quiet()?;
    bench.close()
}

/// Pages of one job come as one group and have one answer.
fn group(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    for page in 1..=4 {
        bench.fill(page, 0x5a)?;
    }
    bench.start(0, &verify(4 * 4096, None))?;
    let faults = bench.faults(4)?;
    for page in 1..=4 {
        bench.map(&space, AT + (page - 1) * 4096, page, Read)?;
    }
    let cookie = first(&faults)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.quiet()?;
    bench.close()
}

/// What is refused fails, and the next attempt asks again.
fn invalid(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    for _ in 0..2 {
        bench.start(0, &verify(4096, None))?;
        let faults = bench.faults(1)?;
        bench.answer(&[(first(&faults)?, Code::INVALID)])?;
        bench.end(0)?;
    }
    bench.quiet()?;
    bench.close()
}

/// A write to a page that is there to be read asks for write access.
fn read_only(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.fill(1, 0x5a)?;
    bench.map(&space, AT, 1, Read)?;
    bench.start(0, &verify(4096, None))?;
    bench.end(0)?;
    bench.start(0, FILL)?;
    let faults = bench.faults(1)?;
    bench.look(1)?;
    bench.map(&space, AT, 1, Write)?;
    bench.answer(&[(first(&faults)?, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.look(1)?;
    bench.close()
}

/// Two groups are answered in the other order than they came in.
fn out_of_order(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, None))?;
    let early = first(&bench.faults(1)?)?;
    bench.start(
        1,
        &format!("fill {:#x} 4096 pattern=0xc3c3c3c3c3c3c3c3", AT + 0x10_0000),
    )?;
    let late = first(&bench.faults(1)?)?;
    bench.map(&space, AT + 0x10_0000, 2, Write)?;
    bench.answer(&[(late, Code::SUCCESS)])?;
    bench.end(1)?;
    bench.look(2)?;
    bench.still(0)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(early, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}

/// A device that is taken off its tables has its open groups answered by the kernel.
fn detach(bench: &mut Bench<'_, '_>, pasid: Option<u32>) -> Done {
    let [space, _other] = on(bench, pasid)?;
    bench.start(0, &verify(4096, pasid))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.detach(pasid)?;
    bench.end(0)?;
    bench.quiet()?;
    // The group is gone, and its number with it.
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    // Back on its tables, the device works as before.
    bench.fill(1, 0x5a)?;
    bench.attach(pasid, &space)?;
    bench.start(0, &verify(4096, pasid))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}

/// The same for a group that nobody has read yet: it cannot be read any more.
fn detach_unread(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.start(0, &verify(4096, None))?;
    bench.unread()?;
    bench.detach(None)?;
    bench.end(0)?;
    bench.quiet()?;
    bench.close()
}

/// Closing the device does not wait for anybody, and the queue outlives it.
fn close(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.start(0, &verify(4096, None))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.start(1, &format!("verify {:#x} 4096", AT + 0x10_0000))?;
    bench.unread()?;
    bench.close()?;
    bench.quiet()?;
    bench.answer(&[(cookie, Code::SUCCESS)])
}

/// New tables under an unanswered group: the kernel answers it, and the next job uses the new ones.
fn replace(bench: &mut Bench<'_, '_>, pasid: Option<u32>) -> Done {
    let [_space, _other] = on(bench, pasid)?;
    bench.start(0, &verify(4096, pasid))?;
    let cookie = first(&bench.faults(1)?)?;
    let new = bench.space()?;
    bench.fill(1, 0x5a)?;
    bench.map(&new, AT + 4096, 1, Read)?;
    bench.attach(pasid, &new)?;
    bench.end(0)?;
    bench.quiet()?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    let pasid = pasid.map_or(String::new(), |pasid| format!(" pasid={pasid}"));
    let next = AT + 4096;
    bench.start(
        0,
        &format!("verify {next:#x} 4096 pattern=0x5a5a5a5a5a5a5a5a{pasid}"),
    )?;
    bench.end(0)?;
    bench.close()
}

/// An entry that has changed is used once the kernel was told, and not before.
fn invalidate(bench: &mut Bench<'_, '_>, pasid: Option<u32>) -> Done {
    let [space, _other] = on(bench, pasid)?;
    bench.fill(1, 0x5a)?;
    bench.fill(2, 0xa5)?;
    bench.map(&space, AT, 1, Read)?;
    bench.start(0, &verify(4096, pasid))?;
    bench.end(0)?;
    // Another page in its place: every byte of it is a wrong one.
    bench.map(&space, AT, 2, Read)?;
    space.hwpt.invalidate(AT, 1)?;
    bench.say("invalidated")?;
    bench.start(0, &verify(4096, pasid))?;
    bench.end(0)?;
    // No page at all: it is asked for.
    space.stage1.unmap(AT)?;
    space.hwpt.invalidate(AT, 1)?;
    bench.say("unmapped and invalidated")?;
    bench.start(0, &verify(4096, pasid))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}

/// Calls that the kernel refuses take nothing away: the group can still be read and answered.
fn wrong_calls(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.try_read(RECORD)?;
    for page in [1, 2] {
        bench.fill(page, 0x5a)?;
    }
    bench.start(0, &verify(2 * 4096, None))?;
    bench.unread()?;
    // Part of a record; room for one of two.
    bench.try_read(RECORD - 1)?;
    bench.try_read(RECORD)?;
    let cookie = first(&bench.faults(2)?)?;
    // No such code, no such group.
    bench.answer(&[(cookie, Code(2))])?;
    bench.answer(&[(cookie + 1, Code::SUCCESS)])?;
    bench.map(&space, AT, 1, Read)?;
    bench.map(&space, AT + 4096, 2, Read)?;
    // One write with an answer that is taken, and one that is not.
    bench.answer(&[(cookie, Code::SUCCESS), (cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}
