//! Guest memory for scripts: words, pages, and an allocator of frames.

use iopf::Gpa;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Memory from address 0 on, and the frames of it that are free.
///
/// Outside of it the bus behaves as on a PC: reads give ones, writes vanish.
#[derive(Debug)]
pub struct Ram {
    memory: Arc<GuestMemoryMmap<()>>,
    size: u64,
    free: Mutex<Frames>,
}

#[derive(Debug)]
struct Frames {
    next: u64,
    free: Vec<u64>,
}

/// Size of a frame in bytes.
pub const FRAME: u64 = 4096;
const ZEROS: [u8; 4096] = [0; 4096];

/// Every frame is taken, or the host gave no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl std::fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("out of guest memory")
    }
}

impl std::error::Error for OutOfMemory {}

impl Ram {
    /// `size` bytes, rounded down to whole frames. The first megabyte is left to the firmware.
    ///
    /// # Errors
    /// When the host cannot map that much.
    pub fn new(size: u64) -> Result<Self, OutOfMemory> {
        let bytes = usize::try_from(size & !(FRAME - 1)).map_err(|_| OutOfMemory)?;
        let memory =
            GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).map_err(|_| OutOfMemory)?;
        Ok(Self::over(Arc::new(memory)))
    }

    /// The first region of `memory`, which must begin at address 0, such as a file that others map
    /// too. A map without one has no frames.
    #[must_use]
    pub fn over(memory: Arc<GuestMemoryMmap<()>>) -> Self {
        let size = memory
            .find_region(GuestAddress(0))
            .map_or(0, |region| region.len() & !(FRAME - 1));
        Self {
            memory,
            size,
            free: Mutex::new(Frames {
                next: 1 << 20,
                free: Vec::new(),
            }),
        }
    }

    /// The memory itself, for devices and models.
    #[must_use]
    pub fn memory(&self) -> Arc<GuestMemoryMmap<()>> {
        self.memory.clone()
    }

    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A zeroed frame.
    ///
    /// # Errors
    /// When none is left.
    pub fn frame(&self) -> Result<Gpa, OutOfMemory> {
        let at = {
            let mut frames = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            match frames.free.pop() {
                Some(at) => at,
                None if frames.next + FRAME <= self.size => {
                    frames.next += FRAME;
                    frames.next - FRAME
                }
                None => return Err(OutOfMemory),
            }
        };
        self.write(Gpa(at), &ZEROS);
        Ok(Gpa(at))
    }

    /// `count` frames in a row, aligned to their own size, zeroed.
    ///
    /// # Errors
    /// When there is no such run at the end of memory.
    pub fn frames(&self, count: u64) -> Result<Gpa, OutOfMemory> {
        let bytes = count
            .max(1)
            .checked_next_power_of_two()
            .and_then(|n| n.checked_mul(FRAME))
            .ok_or(OutOfMemory)?;
        let at = {
            let mut frames = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let at = frames.next.next_multiple_of(bytes);
            let end = at
                .checked_add(bytes)
                .filter(|end| *end <= self.size)
                .ok_or(OutOfMemory)?;
            frames.next = end;
            at
        };
        for frame in 0..bytes / FRAME {
            self.write(Gpa(at + frame * FRAME), &ZEROS);
        }
        Ok(Gpa(at))
    }

    /// Gives a frame back.
    pub fn free(&self, frame: Gpa) {
        let mut frames = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        frames.free.push(frame.0 & !(FRAME - 1));
    }

    /// Loads an aligned word in one access.
    #[must_use]
    pub fn load(&self, at: Gpa) -> u64 {
        self.memory
            .load(GuestAddress(at.0), Ordering::Acquire)
            .map_or(u64::MAX, u64::from_le)
    }

    /// Stores an aligned word in one access.
    pub fn store(&self, at: Gpa, value: u64) {
        let _nothing_there =
            self.memory
                .store(value.to_le(), GuestAddress(at.0), Ordering::Release);
    }

    /// Loads an aligned doubleword in one access.
    #[must_use]
    pub fn load32(&self, at: Gpa) -> u32 {
        self.memory
            .load(GuestAddress(at.0), Ordering::Acquire)
            .map_or(u32::MAX, u32::from_le)
    }

    /// Stores an aligned doubleword in one access.
    pub fn store32(&self, at: Gpa, value: u32) {
        let _nothing_there =
            self.memory
                .store(value.to_le(), GuestAddress(at.0), Ordering::Release);
    }

    /// Copies bytes out.
    pub fn read(&self, at: Gpa, into: &mut [u8]) {
        if self.memory.read_slice(into, GuestAddress(at.0)).is_err() {
            into.fill(0xff);
        }
    }

    /// Copies bytes in.
    pub fn write(&self, at: Gpa, from: &[u8]) {
        let _nothing_there = self.memory.write_slice(from, GuestAddress(at.0));
    }
}

#[cfg(test)]
mod tests;
