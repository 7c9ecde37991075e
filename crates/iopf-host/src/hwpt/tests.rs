use super::*;
use crate::Iommufd;

impl Hwpt {
    pub(crate) fn pretend(iommufd: &Iommufd, id: u32) -> Self {
        Self(iommufd.pretend(id, Vec::new()))
    }
}

/// Bytes written out from the header's structures, on a little-endian machine.
#[test]
fn data_of_a_stage_1_lies_as_the_header_says() {
    let vtd = Stage1::Vtd {
        flags: 4,
        table: Gpa(0x1122_3344_5566_7000),
        width: 57,
    };
    assert_eq!(
        vtd.encode(),
        (
            1,
            vec![
                4, 0, 0, 0, 0, 0, 0, 0, // flags: WPE
                0x00, 0x70, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, // pgtbl_addr
                57, 0, 0, 0, 0, 0, 0, 0, // addr_width, reserved
            ]
        )
    );
    let smmu = Stage1::SmmuV3 {
        ste: [0x0807_0605_0403_0201, 0x100f_0e0d_0c0b_0a09],
    };
    assert_eq!(smmu.encode(), (2, (1..=16).collect()));
    let amd = Stage1::AmdGuest {
        dte: [1, 0, 0, 0x8000_0000_0000_0000],
    };
    let (kind, data) = amd.encode();
    assert_eq!((kind, data.len(), data[0], data[31]), (3, 32, 1, 0x80));
    let mock = Stage1::Selftest { iotlb: 0x0bad_beef };
    let bytes = vec![0xef, 0xbe, 0xad, 0x0b, 0, 0, 0, 0];
    assert_eq!(mock.encode(), (0xdead, bytes));
}

#[test]
fn what_the_kernel_did_not_count_was_not_done() {
    let hwpt = Hwpt::pretend(&crate::iommufd::tests::none(), 1);
    let range = VtdRange {
        addr: Iova(0x1000),
        pages: 1,
        leaf_only: true,
    };
    let error = hwpt.invalidate_vtd(&[range, range]).unwrap_err();
    assert_eq!(error.done, 0);
    assert!(error.to_string().ends_with("after 0 ranges"), "{error}");
}
