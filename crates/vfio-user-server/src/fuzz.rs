//! Plain functions over bytes, for a fuzzer and for the tests over its corpus.

use crate::codec::{
    Capabilities, HEADER_SIZE, Header, IrqData, Kind, Limits, MapAccess, RawHeader, Region, Reply,
    Request, decode_reply, decode_request, encode_reply, encode_request,
};
use crate::guest::{GuestMap, MapLimits, Membership, Range};
use crate::inbox::Inbox;
use crate::requests::{Answer, Requests};
use crate::session::{Action, Session, Shape};
use crate::socket::ByMessage;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use viommu_api::{Interrupts, PciFunction};
use zerocopy::FromBytes;

#[cfg(test)]
mod tests;

/// Small limits, which a script can reach.
const LIMITS: Limits = Limits {
    max_transfer: 256,
    max_fds: 4,
    max_maps: 6,
    max_version: 200,
    max_pending: 3,
};

/// Chunks of one script that count; the rest is ignored.
const CHUNKS: usize = 512;

/// Decodes any bytes as a message; what decodes must say the same after a round trip.
///
/// # Panics
/// When it does not.
pub fn vfio_user_codec(data: &[u8]) {
    let Ok((raw, payload)) = RawHeader::ref_from_prefix(data) else {
        return;
    };
    let limits = Limits::default();
    let Ok(header) = Header::decode(raw, &limits) else {
        return;
    };
    let again = Header::decode(&header.encode(), &limits);
    assert_eq!(again, Ok(header));
    let mut bytes = Vec::new();
    if let Ok(request) = decode_request(header.command, payload, &limits) {
        encode_request(header.id, false, &request, &mut bytes);
        let again = decode_request(header.command, &bytes[HEADER_SIZE..], &limits);
        assert_eq!(again, Ok(request));
        if let Request::Version { data, .. } = request
            && let Ok(capabilities) = Capabilities::decode(data, &limits)
        {
            let again = Capabilities::decode(&capabilities.encode(), &limits);
            assert_eq!(again, Ok(capabilities));
        }
    }
    if let Ok(reply) = decode_reply(header.command, payload) {
        encode_reply(&header, &reply, &mut bytes);
        let again = decode_reply(header.command, &bytes[HEADER_SIZE..]);
        match reply {
            // The fixed part is passed over.
            Reply::Done | Reply::DmaWritten => assert_eq!(bytes.len(), HEADER_SIZE),
            reply => assert_eq!(again, Ok(reply)),
        }
    }
}

#[derive(Debug)]
struct Nothing;

impl ByMessage for Nothing {
    fn read(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }
    fn write(&self, _: u64, _: &[u8]) -> bool {
        false
    }
}

struct Function;

impl PciFunction for Function {
    fn bar_size(&self, bar: u8) -> u64 {
        if bar == 0 { 0x1000 } else { 0 }
    }
    fn interrupts(&self) -> Interrupts {
        Interrupts {
            intx: 1,
            msi: 2,
            msix: 3,
        }
    }
    fn read_config(&self, _: u16, _: &mut [u8]) {}
    fn write_config(&self, _: u16, _: &[u8]) {}
    fn read_bar(&self, _: u8, _: u64, _: &mut [u8]) {}
    fn write_bar(&self, _: u8, _: u64, _: &[u8]) {}
    fn reset(&self) {}
}

/// One connection without a socket.
struct World {
    inbox: Inbox<u8>,
    session: Session,
    requests: Requests,
    guest: Arc<GuestMap>,
    member: Membership,
    /// What is mapped, as the model has it.
    maps: BTreeMap<u64, u64>,
    agreed: bool,
}

/// Plays a stream against a connection: records of a length, a number of descriptors, and as many
/// bytes. A length of 0 sends a command of ours.
///
/// # Panics
/// When the connection breaks a promise: an action before the version is agreed on, an access
/// outside of a region, a map that is not what was asked for.
pub fn vfio_user_session(data: &[u8]) {
    let guest = Arc::new(GuestMap::new(MapLimits {
        max_bytes: 1 << 40,
        max_files: 64,
        trust_unsealed: false,
    }));
    let joined = guest.join(Arc::new(Nothing), 0, LIMITS.max_maps, Duration::ZERO);
    let Some(member) = joined else {
        return;
    };
    let mut world = World {
        inbox: Inbox::new(LIMITS),
        session: Session::new(Shape::of(&Function), LIMITS),
        requests: Requests::new(LIMITS.max_pending),
        guest,
        member,
        maps: BTreeMap::new(),
        agreed: false,
    };
    let mut rest = data;
    for _ in 0..CHUNKS {
        let [len, descriptors, tail @ ..] = rest else {
            break;
        };
        let (chunk, tail) = tail.split_at(tail.len().min((*len).into()));
        rest = tail;
        if !world.take(chunk, descriptors & 7) {
            break;
        }
    }
    drop(world.member);
    assert_eq!((world.guest.ranges(), world.guest.bytes()), (0, 0));
}

impl World {
    /// Takes a chunk; `false` when the connection is over.
    fn take(&mut self, mut chunk: &[u8], descriptors: u8) -> bool {
        if chunk.is_empty() {
            let issued = self.requests.issue(crate::codec::Command::DMA_READ);
            if descriptors > 3
                && let Some(id) = issued
            {
                self.requests.abandon(id, descriptors > 5);
            }
            return true;
        }
        let mut descriptors = 0..descriptors;
        while !chunk.is_empty() {
            let space = self.inbox.space();
            let len = space.len().min(chunk.len());
            space[..len].copy_from_slice(&chunk[..len]);
            chunk = &chunk[len..];
            if self.inbox.filled(len, descriptors.by_ref()).is_err() {
                return false;
            }
            loop {
                match self.inbox.next() {
                    Ok(None) => break,
                    Err(_) => return false,
                    Ok(Some(message)) => {
                        let count = message.descriptors.len();
                        assert!(count <= LIMITS.max_fds.into());
                        let (header, payload) = (message.header, message.payload.to_vec());
                        if !self.message(&header, &payload, count) {
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    fn message(&mut self, header: &Header, payload: &[u8], descriptors: usize) -> bool {
        let action = self.session.handle(header, payload, descriptors);
        if !self.agreed {
            match action {
                Action::Reply(Reply::Version { .. }) => self.agreed = true,
                Action::Refuse(_) | Action::Answer { .. } => {}
                action => panic!("{action:?} before the version"),
            }
        }
        let mut out = Vec::new();
        match action {
            Action::Reply(reply) => {
                encode_reply(header, &reply, &mut out);
                assert_eq!(decode_reply(header.command, &out[HEADER_SIZE..]), Ok(reply));
            }
            Action::Read {
                region,
                offset,
                count,
            } => in_region(region, offset, count.into()),
            Action::Write {
                region,
                offset,
                data,
            } => in_region(region, offset, data.len() as u64),
            Action::Map {
                access,
                offset,
                address,
                size,
            } => self.map(access, offset, address, size),
            Action::Unmap { address, size } => {
                let there = self.maps.get(&address) == Some(&size);
                assert_eq!(self.member.unmap(address, size).is_ok(), there);
                if there {
                    self.maps.remove(&address);
                }
            }
            Action::UnmapAll => {
                self.member.unmap_all();
                self.maps.clear();
            }
            Action::SetIrqs {
                start, count, data, ..
            } => {
                assert!(start + count <= 3, "{action:?}");
                if data != IrqData::Eventfd {
                    assert_eq!(descriptors, 0);
                }
            }
            Action::Answer {
                id,
                command,
                result,
            } => {
                assert!(matches!(header.kind, Kind::Reply { .. }));
                if self.requests.answer(id, command, result) == Answer::Unasked {
                    return false;
                }
                self.requests.take(id);
            }
            Action::Reset => {}
            Action::Refuse(why) => {
                assert!(why.errno().0 > 0 && !why.to_string().is_empty());
                if why.is_final() {
                    return false;
                }
            }
        }
        assert_eq!(self.guest.bytes(), self.maps.values().sum::<u64>());
        true
    }

    fn map(&mut self, access: MapAccess, offset: u64, address: u64, size: u64) {
        let range = Range {
            access,
            offset,
            address,
            size,
        };
        let free = !self
            .maps
            .iter()
            .any(|(at, len)| *at < address + size && address < at + len);
        let mapped: u64 = self.maps.values().sum();
        let room = self.maps.len() < LIMITS.max_maps as usize && size <= (1 << 40) - mapped;
        assert_eq!(self.member.map(&range, None).is_ok(), free && room);
        if free && room {
            self.maps.insert(address, size);
        }
    }
}

fn in_region(region: Region, offset: u64, count: u64) {
    let size = match region {
        Region::Bar(0) | Region::Config => 4096,
        _ => 0,
    };
    assert!(count <= LIMITS.max_transfer.into());
    assert!(offset <= size && count <= size - offset, "{region}");
}
