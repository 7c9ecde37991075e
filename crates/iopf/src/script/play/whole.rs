//! Groups that somebody else put together.

use super::Play;
use crate::engine::{Decided, DeviceId, Handle, Reported, Tick, Why};
use crate::{Access, GroupIndex, Iova, PageRequest, Pasid, Response};
use alloc::vec::Vec;

/// Device, PASID of the last page, PASID of every third page before it, pages before the last.
type Who = (u32, Option<u32>, Option<u32>, u32);

impl Play {
    /// Reports a group, or has it decided at once.
    pub(super) fn whole_group(
        &mut self,
        token: u64,
        (device, pasid, other, before): Who,
        decision: Option<Option<Response>>,
    ) -> bool {
        let page = |nth: u32, of: Option<u32>| PageRequest {
            pasid: of.map(Pasid::truncate),
            group: GroupIndex(3),
            addr: Iova(u64::from(nth) << 12),
            access: Access::RW,
            // Whoever put it together may have left the bit in any page.
            last: nth.is_multiple_of(2),
            response_needs_pasid: of.is_some(),
            private_data: [token, !token],
        };
        let of = |nth: u32| if nth.is_multiple_of(3) { other } else { pasid };
        let pages = (0..before).map(|nth| page(nth, of(nth)));
        let mine = |nth: &u32| !self.strict || of(*nth) == pasid;
        let expected: Vec<u32> = (0..before).filter(mine).chain([before]).collect();
        let (now, id) = (Tick(self.now), DeviceId(device));
        let held = self.engine.totals().held;
        let last = page(before, pasid);
        let mut seen: Option<Handle> = None;
        let reported = match decision {
            None => match self.engine.report_group(now, id, pages, &last) {
                Reported::Queued(handle) => Decided::Queued(handle),
                Reported::Answered(answer, why) => {
                    assert_eq!(answer.private_data, [token, !token]);
                    Decided::Answered(answer.response, why)
                }
                other => panic!("a whole group was not queued or answered: {other:?}"),
            },
            Some(response) => self
                .engine
                .resolve_group(now, id, pages, &last, |group, pages| {
                    assert_eq!(pages.len(), group.pages as usize);
                    assert!(pages.is_waiting(group.handle));
                    is_as_expected(&pages.collect::<Vec<_>>(), &expected);
                    seen = Some(group.handle);
                    response
                }),
        };
        self.reported += u64::from(before) + 1;
        match reported {
            Decided::Queued(handle) => {
                let pages = self.engine.pages(handle).expect("it waits");
                let pages: Vec<PageRequest> = pages.collect();
                is_as_expected(&pages, &expected);
                self.refused += u64::from(before) + 1 - pages.len() as u64;
                self.queued(handle, device, Some(token), pages.len() as u64);
                if seen.is_some() {
                    assert_eq!((seen, decision), (Some(handle), Some(None)));
                    let nth = self.handles.len() - 1;
                    let owed = self.owed.get_mut(&nth).expect("just queued");
                    owed.delivered = true;
                    let waiting = self.queues.values().flatten();
                    assert_eq!(waiting.filter(|other| **other != nth).count(), 0);
                    self.requeue();
                }
            }
            Decided::Answered(answer, why) => {
                assert_eq!(self.engine.totals().held, held, "all or nothing");
                assert_eq!(why == Why::Resolved, seen.is_some());
                self.refused += u64::from(before) + 1;
                if let Some(handle) = seen {
                    self.refused -= expected.len() as u64;
                    assert!(self.engine.pages(handle).is_none(), "it is stale");
                    let carries = self.configs.get(&device).is_some_and(|c| c.carries_failure);
                    let response = match decision.flatten() {
                        Some(Response::Failure) if self.strict && !carries => Response::Invalid,
                        other => other.expect("an answer"),
                    };
                    assert_eq!(answer, response);
                }
                assert!(self.answered.insert(token), "answered twice");
                self.say(format_args!("answer d{device} {answer:?} at once: {why:?}"));
            }
        }
        true
    }
}

/// Whether these are the pages with those numbers, and only the last is marked so.
fn is_as_expected(pages: &[PageRequest], expected: &[u32]) {
    let numbers = pages.iter().map(|page| page.addr.0 >> 12);
    assert!(numbers.eq(expected.iter().map(|nth| u64::from(*nth))));
    let lasts = pages.iter().filter(|page| page.last).count();
    assert!(lasts == 1 && pages.last().is_some_and(|page| page.last));
}
