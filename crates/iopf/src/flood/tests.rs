use super::{Flood, Level, LogLine, LogWhat};
use crate::engine::{DeviceId, GuestId};
use crate::{Access, Iova, Reason, Unrecoverable};
use std::vec::Vec;

const SECOND: u64 = 1_000_000_000;

const FAULT: Unrecoverable = Unrecoverable {
    reason: Reason(6),
    pasid: None,
    access: Access::READ,
    addr: Some(Iova(0x1000)),
    fetch_addr: None,
};

fn drain(flood: &mut Flood) -> Vec<LogLine> {
    core::iter::from_fn(|| flood.poll()).collect()
}

fn suppressed(lines: &[LogLine]) -> Vec<(u32, u64)> {
    let runs = lines.iter().filter_map(|line| match line.what {
        LogWhat::Suppressed(n) => Some((line.device.0, n)),
        LogWhat::Fault(_) => None,
    });
    runs.collect()
}

#[test]
fn a_storm_writes_ten_lines_and_then_one_with_the_exact_count() {
    let mut flood = Flood::default();
    for i in 0..1000 {
        flood.log(i, DeviceId(1), None, FAULT);
    }
    assert_eq!(drain(&mut flood).len(), 10);
    assert_eq!(flood.next(), Some(5 * SECOND));
    flood.handle_timeout(5 * SECOND - 1);
    assert_eq!(drain(&mut flood), []);
    flood.handle_timeout(5 * SECOND);
    let lines = drain(&mut flood);
    assert_eq!(suppressed(&lines), [(1, 990)]);
    assert_eq!(lines[0].level, Level::Warning);
    assert_eq!(flood.next(), None);
}

#[test]
fn the_devices_of_one_guest_share_its_budget_and_stay_below_the_default_level() {
    let mut flood = Flood::default();
    let guest = Some(GuestId(9));
    for i in 0..12 {
        flood.log(0, DeviceId(i % 2), guest, FAULT);
    }
    flood.log(0, DeviceId(7), None, FAULT);
    let lines = drain(&mut flood);
    assert_eq!(lines.len(), 11, "ten of the guest, one of the host");
    assert!(
        lines
            .iter()
            .all(|l| (l.level == Level::Debug) == l.guest.is_some())
    );
    flood.handle_timeout(5 * SECOND);
    assert_eq!(suppressed(&drain(&mut flood)), [(0, 1), (1, 1)]);
}

#[test]
fn lines_nobody_fetches_are_bounded_and_their_count_is_not_lost() {
    let mut flood = Flood::default();
    for device in 0..5000 {
        flood.log(0, DeviceId(device), None, FAULT);
    }
    flood.handle_timeout(5 * SECOND);
    assert_eq!(drain(&mut flood).len(), 4096);
    flood.handle_timeout(10 * SECOND);
    let lines = drain(&mut flood);
    let told: u64 = suppressed(&lines).iter().map(|(_, n)| n).sum();
    assert_eq!(told, 5000 - 4096);
}

#[test]
fn at_the_end_of_time_the_budgets_hold_and_nothing_hangs() {
    let mut flood = Flood::default();
    for device in 0..5000 {
        flood.log(u64::MAX - 5 * SECOND, DeviceId(device), None, FAULT);
    }
    // The lines are full, so every run goes on into an interval that time has no room for.
    flood.handle_timeout(u64::MAX);
    flood.handle_timeout(u64::MAX);
    assert_eq!(drain(&mut flood).len(), 4096);
    for _ in 0..1000 {
        flood.log(u64::MAX, DeviceId(1), None, FAULT);
    }
    assert_eq!(drain(&mut flood).len(), 10);
    assert_eq!(flood.next(), None);
}

#[test]
fn what_a_guest_causes_is_not_told_as_the_hosts_when_a_device_changes_hands() {
    let mut flood = Flood::default();
    let guest = Some(GuestId(9));
    flood.log(0, DeviceId(1), None, FAULT);
    for _ in 0..100 {
        flood.log(1, DeviceId(1), guest, FAULT);
    }
    flood.handle_timeout(6 * SECOND);
    let loud: Vec<_> = drain(&mut flood)
        .into_iter()
        .filter(|line| line.level == Level::Warning)
        .collect();
    assert_eq!(loud.len(), 1, "the host's own fault");
    assert_eq!(loud[0].what, LogWhat::Fault(FAULT));
}
