//! Commands: what software puts into the Command queue.
//!
//! Source: IHI 0070, "Commands", one section a command. Linux builds them in `arm-smmu-v3.h`
//! (`arm_smmu_make_cmd_*`), QEMU takes them apart in `hw/arm/smmuv3-internal.h` (`CMD_*`). Commands of
//! the Secure and Realm programming interfaces, and those of device permission tables, are carried and
//! not interpreted.

mod raw;
mod tlbi;

use crate::pcie::ats::Range;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Response, Rid};
pub use raw::{Opcode, RawCommand};
pub use tlbi::{Addresses, Granule, Level, Span};

/// CMD_PREFETCH_CONFIG and CMD_PREFETCH_ADDR: hints. The unit may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefetch {
    /// Whose configuration.
    pub stream: Rid,
    /// Of which substream.
    pub substream: Option<Pasid>,
}

/// CMD_ATC_INV: has a device forget translations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AtcInvalidation {
    /// The device.
    pub stream: Rid,
    /// Its address space; `None`: the request has no PASID.
    pub substream: Option<Pasid>,
    /// G: with a substream, those of every address space.
    pub global: bool,
    /// Somewhere in the range.
    pub addr: Iova,
    /// Size: `4096 << size` bytes; 52 is everything, more is reserved.
    pub size: u8,
}

impl AtcInvalidation {
    /// The addresses; `None` for a reserved size.
    #[must_use]
    pub fn range(&self) -> Option<Range> {
        (self.size <= 52).then(|| Range::masked(self.addr.0 >> 12, self.size))
    }
}

/// RESP of a CMD_PRI_RESP. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PriResponse(pub u8);

impl PriResponse {
    /// ResponseFailure: stop asking.
    pub const FAILURE: Self = Self(0);
    /// InvalidRequest: do not retry.
    pub const INVALID: Self = Self(1);
    /// Success: retry.
    pub const SUCCESS: Self = Self(2);

    /// The answer; `None` for the reserved value.
    #[must_use]
    pub const fn response(self) -> Option<Response> {
        Some(match self {
            Self::FAILURE => Response::Failure,
            Self::INVALID => Response::Invalid,
            Self::SUCCESS => Response::Success,
            _ => return None,
        })
    }

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// CMD_PRI_RESP: the answer to a page request group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageResponse {
    /// Who asked.
    pub stream: Rid,
    /// In which address space.
    pub substream: Option<Pasid>,
    /// PRGIndex, 0–511.
    pub group: GroupIndex,
    /// Resp.
    pub code: PriResponse,
}

/// Action of a CMD_RESUME: Ac and Ab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Ac=1: the transaction starts again. Ab means nothing then.
    Retry,
    /// Ac=0, Ab=1: it is aborted.
    Abort,
    /// Ac=0, Ab=0: it ends as if it had been done: reads return zero, writes are ignored.
    Ignore,
}

/// CMD_RESUME: what becomes of a stalled transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Resume {
    /// Whose transaction.
    pub stream: Rid,
    /// STAG: which, as the event record had it.
    pub tag: u16,
    /// Ac, Ab.
    pub action: Action,
}

/// CS: how a CMD_SYNC says that it is complete. Any two bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Signal(pub u8);

impl Signal {
    /// SIG_NONE: only by being consumed.
    pub const NONE: Self = Self(0);
    /// SIG_IRQ: by an interrupt.
    pub const IRQ: Self = Self(1);
    /// SIG_SEV: by an event that wakes processors.
    pub const SEV: Self = Self(2);

    const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    const fn into_bits(self) -> u8 {
        self.0
    }
}

/// CMD_SYNC: waits for what was asked for before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sync {
    /// CS.
    pub signal: Signal,
    /// MSIAddress `[55:2]`; zero: no message.
    pub addr: Gpa,
    /// MSIData.
    pub data: u32,
    /// MSH: shareability of the message.
    pub shareability: u8,
    /// MSIAttr: memory type of the message.
    pub memory: u8,
}

/// What a command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// CMD_PREFETCH_CONFIG: configuration that will be wanted soon.
    PrefetchConfig(Prefetch),
    /// CMD_PREFETCH_ADDR: translations that will be wanted soon. Which, is not kept.
    PrefetchAddr(Prefetch),
    /// CMD_CFGI_STE: forget the configuration of a stream.
    CfgiSte {
        /// The stream.
        stream: Rid,
        /// Leaf: not what led to its entry.
        leaf: bool,
    },
    /// CMD_CFGI_STE_RANGE: forget the configuration of `2^(range + 1)` streams.
    CfgiSteRange {
        /// One of them.
        stream: Rid,
        /// Range, 0–31. 31 is CMD_CFGI_ALL.
        range: u8,
    },
    /// CMD_CFGI_CD: forget one context descriptor of a stream.
    CfgiCd {
        /// The stream.
        stream: Rid,
        /// Its index.
        substream: Pasid,
        /// Leaf: not what led to it.
        leaf: bool,
    },
    /// CMD_CFGI_CD_ALL: forget every context descriptor of a stream.
    CfgiCdAll(Rid),
    /// CMD_CFGI_VMS_PIDM: forget the partition map of a VMID.
    CfgiVmsPidm {
        /// The VMID.
        vmid: u16,
    },
    /// CMD_TLBI_NH_ALL: forget the stage-1 translations of a VMID.
    TlbiNhAll {
        /// The VMID.
        vmid: u16,
    },
    /// CMD_TLBI_NH_ASID: forget those of an ASID, but not the global ones.
    TlbiNhAsid {
        /// The VMID.
        vmid: u16,
        /// The ASID.
        asid: u16,
    },
    /// CMD_TLBI_NH_VA: forget those of an ASID, and global ones, in a range.
    TlbiNhVa {
        /// The VMID.
        vmid: u16,
        /// The ASID.
        asid: u16,
        /// The range.
        addresses: Addresses,
    },
    /// CMD_TLBI_NH_VAA: forget those of every ASID in a range.
    TlbiNhVaa {
        /// The VMID.
        vmid: u16,
        /// The range.
        addresses: Addresses,
    },
    /// CMD_TLBI_EL2_ALL: forget the translations of the hypervisor.
    TlbiEl2All,
    /// CMD_TLBI_EL2_ASID: forget those of an ASID, but not the global ones.
    TlbiEl2Asid {
        /// The ASID.
        asid: u16,
    },
    /// CMD_TLBI_EL2_VA: forget those of an ASID, and global ones, in a range.
    TlbiEl2Va {
        /// The ASID.
        asid: u16,
        /// The range.
        addresses: Addresses,
    },
    /// CMD_TLBI_EL2_VAA: forget those of every ASID in a range.
    TlbiEl2Vaa {
        /// The range.
        addresses: Addresses,
    },
    /// CMD_TLBI_S12_VMALL: forget the translations of a VMID.
    TlbiS12Vmall {
        /// The VMID.
        vmid: u16,
    },
    /// CMD_TLBI_S2_IPA: forget the stage-2 translations of a VMID in a range.
    TlbiS2Ipa {
        /// The VMID.
        vmid: u16,
        /// The range.
        addresses: Addresses,
    },
    /// CMD_TLBI_NSNH_ALL: forget every translation that is not the hypervisor's.
    TlbiNsnhAll,
    /// CMD_ATC_INV
    AtcInv(AtcInvalidation),
    /// CMD_PRI_RESP
    PriResp(PageResponse),
    /// CMD_RESUME
    Resume(Resume),
    /// CMD_STALL_TERM: aborts every stalled transaction of a stream.
    StallTerm(Rid),
    /// CMD_SYNC
    Sync(Sync),
    /// A command we carry but do not interpret.
    Other(RawCommand),
}

impl Command {
    /// Reads a command. Reserved bits are not looked at; see [`RawCommand::has_reserved_bits`].
    #[must_use]
    pub fn decode(raw: &RawCommand) -> Self {
        let (vmid, asid) = (raw.vmid(), raw.asid());
        let (stream, leaf) = (raw.stream(), raw.leaf());
        match raw.opcode() {
            Opcode::PREFETCH_CONFIG => Self::PrefetchConfig(raw.prefetch()),
            Opcode::PREFETCH_ADDR => Self::PrefetchAddr(raw.prefetch()),
            Opcode::CFGI_STE => Self::CfgiSte { stream, leaf },
            Opcode::CFGI_STE_RANGE => Self::CfgiSteRange {
                stream,
                range: raw.range(),
            },
            Opcode::CFGI_CD => Self::CfgiCd {
                stream,
                substream: raw.substream(),
                leaf,
            },
            Opcode::CFGI_CD_ALL => Self::CfgiCdAll(stream),
            Opcode::CFGI_VMS_PIDM => Self::CfgiVmsPidm { vmid },
            Opcode::TLBI_NH_ALL => Self::TlbiNhAll { vmid },
            Opcode::TLBI_NH_ASID => Self::TlbiNhAsid { vmid, asid },
            Opcode::TLBI_NH_VA => Self::TlbiNhVa {
                vmid,
                asid,
                addresses: raw.addresses(),
            },
            Opcode::TLBI_NH_VAA => Self::TlbiNhVaa {
                vmid,
                addresses: raw.addresses(),
            },
            Opcode::TLBI_EL2_ALL => Self::TlbiEl2All,
            Opcode::TLBI_EL2_ASID => Self::TlbiEl2Asid { asid },
            Opcode::TLBI_EL2_VA => Self::TlbiEl2Va {
                asid,
                addresses: raw.addresses(),
            },
            Opcode::TLBI_EL2_VAA => Self::TlbiEl2Vaa {
                addresses: raw.addresses(),
            },
            Opcode::TLBI_S12_VMALL => Self::TlbiS12Vmall { vmid },
            Opcode::TLBI_S2_IPA => Self::TlbiS2Ipa {
                vmid,
                addresses: raw.addresses(),
            },
            Opcode::TLBI_NSNH_ALL => Self::TlbiNsnhAll,
            Opcode::ATC_INV => Self::AtcInv(raw.atc_invalidation()),
            Opcode::PRI_RESP => Self::PriResp(raw.page_response()),
            Opcode::RESUME => Self::Resume(raw.resume()),
            Opcode::STALL_TERM => Self::StallTerm(stream),
            Opcode::SYNC => Self::Sync(raw.sync()),
            _ => Self::Other(*raw),
        }
    }

    /// The command that says this. Numbers wider than their field lose their upper bits.
    #[must_use]
    pub fn encode(&self) -> RawCommand {
        let zero = Rid(0);
        match *self {
            Self::PrefetchConfig(prefetch) => raw::prefetch(Opcode::PREFETCH_CONFIG, prefetch),
            Self::PrefetchAddr(prefetch) => raw::prefetch(Opcode::PREFETCH_ADDR, prefetch),
            Self::CfgiSte { stream, leaf } => {
                RawCommand::of_stream(Opcode::CFGI_STE, stream).with_leaf(leaf)
            }
            Self::CfgiSteRange { stream, range } => {
                RawCommand::of_stream(Opcode::CFGI_STE_RANGE, stream).with_range(range)
            }
            Self::CfgiCd {
                stream,
                substream,
                leaf,
            } => RawCommand::of_stream(Opcode::CFGI_CD, stream)
                .with_substream(substream)
                .with_leaf(leaf),
            Self::CfgiCdAll(stream) => RawCommand::of_stream(Opcode::CFGI_CD_ALL, stream),
            Self::CfgiVmsPidm { vmid } => RawCommand::tlbi(Opcode::CFGI_VMS_PIDM, vmid, 0),
            Self::TlbiNhAll { vmid } => RawCommand::tlbi(Opcode::TLBI_NH_ALL, vmid, 0),
            Self::TlbiNhAsid { vmid, asid } => RawCommand::tlbi(Opcode::TLBI_NH_ASID, vmid, asid),
            Self::TlbiNhVa {
                vmid,
                asid,
                addresses,
            } => RawCommand::tlbi(Opcode::TLBI_NH_VA, vmid, asid).with_addresses(&addresses),
            Self::TlbiNhVaa { vmid, addresses } => {
                RawCommand::tlbi(Opcode::TLBI_NH_VAA, vmid, 0).with_addresses(&addresses)
            }
            Self::TlbiEl2All => RawCommand::of_stream(Opcode::TLBI_EL2_ALL, zero),
            Self::TlbiEl2Asid { asid } => RawCommand::tlbi(Opcode::TLBI_EL2_ASID, 0, asid),
            Self::TlbiEl2Va { asid, addresses } => {
                RawCommand::tlbi(Opcode::TLBI_EL2_VA, 0, asid).with_addresses(&addresses)
            }
            Self::TlbiEl2Vaa { addresses } => {
                RawCommand::tlbi(Opcode::TLBI_EL2_VAA, 0, 0).with_addresses(&addresses)
            }
            Self::TlbiS12Vmall { vmid } => RawCommand::tlbi(Opcode::TLBI_S12_VMALL, vmid, 0),
            Self::TlbiS2Ipa { vmid, addresses } => {
                RawCommand::tlbi(Opcode::TLBI_S2_IPA, vmid, 0).with_addresses(&addresses)
            }
            Self::TlbiNsnhAll => RawCommand::of_stream(Opcode::TLBI_NSNH_ALL, zero),
            Self::AtcInv(invalidation) => raw::atc_invalidation(invalidation),
            Self::PriResp(response) => raw::page_response(response),
            Self::Resume(resume) => raw::resume(resume),
            Self::StallTerm(stream) => RawCommand::of_stream(Opcode::STALL_TERM, stream),
            Self::Sync(sync) => raw::sync(sync),
            Self::Other(raw) => raw,
        }
    }
}

#[cfg(test)]
mod tests;
