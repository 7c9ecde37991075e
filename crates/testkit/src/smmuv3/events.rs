//! Events, as the handler of the Event queue reads them.
//!
//! After `arm_smmu_decode_event()`, `arm_smmu_handle_event()` and `arm_smmu_dump_event()` of Linux
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c`.

use crate::page_groups::{Group, PageGroup};
use iopf::{Access, GroupIndex, Iova, Pasid, Rid};
use std::fmt;

/// An event as the guest read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The device, as its StreamID; 0 in an event that has none.
    pub rid: Rid,
    /// The substream, where the event has one (SSV).
    pub pasid: Option<Pasid>,
    /// Event number.
    pub id: u8,
    /// The four words of the record.
    pub words: [u64; 4],
}

impl Seen {
    pub(crate) fn decode(words: [u64; 4]) -> Self {
        let [first, ..] = words;
        let [id, _, _, _, a, b, c, d] = first.to_le_bytes();
        let pasid = u32::try_from(first >> 12 & 0xf_ffff).unwrap_or(0);
        Self {
            rid: Rid(u32::from_le_bytes([a, b, c, d])),
            pasid: (first >> 11 & 1 != 0).then(|| Pasid::truncate(pasid)),
            id,
            words,
        }
    }

    fn bit(&self, at: u32) -> bool {
        self.words[1] >> at & 1 != 0
    }

    /// The request is stalled, under this tag.
    #[must_use]
    pub fn stalled(&self) -> Option<u16> {
        let [low, high, ..] = self.words[1].to_le_bytes();
        self.bit(31).then(|| u16::from_le_bytes([low, high]))
    }

    /// Stage 2 is to blame (S2).
    #[must_use]
    pub fn second_stage(&self) -> bool {
        self.bit(39)
    }

    /// CLASS: 0 a context descriptor, 1 a table of stage 1, 2 the input address.
    #[must_use]
    pub fn class(&self) -> u8 {
        let [_, _, _, _, _, class, ..] = self.words[1].to_le_bytes();
        class & 3
    }

    /// A stage 1 table was read rather than written, of an F_PERMISSION on it.
    #[must_use]
    pub fn table_read(&self) -> bool {
        self.bit(44)
    }

    /// What the request wanted: RnW, InD and PnU.
    #[must_use]
    pub fn access(&self) -> Access {
        let mut access = if self.bit(35) {
            Access::READ
        } else {
            Access::WRITE
        };
        access.set(Access::EXEC, self.bit(34));
        access.set(Access::PRIV, self.bit(33));
        access
    }

    /// The third word: the request's address, where the event has it.
    #[must_use]
    pub fn addr(&self) -> Iova {
        Iova(self.words[2])
    }

    /// IPA, where the event has it.
    #[must_use]
    pub fn ipa(&self) -> u64 {
        self.words[3] & 0x000f_ffff_ffff_f000
    }

    /// `FetchAddr`, where the event has it.
    #[must_use]
    pub fn fetch_addr(&self) -> u64 {
        self.words[3] & 0x000f_ffff_ffff_fff8
    }

    /// One of the four that a transaction can stall at.
    fn translation_related(&self) -> bool {
        matches!(self.id, 0x10..=0x13)
    }

    /// What a stalled request asks for: a group of one page whose index is the tag.
    pub(crate) fn page_request(&self) -> Option<Group> {
        let tag = self.stalled().filter(|_| self.translation_related())?;
        Some(Group {
            page_group: PageGroup {
                rid: self.rid,
                pasid: self.pasid,
                index: GroupIndex(u32::from(tag)),
                pages: vec![(Iova(self.addr().0 & !0xfff), self.access())],
            },
            refused: None,
        })
    }

    fn name(&self) -> &'static str {
        match self.id {
            0x02 => "C_BAD_STREAMID",
            0x03 => "F_STE_FETCH",
            0x04 => "C_BAD_STE",
            0x06 => "F_STREAM_DISABLED",
            0x08 => "C_BAD_SUBSTREAMID",
            0x09 => "F_CD_FETCH",
            0x0a => "C_BAD_CD",
            0x10 => "F_TRANSLATION",
            0x11 => "F_ADDR_SIZE",
            0x12 => "F_ACCESS",
            0x13 => "F_PERMISSION",
            0x25 => "F_VMS_FETCH",
            _ => "UNKNOWN",
        }
    }
}

impl fmt::Display for Seen {
    /// What Linux prints below the words, in one line, the device as where it has no driver.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ssid = self.pasid.map_or(0, Pasid::get);
        write!(
            f,
            "arm-smmu-v3: event {:#04x}: {} client: (unassigned sid) sid: {:#x} ssid: {ssid:#x}",
            self.id,
            self.name(),
            self.rid.0
        )?;
        match self.id {
            0x10..=0x13 => {
                let access = self.access();
                let or = |bit, yes, no| if access.contains(bit) { yes } else { no };
                let class = match self.class() {
                    0 => "CD fetch",
                    1 => "Stage 1 translation table fetch",
                    2 => "Input address caused fault",
                    _ => "Reserved",
                };
                let table = match (self.id, self.class(), self.table_read()) {
                    (0x13, 1, true) => " ttd_read",
                    (0x13, 1, false) => " ttd_write",
                    _ => "",
                };
                write!(
                    f,
                    " iova: {:#x} ipa: {:#x}, {} {} {} {} \"{class}\"{table}{} stag: {:#x}",
                    self.addr().0,
                    self.ipa(),
                    or(Access::PRIV, "priv", "unpriv"),
                    or(Access::EXEC, "inst", "data"),
                    or(Access::READ, "read", "write"),
                    if self.second_stage() { "s2" } else { "s1" },
                    if self.stalled().is_some() {
                        " stall"
                    } else {
                        ""
                    },
                    self.words[1] & 0xffff,
                )
            }
            0x03 | 0x09 | 0x25 => write!(f, " fetch_addr: {:#x}", self.fetch_addr()),
            _ => Ok(()),
        }
    }
}
