//! Commands: what software puts into the command buffer.
//!
//! Source: AMD 48882, "Commands", one section a command. Linux builds the same ones in
//! `drivers/iommu/amd/iommu.c` (`build_*`); VirtualBox `CMD_*_T` and FreeBSD `amdiommu_cmd_*` have the
//! same fields. INSERT_GUEST_EVENT (9) and RESET_VMMIO (0xa) belong to hardware-assisted guest
//! IOMMUs; they are carried and not interpreted.

mod raw;

pub use crate::pcie::ats::Range;
use crate::pcie::pri::ResponseCode;
use iopf::{Gpa, GroupIndex, Iova, Pasid, Rid};
pub use raw::{CommandType, RawCommand};

/// COMPLETION_WAIT: what happens once everything before it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompletionWait {
    /// S: writes this quadword.
    pub store: Option<Store>,
    /// I: sets ComWaitInt, and raises an interrupt where the control register lets it.
    pub interrupt: bool,
    /// F: commands after it start only when those before it are done.
    pub flush: bool,
}

/// The store of a [`CompletionWait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Where; a multiple of 8 below 2^52.
    pub addr: Gpa,
    /// What.
    pub data: u64,
}

/// INVALIDATE_IOMMU_PAGES.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IommuPages {
    /// The domain.
    pub domain: u16,
    /// GN: of this address space of the domain; `None`: of its host translations.
    pub pasid: Option<Pasid>,
    /// The pages.
    pub range: Range,
    /// PDE: what is cached of directory entries goes too.
    pub directory: bool,
}

/// INVALIDATE_IOTLB_PAGES: a device's own TLB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IotlbPages {
    /// The device.
    pub device: Rid,
    /// The queue that the device's invalidations share; Linux names the device itself.
    pub queue: u16,
    /// How many invalidations of a queue may be under way.
    pub max_pending: u8,
    /// GN: of this address space; `None`: of requests without a PASID.
    pub pasid: Option<Pasid>,
    /// Type, 0–3: which of the device's translations; 0 in all software seen.
    pub kind: u8,
    /// The pages.
    pub range: Range,
}

/// PREFETCH_IOMMU_PAGES: a hint. The unit may do nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefetch {
    /// The device whose translations are wanted.
    pub device: Rid,
    /// How many.
    pub count: u8,
    /// GN: in this address space.
    pub pasid: Option<Pasid>,
    /// Inval: what is cached of them goes first.
    pub invalidate: bool,
    /// S: the distance between them is a page larger than 4 KiB.
    pub large: bool,
    /// The first.
    pub addr: Iova,
}

/// COMPLETE_PPR_REQUEST: the answer to a page request group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PprCompletion {
    /// Who asked.
    pub device: Rid,
    /// GN: in this address space.
    pub pasid: Option<Pasid>,
    /// The group, 0–511: bits 8:0 of the completion tag.
    pub group: GroupIndex,
    /// The answer: bits 15:12 of the completion tag.
    pub code: ResponseCode,
}

/// What a command says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Wait, then say so.
    CompletionWait(CompletionWait),
    /// Forget the device table entry of a device.
    InvalidateDevtabEntry(Rid),
    /// Forget translations.
    InvalidateIommuPages(IommuPages),
    /// Have a device forget translations.
    InvalidateIotlbPages(IotlbPages),
    /// Forget the interrupt remapping table of a device.
    InvalidateInterruptTable(Rid),
    /// Translations that will be wanted soon.
    PrefetchIommuPages(Prefetch),
    /// Answer a page request group.
    CompletePprRequest(PprCompletion),
    /// Forget everything.
    InvalidateIommuAll,
    /// A command we carry but do not interpret.
    Other(RawCommand),
}

impl Command {
    /// Reads a command. Reserved bits are not looked at; see [`RawCommand::has_reserved_bits`].
    #[must_use]
    pub fn decode(raw: &RawCommand) -> Self {
        match raw.command_type() {
            CommandType::COMPLETION_WAIT => {
                let (word, data) = raw.completion_wait();
                Self::CompletionWait(CompletionWait {
                    store: word.store().then(|| Store {
                        addr: Gpa(word.address() << 3),
                        data,
                    }),
                    interrupt: word.interrupt(),
                    flush: word.flush(),
                })
            }
            CommandType::INVALIDATE_DEVTAB_ENTRY => Self::InvalidateDevtabEntry(raw.device()),
            CommandType::INVALIDATE_IOMMU_PAGES => {
                let (word, address) = raw.iommu_pages();
                Self::InvalidateIommuPages(IommuPages {
                    domain: word.domain(),
                    pasid: address.gn().then(|| Pasid::truncate(word.pasid())),
                    range: Range::sized(address.page(), address.large()),
                    directory: address.directory(),
                })
            }
            CommandType::INVALIDATE_IOTLB_PAGES => {
                let (word, address) = raw.iotlb_pages();
                Self::InvalidateIotlbPages(IotlbPages {
                    device: Rid::from_pci(word.device()),
                    queue: word.queue(),
                    max_pending: word.max_pending(),
                    pasid: address.gn().then(|| Pasid::truncate(word.pasid())),
                    kind: address.kind(),
                    range: Range::sized(address.page(), address.large()),
                })
            }
            CommandType::INVALIDATE_INTERRUPT_TABLE => Self::InvalidateInterruptTable(raw.device()),
            CommandType::PREFETCH_IOMMU_PAGES => {
                let (word, address) = raw.prefetch();
                Self::PrefetchIommuPages(Prefetch {
                    device: Rid::from_pci(word.device()),
                    count: word.count(),
                    pasid: address.gn().then(|| Pasid::truncate(word.pasid())),
                    invalidate: address.invalidate(),
                    large: address.large(),
                    addr: Iova(address.page() << 12),
                })
            }
            CommandType::COMPLETE_PPR_REQUEST => {
                let (word, tail) = raw.ppr_completion();
                Self::CompletePprRequest(PprCompletion {
                    device: Rid::from_pci(word.device()),
                    pasid: tail.gn().then(|| Pasid::truncate(word.pasid())),
                    group: GroupIndex(u32::from(tail.group())),
                    code: tail.code(),
                })
            }
            CommandType::INVALIDATE_IOMMU_ALL => Self::InvalidateIommuAll,
            _ => Self::Other(*raw),
        }
    }

    /// The command that says this. Numbers wider than their field lose their upper bits.
    #[must_use]
    pub fn encode(&self) -> RawCommand {
        match *self {
            Self::CompletionWait(wait) => raw::completion_wait(wait),
            Self::InvalidateDevtabEntry(device) => {
                RawCommand::of_device(CommandType::INVALIDATE_DEVTAB_ENTRY, device)
            }
            Self::InvalidateIommuPages(pages) => raw::iommu_pages(pages),
            Self::InvalidateIotlbPages(pages) => raw::iotlb_pages(pages),
            Self::InvalidateInterruptTable(device) => {
                RawCommand::of_device(CommandType::INVALIDATE_INTERRUPT_TABLE, device)
            }
            Self::PrefetchIommuPages(prefetch) => raw::prefetch(prefetch),
            Self::CompletePprRequest(completion) => raw::ppr_completion(completion),
            Self::InvalidateIommuAll => {
                RawCommand::of_device(CommandType::INVALIDATE_IOMMU_ALL, Rid(0))
            }
            Self::Other(raw) => raw,
        }
    }
}

#[cfg(test)]
mod tests;
