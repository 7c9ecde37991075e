//! Tables with a fault queue, and what comes out of it.

use super::bench::{Bench, STAGE1, number};
use crate::reply::{Context as _, Done, Failure, Reply};
use iopf::{Access, Iova, Pasid, Response};
use iopf_host::selftest::Tables;
use iopf_host::{Device as _, FaultFd, FaultQueue, FaultQueueObject, Hwpt, HwptFlags, VtdRange};

/// Says every group that waits, and gives its cookie; the device by whether it is the bench's.
fn groups(bench: &mut Bench<'_, '_>, queue: &mut FaultQueue<FaultFd>) -> Result<Vec<u32>, Failure> {
    let mut cookies = Vec::new();
    let failed = |error: iopf_host::ReadError| Failure::new(error.to_string());
    while let iopf_host::queue::Read::Pages(_) = queue.read(64).map_err(failed)? {
        while let Some(group) = queue.next_group() {
            let group = group.map_err(|error| Failure::new(error.to_string()))?;
            let (ours, page) = (bench.device.id().0 == group.dev_id(), group.last([0; 2]));
            bench.out.line(format_args!(
                "group {} cookie={} {:?} at {:?} pasid={:?} ours={ours}",
                page.group.0,
                group.cookie(),
                page.access,
                page.addr,
                page.pasid
            ));
            cookies.push(group.cookie());
        }
    }
    if cookies.is_empty() {
        bench.out.line("no group");
    }
    Ok(cookies)
}

/// A device and its PASIDs on tables of their own, one queue for all.
pub(super) fn tables(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let id = bench.device.id();
    let (object, file) = FaultQueueObject::new(&bench.iommufd)?;
    let mut queue = FaultQueue::new(file);
    let dirty = Hwpt::paging(&bench.ioas, id, HwptFlags::DIRTY_TRACKING, None);
    bench.refused("tables that note what was written", dirty);
    let plain = Hwpt::paging(&bench.ioas, id, HwptFlags::empty(), Some(&object))?;
    let flags = HwptFlags::PASID;
    let nested = Hwpt::nested(&bench.viommu, id, flags, &STAGE1, Some(&object))?;
    let both = Hwpt::paging(&bench.ioas, id, flags, Some(&object))?;
    let range = VtdRange {
        addr: Iova(0),
        pages: u64::MAX,
        leaf_only: false,
    };
    match nested.invalidate_vtd(&[range, range]) {
        Ok(()) => bench.out.line("invalidated"),
        Err(error) => bench.out.line(format_args!(
            "VT-d invalidation of other tables: {} after {}",
            number(error.refused.errno),
            error.done
        )),
    }
    let seven = Pasid::truncate(7);
    let read = u32::from(Access::READ.bits());
    bench.device.replace(Tables::Hwpt(&plain))?;
    bench
        .device
        .trigger_page_request(None, 3, read, Iova(0x1000))?;
    let cookies = groups(&mut bench, &mut queue)?;
    let came = bench.device.attach_pasid(seven, Tables::Hwpt(&both));
    bench.refused("PASID of a device on tables without", came);
    let came = bench.device.replace(Tables::Hwpt(&nested));
    bench.refused("replace", came);
    for cookie in cookies {
        queue.answer(cookie, Response::Success);
    }
    queue
        .flush()
        .map_err(|error| Failure::new(error.to_string()))
        .context("answering")?;
    let counts = queue.counts();
    bench.out.line(format_args!(
        "{} answered, {} too late",
        counts.answered, counts.stale
    ));

    bench.device.attach_pasid(seven, Tables::Hwpt(&both))?;
    let write = u32::from(Access::WRITE.bits());
    bench
        .device
        .trigger_page_request(Some(seven), 4, write, Iova(0x2000))?;
    groups(&mut bench, &mut queue)?;
    // The group is the kernel's to answer now. What comes afterwards goes to the device's own tables:
    // those of the mock's driver are the guest's, PASIDs and all, where they are nested.
    bench.device.detach_pasid(seven)?;
    bench
        .device
        .trigger_page_request(Some(seven), 5, write, Iova(0x3000))?;
    groups(&mut bench, &mut queue)?;
    // A number that the mock refuses every other time: what was attached stays so.
    let odd = Pasid::truncate(1024);
    let came = bench.device.attach_pasid(odd, Tables::Hwpt(&both));
    bench.refused("PASID 1024", came);
    let came = bench.device.attach_pasid(odd, Tables::Hwpt(&nested));
    bench.refused("PASID 1024 to other tables", came);
    drop((plain, nested, both));
    bench.out.line(format_args!(
        "{} left behind while attached",
        bench.iommufd.left_behind()
    ));
    Ok(())
}
