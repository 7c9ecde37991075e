//! Groups whose tables go before the answer comes.

use super::{AT, first, on, verify};
use crate::commands::iommufd::bench::{Bench, PASID, Space};
use crate::commands::iommufd::faults::Code;
use crate::commands::iommufd::tables::Rights::Read;
use crate::reply::Done;
use iopf::Pasid;

/// A device that is taken off its tables has its open groups answered by the kernel.
pub(super) fn detach(bench: &mut Bench<'_, '_>, pasid: Option<Pasid>) -> Done {
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
pub(super) fn detach_unread(bench: &mut Bench<'_, '_>) -> Done {
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
pub(super) fn close(bench: &mut Bench<'_, '_>) -> Done {
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
pub(super) fn replace(bench: &mut Bench<'_, '_>, pasid: Option<Pasid>) -> Done {
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

/// A PASID that goes takes its own groups along and no others.
pub(super) fn detach_beside(bench: &mut Bench<'_, '_>) -> Done {
    let [_own, plain] = on(bench, Some(PASID))?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, None))?;
    let without = first(&bench.faults(1)?)?;
    bench.start(1, &verify(4096, Some(PASID)))?;
    bench.faults(1)?;
    bench.detach(Some(PASID))?;
    bench.end(1)?;
    bench.still(0)?;
    bench.map(&plain, AT, 1, Read)?;
    bench.answer(&[(without, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}

/// Tables outlive their handle for as long as a device is on them, and no longer.
pub(super) fn handles(bench: &mut Bench<'_, '_>) -> Done {
    bench.describe()?;
    bench.reopen()?;
    let space = bench.space()?;
    bench.attach(None, &space)?;
    let Space { tables, hwpt } = space;
    drop(hwpt);
    bench.say("the handle is gone")?;
    bench.left_behind()?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, None))?;
    let cookie = first(&bench.faults(1)?)?;
    tables.map(AT, 1, Read)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.detach(None)?;
    bench.left_behind()?;
    // By being closed, too; it is not before the last of its registers is mapped no more.
    let registers = bench.registers()?;
    let space = bench.space()?;
    bench.attach(None, &space)?;
    drop(space);
    bench.close()?;
    bench.left_behind()?;
    drop(registers);
    bench.left_behind()
}

/// A reset takes the job; the group in the queue knows nothing of it, and its answer harms nobody.
pub(super) fn reset(bench: &mut Bench<'_, '_>) -> Done {
    let space = bench.space()?;
    bench.attach(None, &space)?;
    bench.fill(1, 0x5a)?;
    bench.start(0, &verify(4096, None))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.reset()?;
    bench.still(0)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.start(0, &verify(4096, None))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}
