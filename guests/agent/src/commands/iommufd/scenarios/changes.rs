//! Tables that change under a device that has cached them.

use super::{AT, first, on, verify};
use crate::commands::iommufd::bench::Bench;
use crate::commands::iommufd::faults::Code;
use crate::commands::iommufd::tables::{PAGE, Rights::Read};
use crate::reply::Done;
use crate::sys::{Mapping, Width};
use iopf::{Iova, Pasid};
use iopf_host::Rights;
use std::sync::Arc;

/// An entry that has changed is used once the kernel was told, and not before: what the device has
/// kept serves until then.
pub(super) fn invalidate(bench: &mut Bench<'_, '_>, pasid: Option<Pasid>) -> Done {
    let [space, _other] = on(bench, pasid)?;
    bench.fill(1, 0x5a)?;
    bench.fill(2, 0xa5)?;
    bench.map(&space, AT, 1, Read)?;
    bench.start(0, &verify(4096, pasid))?;
    bench.end(0)?;
    // Another page in its place: every byte of it is a wrong one.
    bench.map(&space, AT, 2, Read)?;
    bench.start(0, &verify(4096, pasid))?;
    bench.end(0)?;
    bench.invalidate(&space, AT, 1)?;
    bench.start(0, &verify(4096, pasid))?;
    bench.end(0)?;
    // No page at all: it is asked for.
    bench.unmap(&space, AT)?;
    bench.invalidate(&space, 0, u64::MAX)?;
    bench.start(0, &verify(4096, pasid))?;
    let cookie = first(&bench.faults(1)?)?;
    bench.map(&space, AT, 1, Read)?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    // Neither of a part of a page, nor of everything from somewhere on.
    bench.invalidate(&space, AT + 1, 1)?;
    bench.invalidate(&space, AT, u64::MAX)?;
    bench.close()
}

/// Where stage 2 has a page that comes and goes.
const GUEST: Iova = Iova(0x1800_0000);

fn page(byte: u8) -> Result<Arc<Mapping>, crate::reply::Failure> {
    let page = Arc::new(Mapping::anonymous(4096)?);
    let word = u64::from_ne_bytes([byte; 8]);
    (0..512).try_for_each(|at| page.write(8 * at, Width::Eight, word))?;
    Ok(page)
}

/// What stage 2 has lost is forgotten without anybody's doing, and asked for though stage 1 has it.
pub(super) fn stage_2(bench: &mut Bench<'_, '_>, pasid: Option<Pasid>) -> Done {
    let [space, _other] = on(bench, pasid)?;
    let old = page(0x5a)?;
    bench.ioas.map(GUEST, &old, Rights::all())?;
    space.tables.map_to(AT, GUEST.0, Read)?;
    bench.start(0, &verify(4096, pasid))?;
    bench.end(0)?;
    bench.ioas.unmap(GUEST, PAGE)?;
    bench.say("stage 2 has it no more")?;
    bench.start(0, &verify(4096, pasid))?;
    let cookie = first(&bench.faults(1)?)?;
    // Another page in its place: every byte of it is a wrong one.
    let new = page(0xa5)?;
    bench.ioas.map(GUEST, &new, Rights::all())?;
    bench.answer(&[(cookie, Code::SUCCESS)])?;
    bench.end(0)?;
    bench.close()
}
