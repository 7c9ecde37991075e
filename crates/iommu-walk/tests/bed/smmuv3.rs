//! SMMUv3's part of the bed.
//!
//! The requester is 00:05.0, stream 0x28; the address is 0x80_4020_1abc, whose index is 1 at each of four
//! levels with a granule of 4 KiB.
//!
//! | at | what |
//! |---|---|
//! | 0x4000 | linear stream table of 256 entries; the requester's is at 0x4a00 |
//! | 0x1_0000–0x1_3000 | stage 2 tables, levels 4 to 1 |
//! | 0x2_0000–0x2_3000 | stage 1 tables, levels 4 to 1 |
//! | 0x3_0000 | context descriptors |
//! | 0x8_0000 | the page |

pub(crate) use super::*;

use iommu_walk::smmuv3::{Cause, Class, Detail, Failure, Features, Outcome, Unit, translate};
use iommu_walk::{Recorder, Updates};
use iopf::Dma;

/// `S2P`, `S1P`, TTF 10b, HTTU 10b, ATS, `ASID16`, PRI, `VMID16`, `CD2L`, TTENDIAN 10b, `ST_LEVEL` 01b,
/// NS1ATS; stalls are chosen, and so is the end of a request.
pub(crate) const IDR0: u32 = 0x084d_1c8b;
/// `ATTR_PERMS_OVR`, SSIDSIZE 20, SIDSIZE 16.
pub(crate) const IDR1: u32 = 0x0400_0510;
/// HAD, XNX, STT, `E0PD`, EPAN.
pub(crate) const IDR3: u32 = 0x0002_2214;
/// 4, 16 and 64 KiB granules, OAS 48 bits.
pub(crate) const IDR5: u32 = 0x75;

/// Where the requester's stream table entry is, and its words 1 to 3.
pub(crate) const STE: u64 = 0x4a00;
pub(crate) const STE1: u64 = STE + 8;
pub(crate) const STE2: u64 = STE + 16;
pub(crate) const STE3: u64 = STE + 24;
/// Where the context descriptor is, and its words 1 and 2.
pub(crate) const CD: u64 = 0x3_0000;
pub(crate) const CD1: u64 = CD + 8;
pub(crate) const CD2: u64 = CD + 16;
/// The page's entry of stage 1, and of stage 2.
pub(crate) const LEAF: u64 = 0x2_3008;
pub(crate) const LEAF2: u64 = 0x1_3008;

/// Word 0 of the context descriptor: T0SZ 16, EPD1, V, IPS 48 bits, AA64, R, A, ASID 7.
pub(crate) const CD_WORD0: u64 = 0x0007_6205_c000_0010;
/// Word 2 of the stream table entry: VMID 9, `S2T0SZ` 16, `S2SL0` level 0, `S2PS` 48 bits, `S2AA64`, `S2R`.
pub(crate) const STE_WORD2: u64 = 0x040d_0090_0000_0009;
/// A page's entry of stage 1: AF, `AP[1]`, valid.
pub(crate) const PAGE: u64 = 0x8_0443;
/// A page's entry of stage 2: AF, `S2AP` 11b, write-back, valid.
pub(crate) const PAGE2: u64 = 0x8_04ff;

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

pub(crate) const FEATURES: Features = Features {
    idr0: IDR0,
    idr1: IDR1,
    idr3: IDR3,
    idr5: IDR5,
};

impl Bed {
    /// Everything on: `SMMUEN`, PRIQEN, `ATSCHK`, RECINVSID; a linear stream table of 2^8 entries.
    fn on(word0: u64) -> Self {
        let unit = Unit::new(FEATURES)
            .with_control(0x13, 0x2)
            .with_stream_table(0x4000, 8);
        // EATS 01b, SHCFG 01b, as Linux writes them.
        Self::of(unit).set(STE, word0).set(STE1, 0x1000_1000_0000)
    }

    /// Stage 1, one context descriptor, four levels, 4 KiB page at 0x80000, for all and writable.
    pub(crate) fn first() -> Self {
        Self::on(0x3_000b).descriptor(CD).first_tables()
    }

    /// The context descriptor.
    pub(crate) fn descriptor(self, at: u64) -> Self {
        self.set(at, CD_WORD0).set(at + 8, 0x2_0000)
    }

    fn first_tables(self) -> Self {
        self.set(0x2_0008, 0x2_1003)
            .set(0x2_1008, 0x2_2003)
            .set(0x2_2008, 0x2_3003)
            .set(LEAF, PAGE)
    }

    /// Stage 1 with 32 substreams, S1DSS 10b: a request without one uses the first.
    pub(crate) fn substreams() -> Self {
        Self::first()
            .add(STE, 5 << 59)
            .add(STE1, 2)
            .descriptor(CD + 5 * 64)
    }

    /// Stage 2, four levels, 4 KiB page at 0x80000, read, write and execute; VMID 9.
    pub(crate) fn second() -> Self {
        Self::on(0xd)
            .second_config()
            .set(0x1_0008, 0x1_1003)
            .set(0x1_1008, 0x1_2003)
            .set(0x1_2008, 0x1_3003)
            .set(LEAF2, PAGE2)
    }

    fn second_config(self) -> Self {
        self.set(STE2, STE_WORD2).set(STE3, 0x1_0000)
    }

    /// Stage 1 over stage 2; stage 2 maps the pages in use, 4 KiB each, to themselves.
    pub(crate) fn nested() -> Self {
        let bed = Self::on(0x3_000f)
            .descriptor(CD)
            .first_tables()
            .second_config()
            .set(0x1_0000, 0x1_1003)
            .set(0x1_1000, 0x1_2003)
            .set(0x1_2000, 0x1_3003);
        [0x2_0000, 0x2_1000, 0x2_2000, 0x2_3000, CD, 0x8_0000]
            .into_iter()
            .fold(bed, |bed, page| {
                bed.set(0x1_3000 + (page >> 9), page | 0x4ff)
            })
    }

    /// No stage translates.
    pub(crate) fn bypass() -> Self {
        Self::on(0x9)
    }

    pub(crate) fn control(mut self, cr0: u32, cr2: u32) -> Self {
        self.unit = self.unit.with_control(cr0, cr2);
        self
    }

    pub(crate) fn global_bypass(mut self, gbpa: u32) -> Self {
        self.unit = self.unit.with_global_bypass(gbpa);
        self
    }

    pub(crate) fn stream_table(mut self, base: u64, config: u32) -> Self {
        self.unit = self.unit.with_stream_table(base, config);
        self
    }

    /// The same unit with other features.
    pub(crate) fn features(mut self, change: impl FnOnce(&mut Features)) -> Self {
        let old = self.unit;
        let mut features = old.features();
        change(&mut features);
        let (cr0, cr2) = old.control();
        let (base, config) = old.stream_table();
        self.unit = Unit::new(features)
            .with_control(cr0, cr2)
            .with_global_bypass(old.global_bypass())
            .with_stream_table(base, config);
        self
    }

    /// Insists on a failure of this condition, with this event, and on what a record says of it: class,
    /// stage 2, the address besides the request's.
    #[track_caller]
    pub(crate) fn faults(&self, dma: &Dma, cause: Cause, event: u32, says: Says) -> Failure {
        let failure = self.failure(dma);
        let got = (failure.cause, failure.cause.reason().0);
        assert_eq!(got, (cause, event), "{failure:x?}");
        let got = Says(
            failure.cause.class(),
            failure.cause.second_stage(),
            failure.second_address().map(|at| at.0),
        );
        assert_eq!(got, says, "{failure:x?}");
        failure
    }
}

/// What a record says of an event: CLASS, S2, and `FetchAddr` or IPA.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Says(
    pub(crate) Option<Class>,
    pub(crate) bool,
    pub(crate) Option<u64>,
);

/// Nothing but who it was.
pub(crate) const PLAIN: Says = Says(None, false, None);
/// Stage 1, class IN.
pub(crate) const INPUT: Says = Says(Some(Class::Input), false, None);

/// A fetch that was aborted.
pub(crate) const fn fetched(at: u64) -> Says {
    Says(None, false, Some(at))
}

/// Stage 2, with an intermediate address or, of an aborted walk, one that was fetched.
pub(crate) const fn stage2(class: Class, at: u64) -> Says {
    Says(Some(class), true, Some(at))
}
