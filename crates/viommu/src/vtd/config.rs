//! What a unit can do, as its maker states it.

use crate::refused::{Refused, differs, needs, range};
use iommu_wire::vtd::regs::{Cap, Ecap};

/// Address widths that second-stage tables may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Widths {
    /// 39 bits, 3 levels.
    pub three_levels: bool,
    /// 48 bits, 4 levels.
    pub four_levels: bool,
    /// 57 bits, 5 levels.
    pub five_levels: bool,
}

/// What scalable mode adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scalable {
    /// First-stage translation.
    pub first_stage: bool,
    /// Second-stage translation.
    pub second_stage: bool,
    /// The first stage on top of the second. Needs both.
    pub nested: bool,
    /// First-stage 1 GiB pages.
    pub first_stage_1g: bool,
    /// First-stage 5-level paging.
    pub five_level_paging: bool,
    /// Requests with PASID, with this many bits: 1–20.
    pub pasid_bits: Option<u8>,
    /// Page requests. Need device-TLBs and PASIDs.
    pub page_requests: bool,
    /// Supervisor requests.
    pub supervisor: bool,
    /// Execute requests; revision 4.1 took them out.
    pub execute: bool,
    /// Second-stage accessed and dirty flags. Need the second stage.
    pub second_stage_dirty: bool,
    /// First-stage extended-accessed flag. Needs the first stage.
    pub extended_accessed: bool,
    /// The RID_PASID field of context entries.
    pub rid_pasid: bool,
}

/// What a unit can do. [`Config::default`] is what stock Linux was seen to bind to, and what the
/// model's own tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Bits of a domain ID: 4, 6, … 16.
    pub domain_bits: u8,
    /// Second-stage address widths.
    pub widths: Widths,
    /// Width in bits of the largest second-stage input address (MGAW): 30–57.
    pub guest_width: u8,
    /// Width in bits of a physical address: 32–52. No register shows it.
    pub host_width: u8,
    /// Second-stage 2 MiB pages.
    pub second_stage_2m: bool,
    /// Second-stage 1 GiB pages. Need 2 MiB ones.
    pub second_stage_1g: bool,
    /// Reads without data from write-only pages are allowed.
    pub zero_length_reads: bool,
    /// Fault recording registers: 1–256.
    pub fault_records: u16,
    /// Setting the root table pointer forgets every cached entry by itself.
    pub root_pointer_invalidates: bool,
    /// Pass-through.
    pub pass_through: bool,
    /// Snoop control.
    pub snoop_control: bool,
    /// Device-TLBs.
    pub device_tlb: bool,
    /// The no-write flag of translation requests. Needs device-TLBs.
    pub no_write_flag: bool,
    /// Abort-DMA mode.
    pub abort_dma: bool,
    /// Scalable mode.
    pub scalable: Option<Scalable>,
    /// Translations the IOTLB holds: 0–4 million; with 0 nothing at all is cached. No register shows it.
    pub iotlb_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            domain_bits: 16,
            widths: Widths {
                four_levels: true,
                ..Widths::default()
            },
            guest_width: 48,
            host_width: 52,
            second_stage_2m: true,
            second_stage_1g: true,
            zero_length_reads: false,
            fault_records: 1,
            root_pointer_invalidates: false,
            pass_through: true,
            snoop_control: true,
            device_tlb: true,
            no_write_flag: false,
            abort_dma: false,
            scalable: Some(Scalable {
                first_stage: true,
                second_stage: true,
                nested: true,
                first_stage_1g: true,
                five_level_paging: true,
                pasid_bits: Some(20),
                page_requests: true,
                supervisor: false,
                execute: false,
                second_stage_dirty: false,
                extended_accessed: false,
                rid_pasid: false,
            }),
            iotlb_entries: 4096,
        }
    }
}

/// Where the fault recording registers start, in units of 16 bytes: past the MTRRs, as Linux maps
/// the window up to the last of them.
const FAULT_OFFSET: u16 = 0x22;
/// Where the IOTLB registers are, in units of 16 bytes.
const IOTLB_OFFSET: u16 = 0xf;
/// Largest address mask of a page-selective invalidation: 1 GiB.
const ADDRESS_MASK: u8 = 18;

impl Config {
    /// The capability registers that say this.
    ///
    /// # Errors
    /// When a number is out of range, or one ability is asked for without another it builds on.
    pub fn registers(&self) -> Result<(Cap, Ecap), Refused> {
        self.check()?;
        let cap = Cap::new()
            .with_nd((self.domain_bits - 4) / 2)
            .with_sagaw(
                u8::from(self.widths.three_levels) << 1
                    | u8::from(self.widths.four_levels) << 2
                    | u8::from(self.widths.five_levels) << 3,
            )
            .with_mgaw(self.guest_width - 1)
            .with_zlr(self.zero_length_reads)
            .with_fro(FAULT_OFFSET)
            .with_sslps(u8::from(self.second_stage_2m) | u8::from(self.second_stage_1g) << 1)
            .with_psi(true)
            // In 1–256, as was checked.
            .with_nfr(u8::try_from(self.fault_records - 1).unwrap_or(u8::MAX))
            .with_mamv(ADDRESS_MASK)
            .with_dwd(true)
            .with_drd(true)
            .with_esrtps(self.root_pointer_invalidates);
        let ecap = Ecap::new()
            .with_c(true)
            .with_qi(true)
            .with_dt(self.device_tlb)
            .with_pt(self.pass_through)
            .with_sc(self.snoop_control)
            .with_iro(IOTLB_OFFSET)
            .with_nwfs(self.no_write_flag)
            .with_adms(self.abort_dma);
        let Some(scalable) = self.scalable else {
            return Ok((cap, ecap));
        };
        let cap = cap
            .with_fs1gp(scalable.first_stage_1g)
            .with_fs5lp(scalable.five_level_paging);
        let ecap = ecap
            .with_smts(true)
            .with_smpwcs(true)
            .with_fsts(scalable.first_stage)
            .with_ssts(scalable.second_stage)
            .with_nest(scalable.nested)
            .with_pasid(scalable.pasid_bits.is_some())
            .with_pss(scalable.pasid_bits.map_or(0, |bits| bits - 1))
            .with_prs(scalable.page_requests)
            .with_pds(scalable.page_requests)
            .with_srs(scalable.supervisor)
            .with_ers(scalable.execute)
            .with_ssads(scalable.second_stage_dirty)
            .with_eafs(scalable.extended_accessed)
            .with_rps(scalable.rid_pasid);
        Ok((cap, ecap))
    }

    /// The configuration that capability registers state, for a unit that is to look like another
    /// one.
    ///
    /// Places of registers (FRO, IRO), MAMV and what only says how fast hardware is (draining) are
    /// the model's own and not compared.
    ///
    /// # Errors
    /// [`Refused::NotModelled`] when they state what the model does not do, else those of
    /// [`Self::registers`].
    pub fn from_registers(cap: Cap, ecap: Ecap, host_width: u8) -> Result<Self, Refused> {
        let widths = Widths {
            three_levels: cap.sagaw() & 2 != 0,
            four_levels: cap.sagaw() & 4 != 0,
            five_levels: cap.sagaw() & 8 != 0,
        };
        let config = Self {
            domain_bits: cap.domain_bits(),
            widths,
            guest_width: cap.max_guest_width(),
            host_width,
            second_stage_2m: cap.sslps() & 1 != 0,
            second_stage_1g: cap.sslps() & 2 != 0,
            zero_length_reads: cap.zlr(),
            fault_records: cap.fault_count(),
            root_pointer_invalidates: cap.esrtps(),
            pass_through: ecap.pt(),
            snoop_control: ecap.sc(),
            device_tlb: ecap.dt(),
            no_write_flag: ecap.nwfs(),
            abort_dma: ecap.adms(),
            scalable: ecap.smts().then(|| Scalable {
                first_stage: ecap.fsts(),
                second_stage: ecap.ssts(),
                nested: ecap.nest(),
                first_stage_1g: cap.fs1gp(),
                five_level_paging: cap.fs5lp(),
                pasid_bits: ecap.pasid().then(|| ecap.pasid_bits()),
                page_requests: ecap.prs(),
                supervisor: ecap.srs(),
                execute: ecap.ers(),
                second_stage_dirty: ecap.ssads(),
                extended_accessed: ecap.eafs(),
                rid_pasid: ecap.rps(),
            }),
            iotlb_entries: Self::default().iotlb_entries,
        };
        let (our_cap, our_ecap) = config.registers()?;
        let free_cap = Cap::new()
            .with_fro(0x3ff)
            .with_mamv(0x3f)
            .with_dwd(true)
            .with_drd(true);
        let free_ecap = Ecap::new().with_iro(0x3ff);
        differs(
            "CAP_REG",
            cap.into_bits(),
            our_cap.into_bits(),
            free_cap.into_bits(),
        )?;
        differs(
            "ECAP_REG",
            ecap.into_bits(),
            our_ecap.into_bits(),
            free_ecap.into_bits(),
        )?;
        Ok(config)
    }

    fn check(&self) -> Result<(), Refused> {
        let bits = u64::from(self.domain_bits);
        range("domain_bits", bits, 4, 16)?;
        range("domain_bits", bits, bits & !1, bits & !1)?;
        range("guest_width", u64::from(self.guest_width), 30, 57)?;
        range("host_width", u64::from(self.host_width), 32, 52)?;
        range("fault_records", u64::from(self.fault_records), 1, 256)?;
        range("iotlb_entries", self.iotlb_entries as u64, 0, 4 << 20)?;
        let Widths {
            three_levels,
            four_levels,
            five_levels,
        } = self.widths;
        needs(
            "a unit",
            true,
            "some width",
            three_levels || four_levels || five_levels,
        )?;
        needs(
            "second_stage_1g",
            self.second_stage_1g,
            "second_stage_2m",
            self.second_stage_2m,
        )?;
        needs(
            "no_write_flag",
            self.no_write_flag,
            "device_tlb",
            self.device_tlb,
        )?;
        let Some(scalable) = self.scalable else {
            return Ok(());
        };
        let (first, second) = (scalable.first_stage, scalable.second_stage);
        needs("scalable", true, "a stage", first || second)?;
        needs("nested", scalable.nested, "both stages", first && second)?;
        for (what, wanted) in [
            ("first_stage_1g", scalable.first_stage_1g),
            ("five_level_paging", scalable.five_level_paging),
            ("extended_accessed", scalable.extended_accessed),
        ] {
            needs(what, wanted, "first_stage", first)?;
        }
        let dirty = scalable.second_stage_dirty;
        needs("second_stage_dirty", dirty, "second_stage", second)?;
        if let Some(bits) = scalable.pasid_bits {
            range("pasid_bits", u64::from(bits), 1, 20)?;
        }
        for (what, wanted) in [
            ("page_requests", scalable.page_requests),
            ("supervisor", scalable.supervisor),
            ("execute", scalable.execute),
        ] {
            needs(what, wanted, "pasid_bits", scalable.pasid_bits.is_some())?;
        }
        let wanted = scalable.page_requests;
        needs("page_requests", wanted, "device_tlb", self.device_tlb)
    }
}

#[cfg(test)]
mod tests;
