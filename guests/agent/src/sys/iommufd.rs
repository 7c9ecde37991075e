//! iommufd as a program sees it that makes every mistake: calls by number, wrong sizes, buffers that
//! end too early. Whoever wants it right takes the crate `iopf-host`.
//!
//! Source: Linux `include/uapi/linux/iommufd.h`, `drivers/iommu/iommufd/iommufd_test.h`.
#![expect(
    unsafe_code,
    reason = "argument blocks and buffers that the kernel is to refuse are passed here"
)]

use crate::reply::Failure;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

/// What a call came to: its number, or the negative of an error number.
pub(crate) type Came = i64;

/// Numbers of the requests.
const DESTROY: u8 = 0x80;
const IOAS_ALLOC: u8 = 0x81;
const HWPT_ALLOC: u8 = 0x89;
const FAULT_QUEUE_ALLOC: u8 = 0x8e;
const VIOMMU_ALLOC: u8 = 0x90;
const VDEVICE_ALLOC: u8 = 0x91;
const TEST: u8 = 0xa0;

/// Bytes of `struct iommu_test_cmd`.
const TEST_SIZE: usize = 72;

/// Operations of the self-test that take no address.
const SAFE: [u32; 7] = [10, 12, 15, 17, 18, 19, 20];

/// `IOMMU_HWPT_DATA_SELFTEST`, and what it takes: `struct iommu_hwpt_selftest`.
const SELFTEST: u32 = 0xdead;
static SELFTEST_DATA: [u32; 2] = [0x0bad_beef, 0];

fn came(returned: impl Into<i64>) -> Came {
    let returned = returned.into();
    if returned >= 0 {
        return returned;
    }
    let error = std::io::Error::last_os_error().raw_os_error();
    -i64::from(error.unwrap_or(1))
}

/// One request with a block of words, whose first becomes its size in bytes.
///
/// # Safety
/// The block is the request's, and where it names memory, the kernel may do there what the request
/// does.
unsafe fn request(on: BorrowedFd<'_>, number: u8, block: &mut [u32]) -> Came {
    block[0] = u32::try_from(size_of_val(block)).unwrap_or_default();
    let request = libc::Ioctl::from(u16::from_be_bytes([b';', number]));
    // SAFETY: the kernel reads and writes the block within the size that it says, which is its own.
    came(unsafe { libc::ioctl(on.as_raw_fd(), request, block.as_mut_ptr()) })
}

/// Destroys an object.
pub(crate) fn destroy(on: BorrowedFd<'_>, id: u32) -> Came {
    // SAFETY: `struct iommu_destroy`, which names no memory.
    unsafe { request(on, DESTROY, &mut [0, id]) }
}

/// Makes an I/O address space; its ID.
pub(crate) fn ioas(on: BorrowedFd<'_>) -> Result<u32, Came> {
    let mut block = [0; 3];
    // SAFETY: `struct iommu_ioas_alloc`, which names no memory.
    match unsafe { request(on, IOAS_ALLOC, &mut block) } {
        0 => Ok(block[2]),
        error => Err(error),
    }
}

/// Makes page tables; their ID. `fault` is the ID of a fault queue; nested ones get the data of mock
/// devices.
pub(crate) fn hwpt(
    on: BorrowedFd<'_>,
    device: u32,
    base: u32,
    flags: u32,
    fault: Option<u32>,
    nested: bool,
) -> Result<u32, Came> {
    /// `IOMMU_HWPT_FAULT_ID_VALID`.
    const FAULT: u32 = 4;
    let mut block = [0; 12];
    (block[2], block[3]) = (device, base);
    block[1] = flags | fault.map_or(0, |_| FAULT);
    block[10] = fault.unwrap_or(0);
    if nested {
        block[6] = SELFTEST;
        block[7] = 8;
        [block[8], block[9]] = halves(ptr::from_ref(&SELFTEST_DATA).addr() as u64);
    }
    // SAFETY: `struct iommu_hwpt_alloc`; the kernel reads what it names, and that lives for good.
    match unsafe { request(on, HWPT_ALLOC, &mut block) } {
        0 => Ok(block[4]),
        error => Err(error),
    }
}

/// Makes a virtual IOMMU of the mock devices' kind; its ID.
pub(crate) fn viommu(on: BorrowedFd<'_>, device: u32, parent: u32) -> Result<u32, Came> {
    /// `IOMMU_VIOMMU_TYPE_SELFTEST`.
    const KIND: u32 = 0xdead_beef;
    let mut block = [0, 0, KIND, device, parent, 0, 0, 0, 0, 0];
    // SAFETY: `struct iommu_viommu_alloc`, with no data named.
    match unsafe { request(on, VIOMMU_ALLOC, &mut block) } {
        0 => Ok(block[5]),
        error => Err(error),
    }
}

/// Gives a device a number on a virtual IOMMU.
pub(crate) fn vdevice(on: BorrowedFd<'_>, viommu: u32, device: u32, number: u32) -> Came {
    let [low, high] = halves(number.into());
    let mut block = [0, viommu, device, 0, low, high];
    // SAFETY: `struct iommu_vdevice_alloc`, which names no memory.
    unsafe { request(on, VDEVICE_ALLOC, &mut block) }
}

/// A number as two words in memory.
pub(crate) fn halves(value: u64) -> [u32; 2] {
    let bytes = value.to_ne_bytes();
    [0, 4].map(|at| u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i])))
}

/// Makes a fault queue; its ID and descriptor.
pub(crate) fn fault(on: BorrowedFd<'_>) -> Result<(u32, OwnedFd), Came> {
    let mut block = [0; 4];
    // SAFETY: `struct iommu_fault_alloc`, which names no memory.
    match unsafe { request(on, FAULT_QUEUE_ALLOC, &mut block) } {
        0 => {
            let number = i32::try_from(block[3]).map_err(|_| Came::from(-libc::EBADF))?;
            // SAFETY: the kernel has just made it for us, and nobody else knows of it.
            Ok((block[2], unsafe { OwnedFd::from_raw_fd(number) }))
        }
        error => Err(error),
    }
}

/// Tries to make a fault queue with a block of these words behind the size, which the kernel must
/// refuse: a descriptor that came of it would be lost.
pub(crate) fn fault_wrong(on: BorrowedFd<'_>, words: &[u32]) -> Came {
    let mut block = vec![0];
    block.extend_from_slice(words);
    // SAFETY: as in `fault`.
    unsafe { request(on, FAULT_QUEUE_ALLOC, &mut block) }
}

/// What `call` comes to while this process may have no more descriptors than it has.
pub(crate) fn without_files<T>(call: impl FnOnce() -> T) -> Result<T, Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // New descriptors are below the limit; open ones may be above it.
    let none = Rlimit {
        current: Some(0),
        ..limit
    };
    setrlimit(Resource::Nofile, none)?;
    let came = call();
    setrlimit(Resource::Nofile, limit)?;
    Ok(came)
}

/// One operation of the kernel's self-test, on the object `id`; its words, with what the kernel put
/// there.
pub(crate) fn test<const N: usize>(
    on: BorrowedFd<'_>,
    operation: u32,
    id: u32,
    words: [u32; N],
) -> Result<[u32; 12], Came> {
    if !SAFE.contains(&operation) {
        return Err(-Came::from(libc::EPERM));
    }
    let mut block = [0; TEST_SIZE / 4];
    (block[1], block[2]) = (operation, id);
    block[4..4 + N].copy_from_slice(&words);
    // SAFETY: `struct iommu_test_cmd` with an operation that names no memory.
    let came = unsafe { request(on, TEST, &mut block) };
    if came < 0 {
        return Err(came);
    }
    Ok(std::array::from_fn(|word| block[4 + word]))
}

/// Memory that ends where none follows: accesses beyond it fail.
#[derive(Debug)]
pub(crate) struct Cliff {
    base: *mut c_void,
}

/// Bytes before the edge, and behind it: buffers reach no further.
const LAND: usize = 1 << 16;

impl Cliff {
    /// 64 KiB of zeros, and 64 KiB of nothing.
    pub(crate) fn new() -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap_anonymous(ptr::null_mut(), 2 * LAND, rights, MapFlags::PRIVATE)
        }?;
        let cliff = Self { base };
        // SAFETY: the second half of the mapping, which nobody refers to.
        unsafe { rustix::mm::mprotect(base.byte_add(LAND), LAND, MprotectFlags::empty()) }?;
        Ok(cliff)
    }

    /// A buffer of which `good` bytes lie before the edge; `None` where it is too long.
    fn buffer(&self, bytes: usize, good: usize) -> Option<*mut c_void> {
        let good = good.min(bytes);
        (bytes <= LAND).then(|| self.base.wrapping_byte_add(LAND - good))
    }

    /// read(2) of so many bytes into a buffer of which `good` can be written to; what came.
    pub(crate) fn read(&self, from: impl AsFd, bytes: usize, good: usize) -> (Came, Vec<u8>) {
        let Some(buffer) = self.buffer(bytes, good) else {
            return (-Came::from(libc::EINVAL), Vec::new());
        };
        let from = from.as_fd().as_raw_fd();
        // SAFETY: the buffer lies in the mapping, which is ours; the kernel does not write to what
        // may not be written to.
        let came = came(unsafe { libc::read(from, buffer, bytes) } as i64);
        let done = usize::try_from(came).unwrap_or(0).min(good);
        let mut read = vec![0; done];
        // SAFETY: so many bytes lie before the edge, and nothing else refers to them.
        unsafe {
            buffer
                .cast::<u8>()
                .copy_to_nonoverlapping(read.as_mut_ptr(), done)
        };
        (came, read)
    }

    /// write(2) of `bytes` bytes, of which those of `good` can be read.
    pub(crate) fn write(&self, to: impl AsFd, bytes: usize, good: &[u8]) -> Came {
        let Some(buffer) = self.buffer(bytes, good.len()) else {
            return -Came::from(libc::EINVAL);
        };
        let len = good.len().min(bytes);
        // SAFETY: so many bytes lie before the edge, and nothing else refers to them.
        unsafe {
            buffer
                .cast::<u8>()
                .copy_from_nonoverlapping(good.as_ptr(), len)
        };
        // SAFETY: the kernel does not read what may not be read.
        came(unsafe { libc::write(to.as_fd().as_raw_fd(), buffer, bytes) } as i64)
    }
}

impl Drop for Cliff {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no pointer into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base, 2 * LAND) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_ends_at_the_cliff() {
        let cliff = Cliff::new().unwrap();
        let (here, there) = std::io::pipe().unwrap();
        assert_eq!(cliff.write(&there, 4, b"abcd"), 4);
        assert_eq!(cliff.write(&there, 4, b""), -Came::from(libc::EFAULT));
        assert_eq!(cliff.read(&here, 4, 4), (4, b"abcd".to_vec()));
        assert_eq!(cliff.write(&there, 4, b"efgh"), 4);
        let (came, read) = cliff.read(&here, 4, 0);
        assert_eq!((came, read), (-Came::from(libc::EFAULT), Vec::new()));
    }

    #[test]
    fn what_is_no_iommufd_says_so() {
        let (here, _there) = std::io::pipe().unwrap();
        let no = -Came::from(libc::ENOTTY);
        assert_eq!(destroy(here.as_fd(), 1), no);
        assert_eq!(fault(here.as_fd()).unwrap_err(), no);
        assert_eq!(test(here.as_fd(), 1, 1, []), Err(-Came::from(libc::EPERM)));
        assert_eq!(test(here.as_fd(), 10, 1, [2]), Err(no));
    }
}
