//! Clients that break the rules: each gets an error, and nobody else notices.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod client;

use client::{Client, Rig, Scratch, VERSION_DATA, eventfd, sealed, unsealed, until, works};
use iopf::Gpa;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use vfio_user_server::codec::{
    Command, Errno, HEADER_SIZE, Header, IrqAction, IrqData, IrqIndex, Limits, MapAccess, Region,
    Reply, Request, encode_reply, encode_request,
};
use vfio_user_server::{GuestMap, MapLimits, Server};
use viommu_api::{MsiSink, PhysicalMemory};

/// A server under attack, and a neighbour with a client that behaves.
struct Scene {
    dir: tempfile::TempDir,
    rig: Rig,
    server: Server,
    _neighbour: Server,
    bystander: Client,
}

impl Scene {
    fn new() -> Self {
        Self::of(MapLimits::default())
    }

    fn of(limits: MapLimits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::of(Arc::new(GuestMap::new(limits)));
        let neighbour = Rig::of(rig.guest.clone());
        let server = Server::bind(&dir.path().join("a"), rig.function()).unwrap();
        let neighbour = Server::bind(&dir.path().join("b"), neighbour.function()).unwrap();
        let bystander = Client::ready(neighbour.path());
        Self {
            dir,
            rig,
            server,
            _neighbour: neighbour,
            bystander,
        }
    }

    fn client(&self) -> Client {
        Client::ready(self.server.path())
    }

    /// The bystander works, and so does whoever comes next.
    fn survives(&mut self) {
        works(&mut self.bystander);
        works(&mut self.client());
    }

    /// The raw bytes end the connection; the log says why.
    fn ends(&mut self, mut client: Client, bytes: &[u8], why: &str) {
        client.send_bytes(bytes, &[]).unwrap();
        assert!(client.is_let_go(), "{why}");
        until(|| self.rig.log.contains(why));
        self.survives();
    }
}

fn header(id: u16, command: u16, size: u32, flags: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(id.to_ne_bytes());
    bytes.extend(command.to_ne_bytes());
    bytes.extend(size.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes
}

#[test]
fn a_header_that_leads_nowhere_ends_its_connection_only() {
    let mut scene = Scene::new();
    let client = scene.client();
    scene.ends(client, &header(1, 4, 15, 0), "claims 15 bytes");
    let client = scene.client();
    scene.ends(client, &header(1, 4, 0, 0), "claims 0 bytes");
    let client = scene.client();
    scene.ends(
        client,
        &header(1, 10, u32::MAX, 0),
        "claims 4294967295 bytes",
    );
    let client = scene.client();
    let limit = Limits::default().max_message();
    scene.ends(client, &header(1, 10, limit + 1, 0), "more than the limit");
    let client = scene.client();
    scene.ends(client, &header(1, 4, 32, 2), "has type 2");
}

#[test]
fn a_reply_that_nobody_asked_for_ends_the_connection() {
    let mut scene = Scene::new();
    for command in [1, 9, 11, 12, 999] {
        let client = scene.client();
        scene.ends(client, &header(3, command, 16, 1), "comes unasked");
    }
    // The number of posted writes, before any was sent.
    let client = scene.client();
    scene.ends(client, &header(0xffff, 12, 16, 0x21), "comes unasked");
}

#[test]
fn commands_that_nobody_serves_are_not_supported() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    for command in [0, 6, 14, 15, 16, 17, 18, 19, 0xffff] {
        client.send_bytes(&header(5, command, 16, 0), &[]).unwrap();
        let reply = client.receive().unwrap();
        assert_eq!(reply.error(), Some(Errno::ENOTSUP));
        assert_eq!((reply.header.id, reply.header.size), (5, 16));
    }
    let read = Request::DmaRead {
        address: 0,
        count: 4,
    };
    assert_eq!(client.refused(&read, &[]), Errno::ENOTSUP);
    works(&mut client);
    drop(client);
    scene.survives();
}

#[test]
fn a_message_shorter_than_its_command_is_invalid() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    for command in 2..13 {
        if command == 6 {
            continue;
        }
        for extra in [0_u32, 1, 3] {
            let mut bytes = header(6, command, 16 + extra, 0);
            bytes.resize(bytes.len() + extra as usize, 0xff);
            client.send_bytes(&bytes, &[]).unwrap();
            assert_eq!(client.receive().unwrap().error(), Some(Errno::EINVAL));
        }
    }
    works(&mut client);
    drop(client);
    scene.survives();
}

#[test]
fn region_accesses_stay_inside_their_region() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let read = |region, offset, count| Request::RegionRead {
        region,
        offset,
        count,
    };
    let write = |region, offset| Request::RegionWrite {
        region,
        offset,
        data: &[1, 2, 3, 4],
    };
    for (offset, count) in [
        (4096, 1),
        (4093, 4),
        (u64::MAX, 1),
        (u64::MAX - 3, 4),
        (u64::MAX - 1, 4),
        (0, 4097),
    ] {
        for region in [Region::Bar(0), Region::Config] {
            assert_eq!(
                client.refused(&read(region, offset, count), &[]),
                Errno::EINVAL
            );
        }
    }
    for region in [Region::Bar(1), Region::Bar(5), Region::Rom, Region::Vga] {
        assert_eq!(client.refused(&read(region, 0, 1), &[]), Errno::EINVAL);
        assert_eq!(client.refused(&write(region, 0), &[]), Errno::EINVAL);
    }
    assert_eq!(
        client.refused(&write(Region::Bar(0), 4094), &[]),
        Errno::EINVAL
    );
    assert_eq!(
        client.refused(&read(Region::Bar(0), 0, (1 << 20) + 1), &[]),
        Errno::E2BIG
    );
    // A region number that there is none of, and a count that is not what follows.
    let mut bytes = Vec::new();
    for (at, value, errno) in [
        (24, 9_u32, Errno::EINVAL),
        (24, u32::MAX, Errno::EINVAL),
        (28, 3, Errno::EINVAL),
        (28, 5, Errno::EINVAL),
        (28, 0, Errno::EINVAL),
        (28, u32::MAX, Errno::E2BIG),
    ] {
        encode_request(9, false, &write(Region::Bar(0), 0), &mut bytes);
        bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        client.send_bytes(&bytes, &[]).unwrap();
        assert_eq!(client.receive().unwrap().error(), Some(errno));
    }
    assert_eq!(scene.rig.device.bar.lock().unwrap()[..], [0; 4096]);
    drop(client);
    scene.survives();
}

#[test]
fn the_wrong_number_of_descriptors_is_refused_and_they_are_closed() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let (memory, line) = (sealed(0x1000), eventfd());
    let two = [memory.as_fd(), memory.as_fd()];
    let map = Request::DmaMap {
        access: MapAccess::all(),
        offset: 0,
        address: 0,
        size: 0x1000,
    };
    assert_eq!(client.refused(&map, &two), Errno::EINVAL);
    assert_eq!(
        client.refused(&Request::GetInfo, &[line.as_fd()]),
        Errno::EINVAL
    );
    let listen = |count| Request::SetIrqs {
        index: IrqIndex::Msix,
        start: 0,
        count,
        action: IrqAction::Trigger,
        data: IrqData::Eventfd,
    };
    let three = [line.as_fd(), line.as_fd(), line.as_fd()];
    assert_eq!(client.refused(&listen(2), &three), Errno::EINVAL);
    assert_eq!(client.refused(&listen(2), &three[..1]), Errno::EINVAL);
    // None at all takes the vectors away, which is no mistake.
    assert_eq!(client.call(&listen(2)).error(), None);
    // Beyond the agreed number nobody knows whose they are.
    for count in [9, 17, 40] {
        let many = vec![line.as_fd(); count];
        let mut client = match count {
            9 => std::mem::replace(&mut client, Client::over(UnixStream::pair().unwrap().0)),
            _ => scene.client(),
        };
        client.send(false, &Request::GetInfo, &many);
        assert!(client.is_let_go());
    }
    until(|| scene.rig.log.count("more than 8 descriptors") == 3);
    scene.survives();
}

#[test]
fn interrupts_that_make_no_sense_are_invalid() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let line = eventfd();
    let set = |index, start, count, action, data| Request::SetIrqs {
        index,
        start,
        count,
        action,
        data,
    };
    use IrqAction::{Mask, Trigger, Unmask};
    for (start, count) in [(4, 1), (3, 2), (u32::MAX, 1), (1, u32::MAX), (0, 5), (1, 0)] {
        let request = set(IrqIndex::Msix, start, count, Trigger, IrqData::None);
        assert_eq!(
            client.refused(&request, &[]),
            Errno::EINVAL,
            "{start}+{count}"
        );
    }
    let none = set(IrqIndex::Msi, 0, 1, Trigger, IrqData::None);
    assert_eq!(client.refused(&none, &[]), Errno::EINVAL);
    let masks = set(IrqIndex::Msix, 0, 1, Mask, IrqData::None);
    assert_eq!(client.refused(&masks, &[]), Errno::ENOTSUP);
    let by_eventfd = set(IrqIndex::Intx, 0, 1, Unmask, IrqData::Eventfd);
    assert_eq!(client.refused(&by_eventfd, &[line.as_fd()]), Errno::ENOTSUP);
    let booleans = set(IrqIndex::Msix, 0, 2, Trigger, IrqData::Bool(&[1]));
    assert_eq!(client.refused(&booleans, &[]), Errno::EINVAL);
    // Not an eventfd; and one that a client could stop our threads with.
    let listen = set(IrqIndex::Msix, 0, 1, Trigger, IrqData::Eventfd);
    let blocking = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let pipe = std::io::pipe().unwrap().1;
    assert_eq!(client.refused(&listen, &[blocking.as_fd()]), Errno::EINVAL);
    assert_eq!(client.refused(&listen, &[pipe.as_fd()]), Errno::EINVAL);
    assert_eq!(client.refused(&listen, &[sealed(8).as_fd()]), Errno::EINVAL);
    assert!(scene.rig.log.contains("an eventfd that blocks"));
    // Every combination of flags that is not defined.
    let mut bytes = Vec::new();
    for flags in (0..64).chain([1 << 6, 1 << 31, u32::MAX]) {
        encode_request(
            1,
            false,
            &set(IrqIndex::Intx, 0, 1, Trigger, IrqData::None),
            &mut bytes,
        );
        bytes[20..24].copy_from_slice(&u32::to_ne_bytes(flags));
        client.send_bytes(&bytes, &[]).unwrap();
        let errno = client.receive().unwrap().error();
        let expected = match flags {
            0x09 | 0x11 | 0x21 | 0x24 => None,
            0x0c | 0x14 => Some(Errno::ENOTSUP),
            _ => Some(Errno::EINVAL),
        };
        assert_eq!(errno, expected, "{flags:#x}");
    }
    works(&mut client);
    drop(client);
    scene.survives();
}

#[test]
fn maps_that_make_no_sense_are_invalid() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let memory = sealed(0x4000);
    let top = u64::MAX - 0xfff;
    for (address, size, offset) in [
        (0, 0, 0),
        (0x800, 0x1000, 0),
        (0, 0x800, 0),
        (0, 0x1000, 0x800),
        (top, 0x1000, 0),
        (0x1000, top, 0),
        (0, 0x1000, top),
        (top, top, top),
        (0, 0x5000, 0),
        (0, 0x1000, 0x4000),
    ] {
        let errno = client.map(address, size, offset, &memory);
        assert_eq!(
            errno,
            Some(Errno::EINVAL),
            "{address:#x} {size:#x} {offset:#x}"
        );
    }
    let mut bytes = Vec::new();
    for flags in [0, 4, 8, 7, u32::MAX] {
        let map = Request::DmaMap {
            access: MapAccess::all(),
            offset: 0,
            address: 0,
            size: 0x1000,
        };
        encode_request(1, false, &map, &mut bytes);
        bytes[20..24].copy_from_slice(&u32::to_ne_bytes(flags));
        client.send_bytes(&bytes, &[memory.as_fd()]).unwrap();
        assert_eq!(client.receive().unwrap().error(), Some(Errno::EINVAL));
    }
    assert_eq!(scene.rig.guest.ranges(), 0);
    assert_eq!(client.map(0x1000, 0x2000, 0, &memory), None);
    for (address, size) in [(0x1000, 0x2000), (0x2000, 0x1000), (0, 0x2000), (0, 0x4000)] {
        assert_eq!(client.map(address, size, 0, &memory), Some(Errno::EEXIST));
    }
    for (address, size) in [(0x1000, 0x1000), (0, 0x1000), (0x1000, 0), (top, top)] {
        let unmap = Request::DmaUnmap { address, size };
        assert_eq!(client.refused(&unmap, &[]), Errno::ENOENT);
    }
    assert_eq!(scene.rig.guest.bytes(), 0x2000);
    assert_eq!(client.call(&Request::DmaUnmapAll).error(), None);
    assert_eq!(scene.rig.guest.bytes(), 0);
    drop(client);
    scene.survives();
}

#[test]
fn memory_that_could_be_pulled_away_is_refused() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    assert_eq!(
        client.map(0, 0x1000, 0, &unsealed(0x1000)),
        Some(Errno::EPERM)
    );
    assert!(scene.rig.log.contains("memory-backend-memfd"));
    let file = tempfile::tempfile().unwrap();
    file.set_len(0x1000).unwrap();
    assert_eq!(
        client.map(0, 0x1000, 0, &OwnedFd::from(file)),
        Some(Errno::EPERM)
    );
    assert_eq!(client.map(0, 0x1000, 0, &eventfd()), Some(Errno::EINVAL));
    let socket = OwnedFd::from(UnixStream::pair().unwrap().0);
    assert_eq!(client.map(0, 0x1000, 0, &socket), Some(Errno::EINVAL));
    let folder = OwnedFd::from(std::fs::File::open(scene.dir.path()).unwrap());
    assert_eq!(client.map(0, 0x1000, 0, &folder), Some(Errno::EINVAL));
    let null = OwnedFd::from(std::fs::File::open("/dev/zero").unwrap());
    assert_eq!(client.map(0, 0x1000, 0, &null), Some(Errno::EINVAL));
    // A descriptor for reading can't be mapped for writing.
    let memory = sealed(0x1000);
    let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory));
    let reads = OwnedFd::from(std::fs::File::open(link).unwrap());
    assert_eq!(client.map(0, 0x1000, 0, &reads), Some(Errno::EACCES));
    assert_eq!(scene.rig.guest.bytes(), 0);
    // What is mapped stays: the seal keeps the owner from taking it away.
    assert_eq!(client.map(0, 0x1000, 0, &memory), None);
    assert_eq!(
        rustix::fs::ftruncate(&memory, 0),
        Err(rustix::io::Errno::PERM)
    );
    scene.rig.guest.write(Gpa(0xffc), &[1; 4]).unwrap();
    drop(client);
    scene.survives();
}

#[test]
fn an_owner_that_is_trusted_may_bring_any_file() {
    let scene = Scene::of(MapLimits {
        trust_unsealed: true,
        ..MapLimits::default()
    });
    let mut client = scene.client();
    assert_eq!(client.map(0, 0x1000, 0, &unsealed(0x1000)), None);
    scene.rig.guest.write(Gpa(0), &[1]).unwrap();
    assert_eq!(
        client.map(0x1000, 0x2000, 0, &unsealed(0x1000)),
        Some(Errno::EINVAL)
    );
}

#[test]
fn maps_are_bounded_in_number_and_size() {
    let mut scene = Scene::of(MapLimits {
        max_bytes: 1 << 30,
        ..MapLimits::default()
    });
    let mut client = scene.client();
    let memory = sealed(4 << 30);
    assert_eq!(
        client.map(0, (1 << 30) + 0x1000, 0, &memory),
        Some(Errno::ENOMEM)
    );
    assert_eq!(client.map(0, 1 << 30, 0, &memory), None);
    assert_eq!(client.map(1 << 30, 0x1000, 0, &memory), Some(Errno::ENOMEM));
    assert_eq!(client.call(&Request::DmaUnmapAll).error(), None);
    drop(client);
    let mut function = scene.rig.function();
    function.limits.max_maps = 100;
    let server = Server::bind(&scene.dir.path().join("c"), function).unwrap();
    let mut client = Client::ready(server.path());
    let map = |address| Request::DmaMap {
        access: MapAccess::READ,
        offset: 0,
        address,
        size: 0x1000,
    };
    for page in 0..100 {
        assert_eq!(client.call(&map(page * 0x2000)).error(), None);
    }
    assert_eq!(client.refused(&map(100 * 0x2000), &[]), Errno::ENOSPC);
    drop(client);
    scene.survives();
}

#[test]
fn files_are_bounded_in_number() {
    let mut scene = Scene::of(MapLimits {
        max_files: 3,
        ..MapLimits::default()
    });
    let mut client = scene.client();
    let files: Vec<_> = (0..4).map(|_| sealed(0x2000)).collect();
    for (page, file) in (0..).zip(&files[..3]) {
        assert_eq!(client.map(page << 12, 0x1000, 0, file), None);
    }
    let full = Some(Errno::ENOSPC);
    assert_eq!(client.map(0x3000, 0x1000, 0, &files[3]), full);
    // One that is there already costs nothing, and one that goes makes room.
    assert_eq!(client.map(0x3000, 0x1000, 0x1000, &files[0]), None);
    let (address, size) = (0x1000, 0x1000);
    let unmap = Request::DmaUnmap { address, size };
    assert_eq!(client.call(&unmap).error(), None);
    assert_eq!(client.map(0x4000, 0x1000, 0, &files[3]), None);
    drop(client);
    scene.survives();
}

#[test]
fn version_data_is_what_it_should_be_or_the_connection_ends() {
    let mut scene = Scene::new();
    let nested = format!("{}1{}\0", "[".repeat(1000), "]".repeat(1000));
    let long = format!("{{\"x\":\"{}\"}}\0", "y".repeat(5000));
    let huge = format!("{{\"x\":\"{}\"}}\0", "y".repeat(1_000_000));
    for data in [
        "\0",
        "{",
        "{}",
        "{\0",
        "{}x\0",
        "[]\0\0",
        "7\0",
        "{\"capabilities\":7}\0",
        "{\"capabilities\":{\"max_msg_fds\":-1}}\0",
        "{\"capabilities\":{\"max_msg_fds\":\"8\"}}\0",
        "{\"capabilities\":{\"max_data_xfer_size\":1e99}}\0",
        "{\"capabilities\":{\"pgsizes\":99999999999999999999}}\0",
        &nested,
        &long,
        &huge,
    ] {
        let mut client = Client::connect(scene.server.path());
        let version = Request::Version {
            major: 0,
            minor: 0,
            data: data.as_bytes(),
        };
        let start = &data[..data.len().min(60)];
        assert_eq!(client.refused(&version, &[]), Errno::EINVAL, "{start:?}");
        assert!(client.is_let_go(), "{start:?}");
    }
    let mut client = Client::connect(scene.server.path());
    let newer = Request::Version {
        major: 1,
        minor: 0,
        data: VERSION_DATA,
    };
    assert_eq!(client.refused(&newer, &[]), Errno::EINVAL);
    assert!(client.is_let_go());
    scene.survives();
}

#[test]
fn nothing_is_done_before_the_version_and_the_version_comes_once() {
    let mut scene = Scene::new();
    let mut client = Client::connect(scene.server.path());
    let write = Request::RegionWrite {
        region: Region::Bar(0),
        offset: 0,
        data: &[0xff],
    };
    assert_eq!(client.refused(&write, &[]), Errno::EINVAL);
    assert!(client.is_let_go());
    assert_eq!(scene.rig.device.bar.lock().unwrap()[0], 0);
    let mut client = scene.client();
    let again = Request::Version {
        major: 0,
        minor: 0,
        data: VERSION_DATA,
    };
    assert_eq!(client.refused(&again, &[]), Errno::EINVAL);
    works(&mut client);
    drop(client);
    scene.survives();
}

/// A session as QEMU begins one: its messages, and whether a descriptor goes with each.
fn recorded() -> Vec<(Vec<u8>, bool)> {
    let requests = [
        (
            Request::Version {
                major: 0,
                minor: 0,
                data: VERSION_DATA,
            },
            false,
        ),
        (
            Request::DmaMap {
                access: MapAccess::all(),
                offset: 0,
                address: 0,
                size: 0x1000,
            },
            true,
        ),
        (Request::GetInfo, false),
        (
            Request::GetRegionInfo {
                region: Region::Config,
            },
            false,
        ),
        (
            Request::GetIrqInfo {
                index: IrqIndex::Msix,
            },
            false,
        ),
        (
            Request::RegionWrite {
                region: Region::Bar(0),
                offset: 0,
                data: &[1, 2, 3, 4],
            },
            false,
        ),
        (
            Request::RegionRead {
                region: Region::Bar(0),
                offset: 0,
                count: 4,
            },
            false,
        ),
        (Request::Reset, false),
        (
            Request::DmaUnmap {
                address: 0,
                size: 0x1000,
            },
            false,
        ),
    ];
    let encode = |(id, (request, with)): (usize, (Request<'_>, bool))| {
        let mut bytes = Vec::new();
        encode_request(id.try_into().unwrap(), false, &request, &mut bytes);
        (bytes, with)
    };
    requests.into_iter().enumerate().map(encode).collect()
}

#[test]
fn a_client_may_leave_at_any_byte() {
    let mut scene = Scene::new();
    let (session, memory) = (recorded(), sealed(0x1000));
    let total: usize = session.iter().map(|(bytes, _)| bytes.len()).sum();
    for end in 0..=total {
        let mut client = Client::connect(scene.server.path());
        let mut left = end;
        for (bytes, with) in &session {
            let part = &bytes[..bytes.len().min(left)];
            left -= part.len();
            if part.is_empty() {
                break;
            }
            let fds = if *with { vec![memory.as_fd()] } else { vec![] };
            client.send_bytes(part, &fds).unwrap();
        }
        if end % 3 == 0 {
            // Some leave without reading what they asked for, others half-way.
            client.stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = client.stream.read(&mut [0; 50]);
        }
        drop(client);
        until(|| scene.rig.log.count("disconnected") == end + 1);
        assert_eq!(scene.rig.guest.bytes(), 0, "after {end} bytes");
    }
    scene.survives();
}

#[test]
fn a_client_may_be_as_slow_as_it_likes() {
    let mut scene = Scene::new();
    let mut client = Client::connect(scene.server.path());
    for (bytes, with) in recorded() {
        let memory = sealed(0x1000);
        for (at, byte) in bytes.iter().enumerate() {
            let fds = if with && at == 0 {
                vec![memory.as_fd()]
            } else {
                vec![]
            };
            client.send_bytes(&[*byte], &fds).unwrap();
            if at % 16 == 0 {
                works(&mut scene.bystander);
            }
        }
        assert_eq!(client.receive().unwrap().error(), None);
    }
    drop(client);
    scene.survives();
}

#[test]
fn messages_for_a_client_that_does_not_read_are_lost_and_counted_and_hold_nobody_up() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    until(|| scene.rig.port.is_connected());
    let started = Instant::now();
    let sent: u64 = 20_000;
    for _ in 0..sent {
        scene.rig.port.msi(0xfee0_0000, 1);
    }
    let took = started.elapsed();
    let counters = scene.rig.port.counters();
    assert!(counters.messages_lost > 0 && counters.messages > 0);
    assert_eq!(counters.messages + counters.messages_lost, sent);
    assert!(took < Duration::from_secs(5), "{took:?}");
    works(&mut scene.bystander);
    // It reads again: it finds whole messages, and hears the next one.
    for _ in 0..counters.messages {
        assert_eq!(client.receive().unwrap().header.command, Command::DMA_WRITE);
    }
    works(&mut client);
    scene.rig.port.msi(0xfee0_0000, 2);
    assert_eq!(scene.rig.port.counters().messages, counters.messages + 1);
    drop(client);
}

#[test]
fn a_client_that_asks_and_never_reads_stops_only_itself_and_the_server_can_end() {
    let mut scene = Scene::new();
    let client = scene.client();
    let mut bytes = Vec::new();
    let read = Request::RegionRead {
        region: Region::Bar(0),
        offset: 0,
        count: 4096,
    };
    encode_request(1, false, &read, &mut bytes);
    let timeout = Some(Duration::from_millis(300));
    client.stream.set_write_timeout(timeout).unwrap();
    while (&client.stream).write_all(&bytes).is_ok() {}
    works(&mut scene.bystander);
    let lost = scene.rig.port.counters().messages_lost;
    let started = Instant::now();
    scene.rig.port.msi(0xfee0_0000, 1);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(scene.rig.port.counters().messages_lost, lost + 1);
    let started = Instant::now();
    scene.server.stop();
    assert!(started.elapsed() < Duration::from_secs(5));
    works(&mut scene.bystander);
    drop(client);
}

#[test]
fn a_client_that_is_turned_away_cannot_hold_the_server_up_byte_by_byte() {
    let scene = Scene::new();
    let _first = scene.client();
    let dripping = Client::connect(scene.server.path());
    let drip = thread::spawn(move || {
        // A message of 4 KiB, a byte each 50 ms: it would take minutes.
        let mut bytes = header(1, 1, 4096, 0);
        bytes.resize(4096, 0);
        let started = Instant::now();
        for byte in bytes {
            if (&dripping.stream).write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(50));
        }
        started.elapsed()
    });
    // One second for the first client to go, half a second for the second one's message.
    until(|| scene.rig.log.contains("turned away"));
    assert!(drip.join().unwrap() < Duration::from_secs(8));
    let started = Instant::now();
    scene.server.stop();
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_client_that_answers_slowly_and_in_crumbs_holds_an_access_up_no_longer_than_one_that_never_does()
 {
    let mut scene = Scene::new();
    let mut client = Client::connect(scene.server.path());
    let data = b"{\"capabilities\":{\"max_data_xfer_size\":8}}\0";
    let (major, minor) = (0, 1);
    let version = Request::Version { major, minor, data };
    assert_eq!(client.call(&version).error(), None);
    let map = Request::DmaMap {
        access: MapAccess::all(),
        offset: 0,
        address: 0x1000,
        size: 0x1000,
    };
    assert_eq!(client.call(&map).error(), None);
    let guest = scene.rig.guest.clone();
    let reading = thread::spawn(move || {
        let started = Instant::now();
        // 32 messages.
        let read = guest.read(Gpa(0x1000), &mut [0; 256]);
        (read, started.elapsed())
    });
    let mut bytes = Vec::new();
    let mut answered = 0;
    while !reading.is_finished() {
        let Ok(asked) = client.receive() else { break };
        thread::sleep(Duration::from_millis(500));
        let address = 0x1000 + answered * 8;
        let reply = Reply::DmaRead {
            address,
            data: &[7; 8],
        };
        encode_reply(&asked.header, &reply, &mut bytes);
        client.send_bytes(&bytes, &[]).unwrap();
        answered += 1;
        client
            .stream
            .set_read_timeout(Some(Duration::from_secs(1)))
            .unwrap();
    }
    let (read, took) = reading.join().unwrap();
    assert!(read.is_err());
    assert!(answered >= 2, "the first answers are taken");
    assert!(took < Duration::from_secs(5), "{took:?}");
    client.stream.set_read_timeout(Some(client::SOON)).unwrap();
    works(&mut client);
    drop(client);
    scene.survives();
}

/// Lets a thread read 4 bytes of memory that is reached by messages; `answer` plays the client.
fn read_by_message(scene: &Scene, client: &mut Client, answer: impl FnOnce(&mut Client, &Header)) {
    let guest = scene.rig.guest.clone();
    let reading = thread::spawn(move || guest.read(Gpa(0x1000), &mut [0; 4]));
    let asked = client.receive().unwrap();
    assert_eq!(asked.header.command, Command::DMA_READ);
    answer(client, &asked.header);
    assert!(reading.join().unwrap().is_err());
}

#[test]
fn answers_about_memory_that_are_wrong_late_or_missing_are_bus_errors() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let map = Request::DmaMap {
        access: MapAccess::all(),
        offset: 0,
        address: 0x1000,
        size: 0x1000,
    };
    assert_eq!(client.call(&map).error(), None);
    let mut bytes = Vec::new();
    for data in [&[][..], &[1], &[1; 5], &[1; 4096]] {
        read_by_message(&scene, &mut client, |client, asked| {
            let address = 0x1000;
            encode_reply(asked, &Reply::DmaRead { address, data }, &mut bytes);
            client.send_bytes(&bytes, &[]).unwrap();
        });
    }
    read_by_message(&scene, &mut client, |client, asked| {
        encode_reply(asked, &Reply::Error(Errno(14)), &mut bytes);
        client.send_bytes(&bytes, &[]).unwrap();
    });
    read_by_message(&scene, &mut client, |client, asked| {
        // No payload at all.
        encode_reply(asked, &Reply::Done, &mut bytes);
        client.send_bytes(&bytes, &[]).unwrap();
    });
    // Never; and then, when nobody waits any more.
    let mut late = None;
    let started = Instant::now();
    read_by_message(&scene, &mut client, |_, asked| late = Some(*asked));
    assert!(started.elapsed() < Duration::from_secs(5));
    let (address, data) = (0x1000, &[1, 2, 3, 4][..]);
    encode_reply(
        &late.unwrap(),
        &Reply::DmaRead { address, data },
        &mut bytes,
    );
    client.send_bytes(&bytes, &[]).unwrap();
    works(&mut client);
    // Gone in the middle.
    let guest = scene.rig.guest.clone();
    let reading = thread::spawn(move || guest.read(Gpa(0x1000), &mut [0; 4]));
    client.receive().unwrap();
    drop(client);
    assert!(reading.join().unwrap().is_err());
    scene.survives();
}

/// A function whose register read reads guest memory.
#[test]
fn a_register_access_that_needs_a_message_does_not_wait_for_itself() {
    struct Reads(Arc<Scratch>, Arc<GuestMap>);
    impl viommu_api::PciFunction for Reads {
        fn bar_size(&self, bar: u8) -> u64 {
            self.0.bar_size(bar)
        }
        fn interrupts(&self) -> viommu_api::Interrupts {
            self.0.interrupts()
        }
        fn read_config(&self, offset: u16, data: &mut [u8]) {
            self.0.read_config(offset, data);
        }
        fn write_config(&self, offset: u16, data: &[u8]) {
            self.0.write_config(offset, data);
        }
        fn read_bar(&self, _: u8, _: u64, data: &mut [u8]) {
            let there = self.1.read(Gpa(0x1000), &mut [0; 4]).is_ok();
            data.fill(if there { 1 } else { 2 });
        }
        fn write_bar(&self, _: u8, _: u64, _: &[u8]) {}
        fn reset(&self) {}
    }
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new();
    let mut function = rig.function();
    function.device = Arc::new(Reads(rig.device.clone(), rig.guest.clone()));
    let server = Server::bind(&dir.path().join("a"), function).unwrap();
    let mut client = Client::ready(server.path());
    let map = Request::DmaMap {
        access: MapAccess::all(),
        offset: 0,
        address: 0x1000,
        size: 0x1000,
    };
    assert_eq!(client.call(&map).error(), None);
    let read = client.call(&Request::RegionRead {
        region: Region::Bar(0),
        offset: 0,
        count: 1,
    });
    assert_eq!(read.payload[16..], [2]);
    assert_eq!(HEADER_SIZE + read.payload.len(), 33);
}
