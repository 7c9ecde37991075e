//! The capability bits that decide how a walk goes.
//!
//! Intel VT-d, "Capability Register" and "Extended Capability Register".

/// Second-stage 2 MiB pages.
pub(super) const CAP_SSLPS_2M: u64 = 1 << 34;
/// Second-stage 1 GiB pages.
pub(super) const CAP_SSLPS_1G: u64 = 1 << 35;
/// Zero-length reads of write-only pages are allowed.
pub(super) const CAP_ZLR: u64 = 1 << 22;
/// First-stage 1 GiB pages.
pub(super) const CAP_FS1GP: u64 = 1 << 56;
/// First-stage 5-level paging.
pub(super) const CAP_FS5LP: u64 = 1 << 60;

/// Device TLBs.
pub(super) const ECAP_DT: u64 = 1 << 2;
/// Pass-through.
pub(super) const ECAP_PT: u64 = 1 << 6;
/// Snoop control.
pub(super) const ECAP_SC: u64 = 1 << 7;
/// Memory types.
pub(super) const ECAP_MTS: u64 = 1 << 25;
/// Nested translation.
pub(super) const ECAP_NEST: u64 = 1 << 26;
/// Page requests.
pub(super) const ECAP_PRS: u64 = 1 << 29;
/// Execute requests. Revision 4.1 took them out; a unit that reports them follows revision 4.0.
pub(super) const ECAP_ERS: u64 = 1 << 30;
/// Supervisor requests.
pub(super) const ECAP_SRS: u64 = 1 << 31;
/// The no-write flag of translation requests is honoured.
pub(super) const ECAP_NWFS: u64 = 1 << 33;
/// Extended-accessed flags.
pub(super) const ECAP_EAFS: u64 = 1 << 34;
/// PASIDs.
pub(super) const ECAP_PASID: u64 = 1 << 40;
/// Scalable mode.
pub(super) const ECAP_SMTS: u64 = 1 << 43;
/// Second-stage accessed and dirty bits.
pub(super) const ECAP_SSADS: u64 = 1 << 45;
/// Second-stage translation in scalable mode.
pub(super) const ECAP_SSTS: u64 = 1 << 46;
/// First-stage translation.
pub(super) const ECAP_FSTS: u64 = 1 << 47;
/// Page walks in scalable mode can be coherent.
pub(super) const ECAP_SMPWC: u64 = 1 << 48;
/// `RID_PASID`.
pub(super) const ECAP_RPS: u64 = 1 << 49;
/// Abort-DMA mode.
pub(super) const ECAP_ADMS: u64 = 1 << 52;
/// `RID_PRIV`.
pub(super) const ECAP_RPRIVS: u64 = 1 << 53;
/// PASIDs in translated requests.
pub(super) const ECAP_PTRS: u64 = 1 << 56;
/// Second-stage I/O read and write bits.
pub(super) const ECAP_SSIRWS: u64 = 1 << 57;

/// `RTADDR_REG`: the second stage's permissions are its I/O read and write bits.
pub(super) const RTADDR_SSIRWE: u64 = 1 << 7;
