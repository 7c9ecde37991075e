//! Raw records of AMD-Vi: entries of the event log and of the PPR log, 16 bytes each.
//!
//! They do not tell themselves apart by their code alone: 1 is an `ILLEGAL_DEV_TABLE_ENTRY` in the one
//! log and a page request in the other. An entry with code 1 is taken for a page request if it has a bit
//! that such an event never has: one of the flags EXEC, READ and US, or one of bits 31:20, where the
//! event's are reserved and the page request's PASID is. What a page request and an event could both
//! be (a privileged one that only writes, with a small PASID) is read as an event.

use iommu_wire::amdvi::event::RawEvent;
use iommu_wire::amdvi::ppr::{Ppr, RawPpr};

use super::{Fault, function, page_fault};
use crate::log::{Arch, amdvi};

/// The flags EXEC, READ and US of a page request.
const PAGE_REQUEST_FLAGS: u64 = 0x46 << 48;

/// Bits that are reserved in most events.
const RESERVED: u64 = 0xfff << 20;

/// The code, bits 63:60.
const fn code(low: u64) -> u64 {
    low >> 60
}

const fn is_page_request(low: u64) -> bool {
    code(low) == 1 && low & (PAGE_REQUEST_FLAGS | RESERVED) != 0
}

/// Whether the word can be the first of an entry that holds something.
pub(super) const fn is_entry(low: u64) -> bool {
    match code(low) {
        1 => true,
        2..=8 => low & RESERVED == 0,
        // Page requests have a PASID there, RMP_PAGE_FAULT has flags.
        9 | 0xd | 0xe => true,
        _ => false,
    }
}

/// The meaning of an entry; `None` for empty ones, stop markers and unknown codes.
pub(super) fn entry(low: u64, high: u64) -> Option<Fault> {
    if is_page_request(low) {
        return page_request(low, high);
    }
    let fields = amdvi::raw_event(&RawEvent::from_words(low, high))?;
    Some(Fault {
        arch: Arch::Amdvi,
        kind: fields.kind,
        device: fields.device,
        pasid: fields.pasid,
        address: fields.address,
        access: fields.access,
        privileged: fields.privileged,
        code: fields.code.and_then(|code| u8::try_from(code).ok()),
        index: None,
        flags: fields.flags,
        detail: None,
    })
}

fn page_request(low: u64, high: u64) -> Option<Fault> {
    let raw = RawPpr {
        head: low.into(),
        address: high.into(),
    };
    let Ppr::PageServiceRequest {
        requester, message, ..
    } = Ppr::decode(&raw)
    else {
        return None;
    };
    page_fault(Arch::Amdvi, function(requester), &message)
}
