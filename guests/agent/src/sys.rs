//! What the compiler cannot check, here and in `sys/`: memory, ioctls, raw terminals. Registers,
//! iommufd and vfio's character devices are the crate `iopf-host`'s.
#![expect(
    unsafe_code,
    reason = "the argument blocks of vfio's containers are passed here"
)]

pub(crate) mod iommufd;
mod memory;

pub(crate) use iopf_host::{Mapping, Width};
pub(crate) use memory::{Forked, Memory, Sharing, fork_and_end, forked};

use crate::reply::{Context as _, Done, Failure};
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};
use rustix::termios::{ControlModes, OptionalActions};
use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _};
use vfio_bindings::bindings::vfio::vfio_iommu_type1_dma_map;

/// Takes all editing off a terminal and lets it pass bytes as they are.
pub(crate) fn make_raw(terminal: &File) -> Done {
    let mut settings = rustix::termios::tcgetattr(terminal)?;
    settings.make_raw();
    settings.control_modes |= ControlModes::CLOCAL;
    let _ = settings.set_speed(115_200);
    rustix::termios::tcsetattr(terminal, OptionalActions::Now, &settings)?;
    Ok(())
}

/// Loads a module from its file.
pub(crate) fn load_module(file: &str, parameters: &str) -> Done {
    let module = File::open(file).context(file)?;
    let parameters = std::ffi::CString::new(parameters)
        .map_err(|_| Failure::usage("parameters hold a zero byte"))?;
    match rustix::system::finit_module(&module, &parameters, 0) {
        // Loaded before, by itself or as another's need.
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// VFIO requests, `_IO(';', 100 + n)` of Linux's `include/uapi/linux/vfio.h`.
const fn vfio(n: u8) -> Opcode {
    opcode::none(b';', 100 + n)
}

/// `VFIO_GROUP_SET_CONTAINER`.
pub(crate) fn set_container(group: &File, container: &File) -> Done {
    let mut descriptor = container.as_fd().as_raw_fd();
    // SAFETY: the request reads one `int`.
    let request = unsafe { Updater::<{ vfio(4) }, _>::new(&mut descriptor) };
    // SAFETY: as above; the block lives as long as the call.
    unsafe { ioctl(group, request) }?;
    Ok(())
}

/// `VFIO_SET_IOMMU`.
pub(crate) fn set_iommu(container: &File, kind: usize) -> Done {
    // SAFETY: the request takes a number and no block.
    unsafe {
        let request = IntegerSetter::<{ vfio(2) }>::new_usize(kind);
        ioctl(container, request)
    }?;
    Ok(())
}

/// Lets the devices of a type 1 container reach all of `memory`, from `iova` on, with rights as
/// `vfio.h` has them.
pub(crate) fn share_type1(on: &File, iova: u64, rights: u32, memory: &Mapping) -> Done {
    let mut block = vfio_iommu_type1_dma_map {
        argsz: u32::try_from(size_of::<vfio_iommu_type1_dma_map>()).unwrap_or_default(),
        flags: rights,
        vaddr: memory.address(),
        iova,
        size: memory.len() as u64,
    };
    // SAFETY: VFIO_IOMMU_MAP_DMA takes this block.
    let request = unsafe { Updater::<{ vfio(13) }, _>::new(&mut block) };
    // SAFETY: devices may write to `memory` from now on, to which all our own accesses are volatile;
    // its pages are pinned and outlive the mapping if need be.
    Ok(unsafe { ioctl(on, request) }?)
}
