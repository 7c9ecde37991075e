//! Where QEMU departs from the specification, each departure with a name.
//!
//! A deviation does not excuse a disagreement; it says what QEMU makes of the case, and the test then
//! holds QEMU to that. It applies where the case itself has what it is about; that our walk says so is
//! not enough. The functions named are those of QEMU `hw/arm/smmuv3.c` and `hw/arm/smmu-common.c`. The
//! specification is Arm IHI 0070, sections by name.

mod nested;
mod records;
mod stream;
mod tables;

use super::record::Event;
use super::{Config, Mode, Smmuv3};
use super::{unit, view};
use crate::harness::{self, VIRT};
use iommu_walk::smmuv3::{Cause, Failure};
use iommu_walk::{Stage, Step, Table};
use iommu_wire::smmuv3::event::EventNumber;

type Walked = harness::Walked<Smmuv3>;
type Deviation = harness::Deviation<Smmuv3>;
type End = harness::End<Smmuv3>;

/// The deviations that cases of this mode must meet, those of how a record is written last: they come
/// after the others, and end a chain.
pub(crate) fn of(mode: Mode) -> Vec<&'static Deviation> {
    let mut all: Vec<&[Deviation]> = vec![stream::ALL];
    if mode.two_levels {
        all.push(stream::TWO_LEVELS);
    }
    if mode.config != Config::Stage2 {
        all.extend([stream::STAGE_1, tables::STAGE_1, records::STAGE_1]);
    }
    if mode.config != Config::Stage1 {
        all.extend([stream::STAGE_2, tables::STAGE_2, records::STAGE_2]);
    }
    if mode.config == Config::Both {
        all.extend([nested::ALL, records::NESTED]);
    }
    all.into_iter().flatten().collect()
}

/// Tables of our own, before those of cases.
const SPARE: u64 = VIRT.ram + 0x20_0000;

/// The cause, if it is one of these.
fn failed(walked: &Walked, causes: &[Cause]) -> Option<Cause> {
    let cause = walked.failure?.cause;
    causes.contains(&cause).then_some(cause)
}

/// The last step through a table of this kind.
fn step(walked: &Walked, table: Table) -> Option<&Step> {
    let mut steps = walked.trail.steps().iter();
    steps.rfind(|step| step.table == table)
}

/// A word of the case: of the last entry of this kind.
fn word(walked: &Walked, table: Table, number: u64) -> Option<u64> {
    let at = step(walked, table)?.addr.0;
    Some(walked.case.memory.get(at + number * 8))
}

/// Bits of a word.
const fn bits(word: u64, lowest: u8, width: u8) -> u64 {
    word >> lowest & low(width)
}

/// A field of up to 8 bits.
const fn field(word: u64, lowest: u8, width: u8) -> u8 {
    bits(word, lowest, width).to_le_bytes()[0]
}

/// The low `count` bits.
const fn low(count: u8) -> u64 {
    if count >= 64 { !0 } else { !(!0 << count) }
}

/// What QEMU has of S2PS, or IPS: a width, up to that of its OAS.
const fn width(size: u64) -> u8 {
    match size {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        _ => 44,
    }
}

/// Whether the stream table entry that the walk has used has these bits of Config.
fn translates(walked: &Walked, stages: u64) -> bool {
    let config = word(walked, Table::Stream, 0).map_or(0, |word| bits(word, 1, 3));
    config & 0b100 != 0 && config & 0b11 & stages == stages
}

/// How the tables of a stage are: the granule, and the width of an input address, both in bits.
fn geometry(walked: &Walked, stage: Stage) -> Option<(u8, u8)> {
    let (granule, size) = match stage {
        Stage::First => {
            let context = word(walked, Table::ContextDescriptor, 0)?;
            if walked.case.iova >> 55 & 1 == 0 {
                (granule(bits(context, 6, 2))?, field(context, 0, 6))
            } else {
                // TG1 has them in another order.
                let code = match bits(context, 22, 2) {
                    1 => 2,
                    2 => 0,
                    3 => 1,
                    _ => return None,
                };
                (granule(code)?, field(context, 16, 6))
            }
        }
        Stage::Second => {
            let third = word(walked, Table::Stream, 2)?;
            (granule(bits(third, 46, 2))?, field(third, 32, 6))
        }
    };
    Some((granule, 64 - size))
}

/// TG0, or S2TG.
const fn granule(code: u64) -> Option<u8> {
    match code {
        0 => Some(12),
        1 => Some(16),
        2 => Some(14),
        _ => None,
    }
}

/// Address bits below the index of a level, 1 being the lowest.
const fn shift(granule: u8, level: u8) -> u8 {
    granule + (level - 1) * (granule - 3)
}

/// Ends with this, and with nothing that another deviation might look past.
fn ending(walked: &Walked, end: End) -> Walked {
    Walked {
        failure: None,
        ..walked.ending(end)
    }
}

/// Fails otherwise.
fn failing(walked: &Walked, failure: Failure) -> Walked {
    let end = match walked.unit.view {
        Some(view) => view::failed(view, &walked.case, &failure),
        None => unit::failed(&walked.case, &failure),
    };
    Walked {
        failure: Some(failure),
        ..walked.ending(end)
    }
}

/// Ends with the record of a configuration error, which has no address.
fn configuration(walked: &Walked, id: EventNumber) -> Walked {
    let event = Event::new(id, walked.case.device.rid());
    ending(walked, End::Fault(vec![event]))
}

/// The record, if there is one.
fn event(walked: &Walked) -> Option<Event> {
    match &walked.end {
        End::Fault(events) => events.first().copied(),
        _ => None,
    }
}

/// The record otherwise written, if that makes a difference.
fn rewritten(walked: &Walked, change: impl Fn(&mut [u64; 4])) -> Option<Walked> {
    let before = event(walked)?;
    let mut after = before;
    change(&mut after.0);
    (after != before).then(|| ending(walked, End::Fault(vec![after])))
}
