//! The one file of the agent that the compiler cannot check: mappings, ioctls, raw terminals.
#![expect(
    unsafe_code,
    reason = "device registers are mapped and the kernel's argument blocks are passed here"
)]

use crate::reply::{Context as _, Done, Failure};
use iommufd_bindings as iommu;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::termios::{ControlModes, OptionalActions};
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use vfio_bindings::bindings::vfio;

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

/// A shared mapping of a file: of device registers, or of memory.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut c_void,
    len: usize,
}

/// Bytes of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    /// 8 bits.
    One,
    /// 16 bits.
    Two,
    /// 32 bits.
    Four,
    /// 64 bits.
    Eight,
}

impl Width {
    /// From the number of bytes.
    pub(crate) fn of(bytes: u64) -> Result<Self, Failure> {
        match bytes {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            4 => Ok(Self::Four),
            8 => Ok(Self::Eight),
            _ => Err(Failure::usage(format!("no access has {bytes} bytes"))),
        }
    }

    /// The number of bytes.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset`, a multiple of the page size, to read and write.
    pub(crate) fn new(file: impl AsFd, offset: u64, len: usize) -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it,
        // and all accesses below are volatile, so the other side may change it at any time.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, rights, MapFlags::SHARED, file, offset)
        }?;
        Ok(Self { base, len })
    }

    /// Memory of our own, zeroed, that a device may be let at.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as for `new`, without a file.
        let base =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, rights, MapFlags::SHARED) }?;
        Ok(Self { base, len })
    }

    /// Where an access may go: inside, and aligned to its width.
    fn at(&self, offset: usize, width: Width) -> Result<*mut c_void, Failure> {
        let end = offset.checked_add(width.bytes());
        if end.is_none_or(|end| end > self.len) || !offset.is_multiple_of(width.bytes()) {
            return Err(Failure::usage(format!(
                "no {} bytes at {offset:#x} of {:#x}",
                width.bytes(),
                self.len
            )));
        }
        // SAFETY: just checked to be inside the mapping.
        Ok(unsafe { self.base.byte_add(offset) })
    }

    /// One load of exactly this width.
    pub(crate) fn read(&self, offset: usize, width: Width) -> Result<u64, Failure> {
        let at = self.at(offset, width)?;
        // SAFETY: `at` is inside the mapping and aligned; every bit pattern is a number.
        Ok(unsafe {
            match width {
                Width::One => at.cast::<u8>().read_volatile().into(),
                Width::Two => at.cast::<u16>().read_volatile().into(),
                Width::Four => at.cast::<u32>().read_volatile().into(),
                Width::Eight => at.cast::<u64>().read_volatile(),
            }
        })
    }

    /// One store of exactly this width; higher bits of `value` are dropped.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a register takes the low bits"
    )]
    pub(crate) fn write(&self, offset: usize, width: Width, value: u64) -> Done {
        let at = self.at(offset, width)?;
        // SAFETY: `at` is inside the mapping and aligned.
        unsafe {
            match width {
                Width::One => at.cast::<u8>().write_volatile(value as u8),
                Width::Two => at.cast::<u16>().write_volatile(value as u16),
                Width::Four => at.cast::<u32>().write_volatile(value as u32),
                Width::Eight => at.cast::<u64>().write_volatile(value),
            }
        }
        Ok(())
    }

    /// A 32-bit register.
    pub(crate) fn read32(&self, offset: usize) -> Result<u32, Failure> {
        let value = self.read(offset, Width::Four)?;
        Ok(u32::try_from(value).unwrap_or(u32::MAX))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no pointer into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base, self.len) };
    }
}

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

// Linux include/uapi/linux/iommufd.h and vfio.h.
blocks! {
    iommu::iommu_destroy, size, iommu::IOMMUFD_CMD_DESTROY;
    iommu::iommu_ioas_alloc, size, iommu::IOMMUFD_CMD_IOAS_ALLOC;
    iommu::iommu_hwpt_alloc, size, iommu::IOMMUFD_CMD_HWPT_ALLOC;
    iommu::iommu_hwpt_invalidate, size, iommu::IOMMUFD_CMD_HWPT_INVALIDATE;
    vfio::vfio_region_info, argsz, vfio::VFIO_BASE + 8;
    vfio::vfio_device_bind_iommufd, argsz, vfio::VFIO_BASE + 18;
    vfio::vfio_device_attach_iommufd_pt, argsz, vfio::VFIO_BASE + 19;
    vfio::vfio_device_detach_iommufd_pt, argsz, vfio::VFIO_BASE + 20;
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
        Opcode::from(u32::from(vfio::VFIO_TYPE) << 8 | self.number)
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

/// The address of a value that a block points at.
pub(crate) fn address_of<T>(value: &T) -> u64 {
    ptr::from_ref(value).expose_provenance() as u64
}

/// Lets the devices of an I/O address space read and write all of `memory`, from `iova` on.
pub(crate) fn share(on: impl AsFd, ioas: u32, iova: u64, memory: &Mapping) -> Done {
    let mut block = iommu::iommu_ioas_map {
        size: bytes_of::<iommu::iommu_ioas_map>(),
        flags: iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA
            | iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_READABLE
            | iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_WRITEABLE,
        ioas_id: ioas,
        user_va: memory.base.expose_provenance() as u64,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_refuses_what_is_outside_or_unaligned() {
        let name = std::env::temp_dir().join(format!("iopf-guest-{}", std::process::id()));
        std::fs::write(&name, [0; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&name).unwrap();
        std::fs::remove_file(&name).unwrap();
        let mapping = Mapping::new(&file, 0, 4096).unwrap();
        mapping
            .write(8, Width::Eight, 0x1122_3344_5566_7788)
            .unwrap();
        assert_eq!(mapping.read32(12).unwrap(), 0x1122_3344);
        assert_eq!(mapping.read(8, Width::One).unwrap(), 0x88);
        for (offset, width) in [(4096, Width::One), (4092, Width::Eight), (2, Width::Four)] {
            assert!(mapping.read(offset, width).is_err(), "{offset:#x}");
        }
        assert!(mapping.read(usize::MAX, Width::Two).is_err());
    }
}
