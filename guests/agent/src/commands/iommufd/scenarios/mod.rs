//! What is played with a fault queue. Each function is a script; its lines are its result, and who
//! asked for it knows what they must be.

mod answers;
mod changes;
mod ends;

use super::bench::{Bench, PASID, Space};
use super::faults::Fault;
use crate::reply::{Done, Failure};
use iopf::Pasid;

/// A script.
pub(super) type Script = fn(&mut Bench<'_, '_>) -> Done;

/// Every script and its name.
pub(super) const ALL: &[(&str, Script)] = &[
    ("present", answers::present),
    ("missing", |bench| answers::missing(bench, None)),
    ("missing-pasid", |bench| {
        answers::missing(bench, Some(PASID))
    }),
    ("group", answers::group),
    ("invalid", answers::invalid),
    ("read-only", answers::read_only),
    ("out-of-order", answers::out_of_order),
    ("both-spaces", answers::both_spaces),
    ("empty-success", answers::empty_success),
    ("no-queue", answers::no_queue),
    ("wrong-calls", answers::wrong_calls),
    ("detach", |bench| ends::detach(bench, None)),
    ("detach-pasid", |bench| ends::detach(bench, Some(PASID))),
    ("detach-unread", ends::detach_unread),
    ("detach-beside", ends::detach_beside),
    ("close", ends::close),
    ("replace", |bench| ends::replace(bench, None)),
    ("replace-pasid", |bench| ends::replace(bench, Some(PASID))),
    ("reset", ends::reset),
    ("handles", ends::handles),
    ("invalidate", |bench| changes::invalidate(bench, None)),
    ("invalidate-pasid", |bench| {
        changes::invalidate(bench, Some(PASID))
    }),
    ("stage-2", |bench| changes::stage_2(bench, None)),
    ("stage-2-pasid", |bench| {
        changes::stage_2(bench, Some(PASID))
    }),
];

/// Where the device is told to go.
const AT: u64 = 0x2000_0000;

/// The words of a job that fills a page at AT with 0xc3.
const FILL: &str = "fill 0x20000000 4096 pattern=0xc3c3c3c3c3c3c3c3";

/// The words of a job that reads `len` bytes from AT on and counts those that are not 0x5a.
fn verify(len: u64, pasid: Option<Pasid>) -> String {
    let pasid = pasid.map_or(String::new(), |pasid| format!(" pasid={}", pasid.get()));
    format!("verify {AT:#x} {len} pattern=0x5a5a5a5a5a5a5a5a{pasid}")
}

/// The cookie of the first fault.
fn first(faults: &[Fault]) -> Result<u32, Failure> {
    let fault = faults.first();
    Ok(fault.ok_or_else(|| Failure::new("no fault"))?.0.cookie)
}

/// Puts the device on tables and, where there is a PASID, that on tables of its own. First the tables
/// of the space that was asked for, then the others.
fn on(bench: &mut Bench<'_, '_>, pasid: Option<Pasid>) -> Result<[Space; 2], Failure> {
    let (plain, own) = (bench.space()?, bench.space()?);
    bench.attach(None, &plain)?;
    if pasid.is_none() {
        return Ok([plain, own]);
    }
    bench.attach(pasid, &own)?;
    Ok([own, plain])
}
