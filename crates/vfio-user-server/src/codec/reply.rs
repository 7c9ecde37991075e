//! Replies, decoded and encoded.
//!
//! Spec: vfio-user, "Reply" under each command. An error reply is its header and nothing else.

use super::header::{Command, Errno, HEADER_SIZE, Header};
use super::payload::{
    DeviceInfo, DmaAccess, DmaUnmap, IrqInfo, RawVersion, RegionAccess, RegionInfo,
};
use super::request::{dma_block, fixed, len, put, region_block, size};
use super::{IrqIndex, Refusal, Region};
use zerocopy::IntoBytes;

/// What a reply says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// Done; nothing to say (DMA_MAP, SET_IRQS, RESET).
    Done,
    /// The command failed.
    Error(Errno),
    /// VERSION.
    Version {
        /// Agreed major version.
        major: u16,
        /// Agreed minor version.
        minor: u16,
        /// JSON, its final NUL included.
        data: &'a [u8],
    },
    /// DMA_UNMAP: the request's own block.
    Unmapped(DmaUnmap),
    /// DEVICE_GET_INFO.
    Info {
        /// `[0]` can be reset, `[1]` is a PCI device.
        flags: u32,
        /// Number of regions.
        regions: u32,
        /// Kinds of interrupt.
        irqs: u32,
    },
    /// DEVICE_GET_REGION_INFO.
    Region {
        /// Which.
        region: Region,
        /// `[0]` readable, `[1]` writeable.
        flags: u32,
        /// Bytes of it; 0 where there is none.
        size: u64,
    },
    /// DEVICE_GET_IRQ_INFO.
    Irq {
        /// Which.
        index: IrqIndex,
        /// `[0]` by eventfd, `[1]` maskable.
        flags: u32,
        /// Number of vectors.
        count: u32,
    },
    /// REGION_READ.
    RegionRead {
        /// Which.
        region: Region,
        /// First byte.
        offset: u64,
        /// What was read.
        data: &'a [u8],
    },
    /// REGION_WRITE.
    RegionWritten {
        /// Which.
        region: Region,
        /// First byte.
        offset: u64,
        /// Bytes written.
        count: u32,
    },
    /// DMA_READ.
    DmaRead {
        /// First address.
        address: u64,
        /// What was read.
        data: &'a [u8],
    },
    /// DMA_WRITE.
    DmaWritten,
}

/// Writes the whole message that answers `request` into `out`, in place of what was there.
pub fn encode_reply(request: &Header, reply: &Reply<'_>, out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER_SIZE, 0);
    let mut error = None;
    match *reply {
        Reply::Done | Reply::DmaWritten => {}
        Reply::Error(errno) => error = Some(errno),
        Reply::Version { major, minor, data } => {
            let version = RawVersion {
                major: major.into(),
                minor: minor.into(),
            };
            put(out, &version, data);
        }
        Reply::Unmapped(block) => put(out, &block, &[]),
        Reply::Info {
            flags,
            regions,
            irqs,
        } => put(
            out,
            &DeviceInfo {
                argsz: size::<DeviceInfo>().into(),
                flags: flags.into(),
                num_regions: regions.into(),
                num_irqs: irqs.into(),
            },
            &[],
        ),
        Reply::Region {
            region,
            flags,
            size: bytes,
        } => put(
            out,
            &RegionInfo {
                argsz: size::<RegionInfo>().into(),
                flags: flags.into(),
                index: region.index().into(),
                cap_offset: 0.into(),
                size: bytes.into(),
                offset: 0.into(),
            },
            &[],
        ),
        Reply::Irq {
            index,
            flags,
            count,
        } => put(
            out,
            &IrqInfo {
                argsz: size::<IrqInfo>().into(),
                flags: flags.into(),
                index: index.index().into(),
                count: count.into(),
            },
            &[],
        ),
        Reply::RegionRead {
            region,
            offset,
            data,
        } => put(out, &region_block(region, offset, len(data)), data),
        Reply::RegionWritten {
            region,
            offset,
            count,
        } => put(out, &region_block(region, offset, count), &[]),
        Reply::DmaRead { address, data } => {
            put(out, &dma_block(address, data.len() as u64), data);
        }
    }
    finish(request, error, out);
}

/// Makes `out` the reply to a REGION_READ of `count` bytes and lets `fill` write the data in place:
/// the reply that is sent most needs no copy.
pub(crate) fn encode_region_read(
    request: &Header,
    region: Region,
    offset: u64,
    count: u32,
    out: &mut Vec<u8>,
    fill: impl FnOnce(&mut [u8]),
) {
    const DATA: usize = HEADER_SIZE + size_of::<RegionAccess>();
    out.clear();
    out.resize(DATA + count as usize, 0);
    out[HEADER_SIZE..DATA].copy_from_slice(region_block(region, offset, count).as_bytes());
    fill(&mut out[DATA..]);
    finish(request, None, out);
}

fn finish(request: &Header, error: Option<Errno>, out: &mut [u8]) {
    let header = request.reply(len(out), error);
    out[..HEADER_SIZE].copy_from_slice(header.encode().as_bytes());
}

/// Decodes what follows the header of a reply without the error bit.
///
/// # Errors
/// When the payload is not that of the command.
pub fn decode_reply(command: Command, payload: &[u8]) -> Result<Reply<'_>, Refusal> {
    Ok(match command {
        Command::DMA_MAP | Command::SET_IRQS | Command::RESET => Reply::Done,
        Command::VERSION => {
            let (version, data) = fixed::<RawVersion>(command, payload)?;
            Reply::Version {
                major: version.major.get(),
                minor: version.minor.get(),
                data,
            }
        }
        Command::DMA_UNMAP => Reply::Unmapped(*fixed::<DmaUnmap>(command, payload)?.0),
        Command::GET_INFO => {
            let (info, _) = fixed::<DeviceInfo>(command, payload)?;
            Reply::Info {
                flags: info.flags.get(),
                regions: info.num_regions.get(),
                irqs: info.num_irqs.get(),
            }
        }
        Command::GET_REGION_INFO => {
            let (info, _) = fixed::<RegionInfo>(command, payload)?;
            let index = info.index.get();
            Reply::Region {
                region: Region::from_index(index).ok_or(Refusal::NoRegion(index))?,
                flags: info.flags.get(),
                size: info.size.get(),
            }
        }
        Command::GET_IRQ_INFO => {
            let (info, _) = fixed::<IrqInfo>(command, payload)?;
            let index = info.index.get();
            Reply::Irq {
                index: IrqIndex::from_index(index).ok_or(Refusal::NoIrqIndex(index))?,
                flags: info.flags.get(),
                count: info.count.get(),
            }
        }
        Command::REGION_READ | Command::REGION_WRITE => {
            let (access, data) = fixed::<RegionAccess>(command, payload)?;
            let index = access.region.get();
            let region = Region::from_index(index).ok_or(Refusal::NoRegion(index))?;
            let (offset, count) = (access.offset.get(), access.count.get());
            if command == Command::REGION_WRITE {
                return Ok(Reply::RegionWritten {
                    region,
                    offset,
                    count,
                });
            }
            exact(command, data, count.into())?;
            Reply::RegionRead {
                region,
                offset,
                data,
            }
        }
        Command::DMA_READ => {
            let (access, data) = fixed::<DmaAccess>(command, payload)?;
            exact(command, data, access.count.get())?;
            Reply::DmaRead {
                address: access.address.get(),
                data,
            }
        }
        // The specification gives it an address and a count, QEMU sends the header alone.
        Command::DMA_WRITE => Reply::DmaWritten,
        _ => return Err(Refusal::Unknown(command)),
    })
}

fn exact(command: Command, data: &[u8], count: u64) -> Result<(), Refusal> {
    if data.len() as u64 == count {
        return Ok(());
    }
    Err(Refusal::Length {
        command,
        len: data.len().saturating_add(16),
        need: usize::try_from(count)
            .unwrap_or(usize::MAX)
            .saturating_add(16),
    })
}
