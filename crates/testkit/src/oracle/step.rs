//! The steps of a script, and the line each is written as.

use std::fmt;

/// `fault_id`, `pt_id` or `dev_id` of an object that is not there is this, in the guest.
///
/// Names of objects are small numbers of the script: device 0–3, fault queue 0–3, tables 0–15, virtual
/// IOMMU 0–1.
/// What there is under a name is for the player to know; a step that names what is not there is
/// played all the same.
pub type Name = u8;

/// Page tables to attach an address space of a device to, or to make others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// The I/O address space: the kernel picks or makes tables without a fault queue.
    Ioas,
    /// Tables that a step of the script made.
    Made(Name),
    /// A virtual IOMMU: others are made from it, and nothing is attached to it.
    Viommu(Name),
}

/// An object of iommufd, to be destroyed by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// A mock device. Its PASIDs are detached first: the mock device leaves them behind.
    Device(Name),
    /// A fault queue.
    Fault(Name),
    /// Page tables.
    Table(Name),
    /// A virtual IOMMU.
    Viommu(Name),
}

/// A page request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Who asks.
    pub device: Name,
    /// 0 is none: the mock device cannot say PASID 0.
    pub pasid: u32,
    /// The group's index.
    pub group: u32,
    /// Access bits, 0–15.
    pub perm: u8,
    /// Where: of its own for each page, so that an answer tells whose it is.
    pub addr: u64,
    /// The answer needs the PASID.
    pub needs_pasid: bool,
    /// Last of its group.
    pub last: bool,
    /// The kernel has no memory for it.
    pub no_memory: bool,
}

/// How an allocation of a fault queue is called wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// With no descriptor left.
    Files,
    /// Flags that are not 0.
    Flags,
    /// A block that is too short.
    Short,
    /// A block that is longer than the kernel's, and not zero there.
    Long,
}

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens `/dev/iommu` and makes its one I/O address space.
    Open,
    /// Makes a mock device, attached to the I/O address space; whether it has PASIDs.
    Device(Name, bool),
    /// Makes a fault queue.
    Fault(Name),
    /// Tries to.
    FaultWrong(Wrong),
    /// Makes page tables: name, device, what from, flags ([`NEST_PARENT`], [`PASID`]), fault queue.
    Hwpt(Name, Name, Table, u32, Option<Name>),
    /// Makes a virtual IOMMU: name, device, the parent tables of its nested ones.
    Viommu(Name, Name, Name),
    /// Gives a device a number on a virtual IOMMU, which goes with the device.
    Vdevice(Name, Name, u32),
    /// Attaches an address space of a device: device, PASID (0: its own), tables.
    Attach(Name, u32, Table),
    /// Puts other tables in the place of those.
    Replace(Name, u32, Table),
    /// Detaches.
    Detach(Name, u32),
    /// A page request.
    Page(Page),
    /// Partial pages are discarded, of every device; asked for in the name of one.
    Discard(Name),
    /// Reads: fault queue, bytes, and how many of the bytes can be written to.
    Read(Name, u32, u32),
    /// Reads at a position that is not 0: fault queue, bytes.
    ReadAt(Name, u32),
    /// Writes: fault queue, bytes, how many of them can be read, and the answers (cookie and code)
    /// that they hold.
    Write(Name, u32, u32, Vec<(u32, u32)>),
    /// Writes at a position that is not 0: fault queue, bytes.
    WriteAt(Name, u32),
    /// poll(2).
    Poll(Name),
    /// Whether an edge-triggered epoll woke up since it was last asked.
    Edge(Name),
    /// Closes the descriptor of a fault queue.
    Close(Name),
    /// Destroys an object.
    Destroy(Object),
    /// Detaches every PASID and closes `/dev/iommu`. What it made lives as long as a descriptor of a
    /// fault queue.
    Shut,
}

/// `IOMMU_HWPT_ALLOC_NEST_PARENT`.
pub const NEST_PARENT: u32 = 1;

/// `IOMMU_HWPT_ALLOC_PASID`.
pub const PASID: u32 = 8;

/// Every kind of step, as [`Step::kind`] names it.
pub const KINDS: [&str; 24] = [
    "open",
    "device",
    "fault",
    "fault-wrong",
    "hwpt",
    "viommu",
    "vdevice",
    "attach",
    "replace",
    "detach",
    "page",
    "last",
    "page-nomem",
    "last-nomem",
    "discard",
    "read",
    "read-at",
    "write",
    "write-at",
    "poll",
    "edge",
    "close",
    "destroy",
    "shut",
];

impl Step {
    /// The first word of its line.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Device(..) => "device",
            Self::Fault(_) => "fault",
            Self::FaultWrong(_) => "fault-wrong",
            Self::Hwpt(..) => "hwpt",
            Self::Viommu(..) => "viommu",
            Self::Vdevice(..) => "vdevice",
            Self::Attach(..) => "attach",
            Self::Replace(..) => "replace",
            Self::Detach(..) => "detach",
            Self::Page(page) => match (page.last, page.no_memory) {
                (false, false) => "page",
                (true, false) => "last",
                (false, true) => "page-nomem",
                (true, true) => "last-nomem",
            },
            Self::Discard(_) => "discard",
            Self::Read(..) => "read",
            Self::ReadAt(..) => "read-at",
            Self::Write(..) => "write",
            Self::WriteAt(..) => "write-at",
            Self::Poll(_) => "poll",
            Self::Edge(_) => "edge",
            Self::Close(_) => "close",
            Self::Destroy(_) => "destroy",
            Self::Shut => "shut",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ioas => f.write_str("ioas"),
            Self::Made(name) => write!(f, "h{name}"),
            Self::Viommu(name) => write!(f, "v{name}"),
        }
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(name) => write!(f, "d{name}"),
            Self::Fault(name) => write!(f, "f{name}"),
            Self::Table(name) => write!(f, "h{name}"),
            Self::Viommu(name) => write!(f, "v{name}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind())?;
        match self {
            Self::Open | Self::Shut => Ok(()),
            Self::Device(name, pasids) => write!(f, " d{name} {}", u8::from(*pasids)),
            Self::Fault(name) | Self::Poll(name) | Self::Edge(name) | Self::Close(name) => {
                write!(f, " f{name}")
            }
            Self::FaultWrong(wrong) => f.write_str(match wrong {
                Wrong::Files => " files",
                Wrong::Flags => " flags",
                Wrong::Short => " short",
                Wrong::Long => " long",
            }),
            Self::Hwpt(name, device, base, flags, fault) => {
                write!(f, " h{name} d{device} {base} {flags}")?;
                match fault {
                    Some(fault) => write!(f, " f{fault}"),
                    None => f.write_str(" -"),
                }
            }
            Self::Viommu(name, device, parent) => write!(f, " v{name} d{device} h{parent}"),
            Self::Vdevice(name, device, number) => write!(f, " v{name} d{device} {number}"),
            Self::Attach(device, pasid, table) | Self::Replace(device, pasid, table) => {
                write!(f, " d{device} {pasid} {table}")
            }
            Self::Detach(device, pasid) => write!(f, " d{device} {pasid}"),
            Self::Page(page) => write!(
                f,
                " d{} {} {} {} {:#x} {}",
                page.device,
                page.pasid,
                page.group,
                page.perm,
                page.addr,
                u8::from(page.needs_pasid)
            ),
            Self::Discard(device) => write!(f, " d{device}"),
            Self::Read(fault, bytes, good) => write!(f, " f{fault} {bytes} {good}"),
            Self::ReadAt(fault, bytes) | Self::WriteAt(fault, bytes) => {
                write!(f, " f{fault} {bytes}")
            }
            Self::Write(fault, bytes, good, answers) => {
                write!(f, " f{fault} {bytes} {good}")?;
                for (cookie, code) in answers {
                    write!(f, " {cookie}:{code}")?;
                }
                Ok(())
            }
            Self::Destroy(object) => write!(f, " {object}"),
        }
    }
}
