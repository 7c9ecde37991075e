//! AMD-Vi's part of the bed.
//!
//! The requester is 00:05.0, the address 0x80_4020_1000, whose index is 1 at each of four levels.
//!
//! | at | what |
//! |---|---|
//! | 0x1000 | device table; the requester's entry is at 0x1500 |
//! | 0x4000 | guest CR3 table, of one level |
//! | 0x10000–0x13000 | host tables, levels 4 to 1 |
//! | 0x20000–0x23000 | guest tables, levels 4 to 1 |
//! | 0x80000 | the page |
pub(crate) use super::*;

use iommu_walk::amdvi::{Cause, Detail, Failure, Flags, Outcome, Unit, translate};
use iommu_walk::{Recorder, Updates};
use iopf::Dma;

/// `PPRSup`, `NXSup`, `GTSup`, HATS 6 levels, GATS 5 levels, `GLXSup` 2, `PASmax` 20 bits, `USSup`,
/// `DevTblSegSup` 3, `GIoSup`, `HASup`, `EPHSup`, `HDSup`.
pub(crate) const EFR: u64 = 0x0017_00f3_0000_981a;
/// `GCR3TRPMode`.
pub(crate) const EFR2: u64 = 0x8;
/// `IommuEn`, `PPREn`, `GTEn`.
pub(crate) const CONTROL: u64 = 0x1_8001;
/// Where the requester's device table entry is.
pub(crate) const DTE: u64 = 0x1500;
/// IR and IW, in a device table entry and in a host table entry.
pub(crate) const RW: u64 = 0x6000_0000_0000_0000;

pub(crate) type Bed = super::Bed<Unit>;

impl Walk for Unit {
    type Cause = Cause;
    type Detail = Detail;

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
    fn new(word0: u64) -> Self {
        let unit = Unit::new(EFR, EFR2)
            .with_control(CONTROL)
            .with_device_table(0x1000);
        let bed = Self::of(unit);
        bed.set(DTE, word0).set(DTE + 8, 0x0007)
    }

    /// Host tables, four levels, 4 KiB page at 0x80000, read and write; domain 7.
    pub(crate) fn host() -> Self {
        Self::new(RW | 0x1_0803).host_tables()
    }

    fn host_tables(self) -> Self {
        self.set(0x1_0008, RW | 0x1_1601)
            .set(0x1_1008, RW | 0x1_2401)
            .set(0x1_2008, RW | 0x1_3201)
            .set(0x1_3008, RW | 0x8_0001)
    }

    /// No host tables, and nothing else: what Linux writes for an identity domain.
    pub(crate) fn identity() -> Self {
        Self::new(RW | 0x3)
    }

    /// Guest tables of PASIDs 0 and 5, four levels, 4 KiB page at 0x80000, user, writable, accessed and
    /// dirty.
    pub(crate) fn guest() -> Self {
        Self::new(0x7080_0000_0000_0003).guest_tables()
    }

    fn guest_tables(self) -> Self {
        self.set(0x4000, 0x2_0001)
            .set(0x4028, 0x2_0001)
            .set(0x2_0008, 0x2_1027)
            .set(0x2_1008, 0x2_2027)
            .set(0x2_2008, 0x2_3027)
            .set(0x2_3008, 0x8_0067)
    }

    /// Guest tables over host tables; those map the pages in use, 4 KiB each, to themselves.
    pub(crate) fn nested() -> Self {
        Self::new(0x7080_0000_0001_0803)
            .guest_tables()
            .set(0x1_0000, RW | 0x1_1601)
            .set(0x1_1000, RW | 0x1_2401)
            .set(0x1_2000, RW | 0x1_3201)
            .set(0x1_3020, RW | 0x4001)
            .set(0x1_3100, RW | 0x2_0001)
            .set(0x1_3108, RW | 0x2_1001)
            .set(0x1_3110, RW | 0x2_2001)
            .set(0x1_3118, RW | 0x2_3001)
            .set(0x1_3400, RW | 0x8_0001)
    }

    pub(crate) fn control(mut self, control: u64) -> Self {
        self.unit = self.unit.with_control(control);
        self
    }

    pub(crate) fn exclusion(mut self, base: u64, limit: u64) -> Self {
        self.unit = self.unit.with_exclusion(base, limit);
        self
    }

    /// The same unit with other features.
    pub(crate) fn features(mut self, efr: u64, efr2: u64) -> Self {
        self.unit = Unit::new(efr, efr2)
            .with_control(self.unit.control())
            .with_device_table(self.unit.device_table(0));
        self
    }

    /// Insists on a failure of this condition, with this event code and these flags.
    #[track_caller]
    pub(crate) fn faults(&self, dma: &Dma, cause: Cause, code: u32, flags: u16) -> Failure {
        let failure = self.failure(dma);
        let got = (failure.cause, failure.cause.reason().0, failure.flags(dma));
        let wanted = (cause, code, Flags::from_bits_retain(flags));
        assert_eq!(got, wanted, "{failure:x?}");
        failure
    }
}
