//! What this side takes at most. A peer that goes beyond gets an error, never our memory.

/// Limits of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of data in one region or DMA message, 4096 to 64 MiB. Announced to the client.
    pub max_transfer: u32,
    /// Descriptors in one message, 1 to 16. Announced to the client.
    pub max_fds: u16,
    /// Memory ranges that one client may have mapped at a time, 1 to 65535. Announced to the client.
    pub max_maps: u32,
    /// Bytes of version data (JSON) in a client's first message.
    pub max_version: u32,
    /// Commands of ours that wait for a reply at a time.
    pub max_pending: u16,
}

impl Limits {
    /// The header and the largest fixed part between it and data.
    const FIXED: u32 = 16 + 32;

    /// Bytes of the longest message taken, its header included.
    #[must_use]
    pub const fn max_message(&self) -> u32 {
        let data = if self.max_transfer > self.max_version {
            self.max_transfer
        } else {
            self.max_version
        };
        data.saturating_add(Self::FIXED)
    }
}

impl Default for Limits {
    /// The protocol's own default transfer (1 MiB); eight descriptors; 4096 ranges, some twenty
    /// times what a guest of QEMU has; 4 KiB of version data.
    fn default() -> Self {
        Self {
            max_transfer: 1 << 20,
            max_fds: 8,
            max_maps: 4096,
            max_version: 4096,
            max_pending: 64,
        }
    }
}
