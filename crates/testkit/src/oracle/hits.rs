//! What a run has hit: every operation, and every branch of Linux's fault delivery that can be
//! reached.

use super::step::KINDS;
use std::collections::BTreeMap;
use std::fmt;

macro_rules! branches {
    ($($name:ident $text:literal)*) => {
        /// A branch of the kernel that a script can reach.
        ///
        /// Numbers: 2 is the I/O page fault core (`drivers/iommu/io-pgfault.c`), 3 the fault queue of
        /// iommufd (`drivers/iommu/iommufd/eventq.c`).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Branch {
            $(#[doc = $text] $name,)*
        }

        impl Branch {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

branches! {
    HandlerOfPasid "2.1/1 handler of the PASID"
    HandlerOfFunction "2.1/1 handler of the function, no PASID"
    HandlerByFallback "2.1/1 PASID without attachment: the function's nested tables"
    NoFallback "2.1/1 PASID without attachment, function not nested: none"
    PasidNotServed "2.1/1 PASID attached without a fault queue: none, no fallback"
    FunctionNotServed "2.1/1 function attached without a fault queue: none"
    FunctionDetached "2.1/1 function not attached: none"
    RefusedLast "2.1/2 last page without handler: INVALID at once"
    RefusedPartial "2.1/2 partial page without handler: INVALID at once"
    Collected "2.1/3 partial page kept"
    NoMemoryPartial "2.1/3 no memory for a partial page: ENOMEM, no answer"
    NoMemoryLast "2.1/4 no memory for the group: FAILURE"
    NoMemoryDrops "2.1/4 no memory for the group: its partial pages are dropped"
    GroupOfOne "2.1/4 group of one page"
    GroupOfMany "2.1/4 group with partial pages, in the order they came"
    GroupOfTwoPasids "2.1/4 partial page of another PASID taken along"
    OthersStay "2.1/4 partial pages of other groups left"
    SameIndexTwice "2.1/4 two groups of one index outstanding"
    HandlerTook "2.1/5 handler took the group"
    OneAnswer "2.2 one answer to a group of many, from its last page"
    StaleAfterDetach "2.3 partial page delivered after its attachment was detached"
    StaleAfterReplace "2.3 partial page delivered after its attachment was replaced"
    StaleAfterRefusal "2.3 partial pages outlive a refused last page"
    StaleDropped "2.3 partial pages dropped with the last fault queue of the device"
    DiscardSome "2.4 discard: partial pages of one device"
    DiscardSeveral "2.4 discard: partial pages of several devices"
    DiscardNone "2.4 discard: nothing to discard"
    FirstTaker "2.4 add_device: first attachment with a fault queue"
    SecondTaker "2.4 add_device: a further one"
    LastTaker "2.4 remove_device: last attachment with a fault queue"
    NotLastTaker "2.4 remove_device: another is left"
    DequeuedSpared "2.4 remove_device: groups of the fault queue are left to it"
    AllocFlags "3.1 allocation with flags: EOPNOTSUPP"
    AllocShort "3.1 allocation with a short block: EINVAL"
    AllocFiles "3.1 allocation with no descriptor left: EMFILE"
    AllocLong "3.1 allocation with more than zeros behind: E2BIG"
    AfterShut "3.1 read or write with /dev/iommu closed"
    Delivered "3.2 group put at the end of the list"
    ReadSizeEmpty "3.3 wrong size, nothing there: ESPIPE"
    ReadSizeFull "3.3 wrong size, groups there: ESPIPE"
    ReadPosition "3.3 position not 0: ESPIPE"
    ReadEmpty "3.3 nothing there: 0"
    ReadZero "3.3 count 0, groups there: EINVAL"
    ReadTooSmall "3.3 first group does not fit: EINVAL, pushed back"
    ReadShort "3.3 later group does not fit: pushed back, those before told"
    ReadFull "3.3 buffer full, groups left"
    ReadSeveral "3.3 several groups in one read"
    CookieNew "3.3 cookie: one more than ever"
    CookieAgain "3.3 cookie: lowest free one, used before"
    CookieZero "3.3 cookie 0, once somebody answered 0"
    CookieOfDenied "3.3 cookie of a group that a detach denied, given again"
    ReadFaultFirst "3.3 copy fails at the first page: EFAULT, pushed back"
    ReadFaultMiddle "3.3 copy fails within a group: EFAULT, cookie freed, pushed back whole"
    ReadFaultHidden "3.3 copy fails after a whole group: that group is told"
    ReadAfterFault "3.3 group read after a copy of it failed"
    WriteSize "3.4 wrong size: ESPIPE"
    WritePosition "3.4 position not 0: ESPIPE"
    WriteNothing "3.4 count 0: 0"
    WriteFaultFirst "3.4 copy fails at the first answer: EFAULT"
    WriteFaultHidden "3.4 copy fails later: those before are told"
    WriteBadCode "3.4 code neither 0 nor 1: EINVAL"
    WriteFailure "3.4 code 2, FAILURE: EINVAL"
    WriteBadBoth "3.4 bad code and unknown cookie: EINVAL"
    WriteCookieKept "3.4 cookie good after a bad code"
    WriteUnknown "3.4 unknown cookie: EINVAL"
    WriteZero "3.4 cookie 0 while others are given: EINVAL, and 0 becomes a cookie"
    WriteDead "3.4 cookie of a group that a detach denied: EINVAL"
    WriteStops "3.4 error after good answers: those before are told"
    WriteSeveral "3.4 several answers in one write"
    WriteSuccess "3.4 SUCCESS"
    WriteInvalid "3.4 INVALID"
    WriteAnyOrder "3.4 a later cookie answered first"
    PollOut "3.5 always writable"
    PollIn "3.5 readable: a group is there"
    PollReadOnly "3.5 not readable: groups read and not answered"
    EdgeSeen "3.5 edge: a group came"
    EdgeNotAgain "3.5 no edge: groups there, none came"
    EdgeNotAfterRestore "3.5 no edge: a group was pushed back"
    EdgeEmptied "3.5 no edge: a group came and was read"
    DenyUnread "3.6 detach: group not read yet denied"
    DenyRead "3.6 detach: group read and not answered denied"
    DenyUnreadFirst "3.6 detach: both, those not read first"
    DenyNot "3.6 detach: groups of other attachments left"
    ReplaceDenies "3.6 replace by others: groups denied"
    ReplaceSame "3.6 replace by the same: no-op, groups left"
    FaultBusyOpen "3.6 destroy a fault queue whose descriptor is open: EBUSY"
    FaultBusyTables "3.6 destroy a fault queue that tables use: EBUSY"
    FaultDestroyed "3.6 destroy a fault queue"
    TableBusy "3.6 destroy tables that are attached or built upon: EBUSY"
    TableDestroyed "3.6 destroy tables"
    CloseAnswersNothing "3.6 closing the descriptor: groups stay"
    QueueWithoutReader "3.6 a group comes after the descriptor was closed"
    DenyWithoutReader "3.6 detach: group denied after the descriptor was closed"
    EndDenies "3.6 the last descriptor closed: groups denied"
    TablesPaging "3.7 fault queue on paging tables"
    TablesPasid "3.7 fault queue on paging tables for PASIDs"
    TablesNested "3.7 fault queue on nested tables"
    TablesViommu "3.7 fault queue on nested tables over a virtual IOMMU"
    QueueOfMany "3.7 one fault queue for several tables"
    TablesParent "3.7 fault queue on a nesting parent: EOPNOTSUPP"
    TablesNoQueue "3.7 no such fault queue: ENOENT"
    TablesNoParent "3.7 nested on what is no parent: EINVAL"
    PasidNotCompatible "3.7 PASID attach: tables not for PASIDs: EINVAL"
    FunctionNotCompatible "3.7 PASID attach: function's tables not for PASIDs: EINVAL"
    FunctionKeepsPasids "3.7 function's tables must be for PASIDs while one is attached: EINVAL"
    DeviceWithoutPasids "3.7 PASID attach: device has none: EINVAL"
    AttachTwice "3.7 attach where attached: EBUSY"
    ReplaceNothing "3.7 replace where not attached: EINVAL"
    NoNumber "3.7 function's tables over a virtual IOMMU that has no number for it: ENOENT"
    NoSuchTables "3.7 no such tables: ENOENT"
}

/// Branches that no script reaches, and why.
pub const OUT_OF_REACH: &[(&str, &str)] = &[
    (
        "2.1/2 no fault parameters (WARN)",
        "the mock driver puts a device on the queue with its first attachment that has a handler",
    ),
    (
        "2.1/5 handler refuses: FAILURE",
        "the handler of iommufd never does",
    ),
    (
        "2.4 discard: no queue: EINVAL",
        "the mock driver always has one",
    ),
    ("2.4 flush_dev", "the mock driver does not call it"),
    (
        "2.4 add_device: ENODEV, EBUSY, ENOMEM",
        "the mock driver answers, counts its users, and memory does not fail",
    ),
    (
        "2.4 remove_device: not on this queue (WARN)",
        "the mock driver has one queue",
    ),
    (
        "2.4 remove_device: pending groups denied",
        "iommufd takes each group off the list as it comes",
    ),
    (
        "2.4 queue_free",
        "only when the module goes, which is built in",
    ),
    (
        "2.5 the handler of SVA",
        "of another user; `iopf::resolve::AddressSpace` follows it, by its own tests",
    ),
    (
        "2.6 report_iommu_fault",
        "needs a domain that iommufd does not make",
    ),
    (
        "3.3 no cookie: ENOMEM, EBUSY",
        "whether there is memory for a cookie depends on the kernel's array, which `Forward` has no part of; or 4,294,967,295 groups",
    ),
    (
        "3.6 detach of one of several devices of a group",
        "each mock device has a group of its own",
    ),
    (
        "3.6 destroy: groups denied",
        "a queue can be destroyed only after the attachments of its groups, which deny them",
    ),
    (
        "3.7 virtual function with PRI: EINVAL",
        "mock devices are not PCI",
    ),
    (
        "3.7 Intel device without PRI: ENODEV",
        "mock devices are not Intel's",
    ),
];

/// Operations that are there to be refused.
const ALWAYS_FAIL: [&str; 4] = ["fault-wrong", "page-nomem", "read-at", "write-at"];

/// How often each operation and each branch was hit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hits {
    operations: BTreeMap<&'static str, [u64; 2]>,
    branches: BTreeMap<Branch, u64>,
}

impl Hits {
    /// Counts a branch.
    pub fn hit(&mut self, branch: Branch) {
        *self.branches.entry(branch).or_default() += 1;
    }

    /// Counts a branch where `when` holds.
    pub fn hit_if(&mut self, when: bool, branch: Branch) {
        if when {
            self.hit(branch);
        }
    }

    /// Counts a step and whether it failed.
    pub fn step(&mut self, kind: &'static str, failed: bool) {
        self.operations.entry(kind).or_default()[usize::from(failed)] += 1;
    }

    /// Adds the counts of another run.
    pub fn add(&mut self, other: &Self) {
        for (kind, counts) in &other.operations {
            let sum = self.operations.entry(kind).or_default();
            sum[0] += counts[0];
            sum[1] += counts[1];
        }
        for (branch, count) in &other.branches {
            *self.branches.entry(*branch).or_default() += count;
        }
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.operations.values().flatten().sum()
    }

    /// What was never hit.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let kinds = KINDS.iter().copied();
        let never = |kind: &&str| {
            let [ok, failed] = self.operations.get(kind).copied().unwrap_or_default();
            ok == 0 && !(failed > 0 && ALWAYS_FAIL.contains(kind))
        };
        let kinds = kinds.filter(never);
        let branches = Branch::ALL.iter();
        let branches = branches.filter(|branch| !self.branches.contains_key(branch));
        kinds.chain(branches.map(|branch| branch.text())).collect()
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>8} {:>8}  operation", "done", "failed")?;
        for kind in KINDS {
            let [ok, failed] = self.operations.get(kind).copied().unwrap_or_default();
            writeln!(f, "{ok:>8} {failed:>8}  {kind}")?;
        }
        writeln!(f, "{:>8}  branch", "hit")?;
        for branch in Branch::ALL {
            let count = self.branches.get(branch).copied().unwrap_or_default();
            writeln!(f, "{count:>8}  {}", branch.text())?;
        }
        for (text, why) in OUT_OF_REACH {
            writeln!(f, "{:>8}  {text}: {why}", "-")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_every_line_of_the_table() {
        let page = include_str!("../../../../docs/oracle.md");
        let kinds = KINDS.iter().map(|kind| format!("| `{kind}` | "));
        let branches = Branch::ALL.iter().map(|branch| branch.text());
        let branches = branches.map(|text| format!("| {text} | "));
        let others = OUT_OF_REACH.iter();
        let others = others.map(|(text, why)| format!("| {text} | {why} |"));
        for line in kinds.chain(branches).chain(others) {
            assert!(page.contains(&line), "{line}");
        }
        assert_eq!(
            page.matches("| 2.").count() + page.matches("| 3.").count(),
            Branch::ALL.len() + OUT_OF_REACH.len()
        );
    }
}
