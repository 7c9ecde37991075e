//! The story of one page: what a demonstration tells.

use super::queue::{Descriptor, Record};
use super::scenarios::{PAGE, PAGE_U32, copy, pattern, same, small_pages, source};
use super::{Stage, check};
use crate::reply::{Context as _, Done, Failure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

/// One page that was never touched, with all there is to tell of it: where it is, what is behind it
/// before and after, and how long the process waited, the first time and the next.
pub(super) fn page(stage: &mut Stage<'_, '_>) -> Done {
    let from = source(PAGE)?;
    let to = small_pages(PAGE)?;
    let (process, from_at, to_at) = (std::process::id(), from.address(), to.address());
    stage.out.line(format_args!(
        "process={process} source={from_at:#x} target={to_at:#x} bytes={PAGE}"
    ));
    let before = frame(to_at)?;
    let moved = copy(from_at, to_at, PAGE_U32);
    let first = timed(stage, "onto the untouched page", &moved)?;
    let after = frame(to_at)?;
    same("copied", &to, &pattern(PAGE))?;
    let next = timed(stage, "onto it again", &moved)?;
    stage.out.line(format_args!(
        "before={before:#x} after={after:#x} first={first} next={next}"
    ));
    check("what was behind it before", &before, &0)
}

/// Has the device do this, successfully; gives the nanoseconds from before the first store to the
/// portal until the completion record was seen.
fn timed(stage: &mut Stage<'_, '_>, what: &str, descriptor: &Descriptor) -> Result<u128, Failure> {
    let start = Instant::now();
    let record = stage.queue.run(descriptor)?;
    let waited = start.elapsed().as_nanos();
    stage.out.line(format_args!("{what}: {record}"));
    check(what, &record, &Record::SUCCESS)?;
    Ok(waited)
}

/// The physical address behind an address of this process; 0 where there is none.
///
/// Source: Linux, `Documentation/admin-guide/mm/pagemap.rst`: bit 63, page present; bits 54-0, page
/// frame number.
fn frame(address: u64) -> Result<u64, Failure> {
    let name = "/proc/self/pagemap";
    let map = File::open(name).context(name)?;
    let mut entry = [0; 8];
    map.read_exact_at(&mut entry, address / PAGE as u64 * 8)
        .context(name)?;
    Ok(behind(u64::from_le_bytes(entry)))
}

/// What an entry of the page map says is behind its page; 0 for nothing.
fn behind(entry: u64) -> u64 {
    let number = entry & ((1 << 55) - 1);
    if entry >> 63 == 1 { number << 12 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_of_the_page_map_names_a_frame_if_its_page_is_there() {
        assert_eq!(behind(0), 0);
        assert_eq!(behind(0x8180_0000_0001_2345), 0x1234_5000);
        // A page in a file or shared (bit 61), not present.
        assert_eq!(behind(0x2000_0000_0001_2345), 0);
    }
}
