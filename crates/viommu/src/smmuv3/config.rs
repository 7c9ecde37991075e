//! What a unit can do, and which combinations make sense.
//!
//! Spec: IHI 0070, "SMMU_IDR0" to "SMMU_IDR5". What Linux asks for:
//! `drivers/iommu/arm/arm-smmu-v3/arm-smmu-v3.c` (`arm_smmu_device_hw_probe`) and
//! `arm-smmu-v3-sva.c` (`arm_smmu_sva_supported`).

use super::Caps;
use crate::refused::{Refused, needs, range};
use iommu_wire::smmuv3::regs::{Idr0, Idr1, Idr3, Idr5, StallModel, size_bits};

/// What device TLBs add.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ats {
    /// Page requests (PRI).
    pub page_requests: bool,
}

/// Granules of translation tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Granules {
    /// 4 KiB (GRAN4K).
    pub k4: bool,
    /// 16 KiB (GRAN16K).
    pub k16: bool,
    /// 64 KiB (GRAN64K).
    pub k64: bool,
}

/// Access flag and dirty state of pages: HTTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableUpdates {
    /// Software sets both.
    None,
    /// Hardware can set the access flag.
    Access,
    /// Hardware can set both.
    Dirty,
}

/// What a unit can do. [`Config::default`] is all that stock Linux makes use of; stalls are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Stage 1 (S1P).
    pub first_stage: bool,
    /// Stage 2 (S2P).
    pub second_stage: bool,
    /// Granules.
    pub granules: Granules,
    /// Bits of a physical address (OAS): 32, 36, 40, 42, 44 or 48.
    pub output_bits: u8,
    /// HTTU.
    pub updates: TableUpdates,
    /// Bits of a StreamID (SIDSIZE): 0–32.
    pub stream_bits: u8,
    /// Bits of a SubstreamID (SSIDSIZE): 0–20; 0: there are none.
    pub substream_bits: u8,
    /// Stream tables of two levels (ST_LEVEL). A StreamID of 7 bits and more needs them.
    pub two_level_streams: bool,
    /// Tables of context descriptors of two levels (CD2L).
    pub two_level_contexts: bool,
    /// An ASID has 16 bits (ASID16), else 8.
    pub wide_asid: bool,
    /// A VMID has 16 bits (VMID16), else 8.
    pub wide_vmid: bool,
    /// Whether faults stall (STALL_MODEL). [`StallModel::FORCED`] is no model for PCIe, says the
    /// specification; Linux lets devices without a property of their own stall only there.
    pub stall_model: StallModel,
    /// Most stalled transactions (STALL_MAX): 1–65,535; 0 with [`StallModel::TERMINATE`].
    pub stalls: u16,
    /// What ends is always aborted (TERM_MODEL); else CD.A says.
    pub always_abort: bool,
    /// Device TLBs.
    pub ats: Option<Ats>,
    /// Interrupts are messages (MSI).
    pub messages: bool,
    /// There are wires for interrupts. No register shows it.
    pub wires: bool,
    /// CMD_SYNC can wake processors (SEV). Nothing is to be done for it: a virtual processor that waits
    /// looks again by itself.
    pub wakes: bool,
    /// Ranges and levels in TLB invalidations (RIL).
    pub ranges: bool,
    /// Most entries of the Command queue (CMDQS), as a power of two: 0–16, so that one access to a
    /// register works all of it off. Linux needs more than 6.
    pub command_bits: u8,
    /// Most entries of the Event queue (EVENTQS), as a power of two: 0–19.
    pub event_bits: u8,
    /// Most entries of the PRI queue (PRIQS), as a power of two: 0–19.
    pub page_bits: u8,
    /// Translations the IOTLB holds: 0–4 million; with 0 nothing at all is cached. No register shows
    /// it.
    pub iotlb_entries: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            first_stage: true,
            second_stage: true,
            granules: Granules {
                k4: true,
                k16: true,
                k64: true,
            },
            output_bits: 48,
            updates: TableUpdates::Dirty,
            stream_bits: 16,
            substream_bits: 20,
            two_level_streams: true,
            two_level_contexts: true,
            wide_asid: true,
            wide_vmid: true,
            stall_model: StallModel::BOTH,
            stalls: 256,
            always_abort: false,
            ats: Some(Ats {
                page_requests: true,
            }),
            messages: true,
            wires: true,
            wakes: true,
            ranges: true,
            command_bits: 9,
            event_bits: 10,
            page_bits: 9,
            iotlb_entries: 4096,
        }
    }
}

/// The value of SMMU_IDR5.OAS for an address of this many bits.
fn size_field(bits: u8) -> Option<u8> {
    (0..=5).find(|&field| size_bits(field) == Some(bits))
}

impl Config {
    pub(super) fn caps(&self) -> Result<Caps, Refused> {
        self.check()?;
        let ats = self.ats.is_some();
        let pages = self.ats.is_some_and(|ats| ats.page_requests);
        let both = self.first_stage && self.second_stage;
        let idr0 = Idr0::new()
            .with_s1p(self.first_stage)
            .with_s2p(self.second_stage)
            // VMSAv8-64.
            .with_ttf(2)
            .with_cohacc(true)
            .with_httu(match self.updates {
                TableUpdates::None => 0,
                TableUpdates::Access => 1,
                TableUpdates::Dirty => 2,
            })
            .with_ats(ats)
            .with_ns1ats(ats && both)
            .with_asid16(self.wide_asid)
            .with_msi(self.messages)
            .with_sev(self.wakes)
            .with_pri(pages)
            .with_vmid16(self.wide_vmid)
            .with_cd2l(self.two_level_contexts)
            // Little-endian.
            .with_ttendian(2)
            .with_stall_model(self.stall_model)
            .with_term_model(self.always_abort)
            .with_st_level(u8::from(self.two_level_streams));
        let idr1 = Idr1::new()
            .with_sidsize(self.stream_bits)
            .with_ssidsize(self.substream_bits)
            .with_priqs(self.page_bits)
            .with_eventqs(self.event_bits)
            .with_cmdqs(self.command_bits)
            .with_attr_perms_ovr(true);
        let idr3 = Idr3::new()
            .with_had(self.first_stage)
            .with_xnx(self.second_stage)
            // An automatic response has the PASID of its request.
            .with_pps(pages && self.substream_bits > 0)
            .with_ril(self.ranges);
        let idr5 = Idr5::new()
            // Of the sizes there are, as was checked.
            .with_oas(size_field(self.output_bits).unwrap_or(0))
            .with_gran4k(self.granules.k4)
            .with_gran16k(self.granules.k16)
            .with_gran64k(self.granules.k64)
            .with_stall_max(self.stalls);
        Ok(Caps {
            idr0,
            idr1,
            idr3,
            idr5,
            wires: self.wires,
        })
    }

    fn check(&self) -> Result<(), Refused> {
        let Granules { k4, k16, k64 } = self.granules;
        needs(
            "a unit",
            true,
            "a stage",
            self.first_stage || self.second_stage,
        )?;
        needs("a unit", true, "a granule", k4 || k16 || k64)?;
        if size_field(self.output_bits).is_none() {
            return Err(Refused::OutOfRange {
                field: "output_bits",
                value: u64::from(self.output_bits),
            });
        }
        range("stream_bits", u64::from(self.stream_bits), 0, 32)?;
        range("substream_bits", u64::from(self.substream_bits), 0, 20)?;
        needs(
            "stream_bits of 7 and more",
            self.stream_bits >= 7,
            "two_level_streams",
            self.two_level_streams,
        )?;
        range("stall_model", u64::from(self.stall_model.0), 0, 2)?;
        let stalls = u64::from(self.stalls);
        if self.stall_model == StallModel::TERMINATE {
            range("stalls", stalls, 0, 0)?;
        } else {
            range("stalls", stalls, 1, 0xffff)?;
        }
        needs(
            "a unit",
            true,
            "messages or wires",
            self.messages || self.wires,
        )?;
        range("command_bits", u64::from(self.command_bits), 0, 16)?;
        range("event_bits", u64::from(self.event_bits), 0, 19)?;
        range("page_bits", u64::from(self.page_bits), 0, 19)?;
        range("iotlb_entries", self.iotlb_entries as u64, 0, 4 << 20)
    }
}

#[cfg(test)]
mod tests;
