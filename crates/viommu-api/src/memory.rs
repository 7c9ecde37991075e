//! Physical memory, as devices reach it once an address is translated.

use iopf::Gpa;

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
