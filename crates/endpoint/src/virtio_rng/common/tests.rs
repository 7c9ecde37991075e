use super::*;
use proptest::prelude::*;

#[test]
fn the_structure_starts_as_the_specification_says() {
    let mut bytes = [0; 0x3c];
    Common::default().read(0, &mut bytes);
    #[rustfmt::skip]
    assert_eq!(
        bytes,
        [
            0, 0, 0, 0, 0, 0, 0, 0, // device_feature_select, device_feature
            0, 0, 0, 0, 0, 0, 0, 0, // driver_feature_select, driver_feature
            0xff, 0xff, 1, 0, // config_msix_vector, num_queues
            0, 0, 0, 0, // device_status, config_generation, queue_select
            64, 0, 0xff, 0xff, 0, 0, 0, 0, // queue_size, msix_vector, enable, notify_off
            0, 0, 0, 0, 0, 0, 0, 0, // queue_desc
            0, 0, 0, 0, 0, 0, 0, 0, // queue_driver
            0, 0, 0, 0, 0, 0, 0, 0, // queue_device
            0, 0, 0, 0, // beyond
        ]
    );
}

fn u32_at(common: &Common, at: u64) -> u32 {
    let mut bytes = [0; 4];
    common.read(at, &mut bytes);
    u32::from_le_bytes(bytes)
}

#[test]
fn version_1_and_access_platform_are_offered_and_nothing_less_is_taken() {
    let mut common = Common::default();
    let mut offered = 0u64;
    for select in 0..3u32 {
        assert_eq!(common.write(0, &select.to_le_bytes()), Effect::None);
        if select < 2 {
            offered |= u64::from(u32_at(&common, 4)) << (select * 32);
        }
    }
    // VIRTIO_F_VERSION_1 is 32, VIRTIO_F_ACCESS_PLATFORM is 33.
    assert_eq!((offered, u32_at(&common, 4)), (0x3_0000_0000, 0));
    for (upper, taken) in [(1u32, 3), (2, 3), (7, 3), (3, 0xb)] {
        let _ = common.write(0x14, &[3]);
        let _ = common.write(8, &1u32.to_le_bytes());
        let _ = common.write(12, &upper.to_le_bytes());
        let _ = common.write(0x14, &[0xb]);
        assert_eq!(u32_at(&common, 0x14) & 0xff, taken, "{upper}");
        assert_eq!(common.reset(), u8::try_from(taken).unwrap());
    }
}

#[test]
fn a_queue_that_is_enabled_does_not_move() {
    let mut common = Common::default();
    let _ = common.write(0x18, &16u16.to_le_bytes());
    let _ = common.write(0x18, &17u16.to_le_bytes());
    let _ = common.write(0x18, &128u16.to_le_bytes());
    for (at, value) in [(0x20, 0x1000u32), (0x24, 1), (0x28, 0x2000), (0x30, 0x3000)] {
        let _ = common.write(at, &value.to_le_bytes());
    }
    let _ = common.write(0x1a, &5u16.to_le_bytes());
    let _ = common.write(0x1c, &1u16.to_le_bytes());
    let _ = common.write(0x20, &0x9000u32.to_le_bytes());
    let _ = common.write(0x18, &8u16.to_le_bytes());
    let expected = QueueSetup {
        size: 16,
        vector: NO_VECTOR,
        enabled: true,
        rings: [0x1_0000_1000, 0x2000, 0x3000],
    };
    assert_eq!(common.queue, expected);
    // Another queue is not there.
    let _ = common.write(0x16, &1u16.to_le_bytes());
    assert_eq!(u32_at(&common, 0x18), 0xffff_0000);
    let _ = common.write(0x1a, &1u16.to_le_bytes());
    assert_eq!(common.queue, expected);
}

#[test]
fn a_reset_that_is_not_complete_shows_the_old_status() {
    let mut common = Common::default();
    let _ = common.write(0x14, &[3]);
    assert_eq!(common.write(0x14, &[0]), Effect::Reset);
    let before = common.reset();
    common.linger(before);
    assert_eq!(u32_at(&common, 0x14) & 0xff, 3);
    common.linger(0);
    assert_eq!(u32_at(&common, 0x14) & 0xff, 0);
}

proptest! {
    #[test]
    fn no_write_makes_an_impossible_queue(
        writes in prop::collection::vec((0u64..0x40, prop::collection::vec(any::<u8>(), 0..9)), 1..60),
    ) {
        let mut common = Common::default();
        for (at, data) in writes {
            let _ = common.write(at, &data);
        }
        prop_assert!(common.queue.size.is_power_of_two() && common.queue.size <= QUEUE_MAX);
        prop_assert!(common.queue.vector < VECTORS || common.queue.vector == NO_VECTOR);
        prop_assert!(common.status & NEEDS_RESET == 0);
        if common.status & FEATURES_OK != 0 {
            prop_assert_eq!(common.driver_features, FEATURES);
        }
    }
}
