//! The argument blocks of iommufd and vfio, and the requests that take them.
//!
//! Source: Linux `include/uapi/linux/iommufd.h` and `vfio.h`; layouts from the crates of bindings.
#![expect(unsafe_code, reason = "argument blocks cross the kernel boundary here")]

use super::Mapping;
use crate::reply::{Done, Failure};
use iommufd_bindings as iommu;
use rustix::ioctl::{Ioctl, IoctlOutput, NoArg, Opcode};
use std::ffi::c_void;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use vfio_bindings::bindings::vfio;

/// Ties an argument block of iommufd or vfio to the one request that takes it.
///
/// # Safety
/// The implementor is the `repr(C)` block that the kernel defines for request `NUMBER`; `size` is
/// its first word, and bounds what the kernel writes. Where the block holds an address, the kernel
/// reads there at most.
pub(crate) unsafe trait Block {
    /// The request's number. Requests of both interfaces have the type `;` and encode neither size
    /// nor direction.
    const NUMBER: u32;

    /// The word that says how long the block is.
    fn size(&mut self) -> &mut u32;
}

macro_rules! blocks {
    ($($block:ty, $size:ident, $number:expr;)*) => {$(
        // SAFETY: the row names a block, its first word, and the number of the request that the
        // header gives to it; the crate of the bindings checks the layout when it is built.
        unsafe impl Block for $block {
            const NUMBER: u32 = $number;

            fn size(&mut self) -> &mut u32 {
                &mut self.$size
            }
        }
    )*};
}

blocks! {
    iommu::iommu_destroy, size, iommu::IOMMUFD_CMD_DESTROY;
    iommu::iommu_ioas_alloc, size, iommu::IOMMUFD_CMD_IOAS_ALLOC;
    iommu::iommu_ioas_unmap, size, iommu::IOMMUFD_CMD_IOAS_UNMAP;
    iommu::iommu_hwpt_alloc, size, iommu::IOMMUFD_CMD_HWPT_ALLOC;
    iommu::iommu_hwpt_invalidate, size, iommu::IOMMUFD_CMD_HWPT_INVALIDATE;
    vfio::vfio_region_info, argsz, vfio::VFIO_BASE + 8;
    vfio::vfio_device_bind_iommufd, argsz, vfio::VFIO_BASE + 18;
    vfio::vfio_device_attach_iommufd_pt, argsz, vfio::VFIO_BASE + 19;
    vfio::vfio_device_detach_iommufd_pt, argsz, vfio::VFIO_BASE + 20;
}

/// The whole number of a request.
const fn request(number: u32) -> Opcode {
    ((vfio::VFIO_TYPE as u32) << 8 | number) as Opcode
}

/// One request with its block.
struct Call<'a, B> {
    number: u32,
    block: &'a mut B,
}

// SAFETY: whoever makes a `Call` pairs the block with its request and has set its size; the pointer
// comes from a live exclusive borrow.
unsafe impl<B> Ioctl for Call<'_, B> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        request(self.number)
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_mut(self.block).cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

const fn bytes_of<B>() -> u32 {
    assert!(size_of::<B>() <= 4096);
    #[expect(clippy::cast_possible_truncation, reason = "just checked")]
    let bytes = size_of::<B>() as u32;
    bytes
}

/// Makes one request.
pub(crate) fn call<B: Block>(on: impl AsFd, block: &mut B) -> rustix::io::Result<()> {
    *block.size() = bytes_of::<B>();
    let number = B::NUMBER;
    // SAFETY: `Block` pairs the block with its request.
    unsafe { rustix::ioctl::ioctl(on, Call { number, block }) }
}

/// Resets a function that vfio has opened.
pub(crate) fn reset(on: impl AsFd) -> rustix::io::Result<()> {
    const RESET: Opcode = request(vfio::VFIO_BASE + 11);
    // SAFETY: VFIO_DEVICE_RESET, which has no argument.
    unsafe { rustix::ioctl::ioctl(on, NoArg::<RESET>::new()) }
}

/// The address of a value that a block points at.
pub(crate) fn address_of<T>(value: &T) -> u64 {
    ptr::from_ref(value).addr() as u64
}

/// Lets the devices of an I/O address space read and write all of `memory`, from `iova` on.
pub(crate) fn share(on: impl AsFd, ioas: u32, iova: u64, memory: &Mapping) -> Done {
    let mut block = iommu::iommu_ioas_map {
        size: bytes_of::<iommu::iommu_ioas_map>(),
        flags: iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
            | iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
            | iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
        ioas_id: ioas,
        user_va: memory.base.addr() as u64,
        length: memory.len as u64,
        iova,
        ..Default::default()
    };
    let call = Call {
        number: iommu::IOMMUFD_CMD_IOAS_MAP,
        block: &mut block,
    };
    // SAFETY: the block belongs to this request. Devices may write to `memory` from now on, to which
    // all our own accesses are volatile; its pages are pinned and outlive the mapping if need be.
    Ok(unsafe { rustix::ioctl::ioctl(on, call) }?)
}

/// The same for the devices of a type 1 container, with rights as `vfio.h` has them.
pub(crate) fn share_type1(on: impl AsFd, iova: u64, rights: u32, memory: &Mapping) -> Done {
    let mut block = vfio::vfio_iommu_type1_dma_map {
        argsz: bytes_of::<vfio::vfio_iommu_type1_dma_map>(),
        flags: rights,
        vaddr: memory.base.addr() as u64,
        iova,
        size: memory.len as u64,
    };
    let call = Call {
        number: vfio::VFIO_BASE + 13,
        block: &mut block,
    };
    // SAFETY: as in `share`.
    Ok(unsafe { rustix::ioctl::ioctl(on, call) }?)
}

/// Makes a fault queue: its object ID and its descriptor.
pub(crate) fn fault_queue(on: impl AsFd) -> Result<(u32, OwnedFd), Failure> {
    let mut block = iommu::iommu_fault_alloc {
        size: bytes_of::<iommu::iommu_fault_alloc>(),
        ..Default::default()
    };
    let call = Call {
        number: iommu::IOMMUFD_CMD_FAULT_QUEUE_ALLOC,
        block: &mut block,
    };
    // SAFETY: the block belongs to this request.
    unsafe { rustix::ioctl::ioctl(on, call) }?;
    let number = RawFd::try_from(block.out_fault_fd)
        .map_err(|_| Failure::new("the kernel gave no descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    Ok((block.out_fault_id, unsafe { OwnedFd::from_raw_fd(number) }))
}
