//! Memory that comes and goes in an I/O address space.

use super::bench::Bench;
use crate::reply::{Done, Reply};
use iopf::Iova;
use iopf_host::{Mapping, Rights};
use std::sync::Arc;

/// Where the mock's IOMMU has addresses.
const AT: Iova = Iova(0x100_0000);

/// Bytes of a page.
const PAGE: u64 = 4096;

/// What is mapped, what is refused, and who keeps the memory.
pub(super) fn memory(out: &mut Reply<'_>) -> Done {
    let mut bench = Bench::new(out)?;
    let memory = Arc::new(Mapping::anonymous(4 * 4096)?);
    let at = |page: u64| Iova(AT.0 + page * PAGE);
    bench.ioas.map(AT, &memory, Rights::READ)?;
    let kept = Arc::strong_count(&memory);
    bench.out.line(format_args!("mapped, {kept} have it"));
    let came = bench.ioas.map(at(3), &memory, Rights::all());
    bench.refused("mapping over another", came);
    let came = bench.ioas.map(Iova(AT.0 + 0x8001), &memory, Rights::all());
    bench.refused("mapping that is not aligned", came);
    let came = bench.ioas.map(Iova(0x1000), &memory, Rights::all());
    bench.refused("mapping where there are no addresses", came);
    let came = bench.ioas.unmap(at(1), PAGE);
    bench.refused("unmapping a part", came);
    let came = bench.ioas.unmap(at(8), PAGE);
    bench.refused("unmapping nothing", came);
    let file = rustix::fs::memfd_create("memory", rustix::fs::MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&file, 2 * PAGE)?;
    bench
        .ioas
        .map_file(at(4), &file, PAGE, PAGE, Rights::all())?;
    let kept = Arc::strong_count(&memory);
    bench
        .out
        .line(format_args!("a file beside it, {kept} have it"));
    // The first mapping goes before the second reaches out of the range.
    let other = Arc::new(Mapping::anonymous(2 * 4096)?);
    bench.ioas.map(at(5), &other, Rights::WRITE)?;
    let came = bench.ioas.unmap(AT, 6 * PAGE);
    bench.refused("unmapping two and a part", came);
    let came = bench.ioas.unmap(AT, 4 * PAGE);
    bench.refused("unmapping the first again", came);
    let bytes = bench.ioas.unmap(Iova(0), u64::MAX)?;
    let kept = (Arc::strong_count(&memory), Arc::strong_count(&other));
    bench
        .out
        .line(format_args!("unmapped {bytes:#x} bytes, {kept:?} have it"));
    Ok(())
}
