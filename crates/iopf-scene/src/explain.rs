//! Why a request faulted, or where it went: the walks of a capture.
//!
//! [`explain`] gives one [`Explanation`] for each request of a [`Capture`],
//! in order. Accessed and dirty updates of a request are in memory when the next one walks.
//!
//! # VT-d
//! Registers that a capture leaves out:
//! - `GSTS_REG`: translation is on. With it, bit 31 (TES) decides.
//! - `CAP_REG`, `ECAP_REG`: [`vtd::CAP`] and [`vtd::ECAP`], everything the walk knows.
//! - `RTADDR_REG`: its reset value, 0: a legacy root table at address 0.
//! - `HAW`: 52.
//!
//! Outcomes, besides `translated` and `fault`:
//! - `interrupt`: an untranslated write without PASID to 0xfee0_0000–0xfeef_ffff is an interrupt
//!   message and no DMA; a translation request for that range succeeds as *untranslated access
//!   only*. Reads there are faults.
//! - `queued`: a page request that may be asked goes into the guest's page request queue, as
//!   `descriptor`; its answer is the guest's, so `response` is null. One that may not is a fault,
//!   answered `invalid` if it is the last of its group and dropped (null) if not.
//!
//! `recoverable` is a property of the condition, whatever kind of request met it: in scalable mode
//! and in a page table, where a device that uses ATS is told *no access* and may ask for the page.
//! An untranslated request is lost all the same.
//!
//! The record of a fault has the type *read* for reads, instruction fetches and translation
//! requests (which are reads on the bus), *write* for writes, *atomic* for requests that both read
//! and write.
//!
//! # AMD-Vi
//! Registers that a capture leaves out:
//! - `IOMMU_CONTROL`: [`amdvi::IOMMU_CONTROL`]: translation, guest translation and page requests are
//!   on. With it, its bits decide.
//! - `EXT_FEATURE`, `EXT_FEATURE2`: [`amdvi::EXT_FEATURE`] and [`amdvi::EXT_FEATURE2`], everything the
//!   walk knows.
//! - `DEV_TAB_BASE`: its reset value, 0: a device table of one page at address 0. The others: 0.
//!
//! The first stage is the guest tables of version 2, the second the host tables of version 1. The name
//! of a fault is that of its event, which several conditions share. `recoverable` is as above, while
//! page requests are on. Outcomes are the same; a queued page request is an entry of the PPR log. The
//! record is the event of 16 bytes; what SA suppresses has none, nor what SE does after the first fault
//! of a device in the capture.
//!
//! # SMMUv3
//! Registers that a capture leaves out:
//! - `SMMU_CR0`: [`smmuv3::CR0`]: translation, the queues and the check of translated requests are on. With
//!   it, its bits decide.
//! - `SMMU_IDR0`, `SMMU_IDR1`, `SMMU_IDR3`, `SMMU_IDR5`: [`smmuv3::IDR0`] and so on, everything the walk
//!   knows.
//! - The others: 0. That is a linear stream table of one entry, and a `C_BAD_STREAMID` leaves no record
//!   (RECINVSID of `SMMU_CR2`).
//!
//! `device` is the StreamID, `pasid` the SubstreamID. The name of a fault is that of its event, which
//! several conditions share; what has no event has the name of the field that decides. `level` is counted
//! from 1, the level of pages, as everywhere; the sentences have the specification's, where that is 3.
//! `recoverable`: the request stalls, or page requests are on. The record is the event of 32 bytes; of a
//! stalled request, with Stall set and 0 for a tag, which a unit chooses. What R or S2R suppresses has
//! none. A page request goes into the PRI queue whatever the tables say.

pub mod amdvi;
mod check;
pub mod fields;
mod json;
mod scene;
mod sentence;
pub mod smmuv3;
pub mod vtd;

pub use check::{Difference, check};

use crate::capture::{Arch, Capture};
use fields::Formats;
use iommu_walk::{Completion, Step, Update};
use iopf::{Access, Gpa};

/// What came of one request, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The request's number in its capture, from 0.
    pub request: usize,
    /// What came of it.
    pub outcome: Outcome,
    /// The entries the walk read, in order.
    pub trail: Vec<Step>,
    /// Whose entries those are.
    pub formats: Formats,
    /// Accessed and dirty bits that were set, also before a later fault.
    pub writes: Vec<Update>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It reaches memory, or was answered with a translation.
    Translated(Translated),
    /// It met a fault.
    Fault(Fault),
    /// It is an interrupt message, or a translation request for the interrupt range.
    Interrupt {
        /// The answer, for translation requests.
        response: Option<Answer>,
        /// What that means.
        text: String,
    },
    /// It is a page request, now queued for the guest.
    Queued {
        /// What software finds in its queue, in memory order: VT-d's page request descriptor (32
        /// bytes), AMD-Vi's PPR log entry or SMMUv3's PRI queue entry (16 bytes).
        descriptor: Vec<u8>,
        /// What that means.
        text: String,
    },
}

/// A translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translated {
    /// Where the address lies.
    pub pa: Gpa,
    /// What the walk grants the requester.
    pub perms: Access,
    /// The size of the page, in bytes.
    pub page: u64,
    /// The answer, for translation requests.
    pub response: Option<Answer>,
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number in the architecture's own record, recorded or not; `None` where there is none.
    pub code: Option<u32>,
    /// The condition's name.
    pub name: &'static str,
    /// A device that uses ATS may ask for the page; see the module's text.
    pub recoverable: bool,
    /// The stage to blame, 1 or 2; `None` where configuration is to blame.
    pub stage: Option<u8>,
    /// The page-table level to blame, 1 being the lowest.
    pub level: Option<u8>,
    /// The address of the word to blame.
    pub entry_addr: Option<Gpa>,
    /// That word as it was read; `None` where it could not be read.
    pub entry: Option<u64>,
    /// The bits of it that decided.
    pub bits: u64,
    /// The fault record in memory order; `None` where nothing is recorded.
    pub record: Option<Vec<u8>>,
    /// How the request was answered; `None` for requests that get no answer.
    pub response: Option<Answer>,
    /// What happened and what to do, in one sentence.
    pub text: String,
}

/// The answer to a translation request or page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Success; for a translation request possibly without any access.
    Success,
    /// Unsupported Request.
    UnsupportedRequest,
    /// Completer Abort.
    CompleterAbort,
    /// Page response: Invalid Request.
    Invalid,
    /// Page response: Response Failure.
    Failure,
}

impl Answer {
    /// The name the format uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::UnsupportedRequest => "ur",
            Self::CompleterAbort => "ca",
            Self::Invalid => "invalid",
            Self::Failure => "failure",
        }
    }
}

impl From<Completion> for Answer {
    fn from(completion: Completion) -> Self {
        match completion {
            Completion::UnsupportedRequest => Self::UnsupportedRequest,
            Completion::CompleterAbort => Self::CompleterAbort,
            Completion::NoAccess => Self::Success,
        }
    }
}

/// The walks of this architecture are not built in yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("captures of {} are read but their walks are not built in yet; built in: vtd, amdvi, smmuv3", .0.name())]
pub struct NotBuiltIn(pub Arch);

/// Explains every request of `capture`, in order; each walks when it is asked for.
///
/// # Errors
/// [`NotBuiltIn`] where the walks of the capture's architecture are missing.
pub fn explain(capture: &Capture) -> Result<impl Iterator<Item = Explanation>, NotBuiltIn> {
    let scene: Box<dyn Iterator<Item = Explanation>> = match capture.arch {
        Arch::Vtd => Box::new(vtd::Scene::new(capture)),
        Arch::Amdvi => Box::new(amdvi::Scene::new(capture)),
        Arch::Smmuv3 => Box::new(smmuv3::Scene::new(capture)),
        arch => return Err(NotBuiltIn(arch)),
    };
    Ok(scene)
}

impl Explanation {
    /// Whether the request met a fault.
    #[must_use]
    pub fn is_fault(&self) -> bool {
        matches!(self.outcome, Outcome::Fault(_))
    }

    /// The step whose entry is to blame for a fault, and which of its words.
    #[must_use]
    pub fn blamed(&self) -> Option<(&Step, usize)> {
        let Outcome::Fault(fault) = &self.outcome else {
            return None;
        };
        blamed(&self.trail, fault.entry_addr?)
    }
}

/// The last step of a trail whose entry holds the word at `addr`, and which of its words that is.
fn blamed(trail: &[Step], addr: Gpa) -> Option<(&Step, usize)> {
    trail.iter().rev().find_map(|step| {
        let words = step.raw.words().len().max(1);
        let word = usize::try_from(addr.0.checked_sub(step.addr.0)? / 8).ok()?;
        (word < words).then_some((step, word))
    })
}

#[cfg(test)]
mod tests;
