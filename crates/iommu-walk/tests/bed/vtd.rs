//! VT-d's part of the bed.
//!
//! The requester is 00:05.0, the address 0x80_4020_1000, whose index is 1 at each of four levels.
//!
//! | at | what |
//! |---|---|
//! | 0x1000 | root table |
//! | 0x2000, 0x3000 | context table of bus 0; 0x3000 is the upper one in scalable mode |
//! | 0x4000, 0x5000 | PASID directory, PASID table |
//! | 0x10000–0x13000 | second stage, levels 4 to 1 |
//! | 0x20000–0x23000 | first stage, levels 4 to 1 |
//! | 0x80000 | the page |
pub(crate) use super::*;

use iommu_walk::vtd::{Cause, Failure, Outcome, Unit, translate};
use iommu_walk::{Recorder, Updates};
use iopf::Dma;

/// 5-level and 1 GiB first stage, 2 MiB and 1 GiB second stage, ZLR, MGAW 48, SAGAW 39/48/57, 16-bit
/// domains.
pub(crate) const CAP: u64 = 0x1100_000c_006f_0e06;
/// DT, PT, SC, NEST, PRS, ERS, SRS, NWFS, EAFS, PSS 20, PASID, SMTS, SSADS, SSTS, FSTS, SMPWC, RPS,
/// ADMS, RPRIVS, PTRS.
pub(crate) const ECAP: u64 = 0x0133_e99e_e400_00c6;
/// Host address width.
pub(crate) const HAW: u8 = 46;
pub(crate) type Bed = super::Bed<Unit>;

impl Walk for Unit {
    type Cause = Cause;
    type Detail = ();

    fn translate<R: Recorder>(
        &self,
        mem: &Memory,
        dma: &Dma,
        updates: &mut Updates,
        recorder: &mut R,
    ) -> Result<Outcome, Failure> {
        translate(self, mem, dma, updates, recorder)
    }
}

impl Bed {
    fn new(rtaddr: u64) -> Self {
        Self::of(Unit::new(CAP, ECAP, HAW).with_rtaddr(rtaddr))
    }

    /// Second stage, four levels, 4 KiB page at 0x80000, read and write.
    pub(crate) fn legacy() -> Self {
        Self::new(0x1000)
            .set(0x1000, 0x2001)
            .set(0x2280, 0x1_0001)
            .set(0x2288, 0x0000_0702)
            .second_stage()
    }

    fn second_stage(self) -> Self {
        self.set(0x1_0008, 0x1_1003)
            .set(0x1_1008, 0x1_2003)
            .set(0x1_2008, 0x1_3003)
            .set(0x1_3008, 0x8_0003)
    }

    /// Scalable mode up to the PASID table; the entries of PASID 5 and of `RID_PASID` 0 are the same.
    fn scalable(pasid_entry: [u64; 3]) -> Self {
        let mut bed = Self::new(0x1400)
            .set(0x1000, 0x2001)
            .set(0x1008, 0x3001)
            .set(0x2500, 0x401d)
            .set(0x4000, 0x5001);
        for entry in [0x5000, 0x5140] {
            for (i, word) in (0..).zip(pasid_entry) {
                bed = bed.set(entry + 8 * i, word);
            }
        }
        bed
    }

    /// First stage, four levels, 4 KiB page at 0x80000, user, writable, accessed and dirty;
    /// privileged and execute requests allowed.
    pub(crate) fn first() -> Self {
        Self::scalable([0x41, 0x80_0007, 0x2_0003]).first_stage()
    }

    fn first_stage(self) -> Self {
        self.set(0x2_0008, 0x2_1027)
            .set(0x2_1008, 0x2_2027)
            .set(0x2_2008, 0x2_3027)
            .set(0x2_3008, 0x8_0067)
    }

    /// Second stage in scalable mode.
    pub(crate) fn second() -> Self {
        Self::scalable([0x1_0089, 0x80_0007, 0x3]).second_stage()
    }

    /// First stage over second stage; the second maps the pages in use, 4 KiB each, to themselves.
    pub(crate) fn nested() -> Self {
        Self::scalable([0x1_00c9, 0x80_0007, 0x2_0003])
            .first_stage()
            .set(0x1_0000, 0x1_1003)
            .set(0x1_1000, 0x1_2003)
            .set(0x1_2000, 0x1_3003)
            .set(0x1_3100, 0x2_0003)
            .set(0x1_3108, 0x2_1003)
            .set(0x1_3110, 0x2_2003)
            .set(0x1_3118, 0x2_3003)
            .set(0x1_3400, 0x8_0003)
    }

    /// Pass-through in scalable mode.
    pub(crate) fn pass_through() -> Self {
        Self::scalable([0x101, 0x80_0007, 0x3])
    }

    pub(crate) fn rtaddr(mut self, rtaddr: u64) -> Self {
        self.unit = self.unit.with_rtaddr(rtaddr);
        self
    }

    /// The same unit with walks that need PWSNP to be coherent.
    pub(crate) fn noncoherent(mut self) -> Self {
        self.unit = self.unit.with_noncoherent_walks(true);
        self
    }

    /// The same unit without some capability bits.
    pub(crate) fn without(mut self, cap: u64, ecap: u64) -> Self {
        let old = self.unit;
        self.unit = Unit::new(old.cap() & !cap, old.ecap() & !ecap, old.haw())
            .with_rtaddr(old.rtaddr())
            .with_version(old.version())
            .with_noncoherent_walks(old.noncoherent_walks());
        self
    }

    /// Insists on a failure with this fault reason and condition.
    #[track_caller]
    pub(crate) fn faults(&self, dma: &Dma, reason: u32, code: &str) -> Failure {
        let failure = self.failure(dma);
        let got = (failure.cause.reason().0, failure.cause.code());
        assert_eq!(got, (reason, code), "{failure:x?}");
        failure
    }
}
