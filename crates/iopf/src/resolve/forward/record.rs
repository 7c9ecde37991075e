//! The two records of a fault descriptor, as its user sees them.
//!
//! Source: Linux 7.3 `include/uapi/linux/iommufd.h`, `struct iommu_hwpt_pgfault` and
//! `struct iommu_hwpt_page_response`. Both are in the byte order of the machine.

use crate::engine::DeviceId;
use crate::{PageRequest, Pasid, Response};

/// Bytes of a page request.
pub const RECORD: usize = 40;

/// Bytes of an answer.
pub const ANSWER: usize = 8;

/// `IOMMU_FAULT_PAGE_REQUEST_PASID_VALID`.
const PASID_VALID: u32 = 1;
/// `IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE`.
const LAST_PAGE: u32 = 2;
/// `IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID`: not in the uAPI header, and passed on all the same.
const NEEDS_PASID: u32 = 4;

/// A page request as it is read.
///
/// | bytes | what |
/// |---|---|
/// | 0–3 | flags: 1 the PASID is valid, 2 last of its group, 4 the answer needs the PASID |
/// | 4–7 | the device's number |
/// | 8–11 | PASID; 0 where there is none |
/// | 12–15 | group index |
/// | 16–19 | what the device wants to do, as [`Access`](crate::Access) |
/// | 20–23 | 0 |
/// | 24–31 | address |
/// | 32–35 | 0: a length nobody fills in |
/// | 36–39 | cookie |
pub(super) fn encode(device: DeviceId, page: &PageRequest, cookie: u32) -> [u8; RECORD] {
    let mut flags = 0;
    for (set, bit) in [
        (page.pasid.is_some(), PASID_VALID),
        (page.last, LAST_PAGE),
        (page.response_needs_pasid, NEEDS_PASID),
    ] {
        if set {
            flags |= bit;
        }
    }
    let mut record = [0; RECORD];
    let words = [
        (0, flags),
        (4, device.0),
        (8, page.pasid.map_or(0, Pasid::get)),
        (12, page.group.0),
        (16, u32::from(page.access.bits())),
        (36, cookie),
    ];
    for (at, word) in words {
        record[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    record[24..32].copy_from_slice(&page.addr.0.to_ne_bytes());
    record
}

/// An answer as it is written: the cookie in bytes 0–3, in 4–7 the code, 0 for
/// [`Response::Success`] and 1 for [`Response::Invalid`]; `None` for any other.
///
/// [`Response::Failure`], which is 2 inside the kernel, cannot be said.
pub(super) fn decode(answer: [u8; ANSWER]) -> (u32, Option<Response>) {
    let [a, b, c, d, e, f, g, h] = answer;
    let response = match u32::from_ne_bytes([e, f, g, h]) {
        0 => Some(Response::Success),
        1 => Some(Response::Invalid),
        _ => None,
    };
    (u32::from_ne_bytes([a, b, c, d]), response)
}
