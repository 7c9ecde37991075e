//! Invalidation queue descriptors.
//!
//! Source: Intel VT-d, "Invalidation Queue Interface", one section a descriptor. Linux builds the
//! same ones in `drivers/iommu/intel/iommu.h` (`QI_*`), VirtualBox takes them apart with
//! `include/VBox/iommu-intel.h` (`VTD_BF_*_DSC_*`).

mod raw;

pub use crate::pcie::ats::Range;
use crate::pcie::pri::{ResponseCode, group_bits};
use crate::vtd::regs::Granularity;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Rid};
pub use raw::{CommandType, RawCommand};

/// Pages of a page-selective IOTLB invalidation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pages {
    /// Which.
    pub range: Range,
    /// IH: only leaf entries changed, so caches of other entries may stay.
    pub leaf_only: bool,
}

/// What a context-cache invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextScope {
    /// Every context.
    Global,
    /// The contexts of a domain.
    Domain(u16),
    /// The context of a device.
    Device {
        /// The domain the context had.
        domain: u16,
        /// The device.
        source: Rid,
        /// How many bits of the function number, from bit 2 down, are ignored: 0–3.
        function_mask: u8,
    },
}

/// What an IOTLB invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IotlbScope {
    /// Every entry.
    Global,
    /// The entries of a domain.
    Domain(u16),
    /// Some pages of a domain.
    Pages(u16, Pages),
}

/// What a PASID-cache invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PasidScope {
    /// Every entry.
    Global,
    /// The entries of a domain.
    Domain(u16),
    /// One PASID in a domain.
    Pasid(u16, Pasid),
}

/// What an interrupt entry cache invalidation covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InterruptScope {
    /// Every entry.
    Global,
    /// Entries whose index differs from `index` in at most the low `mask` bits.
    Index {
        /// Index of an entry.
        index: u16,
        /// How many low bits are ignored, 0–31.
        mask: u8,
    },
}

/// A device-TLB to invalidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceTlb {
    /// The function whose TLB it is.
    pub source: Rid,
    /// The physical function that throttles it; equal to `source` unless that is a virtual one.
    pub physical: Rid,
    /// MIP: how many invalidations may be under way, 0–31.
    pub max_pending: u8,
    /// What to forget.
    pub range: Range,
}

/// What an invalidation wait does once everything before it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wait {
    /// SW: writes this word there.
    pub status: Option<Status>,
    /// IF: raises an invalidation completion event.
    pub interrupt: bool,
    /// FN: descriptors after it start only when those before it are done.
    pub fence: bool,
    /// PD: page requests and their responses are drained first.
    pub drain_page_requests: bool,
}

/// The status write of a [`Wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// Where; a multiple of 4.
    pub addr: Gpa,
    /// What.
    pub data: u32,
}

/// The answer to a page request group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct GroupResponse {
    /// Who asked.
    pub requester: Rid,
    /// For which address space, where it named one.
    pub pasid: Option<Pasid>,
    /// The group, 0–511.
    pub group: GroupIndex,
    /// The answer.
    pub code: ResponseCode,
}

/// What a descriptor says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Forget contexts.
    ContextCache(ContextScope),
    /// Forget translations, by domain.
    Iotlb {
        /// Which.
        scope: IotlbScope,
        /// DR: reads through them are done before the next wait completes.
        drain_reads: bool,
        /// DW: so are writes.
        drain_writes: bool,
    },
    /// Tell a device to forget translations of requests without PASID.
    DeviceTlb(DeviceTlb),
    /// Forget interrupt remapping entries.
    InterruptCache(InterruptScope),
    /// Wait, then say so.
    Wait(Wait),
    /// Forget translations of a PASID in a domain; all of them where `pages` is `None`.
    PasidIotlb {
        /// The domain.
        domain: u16,
        /// The PASID.
        pasid: Pasid,
        /// The pages.
        pages: Option<Pages>,
    },
    /// Forget PASID table entries.
    PasidCache(PasidScope),
    /// Tell a device to forget translations of a PASID.
    PasidDeviceTlb {
        /// The TLB and what to forget.
        tlb: DeviceTlb,
        /// The PASID.
        pasid: Pasid,
        /// G: of every PASID instead.
        global: bool,
    },
    /// Answer a page request group.
    GroupResponse(GroupResponse),
    /// Answer a page stream request. Revision 2 only; kept for decoding.
    StreamResponse {
        /// The answer, as for a group.
        response: GroupResponse,
        /// The page.
        addr: Iova,
    },
    /// A descriptor we carry but do not interpret: its type or its granularity is reserved.
    Other(RawCommand),
}

impl Command {
    /// Reads a descriptor. Reserved bits are not looked at; see [`RawCommand::has_reserved_bits`].
    #[must_use]
    pub fn decode(raw: &RawCommand) -> Self {
        Self::understood(raw).unwrap_or(Self::Other(*raw))
    }

    fn understood(raw: &RawCommand) -> Option<Self> {
        Some(match raw.command_type() {
            CommandType::CONTEXT_CACHE => {
                let word = raw.context_cache();
                Self::ContextCache(match word.granularity() {
                    Granularity::GLOBAL => ContextScope::Global,
                    Granularity::DOMAIN => ContextScope::Domain(word.domain()),
                    Granularity::SELECTIVE => ContextScope::Device {
                        domain: word.domain(),
                        source: Rid::from_pci(word.source()),
                        function_mask: word.function_mask(),
                    },
                    _ => return None,
                })
            }
            CommandType::IOTLB => {
                let (word, address) = raw.iotlb();
                Self::Iotlb {
                    scope: match word.granularity() {
                        Granularity::GLOBAL => IotlbScope::Global,
                        Granularity::DOMAIN => IotlbScope::Domain(word.domain()),
                        Granularity::SELECTIVE => IotlbScope::Pages(
                            word.domain(),
                            Pages {
                                range: Range::masked(address.page(), address.mask()),
                                leaf_only: address.leaf_only(),
                            },
                        ),
                        _ => return None,
                    },
                    drain_reads: word.drain_reads(),
                    drain_writes: word.drain_writes(),
                }
            }
            CommandType::DEVICE_TLB => {
                let (word, address) = raw.device_tlb();
                Self::DeviceTlb(DeviceTlb {
                    source: Rid::from_pci(word.source()),
                    physical: Rid::from_pci(word.pf_high() << 4 | u16::from(word.pf_low())),
                    max_pending: word.max_pending(),
                    range: Range::sized(address.page(), address.large()),
                })
            }
            CommandType::INTERRUPT_CACHE => {
                let word = raw.interrupt_cache();
                Self::InterruptCache(if word.selective() {
                    InterruptScope::Index {
                        index: word.index(),
                        mask: word.index_mask(),
                    }
                } else {
                    InterruptScope::Global
                })
            }
            CommandType::WAIT => {
                let (word, addr) = raw.wait();
                Self::Wait(Wait {
                    status: word.status_write().then(|| Status {
                        addr: Gpa(addr & !3),
                        data: word.status(),
                    }),
                    interrupt: word.interrupt(),
                    fence: word.fence(),
                    drain_page_requests: word.drain_page_requests(),
                })
            }
            CommandType::PASID_IOTLB => {
                let (word, address) = raw.pasid_iotlb();
                let pages = match word.granularity() {
                    raw::PASID_ALL => None,
                    raw::PASID_PAGES => Some(Pages {
                        range: Range::masked(address.page(), address.mask()),
                        leaf_only: address.leaf_only(),
                    }),
                    _ => return None,
                };
                Self::PasidIotlb {
                    domain: word.domain(),
                    pasid: Pasid::truncate(word.pasid()),
                    pages,
                }
            }
            CommandType::PASID_CACHE => {
                let word = raw.pasid_cache();
                Self::PasidCache(match word.granularity() {
                    raw::CACHE_DOMAIN => PasidScope::Domain(word.domain()),
                    raw::CACHE_PASID => {
                        PasidScope::Pasid(word.domain(), Pasid::truncate(word.pasid()))
                    }
                    raw::CACHE_GLOBAL => PasidScope::Global,
                    _ => return None,
                })
            }
            CommandType::PASID_DEVICE_TLB => {
                let (word, address) = raw.pasid_device_tlb();
                Self::PasidDeviceTlb {
                    tlb: DeviceTlb {
                        source: Rid::from_pci(word.source()),
                        physical: Rid::from_pci(word.pf_high() << 4 | u16::from(word.pf_low())),
                        max_pending: word.max_pending(),
                        range: Range::sized(address.page(), address.large()),
                    },
                    pasid: Pasid::truncate(word.pasid()),
                    global: address.global(),
                }
            }
            CommandType::GROUP_RESPONSE => {
                let (word, tail) = raw.group_response();
                Self::GroupResponse(GroupResponse {
                    requester: Rid::from_pci(word.requester()),
                    pasid: word.pasid_present().then(|| Pasid::truncate(word.pasid())),
                    group: GroupIndex(u32::from(tail.group())),
                    code: word.code(),
                })
            }
            CommandType::STREAM_RESPONSE => {
                let (word, tail) = raw.stream_response();
                Self::StreamResponse {
                    response: GroupResponse {
                        requester: Rid::from_pci(
                            u16::from(word.bus()) << 8 | u16::from(tail.devfn()),
                        ),
                        pasid: Some(Pasid::truncate(word.pasid())),
                        group: GroupIndex(u32::from(word.group())),
                        code: tail.code(),
                    },
                    addr: Iova(tail.page() << 12),
                }
            }
            _ => return None,
        })
    }

    /// The descriptor that says this, 256 bits wide; its low half is the 128-bit form.
    ///
    /// Numbers wider than their field lose their upper bits.
    #[must_use]
    pub fn encode(&self) -> RawCommand {
        match *self {
            Self::ContextCache(scope) => raw::context_cache(scope),
            Self::Iotlb {
                scope,
                drain_reads,
                drain_writes,
            } => raw::iotlb(scope, drain_reads, drain_writes),
            Self::DeviceTlb(tlb) => raw::device_tlb(tlb),
            Self::InterruptCache(scope) => raw::interrupt_cache(scope),
            Self::Wait(wait) => raw::wait(wait),
            Self::PasidIotlb {
                domain,
                pasid,
                pages,
            } => raw::pasid_iotlb(domain, pasid, pages),
            Self::PasidCache(scope) => raw::pasid_cache(scope),
            Self::PasidDeviceTlb { tlb, pasid, global } => {
                raw::pasid_device_tlb(tlb, pasid, global)
            }
            Self::GroupResponse(response) => {
                raw::group_response(response, group_bits(response.group))
            }
            Self::StreamResponse { response, addr } => {
                raw::stream_response(response, group_bits(response.group), addr)
            }
            Self::Other(raw) => raw,
        }
    }
}

#[cfg(test)]
mod tests;
