//! Devices, a driver's interrupt handler and a driver's commands at once.

use crate::rig::{
    AT, AtEnd, EVENT_HEAD, EVENT_TAIL, EVENTS, INVALIDATE_ALL, PAGES, PPR_HEAD, PPR_TAIL, Rig,
    STATUS, STORE, guest, host, invalidate_device, wait,
};
use iopf::{Access, Dma, Rid};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use viommu::amdvi::Config;
use viommu_api::{PageRequestOutcome, Translate};

/// A log of 256 entries: its place, its pointers, its status bits and its enable bits.
struct Log {
    at: u64,
    head: u64,
    tail: u64,
    logged: u32,
    overflow: u32,
    runs: u32,
    enable: u32,
    interrupt: u32,
}

const EVENT_LOG: Log = Log {
    at: EVENTS,
    head: EVENT_HEAD,
    tail: EVENT_TAIL,
    logged: 1 << 1,
    overflow: 1 << 0,
    runs: 1 << 3,
    enable: 2,
    interrupt: 3,
};

const PAGE_LOG: Log = Log {
    at: PAGES,
    head: PPR_HEAD,
    tail: PPR_TAIL,
    logged: 1 << 6,
    overflow: 1 << 5,
    runs: 1 << 7,
    enable: 13,
    interrupt: 14,
};

impl Log {
    /// `amd_iommu_handle_irq`, `iommu_poll_events` and `amd_iommu_restart_log`; entries go to `each`.
    fn handle(&self, rig: &Rig, each: &mut dyn FnMut([u64; 2])) {
        let mask = self.logged | self.overflow;
        let mut status = rig.r32(STATUS);
        while status & mask != 0 {
            rig.w32(STATUS, mask);
            let mut head = rig.r64(self.head);
            let tail = rig.r64(self.tail);
            while head != tail {
                each(rig.entry(self.at, head / 16));
                rig.put(self.at + head, 0);
                head = (head + 16) % 0x1000;
                rig.w32(self.head, u32::try_from(head).expect("small"));
            }
            if status & self.overflow != 0 && rig.r32(STATUS) & self.runs == 0 {
                rig.disable(self.enable);
                rig.disable(self.interrupt);
                rig.w32(STATUS, self.overflow);
                rig.enable(self.interrupt);
                rig.enable(self.enable);
            }
            status = rig.r32(STATUS);
        }
    }
}

/// Runs `devices` on threads of their own, with a driver that serves `log` at each interrupt until
/// they have ended.
fn serve(rig: &Rig, log: &Log, devices: &[&(dyn Fn() + Sync)], each: &mut dyn FnMut([u64; 2])) {
    let left = AtomicU64::new(devices.len() as u64);
    std::thread::scope(|scope| {
        for device in devices {
            let left = &left;
            scope.spawn(move || {
                let _over = AtEnd(|| {
                    left.fetch_sub(1, Ordering::Release);
                });
                device();
            });
        }
        loop {
            let over = left.load(Ordering::Acquire) == 0;
            // What was logged while software was at it has an interrupt of its own.
            if rig.interrupts() > 0 {
                log.handle(rig, each);
            } else if over {
                break;
            }
            std::thread::yield_now();
        }
    });
}

#[test]
fn every_event_is_read_once_in_order_and_the_lost_are_counted() {
    let rig = host(Config::default());
    const FAULTS: u64 = 3_000;
    let device = |number: u16| {
        for fault in 0..FAULTS {
            let dma = Dma {
                requester: Rid::from_pci(0x20 + number),
                ..rig.dma(None, 0x10_0000 + fault * 0x1000, Access::WRITE)
            };
            assert!(rig.access(&dma, 1).is_err());
        }
    };
    // Both have tables in which nothing is mapped there.
    for word in 0..2 {
        rig.put(
            0x1000 + 0x21 * 32 + word * 8,
            rig.get(0x1000 + 0x20 * 32 + word * 8),
        );
    }
    let (mut read, mut last) = (0u64, [0u64; 2]);
    serve(
        &rig,
        &EVENT_LOG,
        &[&|| device(0), &|| device(1)],
        &mut |[low, addr]| {
            // What the tail has passed is whole.
            assert_eq!(low & !1, 0x2020_0005_0000_0020);
            let of = &mut last[usize::from(low & 1 != 0)];
            assert!(addr > *of, "{addr:#x} after {of:#x}");
            *of = addr;
            read += 1;
        },
    );
    let counters = rig.unit.counters();
    assert_eq!(counters.faults, 2 * FAULTS);
    assert_eq!(counters.recorded, read, "no event is without an interrupt");
    assert_eq!(counters.recorded + counters.lost, counters.faults);
}

#[test]
fn every_page_request_is_read_or_dropped() {
    let rig = guest(Config::default());
    let dropped = AtomicU64::new(0);
    let device = || {
        for request in 0..3_000u64 {
            match rig.ask(0x10_0000 + request * 0x1000, 5, true) {
                PageRequestOutcome::Queued => {}
                PageRequestOutcome::Dropped => {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
                PageRequestOutcome::Answered(response) => {
                    // While the driver restarts the log there is none.
                    assert_eq!(response, iopf::Response::Invalid);
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    let (mut read, mut last) = (0u64, 0);
    serve(&rig, &PAGE_LOG, &[&device], &mut |[low, addr]| {
        assert_eq!(low, 0x1144_0205_0003_0020);
        assert!(addr > last);
        last = addr;
        read += 1;
    });
    assert_eq!(read + dropped.load(Ordering::Relaxed), 3_000);
    assert_eq!(rig.unit.counters().page_requests, read);
}

#[test]
fn commands_come_true_while_devices_fault_and_translate() {
    let rig = host(Config::default());
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for addr in [0x1000, 0x9000] {
            let (rig, stop) = (&rig, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mapped = rig.read_at(None, addr).is_some();
                    assert_eq!(mapped, addr == 0x1000);
                }
            });
        }
        let _stop = AtEnd(|| stop.store(true, Ordering::Relaxed));
        for _ in 0..1_000 {
            rig.submit(&[INVALIDATE_ALL, invalidate_device(Rid(0x20))]);
        }
    });
    let counters = rig.unit.counters();
    assert_eq!(counters.queue_errors, 0);
    assert_eq!(counters.recorded + counters.lost, counters.faults);
}

#[test]
fn a_wait_of_a_buffer_that_was_switched_off_stores_nothing() {
    let rig = host(Config::default());
    rig.put(STORE, 0);
    let inside = AtomicBool::new(false);
    let go = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _go = AtEnd(|| go.store(true, Ordering::Release));
        scope.spawn(|| {
            let _inside = AtEnd(|| inside.store(true, Ordering::Release));
            let dma = rig.dma(None, AT, Access::READ);
            rig.unit
                .with_translation(&dma, 1, &mut |_, _| {
                    inside.store(true, Ordering::Release);
                    while !go.load(Ordering::Acquire) {
                        std::thread::yield_now();
                    }
                })
                .expect("it is mapped");
        });
        while !inside.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let software = scope.spawn(|| rig.queue(&[wait(STORE, 1)]));
        // Time for the wait to begin. If it does not, nothing is shown, and nothing fails.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(rig.get(STORE), 0, "the access is under way");
        rig.disable(12);
        go.store(true, Ordering::Release);
        software.join().expect("it ended");
    });
    assert_eq!(rig.get(STORE), 0);
    // The wait is still the next command.
    rig.enable(12);
    assert_eq!(rig.get(STORE), 1);
}
