//! The register file: offsets, and the fields of each register.
//!
//! Source: AMD 48882, "MMIO Registers". Linux `drivers/iommu/amd/amd_iommu_types.h` and VirtualBox
//! `include/VBox/iommu-amd.h` spell the same facts.
//! Covered: what DMA remapping, commands, event log and PPR log use.
//! Not covered: guest virtual APIC, SMI filters, MARC, secondary logs, performance counters, SEV-SNP.

mod features;

use bitfield_struct::bitfield;
pub use features::{ExtendedFeatures, ExtendedFeatures2};
use iopf::Gpa;

/// Byte offsets of the registers. All have 64 bits.
pub mod offset {
    /// Device Table Base Address Register: [`DeviceTableBase`](super::DeviceTableBase).
    pub const DEVICE_TABLE: u64 = 0x0000;
    /// Command Buffer Base Address Register: [`RingBase`](super::RingBase).
    pub const COMMAND_BASE: u64 = 0x0008;
    /// Event Log Base Address Register: [`RingBase`](super::RingBase).
    pub const EVENT_BASE: u64 = 0x0010;
    /// IOMMU Control Register: [`Control`](super::Control).
    pub const CONTROL: u64 = 0x0018;
    /// IOMMU Exclusion Base Register: [`ExclusionBase`](super::ExclusionBase).
    pub const EXCLUSION_BASE: u64 = 0x0020;
    /// IOMMU Exclusion Range Limit Register: [`ExclusionLimit`](super::ExclusionLimit).
    pub const EXCLUSION_LIMIT: u64 = 0x0028;
    /// IOMMU Extended Feature Register, read-only: [`ExtendedFeatures`](super::ExtendedFeatures).
    pub const FEATURES: u64 = 0x0030;
    /// PPR Log Base Address Register: [`RingBase`](super::RingBase).
    pub const PPR_BASE: u64 = 0x0038;
    /// IOMMU Hardware Event Upper Register: the low quadword of an event.
    pub const HARDWARE_EVENT_UPPER: u64 = 0x0040;
    /// IOMMU Hardware Event Lower Register: the second quadword of an event.
    pub const HARDWARE_EVENT_LOWER: u64 = 0x0048;
    /// IOMMU Hardware Event Status Register: [`HardwareEventStatus`](super::HardwareEventStatus).
    pub const HARDWARE_EVENT_STATUS: u64 = 0x0050;
    /// First of the seven Device Table Segment Base Address Registers:
    /// [`DeviceTableBase`](super::DeviceTableBase).
    pub const DEVICE_TABLE_SEGMENTS: u64 = 0x0100;
    /// Last of the Device Table Segment Base Address Registers.
    pub const DEVICE_TABLE_SEGMENT_LAST: u64 = 0x0130;
    /// XT IOMMU General Interrupt Control Register: [`XtInterrupt`](super::XtInterrupt).
    pub const XT_GENERAL: u64 = 0x0170;
    /// XT IOMMU PPR Interrupt Control Register: [`XtInterrupt`](super::XtInterrupt).
    pub const XT_PPR: u64 = 0x0178;
    /// XT IOMMU GA Log Interrupt Control Register: [`XtInterrupt`](super::XtInterrupt).
    pub const XT_GA_LOG: u64 = 0x0180;
    /// IOMMU Extended Feature 2 Register, read-only:
    /// [`ExtendedFeatures2`](super::ExtendedFeatures2).
    pub const FEATURES2: u64 = 0x01a0;
    /// Command Buffer Head Pointer Register, moved by hardware: [`RingPointer`](super::RingPointer).
    pub const COMMAND_HEAD: u64 = 0x2000;
    /// Command Buffer Tail Pointer Register, moved by software: [`RingPointer`](super::RingPointer).
    pub const COMMAND_TAIL: u64 = 0x2008;
    /// Event Log Head Pointer Register, moved by software: [`RingPointer`](super::RingPointer).
    pub const EVENT_HEAD: u64 = 0x2010;
    /// Event Log Tail Pointer Register, moved by hardware: [`RingPointer`](super::RingPointer).
    pub const EVENT_TAIL: u64 = 0x2018;
    /// IOMMU Status Register: [`Status`](super::Status).
    pub const STATUS: u64 = 0x2020;
    /// PPR Log Head Pointer Register, moved by software: [`RingPointer`](super::RingPointer).
    pub const PPR_HEAD: u64 = 0x2030;
    /// PPR Log Tail Pointer Register, moved by hardware: [`RingPointer`](super::RingPointer).
    pub const PPR_TAIL: u64 = 0x2038;
}

/// Bytes of the register window of a unit without performance counters.
pub const WINDOW: u64 = 0x4000;

/// "Device Table Base Address Register", and the same of each further segment.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceTableBase {
    /// `[8:0]` size: 4 KiB pages, less one. A segment's field has eight bits.
    #[bits(9)]
    pub size: u16,
    #[bits(3)]
    _res9: u8,
    /// `[51:12]` page number of the table.
    #[bits(40)]
    pub page: u64,
    #[bits(12)]
    _res52: u16,
}

impl DeviceTableBase {
    /// Where the table begins.
    #[must_use]
    pub const fn base(self) -> Gpa {
        Gpa(self.page() << 12)
    }

    /// Bytes of the table, 4 KiB to 2 MiB.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        (self.size() as u64 + 1) << 12
    }
}

/// Base address register of a ring in memory: "Command Buffer Base Address Register", "Event Log Base
/// Address Register", "PPR Log Base Address Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RingBase {
    #[bits(12)]
    _res0: u16,
    /// `[51:12]` page number of the ring.
    #[bits(40)]
    pub page: u64,
    #[bits(4)]
    _res52: u8,
    /// `[59:56]` length: `2^length` entries. Below 8 it is reserved.
    #[bits(4)]
    pub length: u8,
    #[bits(4)]
    _res60: u8,
}

impl RingBase {
    /// Where the ring begins.
    #[must_use]
    pub const fn base(self) -> Gpa {
        Gpa(self.page() << 12)
    }

    /// Entries of 16 bytes, 256 to 32,768; `None` for a reserved length.
    #[must_use]
    pub const fn entries(self) -> Option<u16> {
        if self.length() < 8 {
            None
        } else {
            Some(1 << self.length())
        }
    }
}

/// Head or tail of a ring: "Command and Event Log Pointer Registers".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RingPointer {
    #[bits(4)]
    _res0: u8,
    /// `[18:4]` offset from the base in units of 16 bytes: an index.
    #[bits(15)]
    pub index: u16,
    #[bits(45)]
    _res19: u64,
}

/// "IOMMU Control Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// `[0]` IommuEn: requests are translated.
    pub iommu_en: bool,
    /// `[1]` HtTunEn: HyperTransport tunnel traffic is translated.
    pub ht_tun_en: bool,
    /// `[2]` EventLogEn: events are logged.
    pub event_log_en: bool,
    /// `[3]` EventIntEn: an interrupt for each event.
    pub event_int_en: bool,
    /// `[4]` ComWaitIntEn: an interrupt for a COMPLETION_WAIT that asks for it.
    pub com_wait_int_en: bool,
    /// `[7:5]` InvTimeOut: how long a device may take to invalidate; 0 is for ever.
    #[bits(3)]
    pub inv_timeout: u8,
    /// `[8]` PassPW
    pub pass_pw: bool,
    /// `[9]` ResPassPW
    pub res_pass_pw: bool,
    /// `[10]` Coherent: table reads snoop.
    pub coherent: bool,
    /// `[11]` Isoc
    pub isoc: bool,
    /// `[12]` CmdBufEn: commands are fetched.
    pub cmd_buf_en: bool,
    /// `[13]` PPRLogEn: page requests are logged.
    pub ppr_log_en: bool,
    /// `[14]` PPRIntEn: an interrupt for each page request.
    pub ppr_int_en: bool,
    /// `[15]` PPREn: page requests are processed.
    pub ppr_en: bool,
    /// `[16]` GTEn: guest translation.
    pub gt_en: bool,
    /// `[17]` GAEn: guest virtual APIC.
    pub ga_en: bool,
    #[bits(4)]
    _crw: u8,
    /// `[22]` SmiFEn
    pub smif_en: bool,
    /// `[23]` SlfWBDis
    pub slf_wb_dis: bool,
    /// `[24]` SmiFLogEn
    pub smif_log_en: bool,
    /// `[27:25]` GAMEn
    #[bits(3)]
    pub gam_en: u8,
    /// `[28]` GALogEn
    pub ga_log_en: bool,
    /// `[29]` GAIntEn
    pub ga_int_en: bool,
    /// `[31:30]` DualPprLogEn
    #[bits(2)]
    pub dual_ppr_log_en: u8,
    /// `[33:32]` DualEventLogEn
    #[bits(2)]
    pub dual_event_log_en: u8,
    /// `[36:34]` DevTblSegEn: the device table has `2^n` segments, n at most 3.
    #[bits(3)]
    pub dev_tbl_seg_en: u8,
    /// `[38:37]` PrivAbrtEn
    #[bits(2)]
    pub priv_abrt_en: u8,
    /// `[39]` PprAutoRspEn: page requests that find the log full are answered.
    pub ppr_auto_rsp_en: bool,
    /// `[40]` MarcEn
    pub marc_en: bool,
    /// `[41]` BlkStopMrkEn: stop markers are not logged.
    pub blk_stop_mrk_en: bool,
    /// `[42]` PprAutoRspAon: every page request is answered.
    pub ppr_auto_rsp_aon: bool,
    /// `[44:43]` NumIntRemapMode
    #[bits(2)]
    pub num_int_remap_mode: u8,
    /// `[45]` EPHEn: enhanced page request handling.
    pub eph_en: bool,
    /// `[47:46]` HADUpdate: accessed and dirty bits of host tables.
    #[bits(2)]
    pub had_update: u8,
    /// `[48]` GDUpdateDis: dirty bits of guest tables are left alone.
    pub gd_update_dis: bool,
    #[bits(1)]
    _res49: u8,
    /// `[50]` XTEn
    pub xt_en: bool,
    /// `[51]` IntCapXTEn: interrupts as the XT registers say, instead of MSI.
    pub int_cap_xt_en: bool,
    /// `[52]` vCmdEn
    pub vcmd_en: bool,
    /// `[53]` vIommuEn
    pub viommu_en: bool,
    /// `[54]` GAUpdateDis: accessed bits of guest tables are left alone.
    pub ga_update_dis: bool,
    /// `[55]` GAPPIEn
    pub gappi_en: bool,
    /// `[56]` TMPMEn
    pub tmpm_en: bool,
    #[bits(1)]
    _res57: u8,
    /// `[58]` GCR3TRPMode
    pub gcr3_trp_mode: bool,
    /// `[59]` IRTCacheDis
    pub irt_cache_dis: bool,
    /// `[60]` GstBufTRPMode
    pub gst_buf_trp_mode: bool,
    /// `[63:61]` SNPAVICEn
    #[bits(3)]
    pub snp_avic_en: u8,
}

/// "IOMMU Exclusion Base Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExclusionBase {
    /// `[0]` ExEn: the range is excluded from translation.
    pub enabled: bool,
    /// `[1]` Allow: for every device; else for those whose table entry has EX.
    pub allow_all: bool,
    #[bits(10)]
    _res2: u16,
    /// `[51:12]` first page.
    #[bits(40)]
    pub page: u64,
    #[bits(12)]
    _res52: u16,
}

/// "IOMMU Exclusion Range Limit Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct ExclusionLimit {
    #[bits(12)]
    _res0: u16,
    /// `[51:12]` last page.
    #[bits(40)]
    pub page: u64,
    #[bits(12)]
    _res52: u16,
}

/// "IOMMU Hardware Event Status Register".
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct HardwareEventStatus {
    /// `[0]` HEV: the event registers hold one. Write one to clear.
    pub valid: bool,
    /// `[1]` HEO: a later one overwrote it. Write one to clear.
    pub overflow: bool,
    #[bits(62)]
    _res2: u64,
}

/// "XT IOMMU General Interrupt Control Register" and its siblings.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct XtInterrupt {
    #[bits(2)]
    _res0: u8,
    /// `[2]` destination mode: logical.
    pub logical: bool,
    #[bits(5)]
    _res3: u8,
    /// `[31:8]` destination 23:0
    #[bits(24)]
    pub destination_low: u32,
    /// `[39:32]` vector
    pub vector: u8,
    /// `[40]` delivery mode
    pub delivery: bool,
    #[bits(15)]
    _res41: u16,
    /// `[63:56]` destination 31:24
    pub destination_high: u8,
}

/// "IOMMU Status Register". All bits are read-only or cleared by writing one.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Status {
    /// `[0]` EventOverflow: the event log lost an event. Write one to clear.
    pub event_overflow: bool,
    /// `[1]` EventLogInt: an event was logged. Write one to clear.
    pub event_log_int: bool,
    /// `[2]` ComWaitInt: a COMPLETION_WAIT with I completed. Write one to clear.
    pub com_wait_int: bool,
    /// `[3]` EventLogRun
    pub event_log_run: bool,
    /// `[4]` CmdBufRun
    pub cmd_buf_run: bool,
    /// `[5]` PprOverflow: the PPR log lost a request. Write one to clear.
    pub ppr_overflow: bool,
    /// `[6]` PprInt: a request was logged. Write one to clear.
    pub ppr_int: bool,
    /// `[7]` PprLogRun
    pub ppr_log_run: bool,
    /// `[8]` GALogRun
    pub ga_log_run: bool,
    /// `[9]` GALOverflow. Write one to clear.
    pub ga_overflow: bool,
    /// `[10]` GAInt. Write one to clear.
    pub ga_int: bool,
    /// `[11]` PprOverflowB. Write one to clear.
    pub ppr_overflow_b: bool,
    /// `[12]` PprLogActive
    pub ppr_log_active: bool,
    #[bits(2)]
    _res13: u8,
    /// `[15]` EvtOverflowB. Write one to clear.
    pub event_overflow_b: bool,
    /// `[16]` EvtLogActive
    pub event_log_active: bool,
    /// `[17]` PprOverflowEarlyB. Write one to clear.
    pub ppr_overflow_early_b: bool,
    /// `[18]` PprOverflowEarly. Write one to clear.
    pub ppr_overflow_early: bool,
    #[bits(45)]
    _res19: u64,
}

#[cfg(test)]
mod tests;
