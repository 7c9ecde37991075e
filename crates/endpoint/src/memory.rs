//! Guest memory as a device reaches it: the one file of this crate that names `vm-memory`.

use iopf::Gpa;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

/// No memory answers at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {len} bytes at {at}")]
pub struct BusError {
    /// First byte of the access.
    pub at: Gpa,
    /// Length of the access in bytes.
    pub len: usize,
}

/// Physical memory, by guest physical address.
///
/// Implementations may be called from several threads; bytes that two accesses share may tear.
pub trait PhysicalMemory: Send + Sync {
    /// Fills `into` from `at` on.
    ///
    /// # Errors
    /// When a byte of the range has no memory; `into` may be partly filled then.
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), BusError>;
    /// Stores `from` at `at` on.
    ///
    /// # Errors
    /// When a byte of the range has no memory; bytes before it may be stored then.
    fn write(&self, at: Gpa, from: &[u8]) -> Result<(), BusError>;
}

/// Any address space of `vm-memory` as [`PhysicalMemory`], for example
/// `Memory(Arc<GuestMemoryMmap>)`.
#[derive(Clone, Debug)]
pub struct Memory<M>(pub M);

impl<M: GuestAddressSpace + Send + Sync> PhysicalMemory for Memory<M> {
    fn read(&self, at: Gpa, into: &mut [u8]) -> Result<(), BusError> {
        let len = into.len();
        self.0
            .memory()
            .read_slice(into, GuestAddress(at.0))
            .map_err(|_| BusError { at, len })
    }

    fn write(&self, at: Gpa, from: &[u8]) -> Result<(), BusError> {
        let len = from.len();
        self.0
            .memory()
            .write_slice(from, GuestAddress(at.0))
            .map_err(|_| BusError { at, len })
    }
}
