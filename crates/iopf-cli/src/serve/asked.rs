//! Tells, with --trace, of translations that a device asks for in vain, and of when it gets them.

use super::event::Events;
use iopf::{Access, Dma, Iova, Pasid, Rid};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use viommu_api::{Ats, AtsCompletion};

/// Pages that are remembered as missing. Beyond them all are forgotten: the next answers get no line.
const ROOM: usize = 4096;

/// What was asked for.
type Page = (Rid, Option<Pasid>, Iova, Access);

/// An IOMMU's translation service, with an ear. A translation that is found at once gets no line.
pub(super) struct Asked {
    ats: Arc<dyn Ats>,
    events: Arc<Events>,
    missing: Mutex<HashSet<Page>>,
}

/// What a completion means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It was found before, or it is still missing.
    Known,
    /// It was not missing until now.
    Missed,
    /// It was missing until now.
    Found,
}

impl Asked {
    pub(super) fn new(ats: Arc<dyn Ats>, events: Arc<Events>) -> Self {
        Self {
            ats,
            events,
            missing: Mutex::default(),
        }
    }
}

/// Keeps `missing` in step with a completion, and says what it changed.
fn turn(missing: &mut HashSet<Page>, dma: &Dma, completion: &AtsCompletion) -> Turn {
    let page = (dma.requester, dma.pasid, dma.addr, dma.access);
    let wanted = dma.access - Access::PRIV;
    match completion {
        AtsCompletion::Success { granted, .. } if granted.perms.contains(wanted) => {
            if missing.remove(&page) {
                Turn::Found
            } else {
                Turn::Known
            }
        }
        AtsCompletion::Success { .. } => {
            if missing.len() >= ROOM {
                missing.clear();
            }
            if missing.insert(page) {
                Turn::Missed
            } else {
                Turn::Known
            }
        }
        AtsCompletion::UnsupportedRequest | AtsCompletion::CompleterAbort => Turn::Known,
    }
}

impl Ats for Asked {
    fn translation_request(&self, dma: &Dma) -> AtsCompletion {
        let completion = self.ats.translation_request(dma);
        let turn = {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            turn(&mut missing, dma, &completion)
        };
        let step = match turn {
            Turn::Known => return completion,
            Turn::Missed => "translation request finds nothing",
            Turn::Found => "translation request finds the page",
        };
        let mut note = format!("{} at {}", dma.access, dma.addr);
        if let Some(pasid) = dma.pasid {
            note += &format!(", pasid {pasid}");
        }
        if let (Turn::Found, AtsCompletion::Success { granted, .. }) = (turn, &completion) {
            note += &format!(", which is {} of the guest's memory", granted.pa);
        }
        let device = Some(dma.requester.to_string());
        self.events.step(step, device, None, note);
        completion
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iopf::{DmaKind, Gpa};
    use viommu_api::Granted;

    fn request(addr: u64, access: Access) -> Dma {
        Dma {
            requester: Rid(0x38),
            pasid: Pasid::new(1),
            kind: DmaKind::Translation { no_write: false },
            addr: Iova(addr),
            access,
        }
    }

    fn completion(perms: Access) -> AtsCompletion {
        AtsCompletion::Success {
            granted: Granted {
                pa: Gpa(0x5000),
                page_shift: 12,
                perms,
            },
            global: false,
        }
    }

    #[test]
    fn a_page_is_missed_once_and_found_once() {
        let (nothing, all) = (completion(Access::empty()), completion(Access::RW));
        let read_only = completion(Access::READ);
        let missing = &mut HashSet::new();
        let mut asked =
            |addr, access, completion| turn(missing, &request(addr, access), completion);
        assert_eq!(asked(0x1000, Access::RW, &all), Turn::Known);
        assert_eq!(asked(0x2000, Access::RW, &nothing), Turn::Missed);
        assert_eq!(asked(0x2000, Access::RW, &read_only), Turn::Known);
        assert_eq!(asked(0x2000, Access::READ, &read_only), Turn::Known);
        assert_eq!(asked(0x2000, Access::RW, &all), Turn::Found);
        assert_eq!(asked(0x2000, Access::RW, &all), Turn::Known);
        assert_eq!(
            asked(0x3000, Access::RW, &AtsCompletion::CompleterAbort),
            Turn::Known
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let nothing = completion(Access::empty());
        let mut missing = HashSet::new();
        for page in 0..10 * ROOM as u64 {
            turn(&mut missing, &request(page << 12, Access::READ), &nothing);
            assert!(missing.len() <= ROOM);
        }
    }
}
