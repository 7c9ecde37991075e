//! The scenarios and what each must come to, typed.

/// A scenario: the lines of the guest, and the server's page requests and answers in their order.
///
/// Of a fault with a PASID the guest sees flags 0x4 beside those of `iommufd.h`: Linux 7.3 hands
/// its internal IOMMU_FAULT_PAGE_RESPONSE_NEEDS_PASID on, `iommufd_compose_fault_message` in
/// drivers/iommu/iommufd/eventq.c. With a kernel that does not, it goes from the lines.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) guest: &'static str,
    pub(crate) server: &'static str,
}

/// Every scenario, in the order played.
pub(crate) const SCENARIOS: &[Scenario] = &[
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
job 0 done moved=4096 check=0x0 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "missing-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Success
",
    },
    Scenario {
        name: "group",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1
fault read 0x20001000 group=0 cookie=1
fault read 0x20002000 group=0 cookie=1
fault read 0x20003000 group=0 cookie=1 last
mapped 0x20000000 to page 1, Read
mapped 0x20001000 to page 2, Read
mapped 0x20002000 to page 3, Read
mapped 0x20003000 to page 4, Read
answers 1=success: 1 taken
job 0 done moved=16384 check=0x0 pages=4
answers 1=success: EINVAL
no fault
closed
",
        server: "\
group 0: r at 0x20000000
group 0: r at 0x20001000
group 0: r at 0x20002000
group 0: r at 0x20003000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "invalid",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
answers 1=invalid: 1 taken
job 0 error response-invalid at 0x20000000 pages=1
fault read 0x20000000 group=1 cookie=1 last
answers 1=invalid: 1 taken
job 0 error response-invalid at 0x20000000 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
group 1: r at 0x20000000, last of its group
group 1: Invalid
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
job 0 done moved=4096 check=0x0 pages=1
page 1 full of 0xc3
closed
",
        server: "\
group 0: w at 0x20000000, last of its group
group 0: Success
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
job 1 done moved=4096 check=0x0 pages=1
page 2 full of 0xc3
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 1: w at 0x20100000, last of its group
group 1: Success
group 0: Success
",
    },
    Scenario {
        name: "both-spaces",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 last
fault read 0x20000000 group=1 cookie=2 pasid=7 last flags=0x4
mapped 0x20000000 to page 1, Read
answers 1=invalid 2=success: 2 taken
job 0 error response-invalid at 0x20000000 pages=1
job 1 done moved=4096 check=0x0 pages=1
job 1 done moved=4096 check=0x0 pages=0
fault read 0x20000000 group=2 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 1: r at 0x20000000, pasid 0x7, last of its group
group 0: Invalid
group 1: Success
group 2: r at 0x20000000, last of its group
group 2: Success
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
job 0 done moved=4096 check=0x0 pages=3
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
group 1: r at 0x20000000, last of its group
group 1: Success
group 2: r at 0x20000000, last of its group
group 2: Success
",
    },
    Scenario {
        name: "no-queue",
        guest: "\
attached
job 0 error response-invalid at 0x20000000 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
",
    },
    Scenario {
        name: "wrong-calls",
        guest: "\
attached
read of 40 bytes: 0 records
a fault waits
read of 39 bytes: ESPIPE
read of 40 bytes: EINVAL
fault read 0x20000000 group=0 cookie=1
fault read 0x20001000 group=0 cookie=1 last
answers 1=code-2: EINVAL
answers 2=success: EINVAL
mapped 0x20000000 to page 1, Read
mapped 0x20001000 to page 2, Read
answers 1=success 1=success: 1 taken
job 0 done moved=8192 check=0x0 pages=2
closed
",
        server: "\
group 0: r at 0x20000000
group 0: r at 0x20001000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "detach",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
detached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
attached
fault read 0x20000000 group=1 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
group 1: r at 0x20000000, last of its group
group 1: Success
",
    },
    Scenario {
        name: "detach-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
detached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
attached
fault read 0x20000000 group=1 cookie=1 pasid=7 last flags=0x4
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Invalid
group 1: r at 0x20000000, pasid 0x7, last of its group
group 1: Success
",
    },
    Scenario {
        name: "detach-unread",
        guest: "\
attached
a fault waits
detached
job 0 error response-invalid at 0x20000000 pages=1
no fault
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
",
    },
    Scenario {
        name: "detach-beside",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 last
fault read 0x20000000 group=1 cookie=2 pasid=7 last flags=0x4
detached
job 1 error response-invalid at 0x20000000 pages=1
job 0 busy pages=0
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 1: r at 0x20000000, pasid 0x7, last of its group
group 1: Invalid
group 0: Success
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
group 0: r at 0x20000000, last of its group
group 1: r at 0x20100000, last of its group
group 1: Invalid
group 0: Invalid
",
    },
    Scenario {
        name: "replace",
        guest: "\
attached
fault read 0x20000000 group=0 cookie=1 last
mapped 0x20001000 to page 1, Read
attached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Invalid
",
    },
    Scenario {
        name: "replace-pasid",
        guest: "\
attached
attached
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
mapped 0x20001000 to page 1, Read
attached
job 0 error response-invalid at 0x20000000 pages=1
no fault
answers 1=success: EINVAL
job 0 done moved=4096 check=0x0 pages=0
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Invalid
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
fault read 0x20000000 group=0 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "handles",
        guest: "\
bar 0: 0x8000 bytes, RegionFlags(READ | WRITE | MMAP)
vtd cap=0x11d2008c222f0406 ecap=0x1cd9824000fc7, 20 bits of PASID
VFIO_DEVICE_BIND_IOMMUFD: Invalid argument (os error 22): a device is opened once, and its DMA \
must be coherent with caches
attached
the handle is gone
0 objects left behind
fault read 0x20000000 group=0 cookie=1 last
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
detached
0 objects left behind
attached
closed
0 objects left behind
0 objects left behind
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "invalidate",
        guest: "\
attached
mapped 0x20000000 to page 1, Read
job 0 done moved=4096 check=0x0 pages=0
mapped 0x20000000 to page 2, Read
job 0 done moved=4096 check=0x0 pages=0
invalidation of 0x20000000, 0x1 pages: done
job 0 done moved=4096 check=0x1000 pages=0
unmapped 0x20000000
invalidation of 0x0, 0xffffffffffffffff pages: done
fault read 0x20000000 group=0 cookie=1 last
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
invalidation of 0x20000001, 0x1 pages: EINVAL
invalidation of 0x20000000, 0xffffffffffffffff pages: EINVAL
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "invalidate-pasid",
        guest: "\
attached
attached
mapped 0x20000000 to page 1, Read
job 0 done moved=4096 check=0x0 pages=0
mapped 0x20000000 to page 2, Read
job 0 done moved=4096 check=0x0 pages=0
invalidation of 0x20000000, 0x1 pages: done
job 0 done moved=4096 check=0x1000 pages=0
unmapped 0x20000000
invalidation of 0x0, 0xffffffffffffffff pages: done
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
mapped 0x20000000 to page 1, Read
answers 1=success: 1 taken
job 0 done moved=4096 check=0x0 pages=1
invalidation of 0x20000001, 0x1 pages: EINVAL
invalidation of 0x20000000, 0xffffffffffffffff pages: EINVAL
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Success
",
    },
    Scenario {
        name: "stage-2",
        guest: "\
attached
job 0 done moved=4096 check=0x0 pages=0
stage 2 has it no more
fault read 0x20000000 group=0 cookie=1 last
answers 1=success: 1 taken
job 0 done moved=4096 check=0x1000 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, last of its group
group 0: Success
",
    },
    Scenario {
        name: "stage-2-pasid",
        guest: "\
attached
attached
job 0 done moved=4096 check=0x0 pages=0
stage 2 has it no more
fault read 0x20000000 group=0 cookie=1 pasid=7 last flags=0x4
answers 1=success: 1 taken
job 0 done moved=4096 check=0x1000 pages=1
closed
",
        server: "\
group 0: r at 0x20000000, pasid 0x7, last of its group
group 0: Success
",
    },
];
