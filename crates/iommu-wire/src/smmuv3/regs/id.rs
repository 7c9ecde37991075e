//! The registers that say what a unit can do.

use bitfield_struct::bitfield;

/// STALL_MODEL of SMMU_IDR0. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StallModel(pub u8);

impl StallModel {
    /// Faults stall or end the transaction, as the tables say.
    pub const BOTH: Self = Self(0);
    /// They end it; CMD_RESUME and CMD_STALL_TERM are illegal.
    pub const TERMINATE: Self = Self(1);
    /// They stall it: CD.S and STE.S2S must be set.
    pub const FORCED: Self = Self(2);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// SMMU_IDR0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr0 {
    /// `[0]` S2P: stage 2.
    pub s2p: bool,
    /// `[1]` S1P: stage 1.
    pub s1p: bool,
    /// `[3:2]` TTF: table formats, VMSAv8-32 in bit 0, VMSAv8-64 in bit 1.
    #[bits(2)]
    pub ttf: u8,
    /// `[4]` COHACC: tables and queues are read and written coherently.
    pub cohacc: bool,
    /// `[5]` BTM: broadcast TLB maintenance.
    pub btm: bool,
    /// `[7:6]` HTTU: 1 the access flag is set by hardware, 2 dirty state too, 3 access flags of tables too.
    #[bits(2)]
    pub httu: u8,
    /// `[8]` DORMHINT
    pub dormhint: bool,
    /// `[9]` Hyp: stage 1 of hypervisors.
    pub hyp: bool,
    /// `[10]` ATS: translation requests.
    pub ats: bool,
    /// `[11]` NS1ATS: translation requests cannot be answered with stage 1 alone.
    pub ns1ats: bool,
    /// `[12]` ASID16: an ASID has 16 bits, else 8.
    pub asid16: bool,
    /// `[13]` MSI: interrupts may be messages.
    pub msi: bool,
    /// `[14]` SEV: events wake processors.
    pub sev: bool,
    /// `[15]` ATOS: address translation operations.
    pub atos: bool,
    /// `[16]` PRI: page requests.
    pub pri: bool,
    /// `[17]` VMW: VMID wildcards.
    pub vmw: bool,
    /// `[18]` VMID16: a VMID has 16 bits, else 8.
    pub vmid16: bool,
    /// `[19]` CD2L: tables of context descriptors may have two levels.
    pub cd2l: bool,
    /// `[20]` VATOS
    pub vatos: bool,
    /// `[22:21]` TTENDIAN: 0 either, 2 little, 3 big.
    #[bits(2)]
    pub ttendian: u8,
    /// `[23]` ATSRECERR: SMMU_CR2.REC_CFG_ATS.
    pub atsrecerr: bool,
    /// `[25:24]` STALL_MODEL
    #[bits(2, default = StallModel::BOTH)]
    pub stall_model: StallModel,
    /// `[26]` TERM_MODEL: what ends is always aborted.
    pub term_model: bool,
    /// `[28:27]` ST_LEVEL: 1 stream tables may have two levels.
    #[bits(2)]
    pub st_level: u8,
    #[bits(1)]
    _res29: u8,
    /// `[30]` RME_IMPL
    pub rme_impl: bool,
    #[bits(1)]
    _res31: u8,
}

/// SMMU_IDR1.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr1 {
    /// `[5:0]` SIDSIZE: a StreamID has as many bits, at most 32.
    #[bits(6)]
    pub sidsize: u8,
    /// `[10:6]` SSIDSIZE: a SubstreamID has as many bits, at most 20; 0: there are none.
    #[bits(5)]
    pub ssidsize: u8,
    /// `[15:11]` PRIQS: the PRI queue has at most `2^n` entries, n at most 19.
    #[bits(5)]
    pub priqs: u8,
    /// `[20:16]` EVENTQS: the Event queue has at most `2^n` entries, n at most 19.
    #[bits(5)]
    pub eventqs: u8,
    /// `[25:21]` CMDQS: the Command queue has at most `2^n` entries, n at most 19.
    #[bits(5)]
    pub cmdqs: u8,
    /// `[26]` ATTR_PERMS_OVR: privilege and instruction may be overridden.
    pub attr_perms_ovr: bool,
    /// `[27]` ATTR_TYPES_OVR: memory types may be overridden.
    pub attr_types_ovr: bool,
    /// `[28]` REL
    pub rel: bool,
    /// `[29]` QUEUES_PRESET
    pub queues_preset: bool,
    /// `[30]` TABLES_PRESET
    pub tables_preset: bool,
    /// `[31]` ECMDQ
    pub ecmdq: bool,
}

/// SMMU_IDR3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr3 {
    #[bits(2)]
    _res0: u8,
    /// `[2]` HAD: attributes of table descriptors can be turned off.
    pub had: bool,
    /// `[3]` PBHA
    pub pbha: bool,
    /// `[4]` XNX: stage 2 tells privileged from unprivileged execution.
    pub xnx: bool,
    /// `[5]` PPS: automatic responses have the PASID of the request, whatever STE.PPAR says.
    pub pps: bool,
    #[bits(1)]
    _res6: u8,
    /// `[7]` MPAM
    pub mpam: bool,
    /// `[8]` FWB: stage 2 may force memory types.
    pub fwb: bool,
    /// `[9]` STT: small translation tables.
    pub stt: bool,
    /// `[10]` RIL: ranges and levels in TLB invalidations.
    pub ril: bool,
    /// `[12:11]` BBML
    #[bits(2)]
    pub bbml: u8,
    /// `[13]` E0PD
    pub e0pd: bool,
    /// `[14]` PTWNNC
    pub ptwnnc: bool,
    /// `[15]` DPT
    pub dpt: bool,
    /// `[16]` PASIDTT (the specification alone, as those below)
    pub pasidtt: bool,
    /// `[17]` EPAN
    pub epan: bool,
    /// `[18]` S1PI
    pub s1pi: bool,
    /// `[19]` S2PI
    pub s2pi: bool,
    /// `[20]` S2PO
    pub s2po: bool,
    /// `[21]` THE
    pub the: bool,
    /// `[22]` MTEPERM
    pub mteperm: bool,
    /// `[23]` AIE
    pub aie: bool,
    _res24: u8,
}

/// SMMU_IDR5.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Idr5 {
    /// `[2:0]` OAS: size of a physical address; see [`size_bits`].
    #[bits(3)]
    pub oas: u8,
    #[bits(1)]
    _res3: u8,
    /// `[4]` GRAN4K
    pub gran4k: bool,
    /// `[5]` GRAN16K
    pub gran16k: bool,
    /// `[6]` GRAN64K
    pub gran64k: bool,
    /// `[7]` DS: addresses of 52 bits with granules of 4 and 16 KiB.
    pub ds: bool,
    /// `[8]` D128
    pub d128: bool,
    #[bits(1)]
    _res9: u8,
    /// `[11:10]` VAX: an input address has 48 bits, with 1 up to 52.
    #[bits(2)]
    pub vax: u8,
    #[bits(4)]
    _res12: u8,
    /// `[31:16]` STALL_MAX: how many stalled transactions there may be.
    pub stall_max: u16,
}

/// SMMU_AIDR.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Aidr {
    /// `[3:0]` ArchMinorRev: n of SMMUv3.n.
    #[bits(4)]
    pub minor: u8,
    /// `[7:4]` ArchMajorRev: 0 for SMMUv3.
    #[bits(4)]
    pub major: u8,
    #[bits(24)]
    _res8: u32,
}

/// Bits of an address of this size: of SMMU_IDR5.OAS, CD.IPS and STE.S2PS. `None` for 7, which only
/// tables of 128-bit descriptors reach.
#[must_use]
pub const fn size_bits(field: u8) -> Option<u8> {
    Some(match field {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        5 => 48,
        6 => 52,
        _ => return None,
    })
}
