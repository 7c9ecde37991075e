//! What is played with a queue of events.

use super::bench::{Bench, NUMBER, STAGE1, number, said};
use crate::reply::{Done, Reply};
use iopf_host::selftest::MockDevice;
use iopf_host::veventq::{Record, VeventqKind};
use iopf_host::{Device as _, Hwpt, HwptFlags, Vdevice, Veventq, Viommu, ViommuKind};
use rustix::fs::SeekFrom;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// What the kernel says of a mock's IOMMU and of its address space.
pub(super) fn device(out: &mut Reply<'_>) -> Done {
    let bench = Bench::new(out)?;
    let info = bench.iommufd.hw_info(bench.device.id())?;
    bench.out.line(format_args!(
        "kind {:#x}, data {:02x?}, {} bits of PASID, {:?}",
        info.kind.0, info.data, info.pasid_bits, info.capabilities
    ));
    let ranges = bench.ioas.iova_ranges()?;
    for (first, last) in &ranges.ranges {
        bench.out.line(format_args!("{first:?} to {last:?}"));
    }
    bench
        .out
        .line(format_args!("multiples of {}", ranges.alignment));
    Ok(())
}

/// Events come in order, each under the device's number.
pub(super) fn events(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let mut queue = bench.queue(64)?;
    let _nested = bench.nest()?;
    let ready = queue.wait(Some(Duration::ZERO)).map_err(said)?;
    bench.out.line(format_args!("ready before: {ready}"));
    bench.drain(&mut queue)?;
    bench.trigger(3)?;
    let ready = queue.wait(None).map_err(said)?;
    bench.out.line(format_args!("ready: {ready}"));
    bench.drain(&mut queue)?;
    let ready = queue.wait(Some(Duration::ZERO)).map_err(said)?;
    bench.out.line(format_args!("ready after: {ready}"));
    bench.counts(&queue);
    Ok(())
}

/// What the kernel refuses, and with which number.
pub(super) fn refused(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let (device, flags) = (bench.device.id(), HwptFlags::empty());
    let plain = Hwpt::paging(&bench.ioas, device, flags, None)?;
    let came = Viommu::new(&plain, device, ViommuKind::SELFTEST);
    bench.refused("virtual IOMMU on tables that are no nest parent", came);
    let came = Viommu::new(&bench.parent, device, ViommuKind(0));
    bench.refused("virtual IOMMU of kind 0", came);
    let came = Viommu::new(&bench.parent, device, ViommuKind::SMMUV3);
    bench.refused("virtual IOMMU of a kind that is not this one's", came);

    let came = Vdevice::new(&bench.viommu, &bench.device, 7);
    bench.refused("second number for a device", came);
    let other = MockDevice::new(&bench.ioas)?;
    let came = Vdevice::new(&bench.viommu, &other, NUMBER);
    bench.refused("number that another device has", came);

    for (what, number, depth) in [
        ("queue of kind 0", 0, 1),
        ("queue of depth 0", 0xbeef_beef, 0),
        ("queue of depth 2^19 + 1", 0xbeef_beef, (1 << 19) + 1),
    ] {
        let came = Veventq::new(&bench.viommu, VeventqKind::new(number, 4), depth);
        bench.refused(what, came);
    }
    let came = bench.device.trigger_event();
    bench.refused("event of a device on plain tables", came);
    let _nested = bench.nest()?;
    let came = bench.device.trigger_event();
    bench.refused("event without a queue", came);
    // No queue is of a kind alone: whoever knows the kind can have one.
    let other_kind = Veventq::new(&bench.viommu, VeventqKind::SMMUV3, 1)?;
    let came = bench.device.trigger_event();
    bench.refused("event with a queue of another kind", came);
    let deep = bench.queue(1 << 19)?;
    let came = bench.queue(1);
    bench.refused("second queue of a kind", came);
    let came = bench.device.trigger_event();
    bench.refused("event", came);
    drop((other_kind, deep));

    let came = Hwpt::nested(&plain, device, flags, &STAGE1, None);
    bench.refused("tables nested on tables that are no nest parent", came);
    let (faults, _file) = iopf_host::FaultQueueObject::new(&bench.iommufd)?;
    let both = HwptFlags::NEST_PARENT;
    let came = Hwpt::paging(&bench.ioas, device, both, Some(&faults));
    bench.refused("nest parent with a fault queue", came);
    Ok(())
}

/// Where nothing comes after it, a loss is told by a header.
pub(super) fn trailing(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let mut queue = bench.queue(2)?;
    let _nested = bench.nest()?;
    bench.trigger(5)?;
    bench.drain(&mut queue)?;
    // What the header counted is not counted again.
    bench.trigger(1)?;
    bench.drain(&mut queue)?;
    bench.counts(&queue);
    Ok(())
}

/// Where an event comes after it, a loss is a gap: the header goes.
pub(super) fn gap(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    // Room for one record a read.
    let mut queue = bench.queue(2)?.with_room(12);
    let _nested = bench.nest()?;
    bench.trigger(4)?;
    bench.one(&mut queue)?;
    bench.trigger(1)?;
    // Full again.
    bench.trigger(2)?;
    bench.drain(&mut queue)?;
    bench.counts(&queue);
    Ok(())
}

/// Reads of every size, past the reader.
pub(super) fn sizes(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let queue = bench.queue(2)?;
    let _nested = bench.nest()?;
    let mut read = |what: &str, len: usize| {
        let mut buffer = vec![0; len];
        let came = match rustix::io::read(queue.as_fd(), &mut buffer) {
            Ok(done) => done.to_string(),
            Err(errno) => number(errno),
        };
        bench
            .out
            .line(format_args!("{what}, read of {len}: {came}"));
    };
    read("nothing", 7);
    read("nothing", 8);
    // Two events and a header.
    (0..3).try_for_each(|_| bench.device.trigger_event())?;
    read("two events, one lost", 0);
    read("two events, one lost", 7);
    read("two events, one lost", 8);
    read("two events, one lost", 11);
    read("two events, one lost", 13);
    read("one event, one lost", 19);
    read("one lost", 7);
    read("one lost", 8);
    read("nothing", 64);
    let came = rustix::io::write(queue.as_fd(), &[0; 12]);
    let came = came.map_or_else(number, |done| done.to_string());
    bench.out.line(format_args!("write of 12: {came}"));
    let came = rustix::fs::seek(queue.as_fd(), SeekFrom::Start(8));
    let came = came.map_or_else(number, |done| done.to_string());
    bench.out.line(format_args!("seek: {came}"));
    Ok(())
}

/// A buffer that has no room for a record gets it.
pub(super) fn grows(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let mut queue = bench.queue(1)?.with_room(1);
    let _nested = bench.nest()?;
    bench.trigger(2)?;
    let before = queue.room();
    bench.drain(&mut queue)?;
    let after = queue.room();
    bench
        .out
        .line(format_args!("room for {before} bytes, then {after}"));
    bench.counts(&queue);
    Ok(())
}

/// Events that the storm reports.
const STORM: u32 = 20_000;
/// Events that its queue holds.
const DEPTH: u32 = 16;

/// Bursts that the queue can hold and bursts that it cannot, and a reader that comes now and then,
/// for one record or for all. What came and what was lost is known at every step.
pub(super) fn storm(out: &mut Reply<'_>) -> Done {
    let seed = 0x1057;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bench = Bench::new(out)?;
    let mut queue = bench.queue(DEPTH)?.with_room(12);
    let _nested = bench.nest()?;
    let (mut reported, mut held, mut lost) = (0, 0, 0);
    let (mut gaps, mut headers) = (0, 0);
    while reported < STORM {
        let burst = random.u32(1..=2 * DEPTH).min(STORM - reported);
        bench.trigger(burst)?;
        reported += burst;
        let kept = burst.min(DEPTH - held);
        held += kept;
        lost += burst - kept;
        let mut left = match random.bool() {
            true => u32::MAX,
            false => random.u32(0..DEPTH),
        };
        while left > 0 {
            match queue.next_record().map_err(said)? {
                Some(Record::Event { lost, .. }) => {
                    held -= 1;
                    gaps += u32::from(lost > 0);
                }
                Some(Record::Lost { .. }) => headers += 1,
                None => break,
            }
            left -= 1;
        }
    }
    while let Some(record) = queue.next_record().map_err(said)? {
        headers += u32::from(matches!(record, Record::Lost { .. }));
    }
    let counts = queue.counts();
    bench.out.line(format_args!(
        "seed {seed:#x}: {reported} reported, {} came, {} lost of {lost}, {gaps} gaps, {headers} headers",
        counts.events, counts.lost
    ));
    let all = counts.events + counts.lost == u64::from(reported) && counts.malformed == 0;
    bench
        .out
        .line(format_args!("every one counted once: {all}"));
    Ok(())
}
