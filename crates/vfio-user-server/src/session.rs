//! What one connection may ask, and when: messages in, what to do out. No I/O, no device.

use crate::codec::{
    Capabilities, Command, DEFAULT_MAX_TRANSFER, Errno, Header, HeaderError, IrqAction, IrqData,
    IrqIndex, Kind, Limits, MapAccess, Refusal, Region, Reply, Request, decode_request,
};
use viommu_api::{BARS, CONFIG_SIZE, PciFunction};

/// Flag of a device that can be reset, and of one that is a PCI device.
const DEVICE_FLAGS: u32 = 1 | 2;
/// Flags of a region that can be read and written.
const REGION_FLAGS: u32 = 1 | 2;
/// Flag of an interrupt that is raised by eventfd.
const IRQ_EVENTFD: u32 = 1;
/// Flags of one that can be masked, and that masks itself when it is raised: a level.
const IRQ_LEVEL: u32 = 2 | 4;

/// What a function shows: sizes of its regions and numbers of its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    regions: [u64; Region::COUNT as usize],
    irqs: [u32; IrqIndex::COUNT as usize],
}

impl Shape {
    /// The shape of a function. There is no ROM, no VGA region and no request interrupt. An error
    /// interrupt may be set up and is never raised: QEMU warns its user of a device without one.
    #[must_use]
    pub fn of(function: &dyn PciFunction) -> Self {
        let mut regions = [0; Region::COUNT as usize];
        for bar in 0..BARS {
            regions[usize::from(bar)] = function.bar_size(bar);
        }
        regions[Region::Config.index() as usize] = CONFIG_SIZE.into();
        let vectors = function.interrupts();
        let irqs = [vectors.intx, vectors.msi, vectors.msix, 1, 0].map(u32::from);
        Self { regions, irqs }
    }

    /// Bytes of a region; 0 where there is none.
    #[must_use]
    pub const fn region(&self, region: Region) -> u64 {
        self.regions[region.index() as usize]
    }

    /// Vectors of a kind of interrupt.
    #[must_use]
    pub const fn vectors(&self, index: IrqIndex) -> u32 {
        self.irqs[index.index() as usize]
    }
}

/// What a message asks the server to do. Everything in it is checked, except what depends on
/// descriptors and on mapped memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Send this; there is nothing to do.
    Reply(Reply<'a>),
    /// Map memory, with a descriptor if one came.
    Map {
        /// What the device may do there.
        access: MapAccess,
        /// Where the range begins in the file.
        offset: u64,
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// Unmap one range.
    Unmap {
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// Unmap all of this client's ranges.
    UnmapAll,
    /// Change interrupts: the vectors are within their kind.
    SetIrqs {
        /// Which kind.
        index: IrqIndex,
        /// First vector.
        start: u32,
        /// Number of vectors; 0: take all away.
        count: u32,
        /// What to do.
        action: IrqAction,
        /// To which.
        data: IrqData<'a>,
    },
    /// Read a region, within its size.
    Read {
        /// Which.
        region: Region,
        /// First byte.
        offset: u64,
        /// Bytes.
        count: u32,
    },
    /// Write a region, within its size.
    Write {
        /// Which.
        region: Region,
        /// First byte.
        offset: u64,
        /// What.
        data: &'a [u8],
    },
    /// Reset the function.
    Reset,
    /// A command of ours is answered.
    Answer {
        /// Its number.
        id: u16,
        /// What it was.
        command: Command,
        /// The payload, or the error.
        result: Result<&'a [u8], Errno>,
    },
    /// Answer with the refusal's error number.
    Refuse(Refusal),
}

/// Why a connection can't go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The stream lost its step.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Version negotiation failed.
    #[error(transparent)]
    Negotiation(Refusal),
    /// A reply to something never asked.
    #[error("a reply to {command} number {id} comes unasked")]
    Unasked {
        /// The number.
        id: u16,
        /// What is answered.
        command: Command,
    },
    /// More descriptors in a message than were agreed on.
    #[error("a message comes with more than {limit} descriptors")]
    Descriptors {
        /// The limit.
        limit: u16,
    },
    /// The peer left in the middle of a message.
    #[error("the client left {have} bytes into a message")]
    Truncated {
        /// Bytes of the message that came.
        have: usize,
    },
}

/// The state of one connection.
///
/// Promised: nothing but VERSION is acted on before VERSION succeeded; what an [`Action`] says is
/// within the function's [`Shape`] and the [`Limits`].
#[derive(Debug)]
pub struct Session {
    limits: Limits,
    shape: Shape,
    peer: Option<Capabilities>,
    /// The JSON of our version reply.
    version: Vec<u8>,
}

impl Session {
    /// A connection that has said nothing.
    #[must_use]
    pub const fn new(shape: Shape, limits: Limits) -> Self {
        Self {
            limits,
            shape,
            peer: None,
            version: Vec::new(),
        }
    }

    /// What the client said of itself, once the version is agreed on.
    #[must_use]
    pub const fn peer(&self) -> Option<&Capabilities> {
        self.peer.as_ref()
    }

    /// Bytes of data that the client takes in one message, once the version is agreed on. Never
    /// more than our own limit.
    #[must_use]
    pub fn peer_transfer(&self) -> Option<u32> {
        let theirs = self
            .peer?
            .max_data_xfer_size
            .unwrap_or(DEFAULT_MAX_TRANSFER);
        let ours = self.limits.max_transfer;
        Some(u32::try_from(theirs).map_or(ours, |theirs| theirs.min(ours)))
    }

    /// Takes a message that came with `descriptors` descriptors.
    pub fn handle<'a>(
        &'a mut self,
        header: &Header,
        payload: &'a [u8],
        descriptors: usize,
    ) -> Action<'a> {
        let command = header.command;
        if let Kind::Reply { error } = header.kind {
            let result = error.map_or(Ok(payload), Err);
            return Action::Answer {
                id: header.id,
                command,
                result,
            };
        }
        if self.peer.is_none() && command != Command::VERSION {
            return Action::Refuse(Refusal::VersionFirst(command));
        }
        let request = match decode_request(command, payload, &self.limits) {
            Ok(request) => request,
            Err(refusal) => return Action::Refuse(refusal),
        };
        if let Err(refusal) = check_descriptors(&request, descriptors) {
            return Action::Refuse(refusal);
        }
        self.act(request).unwrap_or_else(Action::Refuse)
    }

    fn act<'a>(&'a mut self, request: Request<'a>) -> Result<Action<'a>, Refusal> {
        Ok(match request {
            Request::Version { major, minor, data } => {
                Action::Reply(self.negotiate(major, minor, data)?)
            }
            Request::DmaMap {
                access,
                offset,
                address,
                size,
            } => Action::Map {
                access,
                offset,
                address,
                size,
            },
            Request::DmaUnmap { address, size } => Action::Unmap { address, size },
            Request::DmaUnmapAll => Action::UnmapAll,
            Request::GetInfo => Action::Reply(Reply::Info {
                flags: DEVICE_FLAGS,
                regions: Region::COUNT,
                irqs: IrqIndex::COUNT,
            }),
            Request::GetRegionInfo { region } => {
                let size = self.shape.region(region);
                let flags = if size > 0 { REGION_FLAGS } else { 0 };
                Action::Reply(Reply::Region {
                    region,
                    flags,
                    size,
                })
            }
            Request::GetIrqInfo { index } => {
                let masks = index == IrqIndex::Intx;
                Action::Reply(Reply::Irq {
                    index,
                    flags: IRQ_EVENTFD | if masks { IRQ_LEVEL } else { 0 },
                    count: self.shape.vectors(index),
                })
            }
            Request::SetIrqs {
                index,
                start,
                count,
                action,
                data,
            } => {
                self.check_vectors(index, start, count, action, data)?;
                Action::SetIrqs {
                    index,
                    start,
                    count,
                    action,
                    data,
                }
            }
            Request::RegionRead {
                region,
                offset,
                count,
            } => {
                self.check_region(region, offset, count)?;
                Action::Read {
                    region,
                    offset,
                    count,
                }
            }
            Request::RegionWrite {
                region,
                offset,
                data,
            } => {
                // Data is within the limit, which is 32 bits wide.
                let count = u32::try_from(data.len()).unwrap_or(u32::MAX);
                self.check_region(region, offset, count)?;
                Action::Write {
                    region,
                    offset,
                    data,
                }
            }
            Request::Reset => Action::Reset,
            // These go the other way.
            Request::DmaRead { .. } | Request::DmaWrite { .. } => {
                return Err(Refusal::Unknown(request.command()));
            }
        })
    }

    fn negotiate(&mut self, major: u16, minor: u16, data: &[u8]) -> Result<Reply<'_>, Refusal> {
        if self.peer.is_some() {
            return Err(Refusal::VersionAgain);
        }
        if major != 0 {
            return Err(Refusal::Version { major, minor });
        }
        let theirs = Capabilities::decode(data, &self.limits)?;
        self.version = theirs.answer(&self.limits).encode();
        self.peer = Some(theirs);
        Ok(Reply::Version {
            major: 0,
            minor: 0,
            data: &self.version,
        })
    }

    fn check_region(&self, region: Region, offset: u64, count: u32) -> Result<(), Refusal> {
        let size = self.shape.region(region);
        match offset.checked_add(count.into()) {
            Some(end) if end <= size => Ok(()),
            _ => Err(Refusal::OutOfRegion {
                region,
                offset,
                count,
                size,
            }),
        }
    }

    fn check_vectors(
        &self,
        index: IrqIndex,
        start: u32,
        count: u32,
        action: IrqAction,
        data: IrqData<'_>,
    ) -> Result<(), Refusal> {
        let have = self.shape.vectors(index);
        let wrong = Refusal::Vectors {
            index,
            start,
            count,
            have,
        };
        let Some(end) = start.checked_add(count) else {
            return Err(wrong);
        };
        if start >= have || end > have {
            return Err(wrong);
        }
        // A count of 0 is a command of its own.
        let disables = action == IrqAction::Trigger && data == IrqData::None && start == 0;
        if count == 0 && !disables {
            return Err(wrong);
        }
        let masks = action != IrqAction::Trigger;
        if masks && (index != IrqIndex::Intx || data == IrqData::Eventfd) {
            return Err(Refusal::NotMaskable(index));
        }
        Ok(())
    }
}

fn check_descriptors(request: &Request<'_>, found: usize) -> Result<(), Refusal> {
    let takes = match request {
        Request::DmaMap { .. } => 1,
        Request::SetIrqs {
            data: IrqData::Eventfd,
            count,
            ..
        } => *count as usize,
        _ => 0,
    };
    if found == 0 || found == takes {
        return Ok(());
    }
    Err(Refusal::Descriptors {
        command: request.command(),
        found,
        takes,
    })
}

#[cfg(test)]
mod tests;
