//! Page requests and their answers.

use super::{AT, FILL, first, on, verify};
use crate::commands::iommufd::bench::{Bench, PASID};
use crate::commands::iommufd::faults::{Code, RECORD};
use crate::commands::iommufd::tables::Rights::{Read, Write};
use crate::reply::Done;
use iopf::Pasid;

/// What is mapped is used, and nobody hears of it.
pub(super) fn present(bench: &mut Bench<'_, '_>) -> Done {
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

/// A page that is missing is asked for, mapped, and used.
pub(super) fn missing(bench: &mut Bench<'_, '_>, pasid: Option<Pasid>) -> Done {
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
pub(super) fn group(bench: &mut Bench<'_, '_>) -> Done {
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
pub(super) fn invalid(bench: &mut Bench<'_, '_>) -> Done {
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
pub(super) fn read_only(bench: &mut Bench<'_, '_>) -> Done {
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
pub(super) fn out_of_order(bench: &mut Bench<'_, '_>) -> Done {
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

/// Calls that the kernel refuses take nothing away: the group can still be read and answered.
pub(super) fn wrong_calls(bench: &mut Bench<'_, '_>) -> Done {
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

/// An answer is taken at its word, and the next look shows that nothing has changed: the page is asked
/// for anew.
pub(super) fn empty_success(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, None))?;
    for _ in 0..2 {
        let cookie = first(&bench.faults(1)?)?;
        bench.answer(&[(cookie, Code::SUCCESS)])?;
    }
    let cookie = first(&bench.faults(1)?)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}

/// One address in two spaces is two pages, each asked for by its own space.
pub(super) fn both_spaces(bench: &mut Bench<'_, '_>) -> Done {
    let [own, plain] = on(bench, Some(PASID))?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, None))?;
    let without = first(&bench.faults(1)?)?;
    bench.start(1, &verify(4096, Some(PASID)))?;
    let with = first(&bench.faults(1)?)?;
    bench.map(&own, AT, 1, Read)?;
    bench.answer(&[(without, Code::INVALID), (with, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.end(1)?;
    // Once more, now missing without a PASID only.
    bench.start(1, &verify(4096, Some(PASID)))?;
    bench.end(1)?;
    bench.start(0, &verify(4096, None))?;
    let without = first(&bench.faults(1)?)?;
    bench.map(&plain, AT, 1, Read)?;
    bench.answer(&[(without, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}

/// Tables without a fault queue: the kernel refuses by itself.
pub(super) fn no_queue(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space_without_queue()?;
    bench.attach(None, &space)?;
    bench.start(0, &verify(4096, None))?;
    bench.end(0)?;
    bench.quiet()?;
    bench.close()
}
