//! Page requests, as the handler of the PRI queue reads them, and their answers.
//!
//! The entry as `arm_smmu_handle_ppr()` of Linux `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c` reads it.
//! Linux denies all of them; this guest serves them.

use super::numbers::{Command, pri_resp};
use super::queue::Batch;
use crate::page_groups::{Group, Groups, PageGroup};
use iopf::{Access, GroupIndex, Iova, Pasid, Response, Rid};

/// Bits of the first word.
mod bit {
    pub(super) const PRIV: u64 = 1 << 58;
    pub(super) const EXEC: u64 = 1 << 59;
    pub(super) const READ: u64 = 1 << 60;
    pub(super) const WRITE: u64 = 1 << 61;
    pub(super) const LAST: u64 = 1 << 62;
    pub(super) const SSV: u64 = 1 << 63;
}

/// Takes what was read, and gives the groups back that are complete, in order.
pub(crate) fn complete(groups: &mut Groups, batch: Batch<2>) -> Vec<Group> {
    let mut whole = Vec::new();
    for entry in batch.entries {
        groups.stats.requests += 1;
        let request = decode(entry);
        if request.pages.is_empty() {
            // A stop marker: nobody waits for an answer.
            groups.stats.stop_markers += 1;
            continue;
        }
        whole.extend(groups.add(request, entry[0] & bit::LAST != 0));
    }
    if batch.overflowed {
        // The rest of what is unfinished may never come.
        groups.discard();
        groups.stats.overflows += 1;
    }
    whole
}

fn decode([first, second]: [u64; 2]) -> PageGroup {
    let [a, b, c, d, ..] = first.to_le_bytes();
    let pasid = u32::try_from(first >> 32 & 0xf_ffff).unwrap_or(0);
    let mut access = Access::empty();
    for (bit, right) in [
        (bit::READ, Access::READ),
        (bit::WRITE, Access::WRITE),
        (bit::EXEC, Access::EXEC),
        (bit::PRIV, Access::PRIV),
    ] {
        access.set(right, first & bit != 0);
    }
    let marker = !access.intersects(Access::RW);
    PageGroup {
        rid: Rid(u32::from_le_bytes([a, b, c, d])),
        pasid: (first & bit::SSV != 0).then(|| Pasid::truncate(pasid)),
        index: GroupIndex(u32::try_from(second & 0x1ff).unwrap_or(0)),
        pages: if marker {
            Vec::new()
        } else {
            vec![(Iova(second & !0xfff), access)]
        },
    }
}

/// The command that gives an answer: `PRI_RESP_DENY`, `_FAIL` and `_SUCC`.
pub(crate) fn answer(
    rid: Rid,
    pasid: Option<Pasid>,
    index: GroupIndex,
    answer: Response,
) -> Command {
    let code = match answer {
        Response::Failure => 0,
        Response::Invalid => 1,
        Response::Success => 2,
    };
    pri_resp(rid.0, pasid.map(Pasid::get), index.0, code)
}
