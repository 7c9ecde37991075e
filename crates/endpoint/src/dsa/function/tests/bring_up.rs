//! What `idxd` does from its probe to a process with a portal, register by register.

use super::*;

#[test]
fn configuration_space_is_that_of_a_dsa() {
    let bench = Bench::cold();
    let mut header = [0; 16];
    bench.dsa.read_config(0, &mut header);
    assert_eq!(header[..4], [0x86, 0x80, 0x25, 0x0b]);
    assert_eq!(header[9..12], [0x00, 0x80, 0x08]);
    assert_eq!(bench.dsa.bar_size(0), 0x1_0000);
    assert_eq!(bench.dsa.bar_size(2), 0x2_0000);
    assert_eq!(bench.dsa.interrupts().msix, 9);
}

#[test]
fn the_capabilities_claim_what_is_there_and_nothing_else() {
    let bench = Bench::cold();
    assert_eq!(bench.get(0x00), 0x100, "version 1.0");
    // union gen_cap_reg: block_on_fault, cache_control_mem (bit 2), cmd_cap, max_xfer_shift 31,
    // max_batch_shift 10, config_en.
    let gencap = 1 | 1 << 2 | 1 << 4 | 31 << 16 | 10 << 21 | 1 << 31;
    assert_eq!(bench.get64(0x10), gencap);
    // union wq_cap_reg: total_wq_size 128, num_wqs 8, dedicated_mode, wq_ats_support, occupancy.
    let wqcap = 128 | 8 << 16 | 1 << 49 | 1 << 50 | 1 << 52;
    assert_eq!(bench.get64(0x20), wqcap);
    assert_eq!(bench.get64(0x30) & 0xff, 4, "groups");
    assert_eq!(bench.get64(0x30) >> 16, 0, "no controls of read buffers");
    assert_eq!(bench.get64(0x38), 4, "engines");
    assert_eq!(bench.get64(0x40), 0x7f, "no-op to compare pattern");
    assert_eq!(bench.get64(0x48), 0);
    // union offsets_reg: grpcfg, wqcfg, msix_perm; in units of 256 bytes.
    assert_eq!(bench.get64(0x60), 6 | 8 << 16 | 4 << 32);
    assert_eq!(bench.get64(0x68), 0, "no performance counters");
    assert_eq!(bench.get(0xb0), 0x1ffe, "commands 1 to 12");
}

#[test]
fn the_driver_brings_it_up_and_a_process_gets_its_queue() {
    let bench = Bench::cold();
    bench.pci_enable();
    // idxd_device_init_reset: polls.
    assert_eq!(bench.state(), 0);
    assert_eq!(bench.command(RESET_DEVICE), 0);
    assert_eq!(bench.interrupts(), [0u16; 0]);
    // idxd_set_user_intr, idxd_unmask_error_interrupts
    bench.set(GENCFG, bench.get(GENCFG) | 1 << 12);
    bench.set(GENCTRL, bench.get(GENCTRL) | 3);
    // idxd_device_config: the work queue in group 0, then every group.
    let wq = [16, 0, 1 | 1 << 1 | 10 << 4, 21 | 5 << 5, 0, 0, 0, 0];
    for (i, word) in (0..).zip(wq) {
        bench.set(WQ_TABLE + 4 * i, word);
    }
    for group in 0..4u64 {
        let first = u64::from(group == 0);
        for i in 0..4 {
            bench.set64(GROUP_TABLE + 64 * group + 8 * i, first * u64::from(i == 0));
        }
        bench.set64(GROUP_TABLE + 64 * group + 32, first);
        // tc_a 1, tc_b 1, all 96 read buffers
        bench.set64(GROUP_TABLE + 64 * group + 40, 1 | 1 << 3 | 96 << 20);
    }
    // idxd_cmd_exec waits for the interrupt.
    assert_eq!(bench.command(ENABLE_DEVICE | INTERRUPT), 0);
    assert_eq!(bench.interrupts(), [0]);
    assert_eq!(bench.get(INTCAUSE), 2);
    bench.set(INTCAUSE, 2);
    assert_eq!(bench.get(INTCAUSE), 0);
    assert_eq!(bench.state(), 1);
    assert_eq!(bench.command(ENABLE_WQ | INTERRUPT), 0);
    assert_eq!(bench.wq_state(0), 1);
    // idxd_wq_set_pasid when a process opens /dev/dsa/wq0.0: drain, reset, configure, enable.
    assert_eq!(bench.command(DRAIN_WQ | INTERRUPT | 1), 0);
    assert_eq!(bench.command(RESET_WQ | INTERRUPT | 1), 0);
    assert_eq!(bench.wq_state(0), 0);
    assert_eq!(bench.get(WQ_TABLE), 16, "a reset leaves the size");
    assert_eq!(bench.get(WQ_TABLE + 8), 0);
    for (i, word) in (0..).zip(wq) {
        bench.set(WQ_TABLE + 4 * i, word);
    }
    let mode = bench.get(WQ_TABLE + 8) & !(0xf_ffff << 8) | 5 << 8 | 1 << 28;
    bench.set(WQ_TABLE + 8, mode);
    assert_eq!(bench.command(ENABLE_WQ | INTERRUPT), 0);
    // The process submits.
    bench.map(RECORDS, Access::RW);
    bench.map(0x1000, Access::RW);
    bench.map(0x2000, Access::RW);
    bench.write(0x1100, b"shared virtual addressing");
    let copy = Desc::new(MOVE, CRAV | RCR | BOF)
        .first(0x1100)
        .second(0x2200)
        .size(25);
    assert_eq!(bench.submit(copy), done(1));
    assert_eq!(bench.read(0x2200, 25), b"shared virtual addressing");
    // idxd_wq_disable_pasid when it is gone.
    assert_eq!(bench.command(DRAIN_WQ | INTERRUPT | 1), 0);
    assert_eq!(bench.command(RESET_WQ | INTERRUPT | 1), 0);
    assert_eq!(bench.command(DISABLE_DEVICE | INTERRUPT), 0);
    assert_eq!(bench.state(), 0);
}

#[test]
fn registers_take_parts_of_words_and_ignore_what_is_locked() {
    let bench = Bench::new();
    bench.set(WQ_TABLE, 99);
    assert_eq!(
        bench.get(WQ_TABLE),
        16,
        "the size while the device is enabled"
    );
    bench.set(WQ_TABLE + 8, 0);
    assert_eq!(
        bench.get(WQ_TABLE + 8),
        1 | 2 | 5 << 8 | 1 << 28,
        "the mode while enabled"
    );
    bench.set64(GROUP_TABLE, 0xff);
    assert_eq!(bench.get64(GROUP_TABLE), 1);
    bench.set(GENCFG, 1 << 12);
    assert_eq!(bench.get(GENCFG), 0);
    bench.dsa.write_bar(0, GENCTRL, &[2]);
    assert_eq!(bench.get(GENCTRL), 2);
    bench.dsa.write_bar(0, GENCTRL + 1, &[0xff; 3]);
    assert_eq!(bench.get(GENCTRL), 2, "reserved bits stay zero");
    bench.dsa.write_bar(0, CMD + 2, &[0x50, 0x00]);
    bench.run();
    assert_eq!(bench.state(), 1, "a part of a command is none");
    bench.set(PERMISSIONS + 8, u32::MAX);
    assert_eq!(bench.get(PERMISSIONS + 8), 0xffff_f00c);
    assert_eq!(bench.get(PERMISSIONS + 12), 0, "entries are 8 bytes apart");
}

#[test]
fn the_msix_table_lies_where_the_capability_says() {
    let bench = Bench::cold();
    let mut capability = [0; 12];
    bench.dsa.read_config(0x7c, &mut capability);
    assert_eq!(capability[0], 0x11);
    assert_eq!(capability[4..8], 0x4000u32.to_le_bytes(), "table in BAR 0");
    assert_eq!(
        capability[8..12],
        0x5000u32.to_le_bytes(),
        "pending bits in BAR 0"
    );
    bench.set(0x4000 + 8 * 16 + 8, 0x1234);
    assert_eq!(bench.get(0x4000 + 8 * 16 + 8), 0x1234);
    assert_eq!(bench.get(0x4000 + 8 * 16 + 12), 1, "masked");
    bench.set(0x4000 + 9 * 16, 0x1234);
    assert_eq!(bench.get(0x4000 + 9 * 16), 0, "there are nine");
}
