//! The MSI-X table and the pending bits, as memory behind a BAR.

/// Bytes of one entry.
const ENTRY: usize = 16;
/// Where an entry has its vector control word; bit 0 masks the vector, the rest is reserved.
const CONTROL: usize = 12;

/// An MSI-X table: storage with the rules of its words.
///
/// Whether a vector reaches the guest is not decided here: VMMs keep the table to themselves and
/// never show us the guest's writes, so messages and masks are the business of whoever implements
/// `viommu_api::IrqSink`. The pending bits read as zero for the same reason.
///
/// PCI Express Base Specification, "MSI-X Table Structure".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsixTable {
    bytes: Vec<u8>,
}

impl MsixTable {
    /// A table of `vectors` entries (1–2048), each masked.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let mut table = Self {
            bytes: vec![0; usize::from(vectors) * ENTRY],
        };
        table.reset();
        table
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Reads at byte `offset`; zeros beyond the table.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let stored = self.bytes.get(offset..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(stored) {
            *to = *from;
        }
    }

    /// Writes at byte `offset`; what lies beyond the table is ignored.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        for (at, new) in (offset..self.bytes.len()).zip(data) {
            let mask = match at % ENTRY {
                // The two low bits of a message address are zero.
                0 => 0xfc,
                CONTROL => 1,
                13..ENTRY => 0,
                _ => 0xff,
            };
            self.bytes[at] = new & mask;
        }
    }

    /// Masks every vector and forgets the messages.
    pub fn reset(&mut self) {
        self.bytes.fill(0);
        for entry in self.bytes.chunks_exact_mut(ENTRY) {
            entry[CONTROL] = 1;
        }
    }
}

#[cfg(test)]
mod tests;
