//! Raw records of SMMUv3: records of the event queue (32 bytes) and entries of the PRI queue (16 bytes).
//!
//! They do not tell themselves apart by their bits alone. A PRI queue entry has its rights, its Last and
//! its SSV in bits 63:58 of the first word, where an event has the highest bits of the StreamID: what has
//! one of them set, and bits 57:52 clear, which are reserved in an entry, is read as an entry. Of the
//! StreamIDs that real systems use, none has these bits. An event whose number has no name is passed.

use iommu_wire::smmuv3::event::{Event, EventNumber, RawEvent};
use iommu_wire::smmuv3::page_request::{Entry, RawPageRequest};
use iopf::{Access, Unrecoverable};

use super::{Fault, Slot, page_fault, wanted};
use crate::capture::Device;
use crate::log::arm::kind_of;
use crate::log::{Arch, Detail, Wanted};

/// Bytes of a record of the event queue.
pub(super) const EVENT: usize = size_of::<RawEvent>();

/// The rights, Last and SSV of a PRI queue entry.
const PAGE_REQUEST: u64 = 0x3f << 58;

/// What is reserved in the first word of a PRI queue entry.
const PAGE_REQUEST_RESERVED: u64 = 0x3f << 52;

/// What is reserved in the first word of an event.
const EVENT_RESERVED: u64 = 0x7 << 8;

const fn is_page_request(low: u64) -> bool {
    low & PAGE_REQUEST != 0 && low & PAGE_REQUEST_RESERVED == 0
}

/// Whether the word can be the first of an event that has a name.
pub(super) const fn is_event(low: u64) -> bool {
    let [number, ..] = low.to_le_bytes();
    !is_page_request(low) && low & EVENT_RESERVED == 0 && EventNumber(number).name().is_some()
}

/// Whether the word can be the first of something.
pub(super) const fn is_entry(low: u64) -> bool {
    is_page_request(low) || is_event(low)
}

/// What `bytes` begin with, in memory order; `None` where they are too few.
pub(super) fn slot(bytes: &[u8]) -> Option<Slot> {
    let word = |nth: usize| {
        let bytes = bytes.get(nth * 8..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    };
    let (low, high) = (word(0)?, word(1)?);
    if is_page_request(low) {
        return Some(Slot {
            fault: page_request(low, high),
            bytes: size_of::<RawPageRequest>(),
        });
    }
    if is_event(low) {
        let raw = RawEvent::from_words([low, high, word(2)?, word(3)?]);
        return Some(Slot {
            fault: Some(event(&raw)),
            bytes: EVENT,
        });
    }
    Some(Slot {
        fault: None,
        bytes: size_of::<RawPageRequest>(),
    })
}

/// The meaning of a record of the event queue.
pub(crate) fn event(raw: &RawEvent) -> Fault {
    let decoded = Event::decode(raw);
    let mut detail = Detail::default();
    // Of these the record has PnU, or Priv.
    let mut privileged = matches!(
        decoded,
        Event::UnsupportedTransaction(_) | Event::BadAtsRequest(_) | Event::TlbConflict(_)
    );
    match decoded {
        Event::Translation(fault)
        | Event::AddressSize(fault)
        | Event::AccessFlag(fault)
        | Event::Permission(fault) => {
            privileged = true;
            detail = Detail {
                stage: Some(if fault.ipa.is_some() { 2 } else { 1 }),
                class: Some(fault.class),
                ipa: fault.ipa,
                fetch: None,
                stalled: fault.stalled,
            };
        }
        Event::WalkAbort(abort) => {
            privileged = true;
            detail.stage = Some(if abort.second { 2 } else { 1 });
            detail.class = Some(abort.class);
            detail.fetch = Some(abort.fetch);
        }
        Event::SteFetch(fetch) | Event::CdFetch(fetch) | Event::VmsFetch(fetch) => {
            detail.fetch = Some(fetch.addr);
        }
        _ => {}
    }
    let Unrecoverable {
        pasid,
        access,
        addr,
        ..
    } = decoded.into();
    Fault {
        arch: Arch::Smmuv3,
        kind: kind_of(raw.number().0.into()),
        device: Some(Device::Number(raw.stream().0)),
        pasid,
        address: addr,
        // What is written is no instruction, whatever InD says.
        access: match wanted(access) {
            Wanted::Exec if access.contains(Access::WRITE) => Wanted::Write,
            wanted => wanted,
        },
        privileged: privileged.then(|| access.contains(Access::PRIV)),
        code: Some(raw.number().0),
        index: None,
        flags: None,
        detail: Some(detail),
    }
}

fn page_request(low: u64, high: u64) -> Option<Fault> {
    let raw = RawPageRequest {
        head: low.into(),
        page: high.into(),
    };
    let entry = Entry::decode(&raw);
    page_fault(Arch::Smmuv3, Device::Number(entry.stream.0), &entry.message)
}

#[cfg(test)]
mod tests;
