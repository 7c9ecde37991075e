//! Handles dropped in every order.

use super::bench::{NUMBER, STAGE1};
use crate::reply::{Done, Failure, Reply};
use iopf_host::selftest::{MockDevice, Tables};
use iopf_host::veventq::VeventqKind;
use iopf_host::{
    Device as _, FaultQueueObject, Hwpt, HwptFlags, Ioas, Iommufd, Vdevice, Veventq, Viommu,
    ViommuKind,
};
use std::any::Any;
use std::os::fd::AsFd as _;

/// A device on nested tables of a virtual IOMMU, with both kinds of queue: one handle of each kind.
fn all(iommufd: &Iommufd) -> Result<Vec<Box<dyn Any>>, Failure> {
    let ioas = Ioas::new(iommufd)?;
    let device = MockDevice::new(&ioas)?;
    let parent = Hwpt::paging(&ioas, device.id(), HwptFlags::NEST_PARENT, None)?;
    let viommu = Viommu::new(&parent, device.id(), ViommuKind::SELFTEST)?;
    let vdevice = Vdevice::new(&viommu, &device, NUMBER)?;
    let events = Veventq::new(&viommu, VeventqKind::SELFTEST, 4)?;
    let (faults, file) = FaultQueueObject::new(iommufd)?;
    let flags = HwptFlags::empty();
    let nested = Hwpt::nested(&viommu, device.id(), flags, &STAGE1, Some(&faults))?;
    device.replace(Tables::Hwpt(&nested))?;
    // Something waits in each queue.
    device.trigger_event()?;
    device.trigger_page_request(None, 1, 1, iopf::Iova(0x1000))?;
    Ok(vec![
        Box::new(ioas),
        Box::new(device),
        Box::new(parent),
        Box::new(viommu),
        Box::new(vdevice),
        Box::new(events),
        Box::new(faults),
        Box::new(file),
        Box::new(nested),
    ])
}

/// The kernel destroys every object at the first try, whatever the order.
pub(super) fn drops(out: &mut Reply<'_>) -> Done {
    let seed = 0xd20b;
    let mut random = fastrand::Rng::with_seed(seed);
    let iommufd = Iommufd::open()?;
    let mut count = 0;
    let mut rounds = 0;
    for round in 0..400 {
        let mut handles = all(&iommufd)?;
        count = handles.len();
        match round {
            0 => {}
            1 => handles.reverse(),
            _ => random.shuffle(&mut handles),
        }
        // Of a vector, elements drop from the first to the last.
        drop(handles);
        rounds += 1;
    }
    let left = iommufd.left_behind();
    out.line(format_args!(
        "seed {seed:#x}: {rounds} orders of {count} handles, {left} objects left behind"
    ));
    Ok(())
}

/// That a refusal would be counted: somebody else has the fault descriptor too.
pub(super) fn left_behind(out: &mut Reply<'_>) -> Done {
    let iommufd = Iommufd::open()?;
    let (object, file) = FaultQueueObject::new(&iommufd)?;
    let other = rustix::io::dup(file.as_fd())?;
    drop((object, file));
    out.line(format_args!("{} left behind", iommufd.left_behind()));
    drop(other);
    Ok(())
}
