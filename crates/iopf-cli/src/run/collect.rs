//! From what devices, guest and IOMMU counted to rows of the report.

use super::arch::{Scripted, Seen};
use super::machine::Machine;
use super::report::{Device, FaultRow, Scenario, StallRow};
use testkit::{Driver, FaultLog};

/// The row of a device; `ended`: jobs with and without success.
pub(crate) fn device(device: &endpoint::Device, by: &str, ended: [u64; 2]) -> Device {
    let stats = device.stats();
    let [done, failed] = ended;
    Device {
        device: device.rid().to_string(),
        served_by: by.to_owned(),
        done,
        failed,
        bytes: stats.bytes,
        translations: stats.translation_requests,
        atc_hits: stats.atc_hits,
        pages_requested: stats.pages_requested,
        groups: stats.groups,
        invalidations: stats.invalidations,
        blocked: stats.blocked,
    }
}

/// What became of the requests of a device that stalled, if any did.
pub(crate) fn stalls(device: &endpoint::Device) -> Option<StallRow> {
    let stats = device.stats();
    let [retried, aborted, ignored] = stats.resumed;
    (stats.stalls > 0).then(|| StallRow {
        device: device.rid().to_string(),
        stalled: stats.stalls,
        retried,
        aborted,
        ignored,
    })
}

/// Requests of a device that are stalled now.
pub(crate) fn stalled(device: &endpoint::Device) -> u64 {
    let stats = device.stats();
    stats.stalls.saturating_sub(stats.resumed.iter().sum())
}

/// Faults by device and cause, from the guest's own log.
pub(crate) fn faults<X: Scripted>(log: &FaultLog<Seen<X>>) -> Vec<FaultRow> {
    log.tallies
        .iter()
        .map(|((rid, code), tally)| FaultRow {
            device: rid.to_string(),
            code: *code,
            name: X::name(*code).to_owned(),
            count: tally.count,
            first: tally.first.0,
            last: tally.last.0,
        })
        .collect()
}

/// What the IOMMU and the guest lost, exactly.
pub(crate) fn losses<X: Scripted>(machine: &Machine<X>, scenario: &mut Scenario) {
    let counters = machine.unit.counters();
    let prq = machine.guest.page_requests();
    scenario.lost(X::LOST, counters.lost);
    scenario.lost(X::HIDDEN, counters.suppressed);
    scenario.lost(
        "faults beyond the 256 the host keeps for diagnosis",
        counters.forgotten,
    );
    scenario.lost(
        "page requests that found the guest's queue full",
        counters.page_requests_lost,
    );
    scenario.lost(
        "page requests the IOMMU refused",
        counters.page_requests_refused,
    );
    scenario.lost(
        "pages of unfinished groups the guest threw away",
        prq.discarded,
    );
}

/// Compares what the devices, the IOMMU and the guest know of requests that stalled, where any did. The rows
/// of the devices are there already.
pub(crate) fn let_go<X: Scripted>(machine: &Machine<X>, scenario: &mut Scenario) {
    let stalled: u64 = scenario.stalls.iter().map(|row| row.stalled).sum();
    if stalled == 0 {
        return;
    }
    let rows = scenario.stalls.iter();
    let resumed: u64 = rows
        .map(|row| row.retried + row.aborted + row.ignored)
        .sum();
    let counters = machine.unit.counters();
    let guest = machine.guest.stall_stats();
    let answered = guest.retried + guest.aborted;
    let unseen = counters.stalled.saturating_sub(guest.events);
    scenario.check(
        "every request that stalls is let go, once, and no event of it is lost",
        counters.stalled == counters.resumed
            && stalled <= counters.stalled
            && resumed == counters.resumed
            && guest.events == answered
            && guest.events <= counters.stalled,
        format!(
            "{} stalled = {answered} answered + {unseen} tried again before the guest knew",
            counters.stalled
        ),
    );
}

/// Adds rows to those of the same device and cause.
pub(crate) fn merge(into: &mut Vec<FaultRow>, rows: Vec<FaultRow>) {
    for row in rows {
        let same = into
            .iter_mut()
            .find(|r| r.device == row.device && r.code == row.code);
        match same {
            Some(old) => {
                old.count += row.count;
                old.last = row.last;
            }
            None => into.push(row),
        }
    }
    into.sort_by(|a, b| (&a.device, a.code).cmp(&(&b.device, b.code)));
}
