//! Where QEMU departs from the specification, each departure with a name.
//!
//! A deviation does not excuse a disagreement; it says what QEMU makes of the case, and the test
//! then holds QEMU to that. It applies where the case itself has what it is about; that our walk says
//! so is not enough. The functions named are those of QEMU `hw/i386/amd_iommu.c`. The specification is
//! AMD 48882, sections by name.

mod rights;
mod tables;

use super::Amdvi;
use super::page::own_shift;
use super::unit::Event;
use crate::harness::{self, Case, End};
use iommu_walk::amdvi::{Cause, Unit};
use iommu_walk::{Step, Table};
use iommu_wire::amdvi::event::EventCode;
use iommu_wire::amdvi::tables::{DeviceWord0, DeviceWord1};

type Walked = harness::Walked<Amdvi>;
type Deviation = harness::Deviation<Amdvi>;

/// All of them, those of how an event is written last: they come after the others, and end a chain.
pub(crate) const ALL: &[Deviation] = &[
    // "Exclusion Range". `amdvi_mmio_write` keeps the registers, and nothing reads them.
    Deviation {
        name: "there is no exclusion range",
        as_qemu: |walked| {
            let [base, limit] = walked.case.setup.exclusion;
            let all = base & 0b10 != 0;
            let meant = all || device_entry(walked)?[1] & DeviceWord1::EXCLUSION != 0;
            let range = base >> 12..=limit >> 12;
            let inside = base & 1 != 0 && range.contains(&(walked.case.iova >> 12));
            (meant && inside).then(|| walked.with(|case| case.setup.exclusion = [0; 2]))
        },
    },
    // "Special Address Controls": nothing goes to FD_0000_0000h–FF_FFFF_FFFFh. `amdvi_translate` knows
    // the interrupt range alone.
    Deviation {
        name: "the HyperTransport range is memory like any other",
        as_qemu: |walked| {
            failed(walked, &[Cause::HypertransportRange])?;
            let inside = matches!(walked.case.iova >> 32, 0xfd..=0xff);
            let ignoring = Unit::new(walked.unit.efr(), 1 << 11);
            inside.then(|| Walked::new(walked.case.clone(), ignoring))
        },
    },
    // "Special Address Controls": INVALID_DEVICE_REQUEST. The range is a region of its own, which lies
    // over the unit's (`amdvi_host_dma_iommu`), and `amdvi_mem_ir_read` answers with nothing.
    Deviation {
        name: "a read in the interrupt range leaves no event",
        as_qemu: |walked| {
            let inside = walked.case.iova >> 20 == 0xfee;
            silent(walked, Cause::InterruptRange).filter(|_| inside)
        },
    },
    // "Device Table Base Address Register", Size. `amdvi_get_dte` reads beyond: nothing but
    // `amdvi_int_remap_msi` looks at `devtab_len`, and only for zero.
    Deviation {
        name: "the device table has no end",
        as_qemu: |walked| {
            failed(walked, &[Cause::DeviceOutsideTable])?;
            Some(walked.with(|case| case.setup.table |= 1))
        },
    },
    // "Device Table Entry Format": without V, bits 127:1 are ignored. `amdvi_as_to_dte` calls
    // `amdvi_validate_dte` first.
    Deviation {
        name: "reserved bits of a device table entry without V count",
        as_qemu: |walked| {
            let words = device_entry(walked)?;
            let valid = words[0] & DeviceWord0::VALID != 0;
            let lower = reserved(&[words[0], words[1], 0, 0]);
            illegal(walked).filter(|_| lower && !valid)
        },
    },
    // "Device Table Entry Format": V is about bits 127:1, IV about 255:128. `amdvi_validate_dte`
    // checks all four words, for DMA and for interrupts alike.
    Deviation {
        name: "reserved bits of the interrupt fields count for memory requests",
        as_qemu: |walked| {
            let words = device_entry(walked)?;
            let upper = reserved(&[0, 0, words[2], words[3]]);
            illegal(walked).filter(|_| upper)
        },
    },
    // "Device Table Entry Format": a field of a feature that the unit lacks is reserved.
    // AMDVI_DTE_QUAD0_RESERVED and _QUAD1_RESERVED leave these out.
    Deviation {
        name: "HAD is accepted without its feature",
        as_qemu: |walked| tables::featureless(walked, 0, DeviceWord0::HOST_ACCESS_DIRTY),
    },
    Deviation {
        name: "GPRP is accepted without its feature",
        as_qemu: |walked| tables::featureless(walked, 0, DeviceWord0::RESPONSE_WITH_PASID),
    },
    Deviation {
        name: "GIoV is accepted without its feature",
        as_qemu: |walked| tables::featureless(walked, 0, DeviceWord0::GUEST_IO),
    },
    Deviation {
        name: "SATS is accepted without its feature",
        as_qemu: |walked| tables::featureless(walked, 1, DeviceWord1::SECURE_ATS),
    },
    // "Event Logging", ILLEGAL_DEV_TABLE_ENTRY. `amdvi_page_walk` traces it, and returns no
    // translation.
    Deviation {
        name: "Mode 7 leaves no event",
        as_qemu: |walked| {
            let highest = device_entry(walked)?[0] & DeviceWord0::MODE == DeviceWord0::MODE;
            silent(walked, Cause::PagingMode).filter(|_| highest)
        },
    },
    // "Device Table Entry Format", TV, and "Event Logging", IO_PAGE_FAULT. `amdvi_page_walk` returns
    // no translation.
    Deviation {
        name: "TV=0 leaves no event",
        as_qemu: |walked| {
            let clear = device_entry(walked)?[0] & DeviceWord0::TRANSLATION_VALID == 0;
            silent(walked, Cause::TranslationDisabled).filter(|_| clear)
        },
    },
    // "Device Table Entry Format", IR and IW. `amdvi_update_addr_translation_mode` takes the unit out
    // of the device's way where Mode is 0.
    Deviation {
        name: "Mode 0 lets every request pass",
        as_qemu: |walked| {
            failed(walked, rights::DENIED_BY_DEVICE)?;
            let (entry, word) = (device_step(walked)?.addr.0, device_entry(walked)?[0]);
            let rights = DeviceWord0::READ | DeviceWord0::WRITE;
            let denied = word & DeviceWord0::MODE == 0 && rights::lacks(walked, word);
            denied.then(|| walked.with(|case| *case.memory.word(entry) |= rights))
        },
    },
    // "Device Table Entry Format", SA. Nothing reads it.
    Deviation {
        name: "SA does not suppress events",
        as_qemu: |walked| {
            let entry = device_step(walked)?.addr.0 + 8;
            let suppressed = walked.failure?.suppressed();
            let heard = |case: &mut Case<Amdvi>| {
                *case.memory.word(entry) &= !DeviceWord1::SUPPRESS_ALL;
            };
            suppressed.then(|| walked.with(heard))
        },
    },
    // "I/O Page Tables for Host Translations", bits that must be zero. `fetch_pte` checks none.
    Deviation {
        name: "reserved bits of entries that point to tables are accepted",
        as_qemu: |walked| {
            tables::reserved_accepted(walked, tables::TABLE_RESERVED, |next| {
                !matches!(next, 0 | 7)
            })
        },
    },
    Deviation {
        name: "reserved bits of entries that map pages are accepted",
        as_qemu: |walked| {
            tables::reserved_accepted(walked, tables::PAGE_RESERVED, |next| matches!(next, 0 | 7))
        },
    },
    // The same, skipped levels: their part of the address must be zero. `fetch_pte` looks at what
    // indexes a table, and at the offset in the page.
    Deviation {
        name: "the address of skipped levels is not checked",
        as_qemu: |walked| tables::skips(walked),
    },
    // The same, page sizes: larger than a page of the level, smaller than one of the next. `fetch_pte`
    // takes any that is encoded, and at level 6 the size of a page of that level, which would be larger
    // than memory can be.
    Deviation {
        name: "a page smaller than its level's is accepted",
        as_qemu: |walked| tables::sized(walked, |level, shift| shift < own_shift(level)),
    },
    Deviation {
        name: "a page of its level's size is accepted in the encoding of others",
        as_qemu: |walked| tables::sized(walked, |level, shift| shift == own_shift(level)),
    },
    Deviation {
        name: "a page of the next level's size is accepted",
        as_qemu: |walked| tables::sized(walked, |level, shift| shift == own_shift(level + 1)),
    },
    Deviation {
        name: "a page larger than the next level's is accepted",
        as_qemu: |walked| tables::sized(walked, |level, shift| shift > own_shift(level + 1)),
    },
    Deviation {
        name: "level 6 maps pages",
        as_qemu: |walked| tables::topmost(walked),
    },
    // The same: the address field ends at bit 51, and with it the size that it encodes.
    // `PTE_LARGE_PAGE_SIZE` counts on through what lies above.
    Deviation {
        name: "a size goes on into the bits above the address field",
        as_qemu: |walked| tables::oversized(walked),
    },
    // "I/O Page Tables for Host Translations", IR and IW: what every level grants, and the device table
    // entry. `amdvi_page_walk` compares the request with the entry that `fetch_pte` ended at.
    Deviation {
        name: "the last entry decides, whatever the device table entry grants",
        as_qemu: |walked| {
            failed(walked, rights::DENIED_BY_DEVICE)?;
            rights::last_decides(walked)
        },
    },
    Deviation {
        name: "the last entry decides, whatever those above it grant",
        as_qemu: |walked| {
            failed(walked, rights::DENIED_BY_HOST)?;
            rights::last_decides(walked)
        },
    },
    // The same. `fetch_pte` ends as soon as the levels together grant nothing, and returns success
    // with the entry it has come to, which `amdvi_page_walk` then takes for a page of that level.
    Deviation {
        name: "an entry that leaves no right is taken for a page",
        as_qemu: |walked| rights::nothing_left(walked),
    },
    // "Event Logging": an address, and the domain in a page fault. `amdvi_encode_event` has no domain,
    // and `amdvi_setevent_bits` makes its mask from 64 as the start, which leaves no bit of the address.
    Deviation {
        name: "events have neither address nor domain",
        as_qemu: |walked| {
            walked.failure?;
            rewritten(walked, |event| Event {
                domain: 0,
                address: 0,
                ..event
            })
        },
    },
    // "Event Logging", IO_PAGE_FAULT. `amdvi_page_fault` sets I in each, which is not an interrupt's,
    // and has one bit for a read where GN is and one for a write where NX is.
    Deviation {
        name: "a page fault has the flag I, and GN for a read or NX for a write",
        as_qemu: |walked| {
            let flags = page_fault_flags(walked);
            reflagged(walked, |code| code == EventCode::IO_PAGE_FAULT, flags)
        },
    },
    // "Event Logging". `amdvi_log_illegaldevtab_error`, `amdvi_log_devtab_error` and
    // `amdvi_log_pagetab_error` are called with none.
    Deviation {
        name: "other events have no flags",
        as_qemu: |walked| reflagged(walked, |code| code != EventCode::IO_PAGE_FAULT, 0),
    },
    // "Event Logging": PAGE_TAB_HARDWARE_ERROR *or* IO_PAGE_FAULT. `amdvi_get_pte_entry` logs the one,
    // and `amdvi_page_walk`, for want of a translation, the other.
    Deviation {
        name: "a table that cannot be read leaves a page fault as well",
        as_qemu: |walked| {
            let only = |events: &[Event]| match events {
                [event] if event.code == EventCode::PAGE_TAB_HARDWARE_ERROR => Some(*event),
                _ => None,
            };
            let event = only(written(walked)?).filter(|event| event.flags == 0)?;
            let fault = Event {
                code: EventCode::IO_PAGE_FAULT,
                flags: page_fault_flags(walked),
                ..event
            };
            Some(walked.ending(End::Fault(vec![event, fault])))
        },
    },
];

/// What QEMU takes to be reserved in a device table entry: AMDVI_DTE_QUAD0_RESERVED to
/// AMDVI_DTE_QUAD3_RESERVED, by "Device Table Entry Format".
const RESERVED: [u64; 4] = [
    1 << 63 | 0b111_1100,
    0,
    0b11 << 52,
    0b11_1111 << 48 | 0x7fff,
];

fn reserved(words: &[u64; 4]) -> bool {
    words
        .iter()
        .zip(RESERVED)
        .any(|(word, mask)| word & mask != 0)
}

/// The cause, if it is one of these.
fn failed(walked: &Walked, causes: &[Cause]) -> Option<Cause> {
    let cause = walked.failure?.cause;
    causes.contains(&cause).then_some(cause)
}

fn device_step(walked: &Walked) -> Option<&Step> {
    let mut steps = walked.trail.steps().iter();
    steps.find(|step| step.table == Table::DeviceTable)
}

/// The device table entry, unless it could not be read.
fn device_entry(walked: &Walked) -> Option<[u64; 4]> {
    device_step(walked)?.raw.words().try_into().ok()
}

/// Ends with this, and with nothing that another deviation might look past.
fn ending(walked: &Walked, end: End<Amdvi>) -> Walked {
    Walked {
        failure: None,
        ..walked.ending(end)
    }
}

/// Blocked, but without an event.
fn silent(walked: &Walked, cause: Cause) -> Option<Walked> {
    failed(walked, &[cause]).map(|_| ending(walked, End::Nothing))
}

/// ILLEGAL_DEV_TABLE_ENTRY, as QEMU writes it; not where our walk has come to that already.
fn illegal(walked: &Walked) -> Option<Walked> {
    let already = failed(walked, &[Cause::DeviceEntryReserved]).is_some();
    if already || written(walked).is_some() {
        return None;
    }
    let event = Event {
        code: EventCode::ILLEGAL_DEV_TABLE_ENTRY,
        flags: 0,
        device: walked.case.device.rid(),
        domain: 0,
        pasid: 0,
        address: 0,
    };
    Some(ending(walked, End::Fault(vec![event])))
}

/// The flags of QEMU's page faults.
fn page_fault_flags(walked: &Walked) -> u16 {
    let access = if walked.case.device.writes() { 2 } else { 1 };
    1 << 3 | access
}

fn rewritten(walked: &Walked, change: impl Fn(Event) -> Event) -> Option<Walked> {
    let End::Fault(events) = &walked.end else {
        return None;
    };
    let events = events.iter().map(|event| change(*event));
    Some(ending(walked, End::Fault(events.collect())))
}

/// The events, once they are as QEMU writes them but for their flags.
fn written(walked: &Walked) -> Option<&[Event]> {
    match &walked.end {
        End::Fault(events) if walked.failure.is_none() => Some(events),
        _ => None,
    }
}

/// Other flags for the events with a code like this.
fn reflagged(walked: &Walked, of: impl Fn(EventCode) -> bool, flags: u16) -> Option<Walked> {
    let events = written(walked)?;
    let differs = |event: &&Event| of(event.code) && event.flags != flags;
    events.iter().find(differs)?;
    rewritten(walked, |event| {
        let flags = if of(event.code) { flags } else { event.flags };
        Event { flags, ..event }
    })
}
