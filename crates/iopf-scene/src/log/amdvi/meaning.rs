//! What an event's parts mean together, be it a log's or a raw one.

use iommu_wire::amdvi::event::RawEvent;
use iommu_wire::amdvi::ppr;
use iopf::{Iova, Pasid};

use super::names::{self, Event};
use crate::capture::Device;
use crate::log::message::Fields;
use crate::log::normal::{Arch, Flags, Kind, Wanted};

/// The code of an `IO_PAGE_FAULT`.
pub(super) const PAGE_FAULT: u32 = 2;

/// The code of an `INVALID_PPR_REQUEST`, which is laid out as an entry of the PPR log.
const PAGE_REQUEST: u8 = 9;

/// The flag GN of an `INVALID_PPR_REQUEST`: bit 57 of the record, other than in all other events.
/// Linux `EVENT_FLAG_PPR_GN`.
const PAGE_REQUEST_GN: u16 = 1 << 9;

/// Fills in what the flags of `event` say; `space` is what its domain or PASID field holds.
pub(super) fn describe(fields: &mut Fields, event: &Event, bits: u16, space: Option<u32>) {
    let page_request = event.code == PAGE_REQUEST;
    let flags = Flags::from_bits(bits & event.flags);
    if flags.gn || page_request && bits & PAGE_REQUEST_GN != 0 {
        fields.pasid = space.and_then(Pasid::new);
    }
    if event.flags == 0 {
        return;
    }
    fields.flags = Some(flags);
    if flags.i && event.kind == Kind::Dma {
        fields.kind = Kind::InterruptRemapping;
    }
    // Only these events say what was wanted.
    if event.flags & 1 << 5 != 0 && !flags.i && !flags.tr {
        fields.access = if flags.rw {
            Wanted::Write
        } else {
            Wanted::Read
        };
    }
    if u32::from(event.code) == PAGE_FAULT && flags.gn {
        fields.privileged = Some(!flags.us);
    }
}

/// Fills in what the flags of a page request say: those of the PPR log.
pub(super) fn page_request(fields: &mut Fields, bits: u16, space: Option<u32>) {
    let flags = ppr::Flags::from_bits(bits);
    fields.access = match (flags.execute(), flags.write(), flags.read()) {
        (true, _, _) => Wanted::Exec,
        (_, true, _) => Wanted::Write,
        (_, _, true) => Wanted::Read,
        _ => Wanted::Unknown,
    };
    if flags.gn() {
        fields.pasid = space.and_then(Pasid::new);
        fields.privileged = Some(!flags.user());
    }
}

/// The meaning of an entry of the event log; `None` for an empty one and for codes without a name.
pub(crate) fn raw_event(raw: &RawEvent) -> Option<Fields> {
    let code = raw.code().0;
    let event = names::event(code.into())?;
    let mut fields = Fields::new(Arch::Amdvi, event.kind);
    fields.code = Some(code.into());
    fields.address = Some(Iova(raw.address()));
    // Events on commands have no device, but for the one that waited for it.
    fields.device = (!matches!(code, 5 | 6)).then(|| Device::Pci {
        segment: 0,
        rid: raw.source(),
    });
    let [low, _] = raw.words();
    let space = if code == PAGE_REQUEST {
        u32::try_from(low >> 16 & 0xffff | (low >> 42 & 0xf) << 16).ok()
    } else {
        Some(raw.pasid())
    };
    let bits = u16::try_from(low >> 48 & 0xfff).unwrap_or(0);
    describe(&mut fields, event, bits, space);
    Some(fields)
}
