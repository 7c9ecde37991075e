//! The common configuration structure: storage and rules.
//!
//! VIRTIO 1.2, "Common configuration structure layout".

use super::VECTORS;

/// Bytes of the structure, without the fields of features that are not offered.
pub(super) const SIZE: u32 = 0x38;

/// The vector of what has none.
pub(super) const NO_VECTOR: u16 = 0xffff;

/// Longest queue, in descriptors.
pub(super) const QUEUE_MAX: u16 = 64;

/// `VIRTIO_F_VERSION_1` and `VIRTIO_F_ACCESS_PLATFORM`.
const FEATURES: u64 = 1 << 32 | 1 << 33;

const DRIVER_OK: u8 = 4;
const FEATURES_OK: u8 = 8;
const NEEDS_RESET: u8 = 0x40;
/// ACKNOWLEDGE, DRIVER, DRIVER_OK, FEATURES_OK and FAILED.
const DRIVERS_BITS: u8 = 0x8f;

/// A queue as the driver has set it up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct QueueSetup {
    pub(super) size: u16,
    pub(super) vector: u16,
    pub(super) enabled: bool,
    /// Addresses of the descriptor table, the driver's and the device's ring.
    pub(super) rings: [u64; 3],
}

impl Default for QueueSetup {
    fn default() -> Self {
        Self {
            size: QUEUE_MAX,
            vector: NO_VECTOR,
            enabled: false,
            rings: [0; 3],
        }
    }
}

/// What a write asks of the device.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing beyond the new value.
    None,
    /// A reset.
    Reset,
    /// The driver is ready now.
    Live,
}

/// The structure.
#[derive(Clone, Debug)]
pub(super) struct Common {
    device_select: u32,
    driver_select: u32,
    driver_features: u64,
    pub(super) config_vector: u16,
    status: u8,
    /// The status that is shown instead while a reset is not complete.
    lingering: u8,
    select: u16,
    pub(super) queue: QueueSetup,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            device_select: 0,
            driver_select: 0,
            driver_features: 0,
            config_vector: NO_VECTOR,
            status: 0,
            lingering: 0,
            select: 0,
            queue: QueueSetup::default(),
        }
    }
}

/// A half of a 64-bit word; beyond the second there are only zeros.
fn half(word: u64, select: u32) -> u32 {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    match select {
        0 => u32::from_le_bytes([a, b, c, d]),
        1 => u32::from_le_bytes([e, f, g, h]),
        _ => 0,
    }
}

fn set_half(word: &mut u64, select: u32, value: u32) {
    let (keep, shift) = match select {
        0 => (0xffff_ffff_0000_0000, 0),
        1 => (0x0000_0000_ffff_ffff, 32),
        _ => return,
    };
    *word = *word & keep | u64::from(value) << shift;
}

/// A vector that the table does not have is none.
fn vector(value: u16) -> u16 {
    if value < VECTORS { value } else { NO_VECTOR }
}

impl Common {
    /// Reads at byte `offset`; zeros beyond the structure.
    pub(super) fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let image = self.image();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let stored = image.get(offset..).unwrap_or_default();
        for (to, from) in data.iter_mut().zip(stored) {
            *to = *from;
        }
    }

    fn image(&self) -> Vec<u8> {
        let selected = self.select == 0;
        // A queue that is not there has size 0 and nothing else.
        let queue = if selected {
            self.queue
        } else {
            QueueSetup {
                size: 0,
                ..QueueSetup::default()
            }
        };
        let status = match self.lingering {
            0 => self.status,
            lingering => lingering,
        };
        let mut image = Vec::with_capacity(usize::try_from(SIZE).unwrap_or_default());
        image.extend(self.device_select.to_le_bytes());
        image.extend(half(FEATURES, self.device_select).to_le_bytes());
        image.extend(self.driver_select.to_le_bytes());
        image.extend(half(self.driver_features, self.driver_select).to_le_bytes());
        image.extend(self.config_vector.to_le_bytes());
        image.extend(1u16.to_le_bytes());
        image.extend([status, 0]);
        image.extend(self.select.to_le_bytes());
        image.extend(queue.size.to_le_bytes());
        image.extend(queue.vector.to_le_bytes());
        image.extend(u16::from(queue.enabled).to_le_bytes());
        image.extend(0u16.to_le_bytes());
        for ring in queue.rings {
            image.extend(ring.to_le_bytes());
        }
        image
    }

    /// Writes a field with the width it has (64-bit fields by halves). Anything else is ignored: a
    /// driver must not do it.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> Effect {
        match *data {
            [value] if offset == 0x14 => return self.write_status(value),
            [a, b] => self.write_u16(offset, u16::from_le_bytes([a, b])),
            [a, b, c, d] => self.write_u32(offset, u32::from_le_bytes([a, b, c, d])),
            _ => {}
        }
        Effect::None
    }

    fn write_status(&mut self, value: u8) -> Effect {
        if value == 0 {
            return Effect::Reset;
        }
        let was_live = self.is_live();
        let mut value = value & DRIVERS_BITS;
        // Neither features that were not offered nor a lack of those that it takes.
        if self.driver_features != FEATURES {
            value &= !FEATURES_OK;
        }
        self.status |= value;
        if self.is_live() && !was_live {
            Effect::Live
        } else {
            Effect::None
        }
    }

    fn write_u16(&mut self, offset: u64, value: u16) {
        match offset {
            0x10 => self.config_vector = vector(value),
            0x16 => self.select = value,
            _ if self.select != 0 => {}
            0x1a => self.queue.vector = vector(value),
            _ if self.queue.enabled => {}
            0x18 if value.is_power_of_two() && value <= QUEUE_MAX => self.queue.size = value,
            0x1c => self.queue.enabled = value == 1,
            _ => {}
        }
    }

    fn write_u32(&mut self, offset: u64, value: u32) {
        match offset {
            0x00 => self.device_select = value,
            0x08 => self.driver_select = value,
            0x0c if self.status & FEATURES_OK == 0 => {
                set_half(&mut self.driver_features, self.driver_select, value);
            }
            0x20..SIZE_U64
                if self.select == 0 && !self.queue.enabled && offset.is_multiple_of(4) =>
            {
                let field = (offset - 0x20) / 8;
                let upper = u32::from(!offset.is_multiple_of(8));
                let ring = usize::try_from(field).ok();
                if let Some(ring) = ring.and_then(|i| self.queue.rings.get_mut(i)) {
                    set_half(ring, upper, value);
                }
            }
            _ => {}
        }
    }

    /// Whether the driver may be served.
    pub(super) fn is_live(&self) -> bool {
        let ready = DRIVER_OK | FEATURES_OK;
        self.status & (ready | NEEDS_RESET) == ready && self.queue.enabled
    }

    /// Tells the driver that only a reset helps.
    pub(super) fn needs_reset(&mut self) {
        self.status |= NEEDS_RESET;
    }

    /// Puts everything into its first state; returns the status there was.
    pub(super) fn reset(&mut self) -> u8 {
        let before = self.status;
        *self = Self {
            lingering: self.lingering,
            ..Self::default()
        };
        before
    }

    /// Shows `status` as long as the device still uses the rings; 0 ends that.
    pub(super) fn linger(&mut self, status: u8) {
        self.lingering = status;
    }
}

const SIZE_U64: u64 = SIZE as u64;

#[cfg(test)]
mod tests;
