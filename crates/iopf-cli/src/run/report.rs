//! What a run found. Plain data: every view is a function of this.

use super::latency::Histogram;
use serde::{Serialize, Serializer};

/// An address as the other formats write it.
fn hex<S: Serializer>(value: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:#x}"))
}

/// A PCI address as the other formats write it. A run has one segment.
fn in_segment_0<S: Serializer>(device: &str, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("0000:{device}"))
}

/// Everything a run found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    /// Version of this layout.
    pub(crate) schema: u32,
    /// The IOMMU, as on the command line.
    pub(crate) arch: String,
    /// Where the random choices started.
    pub(crate) seed: u64,
    /// Wall time of the whole run in nanoseconds.
    pub(crate) elapsed_ns: u64,
    /// Every check of every scenario held.
    pub(crate) passed: bool,
    /// In the order they were played.
    pub(crate) scenarios: Vec<Scenario>,
}

/// What one scenario found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Scenario {
    /// Its name on the command line.
    pub(crate) name: String,
    /// Every check held.
    pub(crate) passed: bool,
    /// Wall time in nanoseconds.
    pub(crate) elapsed_ns: u64,
    /// The devices that took part.
    pub(crate) devices: Vec<Device>,
    /// Unrecoverable faults, by device and cause.
    pub(crate) faults: Vec<FaultRow>,
    /// Page request groups, by who answered them.
    pub(crate) answers: Vec<AnswerRow>,
    /// Requests that stalled, by device.
    pub(crate) stalls: Vec<StallRow>,
    /// What was lost, dropped or suppressed; exact.
    pub(crate) losses: Vec<LossRow>,
    /// Mistakes that were played, with what came of them.
    pub(crate) mistakes: Vec<Mistake>,
    /// What had to hold, and whether it did.
    pub(crate) checks: Vec<Check>,
    /// The host's log.
    pub(crate) host_log: Vec<String>,
}

/// What one device did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Device {
    /// Bus, device and function.
    #[serde(serialize_with = "in_segment_0")]
    pub(crate) device: String,
    /// What is behind it: `guest` or `host`.
    pub(crate) served_by: String,
    /// Jobs that moved all their bytes.
    pub(crate) done: u64,
    /// Jobs that ended otherwise.
    pub(crate) failed: u64,
    /// Bytes moved.
    pub(crate) bytes: u64,
    /// Translation requests (ATS).
    pub(crate) translations: u64,
    /// Accesses served by its own TLB.
    pub(crate) atc_hits: u64,
    /// Pages asked for (PRI).
    pub(crate) pages_requested: u64,
    /// Groups they came in.
    pub(crate) groups: u64,
    /// Invalidations it obeyed.
    pub(crate) invalidations: u64,
    /// Memory requests that were refused.
    pub(crate) blocked: u64,
}

/// Requests of one device that stalled: the IOMMU held them, and told the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct StallRow {
    /// Bus, device and function.
    #[serde(serialize_with = "in_segment_0")]
    pub(crate) device: String,
    /// How many.
    pub(crate) stalled: u64,
    /// Let go, to be tried again.
    pub(crate) retried: u64,
    /// Let go, and refused.
    pub(crate) aborted: u64,
    /// Let go, and ignored: reads gave zeros.
    pub(crate) ignored: u64,
}

/// Faults of one device and cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FaultRow {
    /// Bus, device and function.
    #[serde(serialize_with = "in_segment_0")]
    pub(crate) device: String,
    /// The fault reason, or event code.
    pub(crate) code: u8,
    /// Its name in the specification.
    pub(crate) name: String,
    /// How many were recorded.
    pub(crate) count: u64,
    /// Address of the first.
    #[serde(serialize_with = "hex")]
    pub(crate) first: u64,
    /// Address of the last.
    #[serde(serialize_with = "hex")]
    pub(crate) last: u64,
}

/// Page request groups that one party answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct AnswerRow {
    /// `guest`: through its command queue; `engine`: by the resolver in this process.
    pub(crate) by: String,
    /// Groups that ended.
    pub(crate) groups: u64,
    /// Answered Success.
    pub(crate) success: u64,
    /// Answered Invalid.
    pub(crate) invalid: u64,
    /// Answered Response Failure.
    pub(crate) failure: u64,
    /// Never answered.
    pub(crate) unanswered: u64,
    /// From the first request to the device taking note, in nanoseconds.
    pub(crate) p50_ns: u64,
    /// Ninety-nine of a hundred took no longer.
    pub(crate) p99_ns: u64,
    /// The longest.
    pub(crate) max_ns: u64,
}

impl AnswerRow {
    /// The row for what `by` answered: success, invalid, failure, never.
    pub(crate) fn new(by: &str, counts: [u64; 4], took: &Histogram) -> Self {
        let [success, invalid, failure, unanswered] = counts;
        Self {
            by: by.to_owned(),
            groups: took.count(),
            success,
            invalid,
            failure,
            unanswered,
            p50_ns: took.quantile(50),
            p99_ns: took.quantile(99),
            max_ns: took.max(),
        }
    }
}

/// Something that was lost, and exactly how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LossRow {
    /// What.
    pub(crate) what: String,
    /// How often.
    pub(crate) count: u64,
}

/// One mistake of the guest's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mistake {
    /// What the guest got wrong.
    pub(crate) name: String,
    /// What must be reported, in words.
    pub(crate) expected: String,
    /// What was reported, in the same words.
    pub(crate) seen: String,
    /// How the device's job ended.
    pub(crate) device: String,
    /// The line in the guest's own log, empty where there must be none.
    pub(crate) guest_log: String,
    /// As expected.
    pub(crate) ok: bool,
}

/// Something that had to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What, as a sentence.
    pub(crate) what: String,
    /// Whether it did.
    pub(crate) ok: bool,
    /// The figures behind it.
    pub(crate) detail: String,
}

impl Scenario {
    /// An empty one.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Notes whether something held.
    pub(crate) fn check(&mut self, what: &str, ok: bool, detail: impl Into<String>) {
        self.checks.push(Check {
            what: what.to_owned(),
            ok,
            detail: detail.into(),
        });
    }

    /// Notes a loss, if there was one.
    pub(crate) fn lost(&mut self, what: &str, count: u64) {
        if count > 0 {
            self.losses.push(LossRow {
                what: what.to_owned(),
                count,
            });
        }
    }

    /// Closes the books.
    pub(crate) fn close(mut self, elapsed_ns: u64) -> Self {
        self.elapsed_ns = elapsed_ns;
        self.passed = self.checks.iter().all(|c| c.ok) && self.mistakes.iter().all(|m| m.ok);
        self
    }

    /// Unrecoverable faults that the guest recorded.
    pub(crate) fn fault_count(&self) -> u64 {
        self.faults.iter().map(|f| f.count).sum()
    }
}

impl Report {
    /// Whether the guest recorded a fault, in any scenario.
    pub(crate) fn has_faults(&self) -> bool {
        self.scenarios.iter().any(|s| s.fault_count() > 0)
    }
}
