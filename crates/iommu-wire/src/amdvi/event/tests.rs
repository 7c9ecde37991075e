//! Events typed from the field tables, and the masks of Linux and VirtualBox upon them.

use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// A denied write by 00:05.0 of domain 0xa at 0xfffffffdf8000000.
const WRITE: [u8; 16] = [
    0x28, 0x00, 0x00, 0x00, // device 0x28
    0x0a, 0x00, 0x70, 0x20, // domain 0xa, PR | RW | PE, code 2
    0x00, 0x00, 0x00, 0xf8, 0xfd, 0xff, 0xff, 0xff, // address
];

/// A read by 3a:02.1 of PASID 0xf1234 with user privilege, to fetch instructions; not present.
const FETCH: [u8; 16] = [
    0x11, 0x3a, 0x0f, 0x00, // device 0x3a11, PASID 19:16
    0x34, 0x12, 0x07, 0x20, // PASID 15:0, GN | NX | US, code 2
    0x00, 0x70, 0x56, 0x34, 0x12, 0x7f, 0x00, 0x00, // address
];

/// A page request by 3a:02.1 of PASID 0xf1234, group 0x181, last, that needs no answer.
const PPR: [u8; 16] = [
    0x11, 0x3a, 0x34, 0x12, // device 0x3a11, PASID 15:0
    0x81, 0x3f, 0x01, 0x92, // tag 0x381, PASID 19:16 at 13:10, RX | GN, code 9
    0x00, 0x70, 0x56, 0x34, 0x12, 0x7f, 0x00, 0x00, // address
];

fn raw(bytes: &[u8; 16]) -> RawEvent {
    RawEvent::read_from_bytes(bytes).unwrap()
}

/// The doublewords as Linux's `volatile u32 *event`.
fn linux(bytes: &[u8; 16]) -> [u32; 4] {
    [0, 4, 8, 12].map(|at| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()))
}

#[test]
fn a_denied_write_decodes_from_literal_bytes() {
    let event = Event::decode(&raw(&WRITE));
    assert_eq!(
        event,
        Event::IoPageFault(IoPageFault {
            source: Rid::new(0, 5, 0).unwrap(),
            space: Space::Domain(0xa),
            request: Request::Write,
            cause: PageCause::Permission,
            execute: false,
            user: false,
            addr: Iova(0xffff_fffd_f800_0000),
        })
    );
    assert_eq!(event.encode().as_bytes(), WRITE);
}

#[test]
fn a_fetch_in_a_process_decodes_from_literal_bytes() {
    let event = Event::decode(&raw(&FETCH));
    assert_eq!(
        event,
        Event::IoPageFault(IoPageFault {
            source: Rid::new(0x3a, 2, 1).unwrap(),
            space: Space::Pasid(Pasid::new(0xf_1234).unwrap()),
            request: Request::Read,
            cause: PageCause::NotPresent,
            execute: true,
            user: true,
            addr: Iova(0x7f12_3456_7000),
        })
    );
    assert_eq!(event.encode().as_bytes(), FETCH);
}

#[test]
fn the_masks_of_linux_find_the_same_values() {
    // iommu_print_event.
    for (bytes, kind, devid, pasid, flags, address) in [
        (&WRITE, 2, 0x28, 0xa, 0x70, 0xffff_fffd_f800_0000),
        (&FETCH, 2, 0x3a11, 0xf_1234, 0x07, 0x7f12_3456_7000),
    ] {
        let event = linux(bytes);
        assert_eq!(event[1] >> 28 & 0xf, kind);
        assert_eq!(event[0] & 0xffff, devid);
        assert_eq!(event[0] & 0xf_0000 | event[1] & 0xffff, pasid);
        assert_eq!(event[1] >> 16 & 0xfff, flags);
        assert_eq!(u64::from(event[3]) << 32 | u64::from(event[2]), address);
        assert_eq!(raw(bytes).pasid(), pasid);
        assert_eq!(u32::from(raw(bytes).flags().into_bits()), flags);
    }
}

#[test]
fn an_invalid_page_request_is_laid_out_as_the_log_lays_requests_out() {
    let event = Event::decode(&raw(&PPR));
    assert_eq!(
        event,
        Event::InvalidPprRequest(InvalidPprRequest {
            source: Rid(0x3a11),
            pasid: Pasid::new(0xf_1234),
            group: GroupIndex(0x181),
            last: true,
            answered: true,
            addr: Iova(0x7f12_3456_7000),
        })
    );
    assert_eq!(event.encode().as_bytes(), PPR);
    // amd_iommu_report_ppr_err: PPR_PASID, EVENT_FLAG_PPR_RX, EVENT_FLAG_PPR_GN, and a tag of ten bits.
    let words = linux(&PPR);
    let low = u64::from(words[1]) << 32 | u64::from(words[0]);
    assert_eq!((low >> 42 & 0xf) << 16 | low >> 16 & 0xffff, 0xf_1234);
    assert_eq!(words[1] & 0x3ff, 0x381);
    let flags = words[1] >> 16 & 0xfff;
    assert_eq!(flags & 0x001, 0x001);
    assert_eq!(flags & 0x200, 0x200);
}

#[test]
fn the_causes_of_a_page_fault_are_three_flags() {
    for (flags, cause) in [
        (0x000, PageCause::NotPresent),
        // RW, PE and RZ do not tell a page that is not there from another.
        (0x0c0, PageCause::NotPresent),
        (0x010, PageCause::Level),
        (0x050, PageCause::Permission),
        (0x090, PageCause::Reserved),
    ] {
        let event = RawEvent::from_words(0x2000 << 48 | flags << 48, 0);
        let Event::IoPageFault(fault) = Event::decode(&event) else {
            panic!("a page fault");
        };
        assert_eq!(fault.cause, cause, "{flags:#x}");
    }
}

#[test]
fn what_was_asked_is_three_flags() {
    // VirtualBox EVT_IO_PAGE_FAULT_T: u1Interrupt 51, u1ReadWrite 53, u1Translation 56.
    for (flags, request) in [
        (0u64, Request::Read),
        (1 << 5, Request::Write),
        (1 << 8, Request::Translation),
        (1 << 8 | 1 << 5, Request::Translation),
        (1 << 3, Request::Interrupt),
    ] {
        let event = RawEvent::from_words(0x2000 << 48 | flags << 48, 0);
        let Event::IoPageFault(fault) = Event::decode(&event) else {
            panic!("a page fault");
        };
        assert_eq!(fault.request, request, "{flags:#x}");
    }
}

/// Words typed from VirtualBox's `EVT_*_T`, and what they say.
#[test]
fn the_other_events_have_the_fields_of_virtualbox() {
    let source = Rid(0x0810);
    let cases = [
        // ILLEGAL_DEV_TABLE_ENTRY: PASID 19:16, PASID 15:0, GN 48, RW 53, RZ 55.
        (
            0x10a1_1234_000f_0810_u64,
            0x7000_0004_u64,
            Event::IllegalDevTableEntry(IllegalDevTableEntry {
                source,
                pasid: Pasid::new(0xf_1234),
                request: Request::Write,
                reserved: true,
                addr: Iova(0x7000_0004),
            }),
        ),
        // DEV_TAB_HARDWARE_ERROR: I 51, RW 53, TR 56, Type 58:57.
        (
            0x3420_0000_0000_0810,
            0x0010_2000,
            Event::DevTabHardwareError(DevTabHardwareError {
                source,
                request: Request::Write,
                error: HardwareError::TARGET_ABORT,
                addr: Gpa(0x10_2000),
            }),
        ),
        // PAGE_TAB_HARDWARE_ERROR: domain 47:32, GN 48, TR 56, Type 58:57.
        (
            0x4300_0007_0000_0810,
            0x0010_2008,
            Event::PageTabHardwareError(PageTabHardwareError {
                source,
                space: Space::Domain(7),
                request: Request::Translation,
                error: HardwareError::MASTER_ABORT,
                addr: Gpa(0x10_2008),
            }),
        ),
        // ILLEGAL_COMMAND_ERROR: the address alone.
        (
            0x5000_0000_0000_0000,
            0x0020_0010,
            Event::IllegalCommandError {
                addr: Gpa(0x20_0010),
            },
        ),
        // COMMAND_HARDWARE_ERROR: Type 58:57.
        (
            0x6600_0000_0000_0000,
            0x0020_0020,
            Event::CommandHardwareError {
                error: HardwareError::DATA_ERROR,
                addr: Gpa(0x20_0020),
            },
        ),
        // IOTLB_INV_TIMEOUT: address from bit 68 on.
        (
            0x7000_0000_0000_0810,
            0x0020_0030,
            Event::IotlbInvTimeout {
                source,
                addr: Gpa(0x20_0030),
            },
        ),
        // INVALID_DEVICE_REQUEST: GN 48, TR 56, Type 59:57.
        (
            0x8301_0003_0000_0810,
            0x7000_0000,
            Event::InvalidDeviceRequest(InvalidDeviceRequest {
                source,
                pasid: Pasid::new(3),
                translation: true,
                kind: InvalidRequest::PRETRANSLATED,
                addr: Iova(0x7000_0000),
            }),
        ),
    ];
    for (low, high, event) in cases {
        let raw = RawEvent::from_words(low, high);
        assert_eq!(Event::decode(&raw), event, "{low:#x}");
        assert_eq!(event.encode().words(), [low, high], "{event:?}");
    }
}

#[test]
fn codes_that_are_not_interpreted_survive() {
    for code in [0u64, 0xa, 0xb, 0xc, 0xd, 0xe, 0xf] {
        let raw = RawEvent::from_words(code << 60 | 0x0123_4567_89ab_cdef, u64::MAX);
        assert_eq!(Event::decode(&raw), Event::Other(raw));
        assert_eq!(Event::Other(raw).encode(), raw);
    }
}

#[test]
fn the_names_are_those_that_linux_prints() {
    for (code, name) in [
        (1, Some("ILLEGAL_DEV_TABLE_ENTRY")),
        (2, Some("IO_PAGE_FAULT")),
        (9, Some("INVALID_PPR_REQUEST")),
        (0, None),
        (0xf, None),
    ] {
        assert_eq!(EventCode(code).name(), name);
    }
}

#[test]
fn the_neutral_form_has_what_the_record_has() {
    let denied = Unrecoverable::from(Event::decode(&raw(&WRITE)));
    assert_eq!(denied.reason, Reason(2));
    assert_eq!(denied.access, Access::WRITE);
    assert_eq!(denied.pasid, None);
    assert_eq!(denied.addr, Some(Iova(0xffff_fffd_f800_0000)));
    let fetch = Unrecoverable::from(Event::decode(&raw(&FETCH)));
    assert_eq!(fetch.access, Access::READ | Access::EXEC);
    assert_eq!(fetch.pasid, Pasid::new(0xf_1234));
    let command = Unrecoverable::from(Event::IllegalCommandError { addr: Gpa(0x10) });
    assert_eq!(command.fetch_addr, Some(Gpa(0x10)));
    assert_eq!(command.addr, None);
}
