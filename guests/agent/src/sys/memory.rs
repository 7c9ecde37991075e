//! Memory of this process that a device works on too.
#![expect(
    unsafe_code,
    reason = "mappings that a device reads and writes are reached by volatile accesses"
)]

use crate::reply::{Done, Failure};
use rustix::mm::{Advice, MapFlags, MprotectFlags, MremapFlags, ProtFlags};
use std::ffi::c_void;
use std::fs::File;
use std::ptr;

/// A mapping of whole pages. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    base: *mut c_void,
    len: usize,
}

/// Who sees what is written into a mapping of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The file, and everyone who maps it.
    Shared,
    /// This process; the file stays as it is.
    Private,
}

impl Memory {
    /// `len` bytes of nothing yet: each page comes when it is touched.
    pub(crate) fn anonymous(len: usize) -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; all accesses are volatile.
        let base =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, rights, MapFlags::PRIVATE) }?;
        Ok(Self { base, len })
    }

    /// `len` bytes of nothing yet, shared with the processes that are forked from this one.
    pub(crate) fn shared(len: usize) -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: as above.
        let base =
            unsafe { rustix::mm::mmap_anonymous(ptr::null_mut(), len, rights, MapFlags::SHARED) }?;
        Ok(Self { base, len })
    }

    /// `len` bytes that lie on a multiple of their own size, a power of two.
    pub(crate) fn aligned(len: usize) -> Result<Self, Failure> {
        let twice = Self::anonymous(2 * len)?;
        let skip = twice.base.addr().wrapping_neg() & (len - 1);
        // SAFETY: inside the mapping, which is twice as long.
        let base = unsafe { twice.base.byte_add(skip) };
        // SAFETY: these two parts of the mapping are ours and never used.
        unsafe {
            if skip != 0 {
                rustix::mm::munmap(twice.base, skip)?;
            }
            if skip != len {
                rustix::mm::munmap(base.byte_add(len), len - skip)?;
            }
        }
        std::mem::forget(twice);
        Ok(Self { base, len })
    }

    /// The first `len` bytes of a file.
    pub(crate) fn of_file(file: &File, len: usize, sharing: Sharing) -> Result<Self, Failure> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = match sharing {
            Sharing::Shared => MapFlags::SHARED,
            Sharing::Private => MapFlags::PRIVATE,
        };
        // SAFETY: as above.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, rights, flags, file, 0) }?;
        Ok(Self { base, len })
    }

    /// Its address.
    pub(crate) fn address(&self) -> u64 {
        self.base.addr() as u64
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of byte `offset`, which is inside.
    fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.len, "{offset:#x} of {:#x}", self.len);
        // SAFETY: just checked to be inside the mapping.
        unsafe { self.base.cast::<u8>().byte_add(offset) }
    }

    /// One byte.
    pub(crate) fn byte(&self, offset: usize) -> u8 {
        // SAFETY: inside the mapping; a page without rights ends the process, as it should.
        unsafe { self.at(offset).read_volatile() }
    }

    /// Stores one byte.
    pub(crate) fn set(&self, offset: usize, value: u8) {
        // SAFETY: as above.
        unsafe { self.at(offset).write_volatile(value) }
    }

    /// Bytes from `offset` on.
    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        (offset..offset + len).map(|at| self.byte(at)).collect()
    }

    /// Stores bytes from `offset` on.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) {
        for (at, byte) in (offset..).zip(bytes) {
            self.set(at, *byte);
        }
    }

    /// The address of the 8 bytes at `offset`, a multiple of 8.
    fn word_at(&self, offset: usize) -> *mut u64 {
        assert!(offset.is_multiple_of(8), "{offset:#x}");
        self.at(offset).cast()
    }

    /// Eight bytes.
    pub(crate) fn word(&self, offset: usize) -> u64 {
        // SAFETY: inside, since mappings are whole pages, and aligned.
        unsafe { self.word_at(offset).read_volatile() }
    }

    /// Stores one value again and again, over whole words.
    pub(crate) fn set_words(&self, offset: usize, len: usize, value: u64) {
        for at in (offset..offset + len).step_by(8) {
            // SAFETY: as in `word`.
            unsafe { self.word_at(at).write_volatile(value) }
        }
    }

    /// Whole pages of the mapping.
    fn part(&self, offset: usize, len: usize) -> *mut c_void {
        assert!(len > 0 && len <= self.len - offset, "{len:#x}");
        self.at(offset).cast()
    }

    /// The same as `advise` for whole pages of it.
    pub(crate) fn advise_part(&self, offset: usize, len: usize, advice: Advice) -> Done {
        let part = self.part(offset, len);
        // SAFETY: as in `advise`.
        Ok(unsafe { rustix::mm::madvise(part, len, advice) }?)
    }

    /// Asks for huge pages in place of the small ones that are there.
    pub(crate) fn collapse(&self) -> Done {
        // SAFETY: the whole mapping is ours; what is in it stays.
        match unsafe { libc::madvise(self.base, self.len, libc::MADV_COLLAPSE) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().into()),
        }
    }

    /// Moves the pages to another address. Here are untouched ones in the end; meanwhile, nothing is.
    pub(crate) fn depart(&self) -> Result<Self, Failure> {
        let away = Self::anonymous(self.len)?;
        let flags = MremapFlags::MAYMOVE;
        // SAFETY: the pages go to a place that is ours, and no reference into either exists.
        unsafe { rustix::mm::mremap_fixed(self.base, self.len, self.len, flags, away.base) }?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: nothing is replaced: a mapping that came here meanwhile is an error.
        unsafe { rustix::mm::mmap_anonymous(self.base, self.len, rights, flags) }?;
        Ok(away)
    }

    /// Tells the kernel how the mapping will be used, or that its pages can go.
    pub(crate) fn advise(&self, advice: Advice) -> Done {
        // SAFETY: the whole mapping is ours. `LinuxDontNeed` empties it, and no reference into it
        // exists: accesses are by value.
        Ok(unsafe { rustix::mm::madvise(self.base, self.len, advice) }?)
    }

    /// Changes what may be done to the mapping.
    pub(crate) fn protect(&self, rights: MprotectFlags) -> Done {
        // SAFETY: the whole mapping is ours.
        Ok(unsafe { rustix::mm::mprotect(self.base, self.len, rights) }?)
    }

    /// Puts new memory in the place of the old.
    pub(crate) fn replace(&self) -> Done {
        self.renew(ProtFlags::READ | ProtFlags::WRITE)
    }

    /// Puts memory without any rights in the place of the old.
    pub(crate) fn close(&self) -> Done {
        self.renew(ProtFlags::empty())
    }

    fn renew(&self, rights: ProtFlags) -> Done {
        let flags = MapFlags::PRIVATE | MapFlags::FIXED;
        // SAFETY: the whole mapping is ours, and the new one takes exactly its place; no reference
        // into it exists.
        unsafe { rustix::mm::mmap_anonymous(self.base, self.len, rights, flags) }?;
        Ok(())
    }

    /// Gives the mapping back; what is left is its address.
    pub(crate) fn unmap(self) -> u64 {
        self.address()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: mapped above; no pointer into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.base, self.len) };
    }
}

/// Runs `child` in a process that is a copy of this one; gives that process's exit status, or 255
/// where it did not exit. This process must have one thread.
pub(crate) fn forked(child: impl FnOnce() -> u8) -> Result<Forked, Failure> {
    // SAFETY: there is one thread, so that the copy has every lock in a usable state.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        0 => std::process::exit(i32::from(child())),
        pid => Ok(Forked(pid)),
    }
}

/// Starts a copy of this process that ends at once, and waits for that. There may be other threads.
pub(crate) fn fork_and_end() -> Done {
    // SAFETY: the copy does nothing but end, which takes no lock.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error().into()),
        // SAFETY: as said.
        0 => unsafe { libc::_exit(0) },
        pid => Forked(pid).wait().map(|_| ()),
    }
}

/// A copy of this process.
#[derive(Debug)]
pub(crate) struct Forked(i32);

impl Forked {
    /// Waits for its end; gives its exit status, or 255 where it did not exit.
    pub(crate) fn wait(self) -> Result<u8, Failure> {
        let pid = rustix::process::Pid::from_raw(self.0);
        let ended = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty())?;
        let status = ended.and_then(|(_, status)| status.exit_status());
        Ok(status
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(255))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_until_it_is_written_and_again_when_it_was_given_up() {
        let memory = Memory::anonymous(8192).unwrap();
        assert_eq!(memory.read(4090, 12), [0; 12]);
        memory.write(4094, &[1, 2, 3]);
        assert_eq!(memory.read(4093, 5), [0, 1, 2, 3, 0]);
        memory.advise(Advice::LinuxDontNeed).unwrap();
        assert_eq!(memory.read(4093, 5), [0; 5]);
    }

    #[test]
    fn pages_that_move_leave_zeros_behind_and_so_does_a_new_mapping() {
        let memory = Memory::anonymous(8192).unwrap();
        memory.set_words(4096, 4096, 0x1122);
        let moved = memory.depart().unwrap();
        assert_ne!(moved.address(), memory.address());
        assert_eq!((moved.word(4088), moved.word(4096)), (0, 0x1122));
        assert_eq!(memory.word(4096), 0);
        memory.set_words(0, 8192, 7);
        memory.replace().unwrap();
        assert_eq!((memory.word(0), memory.word(8184)), (0, 0));
        memory.set_words(0, 8192, 7);
        memory
            .advise_part(4096, 4096, Advice::LinuxDontNeed)
            .unwrap();
        assert_eq!((memory.word(4088), memory.word(4096)), (7, 0));
    }

    #[test]
    fn aligned_memory_lies_on_its_own_size() {
        let memory = Memory::aligned(2 << 20).unwrap();
        assert!(memory.address().is_multiple_of(2 << 20));
        memory.set((2 << 20) - 1, 7);
        assert_eq!(memory.byte((2 << 20) - 1), 7);
    }

    #[test]
    fn a_private_mapping_leaves_the_file_alone_and_a_shared_one_does_not() {
        let name = std::env::temp_dir().join(format!("iopf-memory-{}", std::process::id()));
        std::fs::write(&name, [5; 4096]).unwrap();
        let file = File::options().read(true).write(true).open(&name).unwrap();
        let private = Memory::of_file(&file, 4096, Sharing::Private).unwrap();
        private.set(0, 6);
        assert_eq!(std::fs::read(&name).unwrap(), [5; 4096]);
        let shared = Memory::of_file(&file, 4096, Sharing::Shared).unwrap();
        shared.set(0, 7);
        assert_eq!(std::fs::read(&name).unwrap()[..2], [7, 5]);
        std::fs::remove_file(&name).unwrap();
    }
}
