//! The same scenarios where the IOMMU holds transactions instead of asking for pages, and what each must
//! come to, typed. A group is the one transaction that is held; its number is its tag, counted here from
//! the first of the scenario on.

use crate::scenarios::Scenario;

/// Every scenario, in the order played.
pub(crate) const STALLS: &[Scenario] = &[
    Scenario {
        name: "present",
        guest: "\
attached
mapped 0x20000000 to page 1, Write
job 0 done moved=4096 check=0x0 pages=0
job 0 done moved=4096 check=0x0 pages=0
page 1 full of 0xc3
no fault
closed
",
        server: "",
    },
    Scenario {
        name: "missing",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
no fault
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Retry
",
    },
    Scenario {
        name: "missing-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
no fault
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Retry
",
    },
    Scenario {
        name: "invalid",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
answers 1=invalid: 1 taken
job 0 error blocked at 0x20000000 pages=0
fault read 0x20000000 group=1 cookie=1 last
answers 1=invalid: 1 taken
job 0 error blocked at 0x20000000 pages=0
no fault
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
held 1: r at 0x20000000
let go 1: Abort
",
    },
    Scenario {
        name: "read-only",
        guest: "\
attached
mapped 0x20000000 to page 1, Read
job 0 done moved=4096 check=0x0 pages=0
fault write 0x20000000 group=0 cookie=1 last
page 1 full of 0x5a
mapped 0x20000000 to page 1, Write
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
page 1 full of 0xc3
closed
",
        server: "\
held 0: w at 0x20000000
let go 0: Retry
",
    },
    Scenario {
        name: "out-of-order",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
fault write 0x20100000 group=1 cookie=2 last
mapped 0x20100000 to page 2, Write
answers 2=success: 1 taken
job 1 done moved=4096 check=0x0 pages=0
page 2 full of 0xc3
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
held 1: w at 0x20100000
let go 1: Retry
let go 0: Retry
",
    },
    Scenario {
        name: "both-spaces",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 last
fault read 0x20000000 group=1 cookie=2 pasid=7 last
mapped 0x20000000 to page 1, Read
answers 1=invalid 2=success: 2 taken
job 0 error blocked at 0x20000000 pages=0
job 1 done moved=4096 check=0x0 pages=0
job 1 done moved=4096 check=0x0 pages=0
fault read 0x20000000 group=2 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
held 1: r at 0x20000000
let go 0: Abort
let go 1: Retry
held 2: r at 0x20000000
let go 2: Retry
",
    },
    Scenario {
        name: "empty-success",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
answers 1=success: 1 taken
fault read 0x20000000 group=1 cookie=1 last
answers 1=success: 1 taken
fault read 0x20000000 group=2 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Retry
held 1: r at 0x20000000
let go 1: Retry
held 2: r at 0x20000000
let go 2: Retry
",
    },
    Scenario {
        name: "no-queue",
        guest: "\
attached
job 0 error blocked at 0x20000000 pages=0
no fault
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
",
    },
    Scenario {
        name: "detach",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
detached
job 0 error blocked at 0x20000000 pages=0
no fault
answers 1=success: EINVAL
attached
fault read 0x20000000 group=1 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
held 1: r at 0x20000000
let go 1: Retry
",
    },
    Scenario {
        name: "detach-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last
detached
job 0 error blocked at 0x20000000 pages=0
no fault
answers 1=success: EINVAL
attached
fault read 0x20000000 group=1 cookie=1 pasid=7 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
held 1: r at 0x20000000
let go 1: Retry
",
    },
    Scenario {
        name: "detach-unread",
        guest: "\
attached
a fault waits
detached
job 0 error blocked at 0x20000000 pages=0
no fault
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
",
    },
    Scenario {
        name: "detach-beside",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 last
fault read 0x20000000 group=1 cookie=2 pasid=7 last
detached
job 1 error blocked at 0x20000000 pages=0
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
held 1: r at 0x20000000
let go 1: Abort
let go 0: Retry
",
    },
    Scenario {
        name: "close",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
a fault waits
closed
no fault
answers 1=success: EINVAL
",
        server: "\
held 0: r at 0x20000000
held 1: r at 0x20100000
let go 1: Abort
let go 0: Abort
",
    },
    Scenario {
        name: "replace",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
mapped 0x20001000 to page 1, Read
attached
job 0 error blocked at 0x20000000 pages=0
no fault
answers 1=success: EINVAL
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
",
    },
    Scenario {
        name: "replace-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last
mapped 0x20001000 to page 1, Read
attached
job 0 error blocked at 0x20000000 pages=0
no fault
answers 1=success: EINVAL
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Abort
",
    },
    Scenario {
        name: "reset",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
reset
job 0 idle pages=0
answers 1=success: 1 taken
fault read 0x20000000 group=1 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
held 0: r at 0x20000000
let go 0: Retry
held 1: r at 0x20000000
let go 1: Retry
",
    },
];
