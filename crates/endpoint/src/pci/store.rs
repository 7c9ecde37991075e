//! Four KiB of registers: bytes, and which of their bits a guest may set or clear.

use viommu_api::CONFIG_SIZE;

const LEN: usize = CONFIG_SIZE as usize;

/// A page of registers as bytes with write masks: configuration space, or a page behind a BAR.
#[derive(Clone)]
pub(crate) struct Store {
    value: Vec<u8>,
    power_on: Vec<u8>,
    /// Bits that take what is written.
    writable: Vec<u8>,
    /// Bits that a written one clears.
    clearable: Vec<u8>,
}

impl Store {
    pub(crate) fn new() -> Self {
        let zeros = || vec![0; LEN];
        Self {
            value: zeros(),
            power_on: zeros(),
            writable: zeros(),
            clearable: zeros(),
        }
    }

    /// Copies what is stored from `offset` on; zeros where nothing is.
    pub(crate) fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(0);
        let stored = self.value.get(usize::from(offset)..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(stored) {
            *to = *from;
        }
    }

    /// Writes as a guest does.
    pub(crate) fn write(&mut self, offset: u16, data: &[u8]) {
        for (at, new) in (usize::from(offset)..LEN).zip(data) {
            let (writable, clearable) = (self.writable[at], self.clearable[at]);
            let old = self.value[at];
            self.value[at] = (old & !writable | new & writable) & !(new & clearable);
        }
    }

    pub(crate) fn u16(&self, at: u16) -> u16 {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes);
        u16::from_le_bytes(bytes)
    }

    pub(crate) fn u32(&self, at: u16) -> u32 {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn u64(&self, at: u16) -> u64 {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// Changes a register from the inside.
    pub(crate) fn put(&mut self, at: u16, bytes: &[u8]) {
        put(&mut self.value, at, bytes);
    }

    /// Lays down what a register holds after power-on.
    pub(crate) fn define(&mut self, at: u16, bytes: &[u8]) {
        put(&mut self.value, at, bytes);
        put(&mut self.power_on, at, bytes);
    }

    /// Lets a guest write the bits of `mask`.
    pub(crate) fn allow(&mut self, at: u16, mask: &[u8]) {
        put(&mut self.writable, at, mask);
    }

    /// Lets a guest clear the bits of `mask` by writing ones.
    pub(crate) fn allow_clear(&mut self, at: u16, mask: &[u8]) {
        put(&mut self.clearable, at, mask);
    }

    pub(crate) fn reset(&mut self) {
        self.value.copy_from_slice(&self.power_on);
    }

    /// The bits that a guest can change at `at`: for tests.
    #[cfg(test)]
    pub(crate) fn changeable(&self, at: usize) -> u8 {
        self.writable[at] | self.clearable[at]
    }
}

fn put(into: &mut [u8], at: u16, bytes: &[u8]) {
    for (to, from) in into.iter_mut().skip(usize::from(at)).zip(bytes) {
        *to = *from;
    }
}

/// What a write of `data` at `offset` puts into the byte at `at`, if it reaches it.
pub(crate) fn written(offset: u16, data: &[u8], at: u16) -> Option<u8> {
    let index = at.checked_sub(offset)?;
    data.get(usize::from(index)).copied()
}
