//! The one file of this crate where the compiler is told what it cannot check.
#![expect(
    unsafe_code,
    reason = "page faults of this process cross the kernel boundary here"
)]

use rustix::io::Errno;
use std::ffi::c_void;
use std::os::fd::{AsFd, OwnedFd};

// Page faults of this process: madvise(2), userfaultfd(2).
//
// Source: Linux `include/uapi/linux/userfaultfd.h`, `mm/userfaultfd.c`, `mm/madvise.c`
// (`madvise_populate`). The structures are those of the crate `linux-raw-sys`.

use linux_raw_sys::general as uapi;
use rustix::ioctl::{Opcode, Updater, opcode};
use rustix::mm::{Advice, UserfaultfdFlags};
use vm_memory::MmapRegion;

#[expect(clippy::cast_possible_truncation, reason = "0xaa")]
const UFFDIO: u8 = uapi::UFFDIO as u8;
const UFFDIO_API: Opcode = opcode::read_write::<uapi::uffdio_api>(UFFDIO, 0x3f);
const UFFDIO_REGISTER: Opcode = opcode::read_write::<uapi::uffdio_register>(UFFDIO, 0);
const UFFDIO_WAKE: Opcode = opcode::read::<uapi::uffdio_range>(UFFDIO, 2);
const UFFDIO_COPY: Opcode = opcode::read_write::<uapi::uffdio_copy>(UFFDIO, 3);
const UFFDIO_POISON: Opcode = opcode::read_write::<uapi::uffdio_poison>(UFFDIO, 8);

/// Some bytes of a mapping: where they lie, if they are inside.
fn part(memory: &MmapRegion, offset: usize, len: usize) -> Result<*mut u8, Errno> {
    let end = offset.checked_add(len).ok_or(Errno::INVAL)?;
    if end > memory.size() {
        return Err(Errno::INVAL);
    }
    Ok(memory.as_ptr().wrapping_add(offset))
}

fn range(memory: &MmapRegion, offset: usize, len: usize) -> Result<uapi::uffdio_range, Errno> {
    Ok(uapi::uffdio_range {
        start: part(memory, offset, len)?.addr() as u64,
        len: len as u64,
    })
}

/// Makes pages of `memory` present, to be read, or with `write` to be written, as if they had been
/// touched; what a touch would end in a signal for is an error. Both in bytes, whole pages.
pub(crate) fn populate(
    memory: &MmapRegion,
    offset: usize,
    len: usize,
    write: bool,
) -> Result<(), Errno> {
    let advice = if write {
        Advice::LinuxPopulateWrite
    } else {
        Advice::LinuxPopulateRead
    };
    let at = part(memory, offset, len)?.cast::<c_void>();
    // SAFETY: inside a mapping that `memory` keeps; populating changes no byte of it.
    unsafe { rustix::mm::madvise(at, len, advice) }
}

/// What a user fault descriptor was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// Faults of the kernel on this process's behalf come out too, not only its own.
    pub(crate) kernel_faults: bool,
    /// `UFFDIO_POISON` (Linux 6.6).
    pub(crate) poison: bool,
}

/// Opens a user fault descriptor, which never waits.
pub(crate) fn userfault() -> Result<(OwnedFd, Abilities), Errno> {
    let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
    // SAFETY: it is given memory of ours alone, and only what that memory's owner asks for is done.
    let (file, kernel_faults) = match unsafe { rustix::mm::userfaultfd(flags) } {
        Ok(file) => (file, true),
        Err(Errno::PERM) => {
            let user = UserfaultfdFlags::from_bits_retain(uapi::UFFD_USER_MODE_ONLY);
            // SAFETY: as above.
            let file = unsafe { rustix::mm::userfaultfd(flags | user) }?;
            (file, false)
        }
        Err(errno) => return Err(errno),
    };
    // A feature that the kernel lacks is refused, and another descriptor is not needed: the request
    // may be made again, since it did not succeed.
    let poison = api(&file, u64::from(uapi::UFFD_FEATURE_POISON)).is_ok();
    if !poison {
        api(&file, 0)?;
    }
    let abilities = Abilities {
        kernel_faults,
        poison,
    };
    Ok((file, abilities))
}

fn api(file: &OwnedFd, features: u64) -> Result<(), Errno> {
    let mut block = uapi::uffdio_api {
        api: u64::from(uapi::UFFD_API),
        features,
        ioctls: 0,
    };
    // SAFETY: the block is that of the request, and names no memory.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_API, _>::new(&mut block)) }
}

/// From now on, whoever touches a missing page of `memory` waits, and the descriptor tells.
pub(crate) fn register(file: impl AsFd, memory: &MmapRegion) -> Result<(), Errno> {
    let mut block = uapi::uffdio_register {
        range: range(memory, 0, memory.size())?,
        mode: u64::from(uapi::UFFDIO_REGISTER_MODE_MISSING),
        ioctls: 0,
    };
    // SAFETY: the block is that of the request; the range is memory that is reached by volatile
    // accesses alone, which may take any time. When the mapping goes, so does the registration.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_REGISTER, _>::new(&mut block)) }
}

/// Puts `page` into the missing page at `offset`, all of it at once, and wakes who waits for it.
/// `EEXIST`: it is not missing.
pub(crate) fn copy(
    file: impl AsFd,
    memory: &MmapRegion,
    offset: usize,
    page: &[u8],
) -> Result<(), Errno> {
    let mut block = uapi::uffdio_copy {
        dst: part(memory, offset, page.len())?.addr() as u64,
        src: page.as_ptr().expose_provenance() as u64,
        len: page.len() as u64,
        mode: 0,
        copy: 0,
    };
    // SAFETY: the block is that of the request; the kernel reads `page`, and fills a page of
    // `memory` that nobody has seen yet.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_COPY, _>::new(&mut block)) }
}

/// Lets those who wait for a page look again.
pub(crate) fn wake(
    file: impl AsFd,
    memory: &MmapRegion,
    offset: usize,
    len: usize,
) -> Result<(), Errno> {
    let mut block = range(memory, offset, len)?;
    // SAFETY: the block is that of the request; no memory is changed.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_WAKE, _>::new(&mut block)) }
}

/// Whoever touches the missing page at `offset`, or waits for it, gets SIGBUS.
pub(crate) fn poison(
    file: impl AsFd,
    memory: &MmapRegion,
    offset: usize,
    len: usize,
) -> Result<(), Errno> {
    let mut block = uapi::uffdio_poison {
        range: range(memory, offset, len)?,
        mode: 0,
        updated: 0,
    };
    // SAFETY: the block is that of the request; only a page that nobody has seen is made unusable,
    // as its owner asks for.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_POISON, _>::new(&mut block)) }
}
