//! What QEMU writes into records.

use super::nested::lower_table;
use super::{Deviation, End, failed, rewritten, word};
use crate::smmuv3::record::{CLASS, Event, READ};
use crate::smmuv3::view::{self, Of, View};
use iommu_walk::Table;
use iommu_walk::smmuv3::{Cause, Second};

/// With stage 1.
pub(super) const STAGE_1: &[Deviation] = &[
    // "F_CD_FETCH": FetchAddr is bits 255:192. `smmuv3_record_event` uses `EVT_SET_ADDR`.
    Deviation {
        name: "F_CD_FETCH has its address where InputAddr is",
        as_qemu: |walked| {
            let fetch = [Cause::ContextUnreadable, Cause::StreamContextPointer];
            failed(walked, &fetch)?;
            rewritten(walked, |words| words.swap(2, 3))
        },
    },
];

/// With stage 2.
pub(super) const STAGE_2: &[Deviation] = &[
    // "F_TRANSLATION": IPA is bits 55:12 of the address. `EVT_SET_ADDR2` takes all.
    Deviation {
        name: "an IPA has its low bits",
        as_qemu: |walked| {
            let failure = walked.failure?;
            let intermediate = failure.cause.second_address() == Second::Intermediate;
            let address = failure.guest_addr?.0;
            let low = address & 0xfff;
            (intermediate && walked.unit.view.is_none())
                .then(|| rewritten(walked, |words| words[3] |= low))?
        },
    },
];

/// With both stages.
pub(super) const NESTED: &[Deviation] = &[
    // "Event records", RnW: of the transaction. `smmu_get_cd` passes IOMMU_RO to `smmuv3_do_translate`,
    // which records it.
    Deviation {
        name: "a fault of a context descriptor is recorded as a read, with all of its address",
        as_qemu: |walked| {
            let cause = walked.failure?.cause;
            let context = CONTEXT.contains(&cause);
            let address = word(walked, Table::Stream, 0)? & 0x000f_ffff_ffff_ffc0;
            context.then(|| {
                rewritten(walked, |words| {
                    words[1] |= READ;
                    if cause.second_address() == Second::Intermediate {
                        words[3] = address;
                    }
                })
            })?
        },
    },
    // "F_TRANSLATION": S2 is 1, IPA is that of the descriptor, and S2R decides. `smmu_ptw_64_s1` ends with
    // the stage set to 1, and `translate_table_addr_ipa` has put the table's address where that of an
    // aborted read would be.
    Deviation {
        name: "a fault of stage 2 that ends a walk of stage 1 is one of stage 1, at the table's base",
        as_qemu: |walked| {
            let failure = walked.failure?;
            let table = TABLE.contains(&failure.cause);
            let recorded = word(walked, Table::ContextDescriptor, 0)? >> 45 & 1 != 0;
            let view = View {
                stream: 0,
                address: lower_table(walked)?,
                of: Of::Table { recorded },
            };
            let whole = walked.unit.view.is_none();
            (table && whole).then(|| {
                let mut end = view::failed(view, &walked.case, &failure);
                if let End::Fault(events) = &mut end {
                    // CLASS is as ours.
                    let ours = Event::of(&walked.case.dma(), &failure).0[1] & CLASS;
                    events
                        .iter_mut()
                        .for_each(|event| event.0[1] = event.0[1] & !CLASS | ours);
                }
                super::ending(walked, end)
            })
        },
    },
];

/// A context descriptor is not found.
const CONTEXT: &[Cause] = &[
    Cause::ContextIpaOutside,
    Cause::ContextIpaUnreadable,
    Cause::ContextIpaInvalid,
    Cause::ContextIpaOutputSize,
    Cause::ContextIpaAccessFlag,
    Cause::ContextIpaDenied,
];
/// A table of stage 1 is not found.
pub(super) const TABLE: &[Cause] = &[
    Cause::TableIpaOutside,
    Cause::TableIpaUnreadable,
    Cause::TableIpaInvalid,
    Cause::TableIpaOutputSize,
    Cause::TableIpaAccessFlag,
    Cause::TableIpaReadDenied,
];
