//! The memory of one guest, as its clients map it: one map for all functions of the guest.
//!
//! Every function has a connection of its own, and each brings the same maps. What is published is
//! their union: a range stays until the last connection that mapped it unmaps it. While a guest's
//! memory layout changes, connections hear of it one after the other; where they disagree for that
//! moment, the newest map counts.

mod file;
mod layout;

use crate::codec::{Errno, MapAccess};
use crate::socket::ByMessage;
use file::Files;
use iopf::Gpa;
use layout::{Layout, Mapping, Reach};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use viommu_api::{BusError, PhysicalMemory};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};

/// What [`GuestMap::space`] gives: the map of any moment, to be used by any number of threads.
pub type Space = GuestMemoryAtomic<GuestMemoryMmap<()>>;

/// What a guest may map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapLimits {
    /// Bytes that one connection may have mapped at a time.
    pub max_bytes: u64,
    /// Different files that one guest may have mapped at a time; one descriptor is kept for each.
    pub max_files: usize,
    /// Maps files that their owner can take away under us. An access to what was cut off kills this
    /// process with SIGBUS, so this is for owners that are trusted. QEMU's `memory-backend-memfd`
    /// seals its memory against shrinking and needs no trust; `memory-backend-file` can't, and huge
    /// pages need trust even when they are sealed.
    pub trust_unsealed: bool,
}

impl Default for MapLimits {
    /// 1 TiB a connection, 64 files (a guest of QEMU has one to four), sealed memory only.
    fn default() -> Self {
        Self {
            max_bytes: 1 << 40,
            max_files: 64,
            trust_unsealed: false,
        }
    }
}

/// Why memory is not mapped or unmapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// The connection has mapped a part of it already.
    #[error("{size:#x} bytes at {address:#x}: the range at {other:#x} is in the way")]
    Exists {
        /// First address of the new range.
        address: u64,
        /// Bytes of the new range.
        size: u64,
        /// First address of the range that is there.
        other: u64,
    },
    /// Nothing of exactly this place and size is mapped.
    #[error("{size:#x} bytes at {address:#x} were never mapped as one range")]
    NotMapped {
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// The connection has as many ranges as it may have.
    #[error("more than {limit} ranges")]
    TooMany {
        /// The limit.
        limit: u32,
    },
    /// The connection has as much memory as it may have.
    #[error("more than {limit:#x} bytes in all")]
    TooMuch {
        /// The limit.
        limit: u64,
    },
    /// The guest has as many files as it may have.
    #[error("more than {limit} different files")]
    TooManyFiles {
        /// The limit.
        limit: usize,
    },
    /// The descriptor is not that of a file that can be mapped.
    #[error("the descriptor of {address:#x} is not a regular file")]
    NotAFile {
        /// First address.
        address: u64,
    },
    /// The file ends before the range does.
    #[error("the file behind {address:#x} has {len:#x} bytes, the range needs {need:#x}")]
    FileTooShort {
        /// First address.
        address: u64,
        /// Bytes of the file.
        len: u64,
        /// Bytes it would need.
        need: u64,
    },
    /// The owner could shrink the file under us.
    #[error(
        "the file behind {address:#x} can be shrunk by its owner, which would kill this process; \
         use sealed memory (QEMU: memory-backend-memfd)"
    )]
    Unsealed {
        /// First address.
        address: u64,
    },
    /// The owner could punch holes that can't be filled again.
    #[error(
        "the file behind {address:#x} is made of huge pages; where their owner punches a hole and \
         none is free, an access would kill this process"
    )]
    HugePages {
        /// First address.
        address: u64,
    },
    /// The kernel did not map the file.
    #[error("the kernel does not map {address:#x}: errno {errno}")]
    Refused {
        /// First address.
        address: u64,
        /// Its reason.
        errno: i32,
    },
}

impl MapError {
    /// The error number of the reply.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::Exists { .. } => Errno::EEXIST,
            Self::NotMapped { .. } => Errno::ENOENT,
            Self::TooMany { .. } | Self::TooManyFiles { .. } => Errno::ENOSPC,
            Self::TooMuch { .. } => Errno::ENOMEM,
            Self::NotAFile { .. } | Self::FileTooShort { .. } => Errno::EINVAL,
            Self::Unsealed { .. } | Self::HugePages { .. } => Errno::EPERM,
            Self::Refused { errno, .. } => u32::try_from(*errno).map_or(Errno::EINVAL, Errno),
        }
    }
}

/// One range, as a client names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) access: MapAccess,
    /// Where it begins in the file.
    pub(crate) offset: u64,
    pub(crate) address: u64,
    pub(crate) size: u64,
}

#[derive(Debug)]
struct Member {
    /// The process at the other end; 0 where the kernel does not say.
    process: u32,
    max_maps: u32,
    bytes: u64,
    link: Arc<dyn ByMessage>,
    maps: BTreeMap<u64, Mapping>,
}

#[derive(Debug, Default)]
struct State {
    members: BTreeMap<u64, Member>,
    files: Files,
    layout: Arc<Layout>,
    next_member: u64,
    /// Counts maps, so that the newest of two is known.
    clock: u64,
}

#[cfg(test)]
impl State {
    fn files_kept(&self) -> usize {
        self.files.len()
    }
}

/// The memory of one guest.
///
/// Maps may change at any moment. An access under way goes on with the map it began with, whose
/// memory stays mapped here until the last such access is over; so a DMA_UNMAP is answered while
/// one may still be under way.
///
/// Ranges that came without a descriptor are reached by messages, through
/// [`PhysicalMemory`] only, and never from a thread that serves a connection (it would wait for
/// itself): there they are no memory. The caller must not hold a lock that a register access takes.
#[derive(Debug)]
pub struct GuestMap {
    limits: MapLimits,
    state: Mutex<State>,
    left: Condvar,
    space: Space,
}

impl GuestMap {
    /// A guest without memory.
    #[must_use]
    pub fn new(limits: MapLimits) -> Self {
        Self {
            limits,
            state: Mutex::default(),
            left: Condvar::new(),
            space: Space::new(GuestMemoryMmap::new()),
        }
    }

    /// The ranges that came with a descriptor and may be read and written, in this process's memory.
    ///
    /// Ranges for reading only are not part of it, since a store there would kill this process.
    /// [`PhysicalMemory`] reaches them.
    #[must_use]
    pub fn space(&self) -> Space {
        self.space.clone()
    }

    /// Ranges that are reachable, by descriptor or by message; those that touch count as one.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.layout().segments().len()
    }

    /// Bytes that are reachable, by descriptor or by message.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.layout().segments().iter().map(|s| s.len).sum()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole wherever a thread could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn layout(&self) -> Arc<Layout> {
        Arc::clone(&self.lock().layout)
    }

    /// A connection of this guest. The connections of another process must have gone, within
    /// `patience`: two processes are two guests. `None` if they are still there.
    pub(crate) fn join(
        self: &Arc<Self>,
        link: Arc<dyn ByMessage>,
        process: u32,
        max_maps: u32,
        patience: Duration,
    ) -> Option<Membership> {
        let others = |state: &mut State| state.members.values().any(|m| m.process != process);
        let waited = self.left.wait_timeout_while(self.lock(), patience, others);
        let (mut state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() && others(&mut state) {
            return None;
        }
        let id = state.next_member;
        state.next_member += 1;
        state.members.insert(
            id,
            Member {
                process,
                max_maps,
                bytes: 0,
                link,
                maps: BTreeMap::new(),
            },
        );
        Some(Membership {
            guest: Arc::clone(self),
            id,
        })
    }

    /// Makes `state.layout` follow the maps, and publishes it.
    fn publish(&self, state: &mut State) -> Result<(), i32> {
        let maps = state
            .members
            .values()
            .flat_map(|member| member.maps.values().map(move |m| (m, &member.link)));
        let layout = Layout::of(maps, &state.layout)?;
        if let Some(memory) = layout.changed(&state.layout) {
            // Nobody panics while holding this lock.
            let guard = self.space.lock().unwrap_or_else(PoisonError::into_inner);
            guard.replace(memory);
        }
        state.layout = Arc::new(layout);
        Ok(())
    }
}

/// The place of one connection in a guest; leaving it takes its maps away.
#[derive(Debug)]
pub(crate) struct Membership {
    guest: Arc<GuestMap>,
    id: u64,
}

impl Membership {
    pub(crate) fn map(&self, range: &Range, file: Option<OwnedFd>) -> Result<(), MapError> {
        let (address, size) = (range.address, range.size);
        let mut guard = self.guest.lock();
        let state = &mut *guard;
        let Some(member) = state.members.get_mut(&self.id) else {
            return Err(MapError::NotMapped { address, size });
        };
        let before = member.maps.range(..address + size).next_back();
        if let Some((&other, mapping)) = before
            && other + mapping.len > address
        {
            return Err(MapError::Exists {
                address,
                size,
                other,
            });
        }
        if member.maps.len() as u64 >= u64::from(member.max_maps) {
            let limit = member.max_maps;
            return Err(MapError::TooMany { limit });
        }
        let limit = self.guest.limits.max_bytes;
        if size > limit.saturating_sub(member.bytes) {
            return Err(MapError::TooMuch { limit });
        }
        let limits = &self.guest.limits;
        let file = file
            .map(|file| state.files.admit(file, range, limits))
            .transpose()?;
        member.bytes += size;
        state.clock += 1;
        let mapping = Mapping {
            base: address,
            len: size,
            access: range.access,
            file: file.map(|file| (file, range.offset)),
            age: state.clock,
        };
        member.maps.insert(address, mapping);
        if let Err(errno) = self.guest.publish(state) {
            if let Some(member) = state.members.get_mut(&self.id) {
                member.maps.remove(&address);
                member.bytes -= size;
            }
            state.files.forget_unused();
            return Err(MapError::Refused { address, errno });
        }
        Ok(())
    }

    pub(crate) fn unmap(&self, address: u64, size: u64) -> Result<(), MapError> {
        let mut state = self.guest.lock();
        let member = state.members.get_mut(&self.id);
        let found = member.filter(|m| m.maps.get(&address).is_some_and(|m| m.len == size));
        let Some(member) = found else {
            return Err(MapError::NotMapped { address, size });
        };
        member.maps.remove(&address);
        member.bytes -= size;
        self.shrunk(&mut state);
        Ok(())
    }

    pub(crate) fn unmap_all(&self) {
        let mut state = self.guest.lock();
        if let Some(member) = state.members.get_mut(&self.id) {
            member.maps.clear();
            member.bytes = 0;
        }
        self.shrunk(&mut state);
    }

    /// Publishes a map that lost a range. What is left was mapped before, but a hole may have split
    /// it, and then the kernel is asked for new mappings; if it has none, the range's whole
    /// neighbourhood goes, rather than that a part outlives its unmapping.
    fn shrunk(&self, state: &mut State) {
        if self.guest.publish(state).is_err() {
            let empty = Layout::default();
            if let Some(memory) = empty.changed(&state.layout) {
                let guard = self.guest.space.lock();
                guard
                    .unwrap_or_else(PoisonError::into_inner)
                    .replace(memory);
            }
            state.layout = Arc::new(empty);
        }
        state.files.forget_unused();
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.guest.lock();
        state.members.remove(&self.id);
        self.shrunk(&mut state);
        drop(state);
        self.guest.left.notify_all();
    }
}

impl PhysicalMemory for GuestMap {
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), BusError> {
        // Nearly all memory is in the published map, which is reached without a lock.
        if self
            .space
            .memory()
            .read_slice(into, GuestAddress(at.0))
            .is_ok()
        {
            return Ok(());
        }
        let error = BusError {
            at,
            len: into.len(),
        };
        let layout = self.layout();
        let mut done = 0;
        while done < into.len() {
            let address = at.0.checked_add(done as u64).ok_or(error)?;
            let (segment, len) = layout
                .find(address, into.len() - done, MapAccess::READ)
                .ok_or(error)?;
            let part = &mut into[done..done + len];
            let read = match &segment.reach {
                Reach::Memory(region) => {
                    let offset = vm_memory::MemoryRegionAddress(address - segment.base);
                    region.read_slice(part, offset).is_ok()
                }
                Reach::Messages(link) => link.read(address, part),
            };
            if !read {
                return Err(error);
            }
            done += len;
        }
        Ok(())
    }

    fn write(&self, at: Gpa, from: &[u8]) -> Result<(), BusError> {
        if self
            .space
            .memory()
            .write_slice(from, GuestAddress(at.0))
            .is_ok()
        {
            return Ok(());
        }
        let error = BusError {
            at,
            len: from.len(),
        };
        let layout = self.layout();
        let mut done = 0;
        while done < from.len() {
            let address = at.0.checked_add(done as u64).ok_or(error)?;
            let (segment, len) = layout
                .find(address, from.len() - done, MapAccess::WRITE)
                .ok_or(error)?;
            let part = &from[done..done + len];
            let written = match &segment.reach {
                Reach::Memory(region) => {
                    let offset = vm_memory::MemoryRegionAddress(address - segment.base);
                    region.write_slice(part, offset).is_ok()
                }
                Reach::Messages(link) => link.write(address, part),
            };
            if !written {
                return Err(error);
            }
            done += len;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
