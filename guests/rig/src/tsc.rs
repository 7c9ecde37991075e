//! Instructions, counted by the guest's time stamp counter.
//!
//! Under QEMU's `-icount shift=0` every instruction of the guest, of the kernel as of a program,
//! takes one nanosecond of the guest's time, and the time stamp counter counts those nanoseconds
//! (QEMU, `docs/devel/tcg-icount.rst`). [`calibrate`] checks that this is so.
// UNSAFETY: the counter has no safe name in std, and a loop of known length is a loop of assembly.
#![expect(
    unsafe_code,
    reason = "the time stamp counter, and a loop of known length"
)]

use std::arch::asm;
use std::arch::x86_64::_rdtsc;

/// Instructions since the guest was started.
#[inline]
pub(crate) fn now() -> u64 {
    // SAFETY: the instruction reads a counter; Linux lets programs have it.
    unsafe { _rdtsc() }
}

/// Runs `2 * turns` instructions.
#[inline(never)]
fn known(turns: u64) {
    // SAFETY: a register counts down to zero, and nothing else changes.
    unsafe {
        asm!("2:", "dec {0}", "jnz 2b", inout(reg) turns => _, options(nomem, nostack));
    }
}

/// What the counter says of loops of 2 million instructions: the least that one took, and of an
/// empty stretch. Interrupts only add.
pub(crate) fn calibrate() -> (u64, u64) {
    let least = |turns: u64| {
        let one = |_| {
            let start = now();
            if turns > 0 {
                known(turns);
            }
            now() - start
        };
        (0..16).map(one).min().unwrap_or_default()
    };
    (least(1_000_000), least(0))
}
