//! PCI functions, as a bus or a server shows them to a guest.

/// Bytes of configuration space, the extended part included.
///
/// PCI Express Base Specification, "PCI Express Enhanced Configuration Access Mechanism".
pub const CONFIG_SIZE: u16 = 4096;

/// Base address registers of a function.
pub const BARS: u8 = 6;

/// How many interrupt vectors of each kind a function has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// Legacy interrupt pins: 0 or 1.
    pub intx: u16,
    /// MSI messages: 0, or a power of two up to 32.
    pub msi: u16,
    /// MSI-X table entries: 0–2048.
    pub msix: u16,
}

/// The kinds of interrupt that a function can raise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum InterruptKind {
    /// The legacy pin.
    Intx,
    /// MSI.
    Msi,
    /// MSI-X.
    Msix,
}

/// A PCI function: configuration space, the regions behind its base address registers, reset.
///
/// A server calls it from several threads, also for overlapping accesses. Accesses may have any
/// length and alignment that a guest can produce; what a function does not define reads as zero and
/// ignores writes. No call blocks on the guest.
pub trait PciFunction: Send + Sync {
    /// Size in bytes of the region behind BAR `bar` (0–5), a power of two; 0 where there is none.
    fn bar_size(&self, bar: u8) -> u64;
    /// The interrupt vectors it has.
    fn interrupts(&self) -> Interrupts;
    /// Reads configuration space at byte `offset`.
    fn read_config(&self, offset: u16, data: &mut [u8]);
    /// Writes configuration space at byte `offset`.
    fn write_config(&self, offset: u16, data: &[u8]);
    /// Reads the region behind a BAR.
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]);
    /// Writes the region behind a BAR.
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]);
    /// Puts the function into its state after power-on: pending work is dropped, caches are empty.
    fn reset(&self);
}

/// Where a function's own interrupts go.
pub trait IrqSink: Send + Sync {
    /// Raises vector `vector` of `kind`. A vector that the guest has not set up is dropped.
    ///
    /// The pin is a level: its function shows in STATUS how long it asserts it, and raises it when
    /// that begins.
    fn raise(&self, kind: InterruptKind, vector: u16);
}
