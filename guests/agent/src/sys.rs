//! What the compiler cannot check, here and in `sys/`: mappings, ioctls, raw terminals.
#![expect(
    unsafe_code,
    reason = "device registers are mapped and the kernel's argument blocks are passed here"
)]

mod blocks;
mod memory;

pub(crate) use blocks::{address_of, call, fault_queue, reset, share, share_type1};
pub(crate) use memory::{Forked, Memory, Sharing, fork_and_end, forked};

use crate::reply::{Context as _, Done, Failure};
use rustix::ioctl::{IntegerSetter, Opcode, Updater, ioctl, opcode};
use rustix::mm::{MapFlags, ProtFlags};
use rustix::termios::{ControlModes, OptionalActions};
use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

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

    /// Memory of this process: zeros, not touched yet.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as in `new`.
        let base =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, rights, MapFlags::PRIVATE) }?;
        Ok(Self { base, len })
    }

    /// Where it lies in this process.
    pub(crate) fn address(&self) -> u64 {
        self.base.addr() as u64
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

// SAFETY: the registers and the memory behind a mapping belong to no thread.
unsafe impl Send for Mapping {}

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
