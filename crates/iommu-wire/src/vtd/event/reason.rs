//! Why a fault was recorded: the FR field.
//!
//! Short names and numbers: Intel VT-d, fault reason table. Linux texts: `dmar.c`,
//! `dma_remap_fault_reasons`, `dma_remap_sm_fault_reasons` and `irq_remap_fault_reasons`, which
//! is what a guest prints. Interrupt remapping has no short names in our sources; ours are
//! `IR.` and the number.

use core::fmt;

/// Why a fault was recorded. Any byte is a value; the named ones are those a unit records.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FaultReason(pub u8);

/// What is known of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonInfo {
    /// The number.
    pub reason: FaultReason,
    /// The specification's short name, such as `LRT.2`.
    pub name: &'static str,
    /// Suppressed where the FPD bit is set in the context entry, PASID directory entry or PASID
    /// table entry that was used.
    pub qualified: bool,
    /// What Linux prints for it, where it has a text.
    pub linux: Option<&'static str>,
    /// What happened, in one clause.
    pub meaning: &'static str,
}

/// Which part of the architecture a reason belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultFamily {
    /// Address translation in legacy mode.
    Legacy,
    /// Interrupt remapping.
    Interrupt,
    /// Address translation in scalable mode, and the root table address register.
    Scalable,
    /// A number no table of ours has.
    Unknown,
}

macro_rules! reasons {
    ($($number:literal $constant:ident $name:literal $qualified:literal $linux:expr, $meaning:literal;)*) => {
        impl FaultReason {
            $(
                #[doc = concat!("`", $name, "`: ", $meaning, ".")]
                pub const $constant: Self = Self($number);
            )*
        }

        /// Every reason that is known, by number.
        const REASONS: &[ReasonInfo] = &[
            $(ReasonInfo {
                reason: FaultReason($number),
                name: $name,
                qualified: $qualified,
                linux: $linux,
                meaning: $meaning,
            },)*
        ];
    };
}

reasons! {
    0x01 LRT_2 "LRT.2" false Some("Present bit in root entry is clear"),
        "the root entry of the requester's bus is not present";
    0x02 LCT_2 "LCT.2" true Some("Present bit in context entry is clear"),
        "the context entry of the requester is not present";
    0x03 LCT_4 "LCT.4" true Some("Invalid context entry"),
        "the context entry asks for an address width, a translation type or a table that the unit does not support";
    0x04 LGN_1 "LGN.1" true Some("Access beyond MGAW"),
        "the address is wider than the domain's tables or than the unit translates";
    0x05 LGN_2 "LGN.2" true Some("PTE Write access is not set"),
        "a write or atomic operation met an entry without write permission, or none at all";
    0x06 LGN_3 "LGN.3" true Some("PTE Read access is not set"),
        "a read or atomic operation met an entry without read permission, or none at all";
    0x07 LSL_1 "LSL.1" true Some("Next page table ptr is invalid"),
        "a paging entry could not be read";
    0x08 LRT_1 "LRT.1" false Some("Root table address invalid"),
        "the root entry could not be read";
    0x09 LCT_1 "LCT.1" false Some("Context table ptr is invalid"),
        "the context entry could not be read";
    0x0a LRT_3 "LRT.3" false Some("non-zero reserved fields in RTP"),
        "a present root entry has reserved bits set";
    0x0b LCT_3 "LCT.3" true Some("non-zero reserved fields in CTP"),
        "a present context entry has reserved bits set";
    0x0c LSL_2 "LSL.2" true Some("non-zero reserved fields in PTE"),
        "a paging entry with permissions has reserved bits set";
    0x0d LCT_5 "LCT.5" true Some("PCE for translation request specifies blocking"),
        "the context entry blocks translation requests and translated requests";
    0x0e LGN_4 "LGN.4" true None,
        "the address, or what it translates to, lies in the interrupt range";
    0x20 IR_REQUEST_RESERVED "IR.20" false Some("Detected reserved fields in the decoded interrupt-remapped request"),
        "a remappable interrupt request has reserved bits set";
    0x21 IR_INDEX "IR.21" false Some("Interrupt index exceeded the interrupt-remapping table size"),
        "the interrupt index lies outside the remapping table";
    0x22 IR_NOT_PRESENT "IR.22" true Some("Present field in the IRTE entry is clear"),
        "the interrupt remapping entry is not present";
    0x23 IR_FETCH "IR.23" false Some("Error accessing interrupt-remapping table pointed by IRTA_REG"),
        "the interrupt remapping entry could not be read";
    0x24 IR_RESERVED "IR.24" true Some("Detected reserved fields in the IRTE entry"),
        "a present interrupt remapping entry has reserved bits set";
    0x25 IR_COMPATIBILITY "IR.25" false Some("Blocked a compatibility format interrupt request"),
        "a compatibility format interrupt was blocked";
    0x26 IR_SOURCE "IR.26" true Some("Blocked an interrupt request due to source-id verification failure"),
        "the interrupt remapping entry does not belong to the requester";
    0x27 IR_POSTED_FETCH "IR.27" true None,
        "the posted interrupt descriptor could not be read";
    0x28 IR_POSTED_RESERVED "IR.28" true None,
        "the posted interrupt descriptor has reserved bits set";
    0x29 IR_UNTRANSLATED "IR.29" false None,
        "an untranslated interrupt request without PASID is not valid";
    0x30 RTA_1 "RTA.1" false Some("SM: Invalid Root Table Address"),
        "the root table address register names a mode that the unit does not support, or has reserved bits set";
    0x31 RTA_2 "RTA.2" false Some("SM: TTM 0 for request with PASID"),
        "a request with PASID while the unit is in legacy mode";
    0x32 RTA_3 "RTA.3" false Some("SM: TTM 0 for page group request"),
        "a page request while the unit is in legacy mode";
    0x33 RTA_4 "RTA.4" false None,
        "the unit is in abort-DMA mode";
    0x34 RTA_5 "RTA.5" false None,
        "a request with PASID asks for execute permission, which the unit's version does not have";
    0x38 SRT_1 "SRT.1" false Some("SM: Error attempting to access Root Entry"),
        "the scalable-mode root entry could not be read";
    0x39 SRT_2 "SRT.2" false Some("SM: Present bit in Root Entry is clear"),
        "the half of the scalable-mode root entry for this device number is not present";
    0x3a SRT_3 "SRT.3" false Some("SM: Non-zero reserved field set in Root Entry"),
        "a present scalable-mode root entry has reserved bits set";
    0x40 SCT_1 "SCT.1" false Some("SM: Error attempting to access Context Entry"),
        "the scalable-mode context entry could not be read";
    0x41 SCT_2 "SCT.2" true Some("SM: Present bit in Context Entry is clear"),
        "the scalable-mode context entry of the requester is not present";
    0x42 SCT_3 "SCT.3" true Some("SM: Non-zero reserved field set in the Context Entry"),
        "a present scalable-mode context entry has reserved bits set";
    0x43 SCT_4 "SCT.4" true Some("SM: Invalid Context Entry"),
        "the scalable-mode context entry asks for what the unit does not support";
    0x44 SCT_5 "SCT.5" true Some("SM: DTE field in Context Entry is clear"),
        "a translation request or translated request from a device whose device-TLB is not enabled";
    0x45 SCT_6 "SCT.6" true Some("SM: PASID Enable field in Context Entry is clear"),
        "a request with PASID from a device for which PASIDs are not enabled";
    0x46 SCT_7 "SCT.7" true Some("SM: PASID is larger than the max in Context Entry"),
        "the PASID lies outside the device's PASID directory";
    0x47 SCT_8 "SCT.8" true Some("SM: PRE field in Context-Entry is clear"),
        "a page request from a device for which page requests are not enabled";
    0x48 SCT_9 "SCT.9" true Some("SM: RID_PASID field error in Context-Entry"),
        "the request names the PASID that stands for requests without one";
    0x49 SCT_10 "SCT.10" true None,
        "a translated request has a PASID where those are not enabled";
    0x50 SPD_1 "SPD.1" false Some("SM: Error attempting to access the PASID Directory Entry"),
        "the PASID directory entry could not be read";
    0x51 SPD_2 "SPD.2" true Some("SM: Present bit in Directory Entry is clear"),
        "the PASID directory entry is not present";
    0x52 SPD_3 "SPD.3" true Some("SM: Non-zero reserved field set in PASID Directory Entry"),
        "a present PASID directory entry has reserved bits set";
    0x58 SPT_1 "SPT.1" false Some("SM: Error attempting to access PASID Table Entry"),
        "the PASID table entry could not be read";
    0x59 SPT_2 "SPT.2" true Some("SM: Present bit in PASID Table Entry is clear"),
        "the PASID table entry is not present";
    0x5a SPT_3 "SPT.3" true Some("SM: Non-zero reserved field set in PASID Table Entry"),
        "a present PASID table entry has reserved bits set";
    0x5b SPT_4 "SPT.4" true Some("SM: Invalid Scalable-Mode PASID Table Entry"),
        "the PASID table entry asks for what the unit does not support";
    0x5c SPT_5 "SPT.5" true Some("SM: ERE field is clear in PASID Table Entry"),
        "execute permission was asked for where execute requests are not enabled";
    0x5d SPT_6 "SPT.6" true Some("SM: SRE field is clear in PASID Table Entry"),
        "supervisor privilege was asked for where supervisor requests are not enabled";
    0x70 SFL_1 "SFL.1" true Some("SM: Error attempting to access first-level paging entry"),
        "a first-stage entry below the root could not be read";
    0x71 SFL_2 "SFL.2" true Some("SM: Present bit in first-level paging entry is clear"),
        "a first-stage entry is not present";
    0x72 SFL_3 "SFL.3" true Some("SM: Non-zero reserved field set in first-level paging entry"),
        "a present first-stage entry has reserved bits set";
    0x73 SFL_4 "SFL.4" true Some("SM: Error attempting to access FL-PML4 entry"),
        "the first-stage root table could not be read";
    0x74 SFL_5 "SFL.5" true Some("SM: First-level entry address beyond MGAW in Nested translation"),
        "a first-stage table lies beyond what the second stage translates";
    0x75 SFL_6 "SFL.6" true Some("SM: Read permission error in FL-PML4 entry in Nested translation"),
        "the second stage does not let the first-stage root table be read";
    0x76 SFL_7 "SFL.7" true Some("SM: Read permission error in first-level paging entry in Nested translation"),
        "the second stage does not let a first-stage table be read";
    0x77 SFL_8 "SFL.8" true Some("SM: Write permission error in first-level paging entry in Nested translation"),
        "the second stage does not let an accessed or dirty flag be set in a first-stage table";
    0x78 SSL_1 "SSL.1" true Some("SM: Error attempting to access second-level paging entry"),
        "a second-stage entry below the root could not be read";
    0x79 SSL_2 "SSL.2" true Some("SM: Read/Write permission error in second-level paging entry"),
        "a second-stage entry grants nothing";
    0x7a SSL_3 "SSL.3" true Some("SM: Non-zero reserved field set in second-level paging entry"),
        "a second-stage entry with permissions has reserved bits set";
    0x7b SSL_4 "SSL.4" true Some("SM: Invalid second-level page table pointer"),
        "the second-stage root table could not be read";
    0x7c SSL_5 "SSL.5" true Some("SM: A/D bit update needed in second-level entry when set up in no snoop"),
        "a second-stage accessed or dirty flag is due, but table accesses do not snoop";
    0x7d SSL_6 "SSL.6" true None,
        "a second-stage accessed or dirty flag could not be set";
    0x80 SGN_1 "SGN.1" true Some("SM: Address in first-level translation is not canonical"),
        "the first-stage address is not canonical";
    0x81 SGN_2 "SGN.2" true Some("SM: U/S set 0 for first-level translation with user privilege"),
        "a user request met a supervisor page";
    0x82 SGN_3 "SGN.3" true Some("SM: No execute permission for request with PASID and ER=1"),
        "execute permission was asked for on a page that does not grant it";
    0x83 SGN_4 "SGN.4" true Some("SM: Address beyond the DMA hardware max"),
        "the address is wider than the hardware's addresses";
    0x84 SGN_5 "SGN.5" true Some("SM: Second-level entry address beyond the max"),
        "the second-stage address is wider than the domain's tables or than the unit translates";
    0x85 SGN_6 "SGN.6" true Some("SM: No write permission for Write/AtomicOp request"),
        "a write or atomic operation without write permission";
    0x86 SGN_7 "SGN.7" true Some("SM: No read permission for Read/AtomicOp request"),
        "a read or atomic operation without read permission";
    0x87 SGN_8 "SGN.8" true Some("SM: Invalid address-interrupt address"),
        "the address, or what it translates to, lies in the interrupt range";
    0x88 SGN_9 "SGN.9" true None,
        "a general scalable-mode fault of newer revisions";
    0x89 SGN_10 "SGN.10" true None,
        "the PASID is wider than the unit supports";
    0x90 SFL_9 "SFL.9" true Some("SM: A/D bit update needed in first-level entry when set up in no snoop"),
        "a first-stage accessed or dirty flag is due, but table accesses do not snoop";
    0x91 SFL_10 "SFL.10" true None,
        "a first-stage accessed or dirty flag could not be set";
}

/// For each number one bit: set where the reason is qualified.
const QUALIFIED: [u64; 4] = {
    let mut bits = [0; 4];
    let mut i = 0;
    while i < REASONS.len() {
        let ReasonInfo {
            reason, qualified, ..
        } = REASONS[i];
        if qualified {
            bits[reason.0 as usize / 64] |= 1 << (reason.0 % 64);
        }
        i += 1;
    }
    bits
};

impl FaultReason {
    /// What is known of it; `None` for a number without a name.
    #[must_use]
    pub fn info(self) -> Option<&'static ReasonInfo> {
        let at = REASONS.binary_search_by_key(&self, |info| info.reason);
        at.ok().and_then(|at| REASONS.get(at))
    }

    /// Every reason that has a name, in the order of their numbers.
    #[must_use]
    pub const fn all() -> &'static [ReasonInfo] {
        REASONS
    }

    /// Whether FPD in the entry that was used suppresses the record. Numbers without a name are
    /// never suppressed.
    #[must_use]
    pub const fn qualified(self) -> bool {
        QUALIFIED[self.0 as usize / 64] >> (self.0 % 64) & 1 != 0
    }

    /// The specification's short name; `?` where there is none.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.info().map_or("?", |info| info.name)
    }

    /// Which part of the architecture it belongs to.
    #[must_use]
    pub const fn family(self) -> FaultFamily {
        match self.0 {
            0x01..=0x0e => FaultFamily::Legacy,
            0x20..=0x29 => FaultFamily::Interrupt,
            0x30..=0x9f => FaultFamily::Scalable,
            _ => FaultFamily::Unknown,
        }
    }

    pub(super) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    pub(super) const fn into_bits(self) -> u8 {
        self.0
    }
}

impl fmt::Debug for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.name())
    }
}

impl fmt::Display for FaultReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(info) => write!(f, "{:#04x} {}", self.0, info.name),
            None => write!(f, "{:#04x}", self.0),
        }
    }
}
