//! Administrative commands, with and without descriptors under way.

use super::*;

/// A copy onto a page that is missing.
fn blocked(bench: &Bench) -> Desc {
    bench.map(0x1000, Access::RW);
    Desc::new(MOVE, CRAV | RCR | BOF)
        .first(0x1000)
        .second(0x8000)
        .size(8)
        .record(RECORDS)
}

/// Submits that copy and another descriptor behind it, then writes a command.
fn under_way(command: u32) -> Bench {
    let bench = Bench::new();
    bench.store(0, &blocked(&bench));
    bench.store(0, &Desc::new(0, CRAV | RCR).record(RECORDS + 32));
    bench.run();
    assert_eq!(bench.asked().len(), 1);
    bench.set(CMD, command | INTERRUPT);
    bench.run();
    assert_eq!(bench.get(CMDSTATUS), 1 << 31, "it waits");
    assert_eq!(bench.interrupts(), [0u16; 0]);
    bench
}

fn page_comes(bench: &Bench) {
    bench.map(0x8000, Access::RW);
    bench.answer(0, Response::Success);
    assert_eq!(bench.get(CMDSTATUS), 0);
    assert_eq!(bench.interrupts(), [0]);
    assert_eq!(bench.get(INTCAUSE), 2);
}

#[test]
fn a_drain_waits_for_what_was_submitted() {
    for command in [DRAIN_ALL, DRAIN_WQ | 1, DRAIN_PASID | 5] {
        let bench = under_way(command);
        page_comes(&bench);
        assert_eq!(bench.record(RECORDS), done(1));
        assert_eq!(bench.record(RECORDS + 32), done(1));
    }
}

#[test]
fn a_drain_of_somebody_else_does_not_wait() {
    let bench = Bench::new();
    bench.store(0, &blocked(&bench));
    bench.run();
    assert_eq!(bench.command(DRAIN_PASID | 6), 0);
    assert_eq!(bench.record(RECORDS), done(0));
}

#[test]
fn an_abort_drops_what_has_not_started_and_abandons_the_rest() {
    for command in [ABORT_ALL, ABORT_PASID | 5, RESET_WQ | 1, RESET_DEVICE] {
        let bench = under_way(command);
        page_comes(&bench);
        assert_eq!(bench.record(RECORDS), done(0), "abandoned: no record");
        assert_eq!(bench.record(RECORDS + 32), done(0));
    }
}

#[test]
fn disabling_finishes_what_was_queued_and_takes_no_more() {
    for (command, device) in [(DISABLE_DEVICE, 2), (DISABLE_WQ | 1, 1)] {
        let bench = under_way(command);
        assert_eq!(bench.state(), device);
        assert_eq!(bench.wq_state(0), 2, "draining");
        bench.store(0, &Desc::new(0, CRAV | RCR).record(RECORDS + 64));
        page_comes(&bench);
        assert_eq!(bench.record(RECORDS), done(1));
        assert_eq!(bench.record(RECORDS + 32), done(1));
        assert_eq!(bench.record(RECORDS + 64), done(0), "too late");
        assert_eq!(bench.wq_state(0), 0);
        assert_eq!(bench.state(), if device == 2 { 0 } else { 1 });
    }
}

#[test]
fn a_command_under_way_refuses_the_next() {
    let bench = under_way(DRAIN_ALL);
    bench.set(CMD, ABORT_ALL);
    bench.run();
    assert_eq!(bench.error(), Some(0x52));
    assert_eq!(bench.interrupts(), [0]);
    bench.set(INTCAUSE, 1);
    page_comes(&bench);
    assert_eq!(bench.record(RECORDS), done(1), "not aborted");
}

#[test]
fn enabling_checks_the_device() {
    let enable = |change: &dyn Fn(&Bench)| {
        let bench = Bench::cold();
        bench.pci_enable();
        bench.set64(GROUP_TABLE, 1);
        bench.set64(GROUP_TABLE + 32, 1);
        bench.set(WQ_TABLE, 16);
        change(&bench);
        bench.command(ENABLE_DEVICE)
    };
    assert_eq!(enable(&|_| {}), 0);
    assert_eq!(enable(&|b| assert_eq!(b.command(ENABLE_DEVICE), 0)), 0x10);
    assert_eq!(enable(&|b| b.dsa.write_config(0x04, &[2, 0])), 0x12);
    assert_eq!(enable(&|b| b.set(WQ_TABLE, 129)), 0x14);
    assert_eq!(enable(&|b| b.set64(GROUP_TABLE + 32, 0)), 0x15);
    assert_eq!(enable(&|b| b.set64(GROUP_TABLE + 64 + 32, 2)), 0x15);
    assert_eq!(enable(&|b| b.set64(GROUP_TABLE, 1 << 8 | 1)), 0x16);
    assert_eq!(enable(&|b| b.set64(GROUP_TABLE + 8, 1)), 0x16);
    assert_eq!(
        enable(&|b| b.set(WQ_TABLE, 0)),
        0x16,
        "inactive, and in a group"
    );
    assert_eq!(
        enable(&|b| b.set(WQ_TABLE + 32, 1)),
        0x16,
        "active, and in none"
    );
    assert_eq!(enable(&|b| b.set64(GROUP_TABLE + 32, 1 << 4 | 1)), 0x17);
    let two_groups = |b: &Bench| {
        b.set(WQ_TABLE + 32, 1);
        b.set64(GROUP_TABLE + 64, 2);
        b.set64(GROUP_TABLE + 64 + 32, 1);
    };
    assert_eq!(enable(&two_groups), 0x17, "one engine, two groups");
}

#[test]
fn enabling_checks_the_work_queue() {
    let enable = |mode: u32, limits: u32, change: &dyn Fn(&Bench)| {
        let bench = Bench::cold();
        bench.pci_enable();
        bench.set64(GROUP_TABLE, 1);
        bench.set64(GROUP_TABLE + 32, 1);
        bench.set(WQ_TABLE, 16);
        change(&bench);
        assert_eq!(bench.command(ENABLE_DEVICE), 0);
        bench.set(WQ_TABLE + 8, mode);
        bench.set(WQ_TABLE + 12, limits);
        bench.command(ENABLE_WQ)
    };
    let (mode, limits) = (1 | 2 | 5 << 8 | 1 << 28, 21 | 5 << 5);
    assert_eq!(enable(mode, limits, &|_| {}), 0);
    assert_eq!(enable(mode & !1, limits, &|_| {}), 0x24, "shared mode");
    let no_pri = |b: &Bench| b.dsa.write_config(0x10c, &[0, 0]);
    assert_eq!(enable(mode, limits, &no_pri), 0x25);
    assert_eq!(enable(mode & !2, limits, &no_pri), 0);
    let no_pasid = |b: &Bench| b.dsa.write_config(0x11e, &[0, 0]);
    assert_eq!(enable(mode, limits, &no_pasid), 0x26);
    assert_eq!(enable(1 | 2, limits, &no_pasid), 0);
    assert_eq!(enable(mode, 21, &|_| {}), 0x27, "batches of one");
    assert_eq!(enable(mode, 21 | 11 << 5, &|_| {}), 0x27);
    let user = |b: &Bench| b.dsa.write_config(0x11e, &[1, 0]);
    assert_eq!(enable(mode | 1 << 29, limits, &user), 0x2a);
    assert_eq!(enable(mode | 1 << 29, limits, &|_| {}), 0);
}

#[test]
fn errors_of_commands_are_those_of_the_specification() {
    let bench = Bench::new();
    let cases = [
        (0, 0x01),
        (13 << 20, 0x01),
        (31 << 20, 0x01),
        (ENABLE_WQ | 8, 0x02),
        (ENABLE_WQ | 1, 0x22),
        (ENABLE_WQ, 0x21),
        (DRAIN_WQ | 1 << 8, 0x02),
        (DRAIN_WQ | 1 << 16 | 1, 0x02),
        (DRAIN_WQ | 2, 0x32),
        (DISABLE_WQ | 3, 0x32),
        (RESET_WQ | 2, 0),
        (DISABLE_DEVICE, 0),
        (DISABLE_DEVICE, 0x31),
        (ENABLE_WQ, 0x20),
        (DRAIN_ALL, 0),
        (RESET_DEVICE, 0),
    ];
    for (command, status) in cases {
        assert_eq!(bench.command(command), status, "{command:#x}");
    }
    assert_eq!(
        bench.get(WQ_TABLE),
        0,
        "a reset of the device clears sizes too"
    );
}

#[test]
fn a_pci_switch_that_moves_under_it_halts_the_device() {
    let moves: [(u16, &[u8]); 4] = [
        (0x04, &[2, 0]),  // bus master
        (0x106, &[0, 0]), // ATS
        (0x10c, &[0, 0]), // PRI
        (0x11e, &[0, 0]), // PASID
    ];
    for (at, data) in moves {
        let bench = Bench::new();
        bench.store(0, &blocked(&bench));
        bench.run();
        bench.dsa.write_config(at, data);
        bench.run();
        assert_eq!(bench.state(), 3, "{at:#x}");
        assert_eq!(bench.get64(SWERROR) & 0xffff, 0x5101);
        assert_eq!(bench.get(INTCAUSE), 0x11);
        assert_eq!(
            bench.interrupts().is_empty(),
            at == 0x04,
            "an interrupt is a request too"
        );
        assert_eq!(bench.command(ENABLE_DEVICE), 0x05);
        bench.map(0x8000, Access::RW);
        bench.answer(0, Response::Success);
        assert_eq!(bench.record(RECORDS), done(0), "it does nothing more");
        assert_eq!(bench.command(RESET_DEVICE), 0);
        assert_eq!(bench.state(), 0);
    }
}

#[test]
fn a_command_under_way_fails_when_the_device_halts() {
    let bench = under_way(DRAIN_ALL);
    bench.dsa.write_config(0x106, &[0, 0]);
    assert_eq!(bench.get(CMDSTATUS), 0x03);
    assert_eq!(bench.get(INTCAUSE) & 2, 2);
}

#[test]
fn a_reset_of_the_function_stops_everything() {
    let flr = |bench: &Bench| bench.dsa.write_config(0x49, &[0x80]);
    let whole = |bench: &Bench| bench.dsa.reset();
    let resets: [&dyn Fn(&Bench); 2] = [&flr, &whole];
    for reset in resets {
        let bench = under_way(DRAIN_ALL);
        reset(&bench);
        assert_eq!(bench.get(CMDSTATUS), 0);
        assert_eq!(bench.state(), 0);
        assert_eq!(bench.get(WQ_TABLE), 0);
        let mut command = [0xff; 2];
        bench.dsa.read_config(0x04, &mut command);
        assert_eq!(command, [0, 0]);
        bench.map(0x8000, Access::RW);
        bench.answer(0, Response::Success);
        assert_eq!(bench.record(RECORDS), done(0));
        assert_eq!(bench.dsa.cached(), 0);
        assert_eq!(bench.interrupts(), [0u16; 0]);
    }
}

#[test]
fn work_queues_of_a_group_take_turns() {
    let bench = Bench::cold();
    bench.pci_enable();
    bench.set64(GROUP_TABLE, 3);
    bench.set64(GROUP_TABLE + 32, 1);
    for wq in 0..2 {
        bench.set(WQ_TABLE + 32 * wq, 8);
        bench.set(WQ_TABLE + 32 * wq + 8, 1 | 2 | 5 << 8 | 1 << 28);
        bench.set(WQ_TABLE + 32 * wq + 12, 21 | 5 << 5);
    }
    assert_eq!(bench.command(ENABLE_DEVICE), 0);
    assert_eq!(bench.command(ENABLE_WQ), 0);
    assert_eq!(bench.command(ENABLE_WQ | 1), 0);
    bench.map(RECORDS, Access::RW);
    // One engine: the second of queue 0 blocks, and one of queue 1 came before it.
    bench.store(0, &Desc::new(0, CRAV | RCR).record(RECORDS + 64));
    bench.store(0, &blocked(&bench));
    bench.store(1, &Desc::new(0, CRAV | RCR).record(RECORDS + 96));
    bench.run();
    assert_eq!(bench.record(RECORDS + 64), done(1));
    assert_eq!(bench.record(RECORDS + 96), done(1));
    assert_eq!(bench.record(RECORDS), done(0));
}

#[test]
fn a_descriptor_half_stored_is_gone_when_its_work_queue_changes_hands() {
    for command in [DISABLE_WQ | 1, RESET_WQ | 1] {
        let bench = Bench::new();
        let desc = Desc::new(0, CRAV | RCR).record(RECORDS);
        bench.dsa.write_bar(2, 4096, &desc.0[..56]);
        assert_eq!(bench.command(command), 0);
        bench.set(WQ_TABLE + 8, 1 | 1 << 1 | 5 << 8 | 1 << 28);
        bench.set(WQ_TABLE + 12, 21 | 5 << 5);
        assert_eq!(bench.command(ENABLE_WQ), 0);
        bench.dsa.write_bar(2, 4096 + 56, &desc.0[56..]);
        bench.run();
        assert_eq!(bench.record(RECORDS), done(0));
        assert_eq!(bench.submit(desc), done(1));
    }
}
