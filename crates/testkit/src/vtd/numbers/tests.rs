use super::*;

// Words worked out by hand from the macros of Linux drivers/iommu/intel/iommu.h (QI_*), the second
// author; dmar.c's qi_desc_dev_iotlb() and qi_desc_dev_iotlb_pasid() for the sizes.

#[test]
fn invalidation_descriptors_are_those_of_linux() {
    assert_eq!(context_global()[0], 0x11);
    assert_eq!(context_device(7, 0x0010), [0x10_0007_0031, 0, 0, 0]);
    assert_eq!(iotlb_domain(7)[0], 0x0007_00e2);
    assert_eq!(iotlb_pages(7, 0x5000, 3)[..2], [0x0007_00f2, 0x5003]);
    assert_eq!(pasid_cache(1, 5)[0], 0x5_0001_0017);
    assert_eq!(piotlb_all(1, 5)[0], 0x5_0001_0026);
    assert_eq!(piotlb_pages(1, 5, 0x8000, 1)[..2], [0x5_0001_0036, 0x8001]);
}

#[test]
fn device_tlb_sizes_are_told_by_the_lowest_zero_bit() {
    assert_eq!(devtlb_pages(0x10, 0x5000, 0)[..2], [0x10_0000_0003, 0x5000]);
    // Two pages: no ones below bit 12, S set.
    assert_eq!(devtlb_pages(0x10, 0x4000, 1)[1], 0x4001);
    // Four pages: bit 12 is one, bit 13 is the zero.
    assert_eq!(devtlb_pages(0x10, 0x4000, 2)[1], 0x5001);
    let all = devtlb_pasid_pages(0x10, 5, 0, 52);
    assert_eq!(all[..2], [0x5_0010_0008, 0x7fff_ffff_ffff_f800]);
}

#[test]
fn page_group_responses_carry_the_pasid_only_with_its_flag() {
    let with = page_group_response(0x10, Some(5), 3, 1);
    assert_eq!(with, [0x5_0010_1019, 0x18, 0, 0]);
    let without = page_group_response(0x10, None, 3, 0xf);
    assert_eq!(without, [0x0010_f009, 0x18, 0, 0]);
}
