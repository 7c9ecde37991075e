//! The QEMU that the differential tests need.

use crate::run::{Done, cargo, step};

/// Finds or fetches it, where its progress can be seen. The tests would do it by themselves.
pub(crate) fn ensure() -> Done {
    step(
        "QEMU, from the system or the cache",
        cargo().args(["run", "--quiet", "-p", "testkit", "--example", "qemu_root"]),
    )
}
