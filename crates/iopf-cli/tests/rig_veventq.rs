//! Objects of iommufd, virtual IOMMUs and their events above all, on the real kernel: its own mock
//! devices, in a guest.
//!
//! What each scenario does is in `guests/agent/src/commands/mock/`.

use testkit::guest::Guest;
use testkit::kernel::{Stock, own, stock};

/// Every scenario, and the lines it comes to.
const SCENARIOS: [(&str, &str); 13] = [
    (
        "missing",
        "/dev/iommu: no such node, though this kernel has iommufd (misc device MINOR): devtmpfs or a container keeps it away\n\
         /dev/iommu: not the node of iommufd (misc device MINOR), and of nothing else\n\
         open\n\
         /dev/iommu: Too many open files (os error 24): raise RLIMIT_NOFILE\n\
         IOMMU_FAULT_QUEUE_ALLOC: Too many open files (os error 24): this process has too many files open: raise RLIMIT_NOFILE\n\
         IOMMU_VEVENTQ_ALLOC: Too many open files (os error 24): this process has too many files open: raise RLIMIT_NOFILE\n\
         0 left behind\n",
    ),
    (
        "device",
        "kind 0xfeedbeef, data [00, 00, 00, 00, ef, be, ad, de], 20 bits of PASID, Capabilities(DIRTY_TRACKING | ATS_NOT_SUPPORTED)\n\
         iova:0x1000000 to iova:0x7fffffff\n\
         multiples of 2048\n",
    ),
    (
        "memory",
        "mapped, 2 have it\n\
         mapping over another: EEXIST\n\
         mapping that is not aligned: EINVAL\n\
         mapping where there are no addresses: EINVAL\n\
         unmapping a part: ENOENT\n\
         unmapping nothing: ENOENT\n\
         a file beside it, 2 have it\n\
         unmapping two and a part: ENOENT\n\
         unmapping the first again: ENOENT\n\
         unmapped 0x2000 bytes, (1, 1) have it\n",
    ),
    (
        "tables",
        "tables that note what was written: done\n\
         VT-d invalidation of other tables: EINVAL after 0\n\
         group 3 cookie=1 Access(r) at iova:0x1000 pasid=None ours=true\n\
         PASID of a device on tables without: EINVAL\n\
         replace: done\n\
         0 answered, 1 too late\n\
         group 4 cookie=1 Access(w) at iova:0x2000 pasid=Some(pasid:0x7) ours=true\n\
         group 5 cookie=1 Access(w) at iova:0x3000 pasid=Some(pasid:0x7) ours=true\n\
         PASID 1024: done\n\
         PASID 1024 to other tables: ENOMEM\n\
         0 left behind while attached\n",
    ),
    (
        "events",
        "ready before: false\n\
         ready: true\n\
         event 0 of 0x42\n\
         event 1 of 0x42\n\
         event 2 of 0x42\n\
         ready after: false\n\
         3 events, 0 lost, 0 malformed\n",
    ),
    (
        "refused",
        "virtual IOMMU on tables that are no nest parent: EINVAL\n\
         virtual IOMMU of kind 0: EOPNOTSUPP\n\
         virtual IOMMU of a kind that is not this one's: EOPNOTSUPP\n\
         second number for a device: EEXIST\n\
         number that another device has: EEXIST\n\
         queue of kind 0: EOPNOTSUPP\n\
         queue of depth 0: EINVAL\n\
         queue of depth 2^19 + 1: EINVAL\n\
         event of a device on plain tables: ENOENT\n\
         event without a queue: EOPNOTSUPP\n\
         event with a queue of another kind: EOPNOTSUPP\n\
         second queue of a kind: EEXIST\n\
         event: done\n\
         tables nested on tables that are no nest parent: EINVAL\n\
         nest parent with a fault queue: EOPNOTSUPP\n",
    ),
    (
        "trailing",
        "event 0 of 0x42\n\
         event 1 of 0x42\n\
         3 lost, up to 4, flags 0x1\n\
         event 5 of 0x42\n\
         3 events, 3 lost, 0 malformed\n",
    ),
    (
        "gap",
        "event 0 of 0x42\n\
         event 1 of 0x42\n\
         event 4 of 0x42, 2 lost before\n\
         2 lost, up to 6, flags 0x1\n\
         3 events, 4 lost, 0 malformed\n",
    ),
    (
        "sizes",
        "nothing, read of 7: EINVAL\n\
         nothing, read of 8: 0\n\
         two events, one lost, read of 0: EINVAL\n\
         two events, one lost, read of 7: EINVAL\n\
         two events, one lost, read of 8: EINVAL\n\
         two events, one lost, read of 11: EINVAL\n\
         two events, one lost, read of 13: 12\n\
         one event, one lost, read of 19: 12\n\
         one lost, read of 7: EINVAL\n\
         one lost, read of 8: 8\n\
         nothing, read of 64: 0\n\
         write of 12: EINVAL\n\
         seek: ESPIPE\n",
    ),
    (
        "grows",
        "event 0 of 0x42\n\
         1 lost, up to 1, flags 0x1\n\
         room for 8 bytes, then 16\n\
         1 events, 1 lost, 0 malformed\n",
    ),
    (
        "storm",
        "seed 0x1057: 20000 reported, 12210 came, 7790 lost of 7790, 319 gaps, 384 headers\n\
         every one counted once: true\n",
    ),
    (
        "drops",
        "seed 0xd20b: 400 orders of 9 handles, 0 objects left behind\n",
    ),
    ("left-behind", "1 left behind\n"),
];

/// What must not be in a guest's log.
const COMPLAINTS: [&str; 3] = ["WARNING:", "BUG:", "Call Trace"];

/// A line without the minor number, which the kernel gives out as devices come.
fn plain(line: &str) -> String {
    let Some((before, behind)) = line.split_once("(misc device ") else {
        return line.to_owned();
    };
    let number = behind.trim_start_matches(|digit: char| digit.is_ascii_digit());
    assert_ne!(number, behind, "{line}");
    format!("{before}(misc device MINOR{number}")
}

#[test]
fn objects_events_and_losses_are_as_the_kernel_has_them() {
    let guest = Guest::builder(own().unwrap()).boot().unwrap();
    for (name, expected) in SCENARIOS {
        let output = guest.run(&format!("mock {name}")).unwrap();
        let lines = output.lines.iter();
        let said: String = lines.map(|line| format!("{}\n", plain(line))).collect();
        assert_eq!(said, expected, "{name}");
        assert_eq!(output.status, 0, "{name}");
    }
    let log = guest.log();
    for complaint in COMPLAINTS {
        let found = log.lines().find(|line| line.contains(complaint));
        assert_eq!(found, None, "in the guest's log");
    }
}

#[test]
fn a_kernel_without_iommufd_is_named() {
    let guest = Guest::builder(stock(Stock::Newest).unwrap())
        .boot()
        .unwrap();
    let output = guest.run("mock events").unwrap();
    assert_eq!(
        output.lines,
        [
            "error: /dev/iommu: this kernel has no iommufd: CONFIG_IOMMUFD is off, or the module \
          iommufd is not loaded"
        ]
    );
    assert_ne!(output.status, 0);
}
