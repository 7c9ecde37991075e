//! Event log entries.
//!
//! Source: AMD 48882, "Event Logging", one section an event. Linux takes them apart in
//! `drivers/iommu/amd/iommu.c` (`iommu_print_event`), VirtualBox builds them (`EVT_*_T`).
//! EVENT_COUNTER_ZERO and the events of hardware-assisted guest IOMMUs and of SEV-SNP (0xa–0xe) are
//! carried and not interpreted.

mod raw;

use iopf::{Access, Dma, DmaKind, Gpa, GroupIndex, Iova, Pasid, Reason, Rid, Unrecoverable};
pub use raw::{EventCode, Flags, HardwareError, InvalidRequest, RawEvent};

/// What kind of request an event is about: the I, TR and RW flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// A memory read.
    Read,
    /// A memory write, or an atomic operation.
    Write,
    /// A translation request.
    Translation,
    /// An interrupt.
    Interrupt,
}

impl Request {
    /// Of a transaction. What reads and writes at once is a write.
    #[must_use]
    pub fn of(dma: &Dma) -> Self {
        match dma.kind {
            DmaKind::Translation { .. } => Self::Translation,
            _ if dma.access.contains(Access::WRITE) => Self::Write,
            _ => Self::Read,
        }
    }

    const fn decode(flags: Flags) -> Self {
        if flags.interrupt() {
            Self::Interrupt
        } else if flags.translation() {
            Self::Translation
        } else if flags.write() {
            Self::Write
        } else {
            Self::Read
        }
    }

    const fn flags(self) -> Flags {
        let flags = Flags::new();
        match self {
            Self::Read => flags,
            Self::Write => flags.with_write(true),
            Self::Translation => flags.with_translation(true),
            Self::Interrupt => flags.with_interrupt(true),
        }
    }

    const fn access(self) -> Access {
        match self {
            Self::Read | Self::Translation => Access::READ,
            Self::Write => Access::WRITE,
            Self::Interrupt => Access::empty(),
        }
    }
}

/// Whose tables an event is about: the GN flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// GN=0: the host tables of a domain.
    Domain(u16),
    /// GN=1: an address space of the device.
    Pasid(Pasid),
}

impl Space {
    /// The PASID, if one is named.
    #[must_use]
    pub const fn pasid(self) -> Option<Pasid> {
        match self {
            Self::Domain(_) => None,
            Self::Pasid(pasid) => Some(pasid),
        }
    }

    fn decode(raw: &RawEvent) -> Self {
        if raw.flags().gn() {
            Self::Pasid(Pasid::truncate(raw.pasid()))
        } else {
            Self::Domain(raw.domain())
        }
    }

    fn encode(self, raw: RawEvent) -> RawEvent {
        match self {
            Self::Domain(domain) => raw.with_pasid(u32::from(domain)),
            Self::Pasid(pasid) => raw
                .with_pasid(pasid.get())
                .with_flags(raw.flags().with_gn(true)),
        }
    }
}

/// Why a page fault came up: the PR, PE and RZ flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageCause {
    /// PR=0: an entry on the way is not present, or the address has no place in the tables.
    NotPresent,
    /// PE=1: the page is there, and forbids the access.
    Permission,
    /// RZ=1: a reserved bit is set in an entry that is present.
    Reserved,
    /// Neither: the level of an entry that is present makes no sense.
    Level,
}

impl PageCause {
    const fn decode(flags: Flags) -> Self {
        if !flags.present() {
            Self::NotPresent
        } else if flags.permission() {
            Self::Permission
        } else if flags.reserved() {
            Self::Reserved
        } else {
            Self::Level
        }
    }

    const fn flags(self, flags: Flags) -> Flags {
        let flags = flags.with_present(!matches!(self, Self::NotPresent));
        match self {
            Self::NotPresent | Self::Level => flags,
            Self::Permission => flags.with_permission(true),
            Self::Reserved => flags.with_reserved(true),
        }
    }
}

/// IO_PAGE_FAULT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoPageFault {
    /// The requester.
    pub source: Rid,
    /// Whose tables.
    pub space: Space,
    /// What it was.
    pub request: Request,
    /// Why.
    pub cause: PageCause,
    /// NX: execute permission was asked for. UNCONFIRMED: VirtualBox and FreeBSD have the bit and
    /// never set it.
    pub execute: bool,
    /// US: with user privilege. UNCONFIRMED in the same way.
    pub user: bool,
    /// Where.
    pub addr: Iova,
}

/// ILLEGAL_DEV_TABLE_ENTRY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IllegalDevTableEntry {
    /// The requester.
    pub source: Rid,
    /// GN: in this address space.
    pub pasid: Option<Pasid>,
    /// What it was.
    pub request: Request,
    /// RZ: a reserved bit is set; else a field has a value that is reserved.
    pub reserved: bool,
    /// Where. Bits 1:0 are not recorded.
    pub addr: Iova,
}

/// DEV_TAB_HARDWARE_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DevTabHardwareError {
    /// The requester.
    pub source: Rid,
    /// What it was.
    pub request: Request,
    /// How the read failed.
    pub error: HardwareError,
    /// The entry.
    pub addr: Gpa,
}

/// PAGE_TAB_HARDWARE_ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageTabHardwareError {
    /// The requester.
    pub source: Rid,
    /// Whose tables.
    pub space: Space,
    /// What it was.
    pub request: Request,
    /// How the read failed.
    pub error: HardwareError,
    /// The entry.
    pub addr: Gpa,
}

/// INVALID_DEVICE_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvalidDeviceRequest {
    /// The requester.
    pub source: Rid,
    /// GN: in this address space.
    pub pasid: Option<Pasid>,
    /// TR: it was a translation request.
    pub translation: bool,
    /// What was wrong with it.
    pub kind: InvalidRequest,
    /// Where.
    pub addr: Iova,
}

/// INVALID_PPR_REQUEST: laid out as an entry of the PPR log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InvalidPprRequest {
    /// The requester.
    pub source: Rid,
    /// GN: in this address space.
    pub pasid: Option<Pasid>,
    /// The group.
    pub group: GroupIndex,
    /// It was the last of its group.
    pub last: bool,
    /// RX: software is not to answer it.
    pub answered: bool,
    /// Where. Bits 11:0 are not recorded.
    pub addr: Iova,
}

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A device table entry is malformed.
    IllegalDevTableEntry(IllegalDevTableEntry),
    /// A request was not translated.
    IoPageFault(IoPageFault),
    /// A device table entry could not be read.
    DevTabHardwareError(DevTabHardwareError),
    /// A page table entry, or one of a GCR3 table, could not be read.
    PageTabHardwareError(PageTabHardwareError),
    /// A command is malformed. The command buffer stops.
    IllegalCommandError {
        /// Where the command lies.
        addr: Gpa,
    },
    /// A command could not be read. The command buffer stops.
    CommandHardwareError {
        /// How the read failed.
        error: HardwareError,
        /// Where the command lies.
        addr: Gpa,
    },
    /// A device did not complete an INVALIDATE_IOTLB_PAGES.
    IotlbInvTimeout {
        /// The device.
        source: Rid,
        /// Where the command lies.
        addr: Gpa,
    },
    /// A request that is not allowed to the device.
    InvalidDeviceRequest(InvalidDeviceRequest),
    /// A page request that is not allowed to the device, or is malformed.
    InvalidPprRequest(InvalidPprRequest),
    /// An entry we carry but do not interpret.
    Other(RawEvent),
}

impl Event {
    /// Reads an entry.
    #[must_use]
    pub fn decode(raw: &RawEvent) -> Self {
        let (source, flags, addr) = (raw.source(), raw.flags(), raw.address());
        match raw.code() {
            EventCode::ILLEGAL_DEV_TABLE_ENTRY => {
                Self::IllegalDevTableEntry(IllegalDevTableEntry {
                    source,
                    pasid: Space::decode(raw).pasid(),
                    request: Request::decode(flags),
                    reserved: flags.reserved(),
                    addr: Iova(addr & !3),
                })
            }
            EventCode::IO_PAGE_FAULT => Self::IoPageFault(IoPageFault {
                source,
                space: Space::decode(raw),
                request: Request::decode(flags),
                cause: PageCause::decode(flags),
                execute: flags.execute(),
                user: flags.user(),
                addr: Iova(addr),
            }),
            EventCode::DEV_TAB_HARDWARE_ERROR => Self::DevTabHardwareError(DevTabHardwareError {
                source,
                request: Request::decode(flags),
                error: flags.hardware_error(),
                addr: Gpa(addr),
            }),
            EventCode::PAGE_TAB_HARDWARE_ERROR => {
                Self::PageTabHardwareError(PageTabHardwareError {
                    source,
                    space: Space::decode(raw),
                    request: Request::decode(flags),
                    error: flags.hardware_error(),
                    addr: Gpa(addr),
                })
            }
            EventCode::ILLEGAL_COMMAND_ERROR => Self::IllegalCommandError { addr: Gpa(addr) },
            EventCode::COMMAND_HARDWARE_ERROR => Self::CommandHardwareError {
                error: flags.hardware_error(),
                addr: Gpa(addr),
            },
            EventCode::IOTLB_INV_TIMEOUT => Self::IotlbInvTimeout {
                source,
                addr: Gpa(addr & !0xf),
            },
            EventCode::INVALID_DEVICE_REQUEST => Self::InvalidDeviceRequest(InvalidDeviceRequest {
                source,
                pasid: Space::decode(raw).pasid(),
                translation: flags.translation(),
                kind: flags.invalid_request(),
                addr: Iova(addr),
            }),
            EventCode::INVALID_PPR_REQUEST => raw::invalid_ppr(raw),
            _ => Self::Other(*raw),
        }
    }

    /// The entry that says this. What an entry does not record is dropped.
    #[must_use]
    pub fn encode(&self) -> RawEvent {
        let begin =
            |code, source: Rid, flags| RawEvent::new(code).with_source(source).with_flags(flags);
        match *self {
            Self::IllegalDevTableEntry(event) => {
                let flags = event.request.flags().with_reserved(event.reserved);
                let raw = begin(EventCode::ILLEGAL_DEV_TABLE_ENTRY, event.source, flags)
                    .with_address(event.addr.0 & !3);
                event
                    .pasid
                    .map_or(raw, |pasid| Space::Pasid(pasid).encode(raw))
            }
            Self::IoPageFault(event) => {
                let flags = event
                    .cause
                    .flags(event.request.flags())
                    .with_execute(event.execute)
                    .with_user(event.user);
                let raw =
                    begin(EventCode::IO_PAGE_FAULT, event.source, flags).with_address(event.addr.0);
                event.space.encode(raw)
            }
            Self::DevTabHardwareError(event) => {
                let flags = event.request.flags().with_hardware_error(event.error);
                begin(EventCode::DEV_TAB_HARDWARE_ERROR, event.source, flags)
                    .with_address(event.addr.0)
            }
            Self::PageTabHardwareError(event) => {
                let flags = event.request.flags().with_hardware_error(event.error);
                let raw = begin(EventCode::PAGE_TAB_HARDWARE_ERROR, event.source, flags)
                    .with_address(event.addr.0);
                event.space.encode(raw)
            }
            Self::IllegalCommandError { addr } => {
                RawEvent::new(EventCode::ILLEGAL_COMMAND_ERROR).with_address(addr.0)
            }
            Self::CommandHardwareError { error, addr } => {
                RawEvent::new(EventCode::COMMAND_HARDWARE_ERROR)
                    .with_flags(Flags::new().with_hardware_error(error))
                    .with_address(addr.0)
            }
            Self::IotlbInvTimeout { source, addr } => {
                begin(EventCode::IOTLB_INV_TIMEOUT, source, Flags::new())
                    .with_address(addr.0 & !0xf)
            }
            Self::InvalidDeviceRequest(event) => {
                let flags = Flags::new()
                    .with_translation(event.translation)
                    .with_invalid_request(event.kind);
                let raw = begin(EventCode::INVALID_DEVICE_REQUEST, event.source, flags)
                    .with_address(event.addr.0);
                event
                    .pasid
                    .map_or(raw, |pasid| Space::Pasid(pasid).encode(raw))
            }
            Self::InvalidPprRequest(event) => raw::invalid_ppr_raw(&event),
            Self::Other(raw) => raw,
        }
    }
}

impl From<Event> for Unrecoverable {
    /// The architecture-neutral form; the reason is the event code.
    fn from(event: Event) -> Self {
        let raw = event.encode();
        let plain = Self {
            reason: Reason(u32::from(raw.code().0)),
            pasid: None,
            access: Access::empty(),
            addr: None,
            fetch_addr: None,
        };
        match event {
            Event::IllegalDevTableEntry(event) => Self {
                pasid: event.pasid,
                access: event.request.access(),
                addr: Some(event.addr),
                ..plain
            },
            Event::IoPageFault(event) => {
                let mut access = event.request.access();
                access.set(Access::EXEC, event.execute);
                access.set(Access::PRIV, event.space.pasid().is_some() && !event.user);
                Self {
                    pasid: event.space.pasid(),
                    access,
                    addr: Some(event.addr),
                    ..plain
                }
            }
            Event::DevTabHardwareError(event) => Self {
                access: event.request.access(),
                fetch_addr: Some(event.addr),
                ..plain
            },
            Event::PageTabHardwareError(event) => Self {
                pasid: event.space.pasid(),
                access: event.request.access(),
                fetch_addr: Some(event.addr),
                ..plain
            },
            Event::IllegalCommandError { addr }
            | Event::CommandHardwareError { addr, .. }
            | Event::IotlbInvTimeout { addr, .. } => Self {
                fetch_addr: Some(addr),
                ..plain
            },
            Event::InvalidDeviceRequest(event) => Self {
                pasid: event.pasid,
                addr: Some(event.addr),
                ..plain
            },
            Event::InvalidPprRequest(event) => Self {
                pasid: event.pasid,
                addr: Some(event.addr),
                ..plain
            },
            Event::Other(_) => plain,
        }
    }
}

#[cfg(test)]
mod tests;
