//! What the differential tests and the guests need: QEMU, kernels, the agent.

use crate::run::{Done, cargo, step};

/// Finds or fetches it, where its progress can be seen. The tests would do it by themselves.
pub(crate) fn ensure() -> Done {
    step(
        "QEMU, from the system or the cache",
        cargo().args(["run", "--quiet", "-p", "testkit", "--example", "qemu_root"]),
    )
}

/// Finds, fetches or builds all that guests need: QEMU, Debian's kernels, our own, the agent.
pub(crate) fn guests() -> Done {
    step(
        "QEMU, kernels and the agent, from the cache or made once",
        cargo().args([
            "run",
            "--quiet",
            "-p",
            "testkit",
            "--example",
            "guests_setup",
        ]),
    )
}
