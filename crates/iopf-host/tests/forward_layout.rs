//! The records of `iopf::resolve::Forward` against the layouts of the crate of bindings, which was
//! made from the kernel's header: a second author.

use iommufd_bindings as iommu;
use iopf::engine::{Attachment, DeviceConfig, DeviceId, DomainId, Engine, Policy, Reported, Tick};
use iopf::resolve::{ANSWER, Forward, RECORD, serve};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use std::mem::offset_of;

const NOW: Tick = Tick(0);

/// The 32-bit number at `at`.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[test]
fn records_and_answers_lie_as_the_kernels_header_says() {
    assert_eq!(RECORD, size_of::<iommu::iommu_hwpt_pgfault>());
    assert_eq!(ANSWER, size_of::<iommu::iommu_hwpt_page_response>());

    let mut engine = Engine::new(Policy::linux());
    let mut forward = Forward::new(engine.policy());
    let device = DeviceId(0x7001);
    let pasid = Pasid::new(0x7002);
    engine.add_device(device, DeviceConfig::default()).unwrap();
    engine
        .attach(device, pasid, Attachment::new(DomainId(1)))
        .unwrap();
    let page = PageRequest {
        pasid,
        group: GroupIndex(0x7003),
        addr: Iova(0x7004_0000_7005_0000),
        access: Access::WRITE | Access::EXEC,
        last: true,
        response_needs_pasid: false,
        private_data: [0; 2],
    };
    let reported = engine.report(NOW, device, &Fault::PageRequest(page));
    assert!(matches!(reported, Ok(Reported::Queued(_))));
    assert_eq!(serve(&mut engine, NOW, &mut forward, 1), 1);
    let mut record = [0xee; RECORD];
    assert_eq!(forward.read_into(&engine, &mut record), Ok(RECORD));

    type Record = iommu::iommu_hwpt_pgfault;
    let cookie = word(&record, offset_of!(Record, cookie));
    let words = [
        (offset_of!(Record, dev_id), 0x7001),
        (offset_of!(Record, pasid), 0x7002),
        (offset_of!(Record, grpid), 0x7003),
        (
            offset_of!(Record, flags),
            iommu::iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_PASID_VALID
                | iommu::iommu_hwpt_pgfault_flags_IOMMU_PGFAULT_FLAGS_LAST_PAGE,
        ),
        (
            offset_of!(Record, perm),
            iommu::iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_WRITE
                | iommu::iommu_hwpt_pgfault_perm_IOMMU_PGFAULT_PERM_EXEC,
        ),
        (offset_of!(Record, __reserved), 0),
        (offset_of!(Record, length), 0),
    ];
    for (at, expected) in words {
        assert_eq!(word(&record, at), expected, "at byte {at}");
    }
    let at = offset_of!(Record, addr);
    let addr = u64::from_ne_bytes(record[at..at + 8].try_into().unwrap());
    assert_eq!(addr, 0x7004_0000_7005_0000);

    type Said = iommu::iommu_hwpt_page_response;
    let mut answer = [0; ANSWER];
    let at = offset_of!(Said, cookie);
    answer[at..at + 4].copy_from_slice(&cookie.to_ne_bytes());
    let at = offset_of!(Said, code);
    let code = iommu::iommufd_page_response_code_IOMMUFD_PAGE_RESP_INVALID;
    answer[at..at + 4].copy_from_slice(&code.to_ne_bytes());
    assert_eq!(forward.write_from(NOW, &mut engine, &answer), Ok(ANSWER));
    let answer = engine.poll_answer().map(|answer| answer.response);
    assert_eq!(answer, Some(Response::Invalid));
}
