//! What a unit can do, and which combinations make sense.
//!
//! Spec: 48882, "IOMMU Extended Feature Register", "IOMMU Extended Feature 2 Register". What Linux asks
//! for: `drivers/iommu/amd/init.c` and `amd_iommu.h` (`check_feature`).

use super::Caps;
use crate::refused::{Refused, needs, range};
use iommu_wire::amdvi::regs::{ExtendedFeatures, ExtendedFeatures2};

/// What guest translation adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Guest {
    /// Guest tables of 5 levels (GATS); else of 4.
    pub five_levels: bool,
    /// Levels of the guest CR3 table (GLXSup): 1–3.
    pub cr3_levels: u8,
    /// Bits of a PASID (PASMax): 1–20. Linux 7.3 stops at a unit with more than 16.
    pub pasid_bits: u8,
    /// No-execute (NXSup).
    pub no_execute: bool,
    /// Supervisor requests are told apart (USSup).
    pub supervisor: bool,
    /// Requests without a PASID may be those of PASID 0 (GIoSup). Linux needs it for guest tables as
    /// the tables of the DMA API.
    pub guest_io: bool,
    /// Accessed and dirty bits of guest tables can be left alone (GAUpdateDisSup).
    pub update_disable: bool,
    /// The guest CR3 table may lie at a guest physical address (GCR3TRPMode).
    pub cr3_at_guest_address: bool,
}

/// What page requests add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageRequests {
    /// The unit can answer requests that find the log full (PprAutoRspSup).
    pub auto_response: bool,
    /// Enhanced handling (EPHSup). Linux needs it for page requests and SVA.
    pub enhanced: bool,
}

/// What a unit can do. [`Config::default`] is all that stock Linux makes use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Levels of host tables (HATS): 4–6.
    pub host_levels: u8,
    /// Guest translation (GTSup).
    pub guest: Option<Guest>,
    /// Page requests (PPRSup). Need device-TLBs and guest translation.
    pub page_requests: Option<PageRequests>,
    /// Device-TLBs: ATS, and INVALIDATE_IOTLB_PAGES. No register of the window shows it: IotlbSup of
    /// the PCI capability must say the same.
    pub device_tlb: bool,
    /// The type field of INVALIDATE_IOTLB_PAGES (InvIotlbTypeSup). Needs device-TLBs. What it asks for
    /// is forgotten together with the rest.
    pub device_tlb_types: bool,
    /// PREFETCH_IOMMU_PAGES (PreFSup): accepted, and nothing is prefetched.
    pub prefetch: bool,
    /// INVALIDATE_IOMMU_ALL (IASup).
    pub invalidate_all: bool,
    /// Hardware event registers (HESup).
    pub hardware_events: bool,
    /// Accessed bits of host tables (HASup).
    pub host_accessed: bool,
    /// Dirty bits of host tables (HDSup).
    pub host_dirty: bool,
    /// Most segments of the device table (DevTblSegSup): 1, 2, 4 or 8.
    pub device_table_segments: u8,
    /// The guest virtual APIC is claimed (GASup), though interrupts are not remapped. Linux takes
    /// features from the ACPI table only where it is (`init_iommu_one`), and knows of five levels of
    /// guest tables and of `amd_iommu=pgtbl_v2` too late otherwise.
    pub guest_apic: bool,
    /// The HyperTransport range is memory like any other (HTRangeIgnore).
    pub hypertransport_ignored: bool,
    /// Translations the IOTLB holds: 0–4 million; with 0 nothing at all is cached. No register shows
    /// it.
    pub iotlb_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host_levels: 6,
            guest: Some(Guest {
                five_levels: true,
                cr3_levels: 3,
                pasid_bits: 16,
                no_execute: true,
                supervisor: true,
                guest_io: true,
                update_disable: false,
                cr3_at_guest_address: false,
            }),
            page_requests: Some(PageRequests {
                auto_response: true,
                enhanced: true,
            }),
            device_tlb: true,
            device_tlb_types: false,
            prefetch: true,
            invalidate_all: true,
            hardware_events: true,
            host_accessed: true,
            host_dirty: true,
            device_table_segments: 1,
            guest_apic: true,
            hypertransport_ignored: false,
            iotlb_entries: 4096,
        }
    }
}

impl Config {
    /// The extended feature registers that say this, EFR (30h) and EFR2 (1A0h): what the ACPI table
    /// repeats.
    ///
    /// # Errors
    /// When a number is out of range, or one ability is asked for without another it builds on.
    pub fn registers(&self) -> Result<(ExtendedFeatures, ExtendedFeatures2), Refused> {
        self.check()?;
        let segments = u64::from(self.device_table_segments).trailing_zeros();
        let mut features = ExtendedFeatures::new()
            .with_pref_sup(self.prefetch)
            .with_ia_sup(self.invalidate_all)
            .with_ga_sup(self.guest_apic)
            .with_he_sup(self.hardware_events)
            .with_hats(self.host_levels - 4)
            .with_ha_sup(self.host_accessed)
            .with_hd_sup(self.host_dirty)
            // Of 1, 2, 4 and 8, as was checked.
            .with_dev_tbl_seg_sup(u8::try_from(segments).unwrap_or(0) & 3)
            .with_inv_iotlb_type_sup(self.device_tlb_types);
        let mut features2 =
            ExtendedFeatures2::new().with_ht_range_ignore(self.hypertransport_ignored);
        if let Some(guest) = self.guest {
            features = features
                .with_gt_sup(true)
                .with_nx_sup(guest.no_execute)
                .with_us_sup(guest.supervisor)
                .with_gats(u8::from(guest.five_levels))
                .with_glx_sup(guest.cr3_levels - 1)
                .with_pas_max(guest.pasid_bits - 1)
                .with_gio_sup(guest.guest_io)
                .with_ga_update_dis_sup(guest.update_disable);
            features2 = features2.with_gcr3_trp_mode(guest.cr3_at_guest_address);
        }
        if let Some(pages) = self.page_requests {
            features = features
                .with_ppr_sup(true)
                .with_ppr_auto_rsp_sup(pages.auto_response)
                .with_eph_sup(pages.enhanced);
        }
        Ok((features, features2))
    }

    pub(super) fn caps(&self) -> Result<Caps, Refused> {
        let (features, features2) = self.registers()?;
        Ok(Caps {
            features,
            features2,
            device_tlb: self.device_tlb,
        })
    }

    fn check(&self) -> Result<(), Refused> {
        range("host_levels", u64::from(self.host_levels), 4, 6)?;
        let segments = u64::from(self.device_table_segments);
        range("device_table_segments", segments, 1, 8)?;
        if !segments.is_power_of_two() {
            return Err(Refused::OutOfRange {
                field: "device_table_segments",
                value: segments,
            });
        }
        range("iotlb_entries", self.iotlb_entries as u64, 0, 4 << 20)?;
        if let Some(guest) = self.guest {
            range("cr3_levels", u64::from(guest.cr3_levels), 1, 3)?;
            range("pasid_bits", u64::from(guest.pasid_bits), 1, 20)?;
        }
        needs(
            "host_dirty",
            self.host_dirty,
            "host_accessed",
            self.host_accessed,
        )?;
        let types = self.device_tlb_types;
        needs("device_tlb_types", types, "device_tlb", self.device_tlb)?;
        let pages = self.page_requests.is_some();
        needs("page_requests", pages, "device_tlb", self.device_tlb)?;
        needs("page_requests", pages, "guest", self.guest.is_some())
    }
}

#[cfg(test)]
mod tests;
