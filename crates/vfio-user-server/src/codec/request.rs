//! Commands, decoded and encoded.
//!
//! Spec: vfio-user, the section named after each command.

use super::header::{Command, HEADER_SIZE, Header};
use super::payload::{
    DeviceInfo, DmaAccess, DmaMap, DmaUnmap, IrqInfo, IrqSet, RawVersion, RegionAccess, RegionInfo,
};
use super::{IrqAction, IrqData, IrqIndex, Limits, MapAccess, Refusal, Region};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A command, as far as it can be judged without the device and the connection's past.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// VERSION.
    Version {
        /// Proposed major version.
        major: u16,
        /// Proposed minor version.
        minor: u16,
        /// JSON, its final NUL included; empty when there is none.
        data: &'a [u8],
    },
    /// DMA_MAP; the numbers are page-aligned and don't wrap.
    DmaMap {
        /// What the device may do there.
        access: MapAccess,
        /// Where the range begins in the file of the descriptor, in bytes.
        offset: u64,
        /// First address.
        address: u64,
        /// Bytes, not 0.
        size: u64,
    },
    /// DMA_UNMAP of one range.
    DmaUnmap {
        /// First address.
        address: u64,
        /// Bytes.
        size: u64,
    },
    /// DMA_UNMAP of everything (`VFIO_DMA_UNMAP_FLAG_ALL`, which QEMU uses).
    DmaUnmapAll,
    /// DEVICE_GET_INFO.
    GetInfo,
    /// DEVICE_GET_REGION_INFO.
    GetRegionInfo {
        /// Which.
        region: Region,
    },
    /// DEVICE_GET_IRQ_INFO.
    GetIrqInfo {
        /// Which.
        index: IrqIndex,
    },
    /// DEVICE_SET_IRQS.
    SetIrqs {
        /// Which kind.
        index: IrqIndex,
        /// First vector.
        start: u32,
        /// Number of vectors; 0 with [`IrqData::None`] means all.
        count: u32,
        /// What to do.
        action: IrqAction,
        /// To which of them.
        data: IrqData<'a>,
    },
    /// REGION_READ.
    RegionRead {
        /// Which.
        region: Region,
        /// First byte.
        offset: u64,
        /// Bytes, at most the limit.
        count: u32,
    },
    /// REGION_WRITE.
    RegionWrite {
        /// Which.
        region: Region,
        /// First byte.
        offset: u64,
        /// What is written, at most the limit.
        data: &'a [u8],
    },
    /// DMA_READ, sent by a server.
    DmaRead {
        /// First address.
        address: u64,
        /// Bytes, at most the limit.
        count: u32,
    },
    /// DMA_WRITE, sent by a server.
    DmaWrite {
        /// First address.
        address: u64,
        /// What is written, at most the limit.
        data: &'a [u8],
    },
    /// DEVICE_RESET.
    Reset,
}

/// The page that maps are made of.
pub(crate) const PAGE: u64 = 4096;
/// Flags of `<linux/vfio.h>` for DMA_UNMAP.
const UNMAP_ALL: u32 = 1 << 1;

/// Bytes of a fixed block, for `argsz` and message sizes.
#[expect(
    clippy::cast_possible_truncation,
    reason = "blocks have at most 32 bytes, as their layouts assert"
)]
pub(super) const fn size<T>() -> u32 {
    size_of::<T>() as u32
}

/// The fixed block that a payload begins with, and what follows it.
pub(super) fn fixed<T>(command: Command, payload: &[u8]) -> Result<(&T, &[u8]), Refusal>
where
    T: FromBytes + Immutable + KnownLayout + Unaligned,
{
    T::ref_from_prefix(payload).map_err(|_| Refusal::Length {
        command,
        len: payload.len(),
        need: size_of::<T>(),
    })
}

fn room(command: Command, argsz: u32, need: u32) -> Result<(), Refusal> {
    if argsz < need {
        return Err(Refusal::ArgSize {
            command,
            argsz,
            need,
        });
    }
    Ok(())
}

/// `data` is all of what follows and as long as `count` says; not more than the limit.
fn data<'a>(
    command: Command,
    data: &'a [u8],
    count: u64,
    limits: &Limits,
) -> Result<&'a [u8], Refusal> {
    transfer(command, count, limits)?;
    if data.len() as u64 != count {
        // The fixed part is 16 bytes in all four data messages.
        let need = usize::try_from(count).unwrap_or(usize::MAX);
        return Err(Refusal::Length {
            command,
            len: data.len() + 16,
            need: need.saturating_add(16),
        });
    }
    Ok(data)
}

fn transfer(command: Command, count: u64, limits: &Limits) -> Result<u32, Refusal> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count <= limits.max_transfer)
        .ok_or(Refusal::Count {
            command,
            count,
            limit: limits.max_transfer,
        })
}

/// Decodes what follows the header of a command. Numbers that need the device (region sizes,
/// vectors) or the past (mapped ranges) are not judged here.
///
/// # Errors
/// What is wrong with the command; the connection can go on.
pub fn decode_request<'a>(
    command: Command,
    payload: &'a [u8],
    limits: &Limits,
) -> Result<Request<'a>, Refusal> {
    Ok(match command {
        Command::VERSION => {
            let (version, data) = fixed::<RawVersion>(command, payload)?;
            Request::Version {
                major: version.major.get(),
                minor: version.minor.get(),
                data,
            }
        }
        Command::DMA_MAP => dma_map(payload)?,
        Command::DMA_UNMAP => dma_unmap(payload)?,
        Command::GET_INFO => {
            let (info, _) = fixed::<DeviceInfo>(command, payload)?;
            room(command, info.argsz.get(), size::<DeviceInfo>())?;
            Request::GetInfo
        }
        Command::GET_REGION_INFO => {
            let (info, _) = fixed::<RegionInfo>(command, payload)?;
            room(command, info.argsz.get(), size::<RegionInfo>())?;
            let index = info.index.get();
            let region = Region::from_index(index).ok_or(Refusal::NoRegion(index))?;
            Request::GetRegionInfo { region }
        }
        Command::GET_IRQ_INFO => {
            let (info, _) = fixed::<IrqInfo>(command, payload)?;
            room(command, info.argsz.get(), size::<IrqInfo>())?;
            let index = info.index.get();
            let index = IrqIndex::from_index(index).ok_or(Refusal::NoIrqIndex(index))?;
            Request::GetIrqInfo { index }
        }
        Command::SET_IRQS => set_irqs(payload)?,
        Command::REGION_READ | Command::REGION_WRITE => region_access(command, payload, limits)?,
        Command::DMA_READ => {
            let (access, _) = fixed::<DmaAccess>(command, payload)?;
            Request::DmaRead {
                address: access.address.get(),
                count: transfer(command, access.count.get(), limits)?,
            }
        }
        Command::DMA_WRITE => {
            let (access, rest) = fixed::<DmaAccess>(command, payload)?;
            Request::DmaWrite {
                address: access.address.get(),
                data: data(command, rest, access.count.get(), limits)?,
            }
        }
        Command::RESET => Request::Reset,
        _ => return Err(Refusal::Unknown(command)),
    })
}

fn dma_map(payload: &[u8]) -> Result<Request<'_>, Refusal> {
    let command = Command::DMA_MAP;
    let (map, _) = fixed::<DmaMap>(command, payload)?;
    room(command, map.argsz.get(), size::<DmaMap>())?;
    let flags = map.flags.get();
    let access = MapAccess::from_bits(flags)
        .filter(|access| !access.is_empty())
        .ok_or(Refusal::Flags { command, flags })?;
    let (offset, address, size) = (map.offset.get(), map.address.get(), map.size.get());
    if size == 0 || (address | size | offset) % PAGE != 0 {
        return Err(Refusal::Unaligned {
            command,
            address,
            size,
            offset,
        });
    }
    if address.checked_add(size).is_none() || offset.checked_add(size).is_none() {
        return Err(Refusal::Wraps {
            command,
            address,
            size,
            offset,
        });
    }
    Ok(Request::DmaMap {
        access,
        offset,
        address,
        size,
    })
}

fn dma_unmap(payload: &[u8]) -> Result<Request<'_>, Refusal> {
    let command = Command::DMA_UNMAP;
    let (unmap, _) = fixed::<DmaUnmap>(command, payload)?;
    room(command, unmap.argsz.get(), size::<DmaUnmap>())?;
    let (address, size) = (unmap.address.get(), unmap.size.get());
    match unmap.flags.get() {
        0 => Ok(Request::DmaUnmap { address, size }),
        UNMAP_ALL if address == 0 && size == 0 => Ok(Request::DmaUnmapAll),
        flags => Err(Refusal::Flags { command, flags }),
    }
}

fn set_irqs(payload: &[u8]) -> Result<Request<'_>, Refusal> {
    let command = Command::SET_IRQS;
    let (set, rest) = fixed::<IrqSet>(command, payload)?;
    room(command, set.argsz.get(), size::<IrqSet>())?;
    let (flags, index) = (set.flags.get(), set.index.get());
    let (start, count) = (set.start.get(), set.count.get());
    let index = IrqIndex::from_index(index).ok_or(Refusal::NoIrqIndex(index))?;
    let wrong = Refusal::Flags { command, flags };
    let action = match flags & !7 {
        0x08 => IrqAction::Mask,
        0x10 => IrqAction::Unmask,
        0x20 => IrqAction::Trigger,
        _ => return Err(wrong),
    };
    let data = match flags & 7 {
        1 => IrqData::None,
        2 if rest.len() as u64 == u64::from(count) => IrqData::Bool(rest),
        2 => {
            return Err(Refusal::Length {
                command,
                len: payload.len(),
                need: size_of::<IrqSet>().saturating_add(count as usize),
            });
        }
        4 => IrqData::Eventfd,
        _ => return Err(wrong),
    };
    Ok(Request::SetIrqs {
        index,
        start,
        count,
        action,
        data,
    })
}

fn region_access<'a>(
    command: Command,
    payload: &'a [u8],
    limits: &Limits,
) -> Result<Request<'a>, Refusal> {
    let (access, rest) = fixed::<RegionAccess>(command, payload)?;
    let (offset, index) = (access.offset.get(), access.region.get());
    let count = transfer(command, access.count.get().into(), limits)?;
    let region = Region::from_index(index).ok_or(Refusal::NoRegion(index))?;
    if command == Command::REGION_READ {
        return Ok(Request::RegionRead {
            region,
            offset,
            count,
        });
    }
    Ok(Request::RegionWrite {
        region,
        offset,
        data: data(command, rest, count.into(), limits)?,
    })
}

impl Request<'_> {
    /// The command's number.
    #[must_use]
    pub const fn command(&self) -> Command {
        match self {
            Self::Version { .. } => Command::VERSION,
            Self::DmaMap { .. } => Command::DMA_MAP,
            Self::DmaUnmap { .. } | Self::DmaUnmapAll => Command::DMA_UNMAP,
            Self::GetInfo => Command::GET_INFO,
            Self::GetRegionInfo { .. } => Command::GET_REGION_INFO,
            Self::GetIrqInfo { .. } => Command::GET_IRQ_INFO,
            Self::SetIrqs { .. } => Command::SET_IRQS,
            Self::RegionRead { .. } => Command::REGION_READ,
            Self::RegionWrite { .. } => Command::REGION_WRITE,
            Self::DmaRead { .. } => Command::DMA_READ,
            Self::DmaWrite { .. } => Command::DMA_WRITE,
            Self::Reset => Command::RESET,
        }
    }
}

/// Writes the whole message of a command into `out`, in place of what was there.
///
/// Data beyond 4 GiB can't be expressed and is the caller's mistake; [`Limits`] are far below.
pub fn encode_request(id: u16, no_reply: bool, request: &Request<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER_SIZE, 0);
    match *request {
        Request::Version { major, minor, data } => {
            let version = RawVersion {
                major: major.into(),
                minor: minor.into(),
            };
            put(out, &version, data);
        }
        Request::DmaMap {
            access,
            offset,
            address,
            size: bytes,
        } => put(
            out,
            &DmaMap {
                argsz: size::<DmaMap>().into(),
                flags: access.bits().into(),
                offset: offset.into(),
                address: address.into(),
                size: bytes.into(),
            },
            &[],
        ),
        Request::DmaUnmap { address, size } => put(out, &unmap(0, address, size), &[]),
        Request::DmaUnmapAll => put(out, &unmap(UNMAP_ALL, 0, 0), &[]),
        Request::GetInfo => {
            let argsz = size::<DeviceInfo>().into();
            put(
                out,
                &DeviceInfo {
                    argsz,
                    ..DeviceInfo::default()
                },
                &[],
            );
        }
        Request::GetRegionInfo { region } => put(
            out,
            &RegionInfo {
                argsz: size::<RegionInfo>().into(),
                index: region.index().into(),
                ..RegionInfo::default()
            },
            &[],
        ),
        Request::GetIrqInfo { index } => put(
            out,
            &IrqInfo {
                argsz: size::<IrqInfo>().into(),
                index: index.index().into(),
                ..IrqInfo::default()
            },
            &[],
        ),
        Request::SetIrqs {
            index,
            start,
            count,
            action,
            data,
        } => {
            let bytes = match data {
                IrqData::Bool(bytes) => bytes,
                IrqData::None | IrqData::Eventfd => &[],
            };
            let set = IrqSet {
                argsz: (size::<IrqSet>() + len(bytes)).into(),
                flags: (action.bits() | data.bits()).into(),
                index: index.index().into(),
                start: start.into(),
                count: count.into(),
            };
            put(out, &set, bytes);
        }
        Request::RegionRead {
            region,
            offset,
            count,
        } => put(out, &region_block(region, offset, count), &[]),
        Request::RegionWrite {
            region,
            offset,
            data,
        } => put(out, &region_block(region, offset, len(data)), data),
        Request::DmaRead { address, count } => put(out, &dma_block(address, count.into()), &[]),
        Request::DmaWrite { address, data } => {
            put(out, &dma_block(address, data.len() as u64), data);
        }
        Request::Reset => {}
    }
    let header = Header::command(id, request.command(), len(out), no_reply);
    out[..HEADER_SIZE].copy_from_slice(header.encode().as_bytes());
}

pub(super) fn put<T: IntoBytes + Immutable>(out: &mut Vec<u8>, fixed: &T, data: &[u8]) {
    out.extend_from_slice(fixed.as_bytes());
    out.extend_from_slice(data);
}

/// The length of data that limits keep below 4 GiB.
pub(super) fn len(data: &[u8]) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
}

fn unmap(flags: u32, address: u64, bytes: u64) -> DmaUnmap {
    DmaUnmap {
        argsz: size::<DmaUnmap>().into(),
        flags: flags.into(),
        address: address.into(),
        size: bytes.into(),
    }
}

pub(super) fn region_block(region: Region, offset: u64, count: u32) -> RegionAccess {
    RegionAccess {
        offset: offset.into(),
        region: region.index().into(),
        count: count.into(),
    }
}

pub(super) fn dma_block(address: u64, count: u64) -> DmaAccess {
    DmaAccess {
        address: address.into(),
        count: count.into(),
    }
}
