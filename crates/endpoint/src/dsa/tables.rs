//! Work queue and group configuration: storage, and what of it may be written when.
//!
//! Source: Intel Data Streaming Accelerator Architecture Specification, revision 3.0, "Group
//! Configuration Table" and "WQ Configuration Table".

use super::{ENGINES, WQS};
use bitfield_struct::bitfield;
use iopf::Pasid;

/// State of a work queue, as its configuration shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum WqState {
    /// Descriptors are ignored.
    #[default]
    Disabled = 0,
    /// Descriptors are accepted.
    Enabled = 1,
    /// Descriptors are ignored, and those inside are waited for.
    Draining = 2,
}

/// Bytes 11:8.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(super) struct Mode {
    /// `[0]`
    pub(super) dedicated: bool,
    /// `[1]`
    pub(super) block_on_fault: bool,
    /// `[2]`
    pub(super) ats_disable: bool,
    /// `[3]` PRS disable: not supported here.
    _prs_disable: bool,
    /// `[7:4]` priority: not supported here, and kept.
    #[bits(4)]
    _priority: u8,
    /// `[27:8]`
    #[bits(20)]
    pub(super) pasid: u32,
    /// `[28]`
    pub(super) pasid_enable: bool,
    /// `[29]`
    pub(super) privileged: bool,
    #[bits(2)]
    _res30: u8,
}

/// Bytes 15:12.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub(super) struct Limits {
    /// `[4:0]` largest transfer in bytes, as a power of two.
    #[bits(5)]
    pub(super) transfer_shift: u8,
    /// `[8:5]` most descriptors in a batch, as a power of two.
    #[bits(4)]
    pub(super) batch_shift: u8,
    #[bits(23)]
    _res9: u32,
}

/// One work queue's configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wq {
    /// Entries. Written while the device is disabled.
    pub(super) size: u16,
    threshold: u16,
    pub(super) mode: Mode,
    pub(super) limits: Limits,
    pub(super) state: WqState,
    /// Descriptors inside, as software sees it.
    pub(super) occupancy: u16,
}

/// Bytes of one [`Wq`].
pub(super) const WQ_SIZE: u64 = 32;

impl Wq {
    /// Bits of the mode that software may write: PRS disable reads as zero.
    const MODE_BITS: u32 = 0x3fff_fff7;
    const LIMIT_BITS: u32 = 0x1ff;

    /// The word at byte `offset`.
    pub(super) fn word(&self, offset: u64) -> u32 {
        match offset {
            0 => self.size.into(),
            4 => self.threshold.into(),
            8 => self.mode.into_bits(),
            12 => self.limits.into_bits(),
            24 => u32::from(self.occupancy) | (self.state as u32) << 30,
            _ => 0,
        }
    }

    /// Stores the bits `mask` of `value` in the word at byte `offset`, as far as they may be
    /// written.
    pub(super) fn write(&mut self, offset: u64, value: u32, mask: u32, device_disabled: bool) {
        let merged = self.word(offset) & !mask | value & mask;
        let low = |word: u32| u16::try_from(word & 0xffff).unwrap_or(u16::MAX);
        let disabled = self.state == WqState::Disabled;
        match offset {
            0 if device_disabled => self.size = low(merged),
            4 => self.threshold = low(merged),
            8 if disabled => self.mode = Mode::from_bits(merged & Self::MODE_BITS),
            12 if disabled => self.limits = Limits::from_bits(merged & Self::LIMIT_BITS),
            _ => {}
        }
    }

    /// As after power-on, except for the size.
    pub(super) fn reset(&mut self) {
        *self = Self {
            size: self.size,
            ..Self::default()
        };
    }

    /// The address space of its descriptors.
    pub(super) fn pasid(&self) -> Option<Pasid> {
        let pasid = Pasid::truncate(self.mode.pasid());
        self.mode.pasid_enable().then_some(pasid)
    }

    /// Whether its requests are privileged.
    pub(super) fn privileged(&self) -> bool {
        self.mode.pasid_enable() && self.mode.privileged()
    }
}

/// One group's configuration.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Group {
    words: [u64; 6],
}

/// Bytes from one [`Group`] to the next.
pub(super) const GROUP_SIZE: u64 = 64;

impl Group {
    const ENGINES: usize = 4;
    const FLAGS: usize = 5;
    /// The flags that may be written: the two traffic classes, which have no meaning here.
    const FLAG_BITS: u64 = 0x3f;

    /// The word of 64 bits at byte `offset`.
    pub(super) fn word(&self, offset: u64) -> u64 {
        let index = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        self.words.get(index).copied().unwrap_or(0)
    }

    pub(super) fn write(&mut self, offset: u64, value: u64, mask: u64) {
        let index = usize::try_from(offset / 8).unwrap_or(usize::MAX);
        let mask = if index == Self::FLAGS {
            mask & Self::FLAG_BITS
        } else {
            mask
        };
        if let Some(word) = self.words.get_mut(index) {
            *word = *word & !mask | value & mask;
        }
    }

    /// Bit `n` set: work queue `n` is in the group.
    pub(super) fn wqs(&self) -> u64 {
        self.words[0]
    }

    /// Bit `n` set: engine `n` is in the group.
    pub(super) fn engines(&self) -> u64 {
        self.words[Self::ENGINES]
    }

    /// Whether bits are set for work queues that do not exist.
    pub(super) fn has_foreign_wqs(&self) -> bool {
        self.wqs() >> WQS != 0 || self.words[1..Self::ENGINES] != [0; 3]
    }

    /// Whether bits are set for engines that do not exist.
    pub(super) fn has_foreign_engines(&self) -> bool {
        self.engines() >> ENGINES != 0
    }
}
