//! Guest memory as a device reaches it once its address is translated, on top of `vm-memory`.

use iopf::Gpa;
use viommu_api::{BusError, PhysicalMemory};
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

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
