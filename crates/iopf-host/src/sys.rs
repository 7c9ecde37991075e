//! The one file of this crate where the compiler is told what it cannot check: argument blocks of
//! iommufd and vfio, descriptors that the kernel makes, and mappings; and page faults of this process.
//!
//! Source: Linux `include/uapi/linux/iommufd.h` and `vfio.h`; layouts from the crates of bindings,
//! which check them against the headers when they are built. Further down, of
//! `include/uapi/linux/userfaultfd.h`.
#![expect(
    unsafe_code,
    reason = "argument blocks and mappings cross the kernel boundary here"
)]

use crate::iommufd::Hold;
use crate::request::{Refused, Request};
use iommufd_bindings as iommu;
use linux_raw_sys::general as uapi;
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, NoArg, Opcode, Updater, opcode as encoded};
use rustix::mm::{Advice, MapFlags, ProtFlags, UserfaultfdFlags};
use std::ffi::c_void;
use std::ops::Range;
use std::os::fd::{AsFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use thiserror::Error;
use vfio_bindings::bindings::vfio;
use vm_memory::MmapRegion;

#[cfg(test)]
mod tests;

/// Ties an argument block to the one request that takes it.
///
/// # Safety
/// The implementor is the `repr(C)` block that the kernel defines for `REQUEST`; `size` is its first
/// word, and bounds what the kernel writes to it. Where the block holds an address, the kernel reads
/// there at most.
pub(crate) unsafe trait Block {
    /// The request.
    const REQUEST: Request;

    /// The word that says how long the block is.
    fn size(&mut self) -> &mut u32;
}

/// A block that names data elsewhere, for the kernel to read.
pub(crate) trait Data: Block {
    /// Puts address and length, in bytes, into it.
    fn name(&mut self, address: u64, len: u32);
}

macro_rules! blocks {
    ($($block:ty, $size:ident, $request:ident;)*) => {$(
        // SAFETY: the row names a block, its first word, and the request to which the header gives
        // it. Of these, no block has an address that the kernel writes to.
        unsafe impl Block for $block {
            const REQUEST: Request = Request::$request;

            fn size(&mut self) -> &mut u32 {
                &mut self.$size
            }
        }
    )*};
}

blocks! {
    iommu::iommu_destroy, size, Destroy;
    iommu::iommu_ioas_alloc, size, IoasAlloc;
    iommu::iommu_ioas_map_file, size, IoasMapFile;
    iommu::iommu_ioas_unmap, size, IoasUnmap;
    iommu::iommu_hwpt_alloc, size, HwptAlloc;
    iommu::iommu_hwpt_invalidate, size, HwptInvalidate;
    iommu::iommu_vdevice_alloc, size, VdeviceAlloc;
    vfio::vfio_region_info, argsz, GetRegionInfo;
    vfio::vfio_device_bind_iommufd, argsz, BindIommufd;
    vfio::vfio_device_attach_iommufd_pt, argsz, AttachIommufdPt;
    vfio::vfio_device_detach_iommufd_pt, argsz, DetachIommufdPt;
}

impl Data for iommu::iommu_hwpt_alloc {
    fn name(&mut self, address: u64, len: u32) {
        (self.data_uptr, self.data_len) = (address, len);
    }
}

impl Data for iommu::iommu_hwpt_invalidate {
    fn name(&mut self, address: u64, _: u32) {
        // Its length is that of an entry, times their number.
        self.data_uptr = address;
    }
}

/// The whole number of a request: neither interface encodes size or direction.
const fn opcode(request: Request) -> Opcode {
    ((vfio::VFIO_TYPE as u32) << 8 | request.number()) as Opcode
}

/// Where memory lies that a block names. The kernel reaches it through this number alone, so that the
/// compiler is told that somebody may.
fn address<T>(of: *const T) -> u64 {
    of.expose_provenance() as u64
}

/// One request with its block.
struct Call<'a, B> {
    request: Request,
    block: &'a mut B,
}

// SAFETY: whoever makes a `Call` pairs the block with its request and has set its size; the pointer
// comes from a live exclusive borrow.
unsafe impl<B> Ioctl for Call<'_, B> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        opcode(self.request)
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
///
/// # Safety
/// The block is that of `request`, its size is set, and memory that it names for the kernel to write
/// to is exclusively ours and as long as it says.
unsafe fn make<B>(on: impl AsFd, request: Request, block: &mut B) -> Result<(), Refused> {
    // SAFETY: by contract.
    let came = unsafe { rustix::ioctl::ioctl(on, Call { request, block }) };
    came.map_err(|errno| Refused { request, errno })
}

/// Makes one request.
pub(crate) fn call<B: Block>(on: impl AsFd, block: &mut B) -> Result<(), Refused> {
    *block.size() = bytes_of::<B>();
    // SAFETY: `Block` pairs the block with its request, and lets the kernel write to it alone.
    unsafe { make(on, B::REQUEST, block) }
}

/// Makes one request with data, which the kernel reads.
pub(crate) fn call_with<B: Data>(on: impl AsFd, block: &mut B, data: &[u8]) -> Result<(), Refused> {
    if !data.is_empty() {
        let len = u32::try_from(data.len()).map_err(|_| Refused {
            request: B::REQUEST,
            errno: Errno::INVAL,
        })?;
        block.name(address(data.as_ptr()), len);
    }
    call(on, block)
}

/// Resets a function that vfio has opened.
pub(crate) fn reset(on: impl AsFd) -> Result<(), Refused> {
    const RESET: Opcode = opcode(Request::DeviceReset);
    // SAFETY: VFIO_DEVICE_RESET, which has no argument.
    let came = unsafe { rustix::ioctl::ioctl(on, NoArg::<RESET>::new()) };
    came.map_err(|errno| Refused {
        request: Request::DeviceReset,
        errno,
    })
}

/// What a block holds where the kernel is to put a descriptor. A file that is no iommufd but takes any
/// request, and answers nothing, has so made none: 0 would be one that somebody else owns.
const NO_DESCRIPTOR: u32 = u32::MAX;

/// A descriptor that the kernel has just made, in place of [`NO_DESCRIPTOR`].
fn descriptor(request: Request, number: u32) -> Result<OwnedFd, Refused> {
    let number = RawFd::try_from(number).map_err(|_| Refused {
        request,
        errno: Errno::BADF,
    })?;
    // SAFETY: the kernel has just made it for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Makes a fault queue: its number and its descriptor.
pub(crate) fn fault_queue(on: impl AsFd) -> Result<(u32, OwnedFd), Refused> {
    let request = Request::FaultQueueAlloc;
    let mut block = iommu::iommu_fault_alloc {
        size: bytes_of::<iommu::iommu_fault_alloc>(),
        out_fault_fd: NO_DESCRIPTOR,
        ..Default::default()
    };
    // SAFETY: the block belongs to this request and names no memory.
    unsafe { make(on, request, &mut block) }?;
    Ok((block.out_fault_id, descriptor(request, block.out_fault_fd)?))
}

/// Makes a queue of a virtual IOMMU's events: its number and its descriptor.
pub(crate) fn veventq(
    on: impl AsFd,
    mut block: iommu::iommu_veventq_alloc,
) -> Result<(u32, OwnedFd), Refused> {
    let request = Request::VeventqAlloc;
    block.size = bytes_of::<iommu::iommu_veventq_alloc>();
    block.out_veventq_fd = NO_DESCRIPTOR;
    // SAFETY: as above.
    unsafe { make(on, request, &mut block) }?;
    Ok((
        block.out_veventq_id,
        descriptor(request, block.out_veventq_fd)?,
    ))
}

/// Makes a virtual IOMMU: its number. The kernel may write to `data` too.
pub(crate) fn viommu(
    on: impl AsFd,
    mut block: iommu::iommu_viommu_alloc,
    data: &mut [u8],
) -> Result<u32, Refused> {
    let request = Request::ViommuAlloc;
    block.size = bytes_of::<iommu::iommu_viommu_alloc>();
    block.data_len = u32::try_from(data.len()).map_err(|_| Refused {
        request,
        errno: Errno::INVAL,
    })?;
    if !data.is_empty() {
        block.data_uptr = address(data.as_mut_ptr());
    }
    // SAFETY: the block belongs to this request; `data` is exclusively ours and as long as it says.
    unsafe { make(on, request, &mut block) }?;
    Ok(block.out_viommu_id)
}

/// Asks what the IOMMU of a device can do: the answer, `data_len` of which is what the kernel has,
/// and its type. `data` takes what fits, and zeros.
pub(crate) fn hw_info(
    on: impl AsFd,
    device: u32,
    data: &mut [u8],
) -> Result<(iommu::iommu_hw_info, u32), Refused> {
    let request = Request::GetHwInfo;
    let mut block = iommu::iommu_hw_info {
        size: bytes_of::<iommu::iommu_hw_info>(),
        dev_id: device,
        data_len: u32::try_from(data.len()).map_err(|_| Refused {
            request,
            errno: Errno::INVAL,
        })?,
        data_uptr: address(data.as_mut_ptr()),
        ..Default::default()
    };
    // SAFETY: the block belongs to this request; `data` is exclusively ours and as long as it says.
    unsafe { make(on, request, &mut block) }?;
    // SAFETY: both names of it are one word, and every pattern of bits is a number.
    let kind = unsafe { block.__bindgen_anon_1.out_data_type };
    Ok((block, kind))
}

/// Asks for the ranges of an I/O address space; gives the alignment. Where they do not fit,
/// `EMSGSIZE`, and then there is room.
pub(crate) fn iova_ranges(
    on: impl AsFd,
    ioas: u32,
    ranges: &mut Vec<iommu::iommu_iova_range>,
) -> Result<u64, Refused> {
    let request = Request::IoasIovaRanges;
    let mut block = iommu::iommu_ioas_iova_ranges {
        size: bytes_of::<iommu::iommu_ioas_iova_ranges>(),
        ioas_id: ioas,
        num_iovas: u32::try_from(ranges.len()).unwrap_or(u32::MAX),
        allowed_iovas: address(ranges.as_mut_ptr()),
        ..Default::default()
    };
    // SAFETY: the block belongs to this request; `ranges` is exclusively ours and has at least as
    // many elements as it says, of which every pattern of bits is one.
    let came = unsafe { make(on, request, &mut block) };
    if came.is_ok() || matches!(came, Err(no) if no.errno == Errno::MSGSIZE) {
        let count = usize::try_from(block.num_iovas).unwrap_or_default();
        ranges.resize(count, iommu::iommu_iova_range::default());
    }
    came.map(|()| block.out_iova_alignment)
}

/// Lets the devices of an I/O address space reach all of `memory`, from `iova` on, with rights as
/// `iommufd.h` has them. The caller keeps `memory` for as long as the mapping is there.
pub(crate) fn ioas_map(
    on: impl AsFd,
    ioas: u32,
    iova: u64,
    rights: u32,
    memory: &Arc<Mapping>,
    part: Range<u64>,
) -> Result<(), Refused> {
    let size = memory.len as u64;
    if part.start > part.end || part.end > size {
        return Err(Refused {
            request: Request::IoasMap,
            errno: Errno::INVAL,
        });
    }
    let mut block = iommu::iommu_ioas_map {
        size: bytes_of::<iommu::iommu_ioas_map>(),
        flags: rights | iommu::iommufd_ioas_map_flags_IOMMU_IOAS_MAP_FIXED_IOVA,
        ioas_id: ioas,
        user_va: memory.address() + part.start,
        length: part.end - part.start,
        iova,
        ..Default::default()
    };
    // SAFETY: the block belongs to this request. Devices may write to `memory` from now on, as
    // anybody may who shares a mapping. Page tables that are made later pin it by its address:
    // `Ioas`, the only caller, keeps it until it is unmapped or nothing can name the address space.
    unsafe { make(on, Request::IoasMap, &mut block) }
}

/// One operation of the kernel's self-test: `struct iommu_test_cmd` of
/// `drivers/iommu/iommufd/iommufd_test.h`, 72 bytes.
#[cfg(feature = "selftest")]
#[repr(C, align(8))]
#[derive(Debug)]
pub(crate) struct TestCommand {
    size: u32,
    operation: u32,
    id: u32,
    reserved: u32,
    /// The operation's own words; the kernel puts its answers here too.
    pub(crate) words: [u32; 12],
    last: u32,
    padding: u32,
}

#[cfg(feature = "selftest")]
const _: () = assert!(size_of::<TestCommand>() == 72);

#[cfg(feature = "selftest")]
impl TestCommand {
    /// Operations that take no address of this process.
    const SAFE: [u32; 7] = [10, 12, 15, 17, 18, 19, 20];

    /// An operation on the object `id`.
    ///
    /// # Panics
    /// For an operation that might take an address.
    pub(crate) fn new<const N: usize>(operation: u32, id: u32, words: [u32; N]) -> Self {
        assert!(Self::SAFE.contains(&operation), "operation {operation}");
        let mut all = [0; 12];
        all[..N].copy_from_slice(&words);
        Self {
            size: 0,
            operation,
            id,
            reserved: 0,
            words: all,
            last: 0,
            padding: 0,
        }
    }
}

// SAFETY: the layout is that of the header, its size is asserted above, and the operation is one
// whose words hold no address: `new` is the only way to make one, and the field is private.
#[cfg(feature = "selftest")]
unsafe impl Block for TestCommand {
    const REQUEST: Request = Request::TestCommand;

    fn size(&mut self) -> &mut u32 {
        &mut self.size
    }
}

/// A shared mapping of a file: of device registers, or of memory. Unmapped when dropped.
///
/// An access to what the file has no more (it was cut short, the device's memory space is off) is a
/// SIGBUS, as of any mapping.
///
/// The kernel keeps a file open that is mapped. A mapping of a device therefore keeps the device, as
/// other objects keep what they stand on.
#[derive(Debug)]
pub struct Mapping {
    base: *mut c_void,
    len: usize,
    // Dropped after `drop` below.
    of: Option<Hold>,
}

/// Bytes of one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Width {
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
    /// The width of this many bytes, or `None` where no access has as many.
    #[must_use]
    pub const fn of(bytes: u64) -> Option<Self> {
        match bytes {
            1 => Some(Self::One),
            2 => Some(Self::Two),
            4 => Some(Self::Four),
            8 => Some(Self::Eight),
            _ => None,
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
        }
    }
}

/// An access that is not inside a mapping, or not aligned to its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no {bytes} bytes at {offset:#x} of {len:#x}")]
pub struct Outside {
    /// Bytes of the access.
    pub bytes: usize,
    /// Where, in bytes.
    pub offset: usize,
    /// Bytes of the mapping.
    pub len: usize,
}

impl Mapping {
    /// Maps `len` bytes of `file` from `offset`, a multiple of the page size, to read and write.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn new(file: impl AsFd, offset: u64, len: usize) -> Result<Self, Errno> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else refers to it,
        // and all accesses below are volatile, so the other side may change it at any time.
        let base = unsafe {
            rustix::mm::mmap(ptr::null_mut(), len, rights, MapFlags::SHARED, file, offset)
        }?;
        Ok(Self {
            base,
            len,
            of: None,
        })
    }

    /// `len` bytes of memory of this process: zeros, not touched yet.
    ///
    /// # Errors
    /// As mmap(2).
    pub fn anonymous(len: usize) -> Result<Self, Errno> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as in `new`.
        let base =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, rights, MapFlags::PRIVATE) }?;
        Ok(Self {
            base,
            len,
            of: None,
        })
    }

    /// Keeps what is mapped for as long as it is.
    pub(crate) fn of(self, mapped: Hold) -> Self {
        let mut this = self;
        this.of = Some(mapped);
        this
    }

    /// Where it lies in this process.
    #[must_use]
    pub fn address(&self) -> u64 {
        address(self.base)
    }

    /// Its length in bytes, never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no mapping is empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Where an access may go: inside, and aligned to its width.
    fn at(&self, offset: usize, width: Width) -> Result<*mut c_void, Outside> {
        let end = offset.checked_add(width.bytes());
        if end.is_none_or(|end| end > self.len) || !offset.is_multiple_of(width.bytes()) {
            return Err(Outside {
                bytes: width.bytes(),
                offset,
                len: self.len,
            });
        }
        // SAFETY: just checked to be inside the mapping.
        Ok(unsafe { self.base.byte_add(offset) })
    }

    /// One load of exactly this width.
    ///
    /// # Errors
    /// Outside, or not aligned.
    pub fn read(&self, offset: usize, width: Width) -> Result<u64, Outside> {
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
    ///
    /// # Errors
    /// Outside, or not aligned.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a register takes the low bits"
    )]
    pub fn write(&self, offset: usize, width: Width, value: u64) -> Result<(), Outside> {
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
    ///
    /// # Errors
    /// Outside, or not aligned.
    pub fn read32(&self, offset: usize) -> Result<u32, Outside> {
        let value = self.read(offset, Width::Four)?;
        Ok(u32::try_from(value).unwrap_or(u32::MAX))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` or `anonymous`; no pointer into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base, self.len) };
    }
}

// SAFETY: the registers and the memory behind a mapping belong to no thread.
unsafe impl Send for Mapping {}
// SAFETY: all accesses are single volatile loads and stores by value of at most 8 aligned bytes, and
// no reference into the mapping exists. A device or another process may write at any time anyway,
// so that a value from here is never relied on to stay.
unsafe impl Sync for Mapping {}

/// Has tokio watch a descriptor for input.
///
/// # Panics
/// Outside of a tokio runtime with I/O enabled.
#[cfg(feature = "tokio")]
pub(crate) fn watch(descriptor: OwnedFd) -> std::io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    let interest = tokio::io::Interest::READABLE;
    // SAFETY: an owned descriptor is open, and stays the same until it is dropped; the watcher owns
    // it.
    let watched = unsafe { tokio::io::unix::AsyncFd::register_with_interest(descriptor, interest) };
    Ok(watched?)
}

// Page faults of this process: madvise(2), userfaultfd(2).
//
// Source: Linux `include/uapi/linux/userfaultfd.h`, `mm/userfaultfd.c`, `mm/madvise.c`
// (`madvise_populate`). The structures are those of the crate `linux-raw-sys`.

#[expect(clippy::cast_possible_truncation, reason = "0xaa")]
const UFFDIO: u8 = uapi::UFFDIO as u8;
const UFFDIO_API: Opcode = encoded::read_write::<uapi::uffdio_api>(UFFDIO, 0x3f);
const UFFDIO_REGISTER: Opcode = encoded::read_write::<uapi::uffdio_register>(UFFDIO, 0);
const UFFDIO_UNREGISTER: Opcode = encoded::read::<uapi::uffdio_range>(UFFDIO, 1);
const UFFDIO_WAKE: Opcode = encoded::read::<uapi::uffdio_range>(UFFDIO, 2);
const UFFDIO_COPY: Opcode = encoded::read_write::<uapi::uffdio_copy>(UFFDIO, 3);
const UFFDIO_POISON: Opcode = encoded::read_write::<uapi::uffdio_poison>(UFFDIO, 8);

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
        start: address(part(memory, offset, len)?),
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
///
/// `EINVAL` for memory of huge pages, as for what the kernel refuses; that is still registered, until
/// the descriptor is closed.
pub(crate) fn register(file: impl AsFd, memory: &MmapRegion) -> Result<(), Errno> {
    let mut block = uapi::uffdio_register {
        range: range(memory, 0, memory.size())?,
        mode: u64::from(uapi::UFFDIO_REGISTER_MODE_MISSING),
        ioctls: 0,
    };
    // SAFETY: the block is that of the request; the range is memory that is reached by volatile
    // accesses alone, which may take any time. When the mapping goes, so does the registration.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_REGISTER, _>::new(&mut block)) }?;
    // Huge pages of hugetlbfs, which `copy` cannot put in place, are all that has no zero page.
    match block.ioctls & 1 << uapi::_UFFDIO_ZEROPAGE {
        0 => Err(Errno::INVAL),
        _ => Ok(()),
    }
}

/// From now on, who touches a missing page of `memory` gets one of zeros; so do those who wait.
pub(crate) fn unregister(file: impl AsFd, memory: &MmapRegion) -> Result<(), Errno> {
    let mut block = range(memory, 0, memory.size())?;
    // SAFETY: the block is that of the request; pages that are missing become zeros, as they were
    // before `register`.
    unsafe { rustix::ioctl::ioctl(file, Updater::<UFFDIO_UNREGISTER, _>::new(&mut block)) }
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
        dst: address(part(memory, offset, page.len())?),
        src: address(page.as_ptr()),
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
