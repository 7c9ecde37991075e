//! A guest that writes anything anywhere.

use super::*;
use proptest::prelude::*;

/// Statuses that the specification has and this device gives.
const KNOWN: [u8; 26] = [
    0x01, 0x02, 0x03, 0x83, 0x04, 0x84, 0x05, 0x06, 0x86, 0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x18,
    0x19, 0x1a, 0x9a, 0x1b, 0x20, 0x21, 0x22, 0x51, 0x52, 0x53,
];

/// A descriptor that is not all noise: small numbers where they matter.
fn descriptor() -> impl Strategy<Value = Desc> {
    // Buffers stay clear of the page with the records.
    let address = prop_oneof![Just(0u64), 0..0x9000u64, any::<u64>()];
    let record = prop_oneof![Just(0u64), Just(RECORDS), Just(RECORDS), any::<u64>()];
    (
        any::<[u8; 64]>(),
        0..10u8,
        0..0x2_0000u32,
        (record, address.clone(), address),
        prop_oneof![0..0x3000u32, any::<u32>()],
        0..8u8,
    )
        .prop_map(
            |(noise, operation, flags, (record, first, second), size, keep)| {
                let clean = Desc::new(operation, flags)
                    .record(record & !31)
                    .first(first)
                    .second(second)
                    .size(size);
                match keep {
                    0 => Desc(noise),
                    1 => clean.put(38, &noise[38..]),
                    _ => clean,
                }
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_descriptor_ends_once_with_a_status_of_the_specification(
        descriptors in prop::collection::vec(descriptor(), 1..20),
        answers in prop::collection::vec(any::<bool>(), 64),
    ) {
        let bench = Bench::new();
        for page in 1..=6u64 {
            let perms = if page % 3 == 0 { Access::READ } else { Access::RW };
            bench.map(page << 12, perms);
        }
        for desc in &descriptors {
            bench.write(RECORDS, &[0; 32]);
            bench.store(0, desc);
            bench.run();
            for (group, good) in answers.iter().enumerate() {
                if bench.iommu.take_requests().is_empty() {
                    break;
                }
                let group = u32::try_from(group).unwrap();
                let response = if *good { Response::Success } else { Response::Invalid };
                for index in 0..512 {
                    bench.dsa.page_response(PASID, GroupIndex((group + index) % 512), response);
                }
                bench.clock.advance(Duration::from_millis(5));
                bench.run();
            }
            bench.clock.advance(Duration::from_secs(20));
            bench.run();
            let status = bench.record(RECORDS).status;
            prop_assert!(status == 0 || KNOWN.contains(&status), "{status:#x}");
            if let Some(error) = bench.error() {
                prop_assert!(KNOWN.contains(&error), "{error:#x}");
            }
        }
        // Nothing is left: a drain is done at once, or as soon as its last request has timed out.
        bench.set(CMD, DRAIN_ALL);
        for _ in 0..2000 {
            bench.run();
            bench.clock.advance(Duration::from_secs(20));
        }
        prop_assert_eq!(bench.get(CMDSTATUS), 0);
        prop_assert!(!bench.dsa.device.any_outstanding());
    }

    #[test]
    fn any_access_to_any_register_is_survived(
        steps in prop::collection::vec(
            (0..4u8, 0..0x2_1000u64, prop::collection::vec(any::<u8>(), 0..80), any::<bool>()),
            1..60,
        ),
        commands in prop::collection::vec(0..14u32, 1..10),
    ) {
        let bench = Bench::new();
        let mut commands = commands.iter().cycle();
        for (kind, at, data, narrow) in &steps {
            let mut into = vec![0; data.len()];
            match kind {
                0 => {
                    let at = u16::try_from(at & 0xfff).unwrap();
                    bench.dsa.write_config(at, data);
                    bench.dsa.read_config(at, &mut into);
                }
                1 => {
                    bench.dsa.write_bar(2, *at, data);
                    bench.dsa.read_bar(2, *at, &mut into);
                    prop_assert!(into.iter().all(|byte| *byte == 0));
                }
                2 => {
                    let at = if *narrow { at & 0xfff } else { *at };
                    bench.dsa.write_bar(0, at, data);
                    bench.dsa.read_bar(0, at, &mut into);
                }
                _ => bench.set(CMD, commands.next().unwrap() << 20 | u32::try_from(at & 0xff).unwrap()),
            }
            bench.run();
        }
        bench.dsa.reset();
        bench.run();
        prop_assert_eq!(bench.state(), 0);
        prop_assert_eq!(bench.get64(0x10), Bench::cold().get64(0x10));
    }
}
