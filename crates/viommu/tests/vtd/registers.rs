use crate::rig::{AT, PAGE, Rig, legacy, scalable};
use iopf::Access;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use viommu::vtd::Config;
use viommu_api::{Registers, Translate};

#[test]
fn reset_values_are_those_of_hardware() {
    let rig = Rig::new(Config::default());
    assert_eq!(rig.r32(0x00), 0x10, "version 1.0");
    assert_eq!(rig.r64(0x08), 0x11d2_008c_222f_0406);
    assert_eq!(rig.r64(0x10), 0x0001_cd98_2400_0fc7);
    assert_eq!(rig.r32(0x1c), 0, "nothing is on");
    for control in [0x38, 0xa0, 0xe0] {
        assert_eq!(rig.r32(control), 0x8000_0000, "interrupts are masked");
    }
    assert_eq!(rig.r32(0x18), 0, "the global command is write-only");
    // PMEN, AFLOG, IRTA, MTRRs, ECMD, VCMD: not there.
    for at in [0x64, 0x58, 0xb8, 0x100, 0x120, 0x400, 0xe00, 0xffc] {
        rig.w32(at, 0xffff_ffff);
        assert_eq!(rig.r32(at), 0, "{at:#x}");
    }
    assert_eq!(rig.unit.size(), 0x1000);
}

#[test]
fn the_window_grows_with_the_fault_records() {
    let rig = Rig::new(Config {
        fault_records: 256,
        ..Config::default()
    });
    // 0x220 + 256 × 16.
    assert_eq!(rig.unit.size(), 0x2000);
}

#[test]
fn a_64_bit_register_is_two_halves() {
    let rig = Rig::new(Config::default());
    rig.w32(0x20, 0x5555_5000);
    rig.w32(0x24, 0x1);
    assert_eq!(rig.r64(0x20), 0x1_5555_5000);
    assert_eq!((rig.r32(0x20), rig.r32(0x24)), (0x5555_5000, 1));
    rig.w64(0x20, 0x2_6666_6000);
    assert_eq!(rig.r32(0x24), 2);
}

#[test]
fn odd_accesses_read_bytes_and_write_nothing() {
    let rig = Rig::new(Config::default());
    let mut three = [0; 3];
    rig.unit.read(0x09, &mut three);
    assert_eq!(three, [0x04, 0x2f, 0x22], "bytes 1 to 3 of CAP_REG");
    rig.w64(0x20, 0x7000);
    rig.unit.write(0x21, &[0xff, 0xff]);
    rig.unit.write(0x22, &[0xff; 4]);
    rig.unit.write(0x20, &[0xff; 5]);
    assert_eq!(rig.r64(0x20), 0x7000);
    rig.unit.read(u64::MAX - 1, &mut three);
    assert_eq!(three, [0; 3]);
}

#[test]
fn a_legacy_guest_comes_up_as_linux_brings_it_up() {
    let rig = legacy(Config {
        scalable: None,
        ..Config::default()
    });
    assert_eq!(
        rig.r32(0x1c),
        1 << 31 | 1 << 30 | 1 << 26,
        "TES, RTPS, QIES"
    );
    assert_eq!(rig.read_at(None, AT + 0x123), Some(PAGE + 0x123));
    // iommu_disable_translation() keeps QIE.
    rig.w32(0x18, 1 << 26);
    assert_eq!(rig.r32(0x1c) & 1 << 31, 0);
    assert_eq!(rig.read_at(None, AT), Some(AT), "off, addresses pass");
}

#[test]
fn a_scalable_guest_comes_up_as_linux_brings_it_up() {
    let rig = scalable(Config::default());
    assert_eq!(rig.read_at(Some(3), AT + 0x123), Some(PAGE + 0x123));
    assert_eq!(rig.r64(0xd0), 0x30000);
}

#[test]
fn interrupt_remapping_cannot_be_switched_on() {
    let rig = Rig::new(Config::default());
    rig.w64(0xb8, 0x7000);
    rig.w32(0x18, 1 << 24);
    rig.w32(0x18, 1 << 25 | 1 << 23);
    assert_eq!(rig.r32(0x1c), 0);
}

#[test]
fn write_buffers_need_no_flush() {
    let rig = legacy(Config::default());
    let before = rig.r32(0x1c);
    rig.w32(0x18, 1 << 31 | 1 << 27 | 1 << 26);
    assert_eq!(rig.r32(0x1c), before, "WBFS is never seen set");
}

#[test]
fn a_root_pointer_counts_only_once_it_is_latched() {
    let rig = legacy(Config::default());
    rig.w64(0x20, 0x0030_0000);
    assert_eq!(rig.r64(0x20), 0x0030_0000);
    rig.submit(&[[1 << 4 | 1, 0], [1 << 4 | 2, 0]]);
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
}

#[test]
fn a_long_access_comes_in_pages() {
    let rig = legacy(Config::default());
    rig.put(0x13010, 0x20_0000 | 3);
    let dma = rig.dma(None, AT + 0xff0, Access::READ);
    assert_eq!(
        rig.access(&dma, 0x30),
        Ok(vec![(PAGE + 0xff0, 0x10), (0x20_0000, 0x20)])
    );
    let dma = rig.dma(None, AT + 0x1ff0, Access::READ);
    let blocked = rig.access(&dma, 0x30).unwrap_err();
    assert_eq!(blocked.at.0, AT + 0x2000, "the page after is not mapped");
}

#[test]
fn a_large_page_is_one_piece() {
    let rig = legacy(Config::default());
    // A 2 MiB page in the second-lowest table, index 1.
    rig.put(0x12008, 0x20_0000 | 1 << 7 | 3);
    let dma = rig.dma(None, 0x20_0000 + 0x1234, Access::WRITE);
    for _ in 0..2 {
        assert_eq!(
            rig.access(&dma, 0x10_0000),
            Ok(vec![(0x20_1234, 0x10_0000)])
        );
    }
}

#[test]
fn reset_brings_the_unit_back() {
    let rig = legacy(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.unit.reset();
    assert_eq!(rig.r32(0x1c), 0);
    assert_eq!(rig.r32(0x38), 0x8000_0000);
    assert_eq!(rig.read_at(None, AT), Some(AT));
}

#[test]
fn an_incorrect_invalidation_by_register_is_ignored_and_says_so() {
    // CAIG in 60:59 and IAIG in 58:57 are 0: nothing was done. Outside legacy mode always.
    let rig = scalable(Config::default());
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE));
    rig.put(crate::rig::TABLES + 0x3008, 0);
    rig.w64(0x28, 1 << 63 | 1 << 61);
    assert_eq!(rig.r64(0x28) >> 59, 0b0100);
    rig.w64(0xf8, 1 << 63 | 1 << 60);
    assert_eq!(rig.r64(0xf8) >> 57, 0b000_1000);
    assert_eq!(rig.read_at(Some(3), AT), Some(PAGE), "it is still cached");
    // A reserved granularity; a range beyond CAP.MAMV, which is 18.
    let rig = legacy(Config::default());
    assert_eq!(rig.read_at(None, AT), Some(PAGE));
    rig.put(crate::rig::TABLES + 0x3008, 0);
    rig.w64(0x28, 1 << 63);
    assert_eq!(rig.r64(0x28), 0);
    rig.w64(0xf8, 1 << 63 | 5 << 32);
    assert_eq!(rig.r64(0xf8), 5 << 32);
    rig.w64(0xf0, AT | 19);
    rig.w64(0xf8, 1 << 63 | 3 << 60 | 5 << 32);
    assert_eq!(rig.r64(0xf8) >> 57, 0b001_1000);
    assert_eq!(rig.read_at(None, AT), Some(PAGE), "it is still cached");
    rig.w64(0xf0, AT | 18);
    rig.w64(0xf8, 1 << 63 | 3 << 60 | 5 << 32);
    assert_eq!(rig.r64(0xf8) >> 57, 0b001_1011);
    assert_eq!(rig.read_at(None, AT), None);
}

#[test]
fn the_status_shows_a_command_when_it_is_done() {
    let rig = legacy(Config::default());
    let inside = AtomicBool::new(false);
    let release = AtomicBool::new(false);
    let until = |flag: &AtomicBool| {
        while !flag.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let dma = rig.dma(None, AT, Access::READ);
            let access = rig.unit.with_translation(&dma, 1, &mut |_, _| {
                inside.store(true, Ordering::SeqCst);
                until(&release);
            });
            assert_eq!(access, Ok(()));
        });
        until(&inside);
        // Another processor switches translation off while an access is under way.
        scope.spawn(|| rig.w32(0x18, 1 << 26));
        std::thread::sleep(Duration::from_millis(50));
        let early = rig.r32(0x1c);
        release.store(true, Ordering::SeqCst);
        assert_eq!(early, 1 << 31 | 1 << 30 | 1 << 26, "TES, RTPS, QIES");
    });
    assert_eq!(rig.r32(0x1c), 1 << 30 | 1 << 26);
}
