//! The two registers that say what a unit can do.

use bitfield_struct::bitfield;

/// "IOMMU Extended Feature Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExtendedFeatures {
    /// `[0]` PreFSup: PREFETCH_IOMMU_PAGES.
    pub pref_sup: bool,
    /// `[1]` PPRSup: page requests.
    pub ppr_sup: bool,
    /// `[2]` XTSup: x2APIC.
    pub xt_sup: bool,
    /// `[3]` NXSup: no-execute and privilege protection.
    pub nx_sup: bool,
    /// `[4]` GTSup: guest translation.
    pub gt_sup: bool,
    /// `[5]` GAPPISup (Xen; reserved in VirtualBox)
    pub gappi_sup: bool,
    /// `[6]` IASup: INVALIDATE_IOMMU_ALL.
    pub ia_sup: bool,
    /// `[7]` GASup: guest virtual APIC.
    pub ga_sup: bool,
    /// `[8]` HESup: hardware event registers.
    pub he_sup: bool,
    /// `[9]` PCSup: performance counters.
    pub pc_sup: bool,
    /// `[11:10]` HATS: host tables have at most `4 + n` levels, n at most 2.
    #[bits(2)]
    pub hats: u8,
    /// `[13:12]` GATS: guest tables have at most `4 + n` levels, n at most 1.
    #[bits(2)]
    pub gats: u8,
    /// `[15:14]` GLXSup: GCR3 tables have at most `1 + n` levels, n at most 2.
    #[bits(2)]
    pub glx_sup: u8,
    /// `[17:16]` SmiFSup
    #[bits(2)]
    pub smif_sup: u8,
    /// `[20:18]` SmiFRC
    #[bits(3)]
    pub smif_rc: u8,
    /// `[23:21]` GAMSup
    #[bits(3)]
    pub gam_sup: u8,
    /// `[25:24]` DualPprLogSup
    #[bits(2)]
    pub dual_ppr_log_sup: u8,
    #[bits(2)]
    _res26: u8,
    /// `[29:28]` DualEventLogSup
    #[bits(2)]
    pub dual_event_log_sup: u8,
    #[bits(1)]
    _res30: u8,
    /// `[31]` SATSSup (Xen; reserved in VirtualBox)
    pub sats_sup: bool,
    /// `[36:32]` PASMax: a PASID has `1 + n` bits.
    #[bits(5)]
    pub pas_max: u8,
    /// `[37]` USSup: user and supervisor protection.
    pub us_sup: bool,
    /// `[39:38]` DevTblSegSup: the device table may have `2^n` segments.
    #[bits(2)]
    pub dev_tbl_seg_sup: u8,
    /// `[40]` PprOvrflwEarlySup
    pub ppr_ovrflw_early_sup: bool,
    /// `[41]` PprAutoRspSup: page requests can be answered by the unit.
    pub ppr_auto_rsp_sup: bool,
    /// `[43:42]` MarcSup
    #[bits(2)]
    pub marc_sup: u8,
    /// `[44]` BlkStopMrkSup
    pub blk_stop_mrk_sup: bool,
    /// `[45]` PerfOptSup
    pub perf_opt_sup: bool,
    /// `[46]` MsiCapMmioSup: the MSI capability shows in the register window.
    pub msi_cap_mmio_sup: bool,
    #[bits(1)]
    _res47: u8,
    /// `[48]` GIoSup: the GIoV bit of a device table entry.
    pub gio_sup: bool,
    /// `[49]` HASup: accessed bits of host tables.
    pub ha_sup: bool,
    /// `[50]` EPHSup: enhanced page request handling.
    pub eph_sup: bool,
    /// `[51]` AttrFWSup
    pub attr_fw_sup: bool,
    /// `[52]` HDSup: dirty bits of host tables.
    pub hd_sup: bool,
    #[bits(1)]
    _res53: u8,
    /// `[54]` InvIotlbTypeSup: the type field of INVALIDATE_IOTLB_PAGES.
    pub inv_iotlb_type_sup: bool,
    /// `[55]` vIommuSup (Xen; reserved in VirtualBox)
    pub viommu_sup: bool,
    #[bits(5)]
    _vm: u8,
    /// `[61]` GAUpdateDisSup: the update-disable bits of guest tables.
    pub ga_update_dis_sup: bool,
    /// `[62]` ForcePhyDestSup
    pub force_phy_dest_sup: bool,
    /// `[63]` SNPSup
    pub snp_sup: bool,
}

/// "IOMMU Extended Feature 2 Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExtendedFeatures2 {
    #[bits(1)]
    _res0: u8,
    /// `[1]` SEVSNPIOSup (Linux alone)
    pub sev_snp_io_sup: bool,
    /// `[2]` TMPMSup (FreeBSD alone)
    pub tmpm_sup: bool,
    /// `[3]` GCR3TRPMode: the GCR3 table pointer may be a guest address.
    pub gcr3_trp_mode: bool,
    /// `[4]` GAPPIDisSup (FreeBSD alone)
    pub gappi_dis_sup: bool,
    /// `[7:5]` SNPAVICSup
    #[bits(3)]
    pub snp_avic_sup: u8,
    /// `[9:8]` NumIntRemapSup
    #[bits(2)]
    pub num_int_remap_sup: u8,
    #[bits(1)]
    _res10: u8,
    /// `[11]` HTRangeIgnore: the HyperTransport range is ordinary memory.
    pub ht_range_ignore: bool,
    #[bits(52)]
    _res12: u64,
}
