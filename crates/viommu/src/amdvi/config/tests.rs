use super::*;

#[test]
fn the_default_has_what_linux_asks_for() {
    let (features, features2) = Config::default().registers().unwrap();
    // PreF, PPR, NX, GT, IA, GA, HE; HATS 2, GATS 1, GLX 2; PASMax 15; US, PprAutoRsp, GIo, HA, EPH, HD.
    assert_eq!(features.into_bits(), 0x0017_022f_0000_99db);
    assert_eq!(features2.into_bits(), 0);
    // amd_iommu_gt_ppr_supported, amd_iommu_v2_pgtbl_supported, and iommu_init_pci's
    // BUG_ON(max_pasids & ~PASID_MASK).
    let all = |mask: u64| features.into_bits() & mask == mask;
    assert!(all(1 << 4 | 1 << 1 | 1 << 50));
    assert!(all(1 << 48 | 1 << 4));
    // init_iommu_one: features are taken from the ACPI table.
    assert!(all(1 << 7));
    assert_eq!(((1u32 << (features.pas_max() + 1)) - 1) & !0xffff, 0);
}

#[test]
fn each_number_has_its_place() {
    for (levels, hats) in [(4, 0), (5, 1), (6, 2)] {
        let (features, _) = Config {
            host_levels: levels,
            ..Config::default()
        }
        .registers()
        .unwrap();
        assert_eq!(features.hats(), hats);
    }
    for (segments, field) in [(1, 0), (2, 1), (4, 2), (8, 3)] {
        let (features, _) = Config {
            device_table_segments: segments,
            ..Config::default()
        }
        .registers()
        .unwrap();
        assert_eq!(features.dev_tbl_seg_sup(), field);
    }
}

fn refused(change: impl Fn(&mut Config)) -> Refused {
    let mut config = Config::default();
    change(&mut config);
    config.registers().unwrap_err()
}

#[test]
fn numbers_out_of_range_are_refused() {
    let out = |field, value| Refused::OutOfRange { field, value };
    let with = |change: fn(&mut Guest)| {
        refused(move |config| config.guest.as_mut().into_iter().for_each(change))
    };
    assert_eq!(refused(|c| c.host_levels = 3), out("host_levels", 3));
    assert_eq!(refused(|c| c.host_levels = 7), out("host_levels", 7));
    assert_eq!(
        refused(|c| c.device_table_segments = 3),
        out("device_table_segments", 3)
    );
    assert_eq!(
        refused(|c| c.device_table_segments = 0),
        out("device_table_segments", 0)
    );
    assert_eq!(
        refused(|c| c.iotlb_entries = (4 << 20) + 1),
        out("iotlb_entries", (4 << 20) + 1)
    );
    assert_eq!(with(|guest| guest.cr3_levels = 0), out("cr3_levels", 0));
    assert_eq!(with(|guest| guest.cr3_levels = 4), out("cr3_levels", 4));
    assert_eq!(with(|guest| guest.pasid_bits = 0), out("pasid_bits", 0));
    assert_eq!(with(|guest| guest.pasid_bits = 21), out("pasid_bits", 21));
}

#[test]
fn what_lacks_its_ground_is_refused() {
    let without = |what, needs| Refused::Without { what, needs };
    assert_eq!(
        refused(|c| c.host_accessed = false),
        without("host_dirty", "host_accessed")
    );
    assert_eq!(
        refused(|c| c.device_tlb = false),
        without("page_requests", "device_tlb")
    );
    assert_eq!(
        refused(|c| c.guest = None),
        without("page_requests", "guest")
    );
    assert_eq!(
        refused(|c| {
            c.device_tlb = false;
            c.device_tlb_types = true;
        }),
        without("device_tlb_types", "device_tlb")
    );
}
