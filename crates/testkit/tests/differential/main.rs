//! Our walks against QEMU's models, case by random case, on the same tables.
//!
//! QEMU (10.1 or later, with `iommu-testdev`) is found or fetched by the test itself. Where QEMU
//! departs from the specification, the departure has a name, a predicate and its evidence in
//! `deviations`; everything else must agree: whether the DMA reached memory and where, the fault
//! record, and the accessed and dirty bits.
//!
//! `IOPF_SEED` and `IOPF_CASE` replay: the seed of a run, and the number of one case in it.

mod amdvi;
mod harness;
mod smmuv3;
mod vtd;
