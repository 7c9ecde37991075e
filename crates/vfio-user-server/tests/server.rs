//! A client of ours against the server, over real sockets: what a well-behaved client sees.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod client;

use client::{Client, Rig, VERSION_DATA, eventfd, raised, sealed, until, works};
use iopf::Gpa;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;
use vfio_user_server::codec::{
    Errno, IrqAction, IrqData, IrqIndex, Kind, MapAccess, Region, Reply, Request, decode_request,
};
use vfio_user_server::{BindError, Disconnect, Server, serve};
use viommu_api::{InterruptKind, IrqSink, MsiSink, PhysicalMemory};

#[test]
fn registers_are_written_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    works(&mut client);
    let written = client.call(&Request::RegionWrite {
        region: Region::Bar(0),
        offset: 0x20,
        data: &[1, 2, 3, 4],
    });
    let expected = Reply::RegionWritten {
        region: Region::Bar(0),
        offset: 0x20,
        count: 4,
    };
    assert_eq!(written.reply(), expected);
    let read = client.call(&Request::RegionRead {
        region: Region::Bar(0),
        offset: 0x1e,
        count: 8,
    });
    let expected = Reply::RegionRead {
        region: Region::Bar(0),
        offset: 0x1e,
        data: &[0, 0, 1, 2, 3, 4, 0, 0],
    };
    assert_eq!(read.reply(), expected);
    server.stop();
    assert!(client.is_let_go());
    assert!(!path.exists());
}

#[test]
fn a_posted_write_is_not_answered() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let rig = Rig::new();
    let function = rig.function();
    let serving = thread::spawn(move || serve(theirs, &function));
    let mut client = Client::over(ours);
    client.agree();
    let write = Request::RegionWrite {
        region: Region::Config,
        offset: 0x40,
        data: &[0xaa; 2],
    };
    client.send(true, &write, &[]);
    let read = client.call(&Request::RegionRead {
        region: Region::Config,
        offset: 0x40,
        count: 2,
    });
    let expected = Reply::RegionRead {
        region: Region::Config,
        offset: 0x40,
        data: &[0xaa, 0xaa],
    };
    assert_eq!(read.reply(), expected);
    drop(client);
    assert_eq!(serving.join().unwrap(), Disconnect::Left);
    assert_eq!(*rig.device.resets.lock().unwrap(), 1);
}

#[test]
fn the_nine_regions_and_five_interrupts_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    for (index, size) in [4096, 0, 0, 0, 0, 0, 0, 4096, 0].into_iter().enumerate() {
        let region = Region::from_index(index.try_into().unwrap()).unwrap();
        let reply = client.call(&Request::GetRegionInfo { region });
        let flags = if size > 0 { 3 } else { 0 };
        let expected = Reply::Region {
            region,
            flags,
            size,
        };
        assert_eq!(reply.reply(), expected);
    }
    for (number, (flags, count)) in [(7, 1), (1, 0), (1, 4), (1, 1), (1, 0)]
        .into_iter()
        .enumerate()
    {
        let index = IrqIndex::from_index(number.try_into().unwrap()).unwrap();
        let reply = client.call(&Request::GetIrqInfo { index });
        let expected = Reply::Irq {
            index,
            flags,
            count,
        };
        assert_eq!(reply.reply(), expected);
    }
}

#[test]
fn an_interrupt_reaches_the_eventfd_of_its_vector() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    rig.port.raise(InterruptKind::Msix, 2);
    assert_eq!(rig.port.counters().interrupts_dropped, 1);
    let mut client = Client::ready(&path);
    let line = eventfd();
    let listen = Request::SetIrqs {
        index: IrqIndex::Msix,
        start: 2,
        count: 1,
        action: IrqAction::Trigger,
        data: IrqData::Eventfd,
    };
    assert_eq!(
        client.call_with(&listen, &[line.as_fd()]).reply(),
        Reply::Done
    );
    rig.port.raise(InterruptKind::Msix, 2);
    rig.port.raise(InterruptKind::Msix, 1);
    assert_eq!(raised(&line), 1);
    assert_eq!(rig.port.counters().interrupts, 1);
    assert_eq!(rig.port.counters().interrupts_dropped, 2);
    let disable = Request::SetIrqs {
        index: IrqIndex::Msix,
        start: 0,
        count: 0,
        action: IrqAction::Trigger,
        data: IrqData::None,
    };
    assert_eq!(client.call(&disable).reply(), Reply::Done);
    rig.port.raise(InterruptKind::Msix, 2);
    assert_eq!(rig.port.counters().interrupts_dropped, 3);
}

#[test]
fn a_pin_is_a_level_that_is_heard_once_until_it_is_unmasked() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    let line = eventfd();
    let silent = || {
        let read = rustix::io::read(&line, &mut [0; 8]);
        assert_eq!(read, Err(rustix::io::Errno::AGAIN));
    };
    // STATUS bit 3, and COMMAND bit 10.
    let asserts = |on: bool| rig.device.config.lock().unwrap()[6] = u8::from(on) << 3;
    let switched_off = |on: bool| rig.device.config.lock().unwrap()[5] = u8::from(on) << 2;
    let set = |action, data| Request::SetIrqs {
        index: IrqIndex::Intx,
        start: 0,
        count: 1,
        action,
        data,
    };
    let unmask = set(IrqAction::Unmask, IrqData::Bool(&[1]));

    // What was asserted before anybody listened is heard as soon as somebody does.
    asserts(true);
    let listen = set(IrqAction::Trigger, IrqData::Eventfd);
    let listening = client.call_with(&listen, &[line.as_fd()]);
    assert_eq!(listening.error(), None);
    assert_eq!(raised(&line), 1);

    // Until it is unmasked it is not heard again, and then only if it is still there.
    let mut told = |request: &Request<'_>| assert_eq!(client.call(request).error(), None);
    rig.port.raise(InterruptKind::Intx, 0);
    silent();
    told(&unmask);
    assert_eq!(raised(&line), 1);
    rig.port.raise(InterruptKind::Intx, 0);
    asserts(false);
    told(&unmask);
    silent();

    // The client may mask it, and raise it.
    told(&set(IrqAction::Mask, IrqData::None));
    rig.port.raise(InterruptKind::Intx, 0);
    silent();
    told(&set(IrqAction::Trigger, IrqData::None));
    assert_eq!(raised(&line), 1);

    // A pin that is switched off is not asserted.
    asserts(true);
    switched_off(true);
    told(&unmask);
    silent();
    switched_off(false);
    told(&unmask);
    assert_eq!(raised(&line), 1);
}

#[test]
fn a_message_of_the_function_arrives_as_a_posted_dma_write() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    rig.port.msi(0xfee0_0000, 1);
    assert_eq!(rig.port.counters().messages_lost, 1);
    let mut client = Client::ready(&path);
    until(|| rig.port.is_connected());
    rig.port.msi(0xfee0_1000, 0x4021);
    let message = client.receive().unwrap();
    assert_eq!(message.header.kind, Kind::Command { no_reply: true });
    let limits = vfio_user_server::codec::Limits::default();
    let request = decode_request(message.header.command, &message.payload, &limits).unwrap();
    let expected = Request::DmaWrite {
        address: 0xfee0_1000,
        data: &[0x21, 0x40, 0, 0],
    };
    assert_eq!(request, expected);
    // QEMU answers such a write only when it could not do it.
    let mut refusal = Vec::new();
    vfio_user_server::codec::encode_reply(&message.header, &Reply::Error(Errno(19)), &mut refusal);
    client.send_bytes(&refusal, &[]).unwrap();
    works(&mut client);
    assert_eq!(rig.port.counters().messages, 1);
    assert_eq!(rig.port.counters().messages_refused, 1);
}

#[test]
fn mapped_memory_is_the_clients_own() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    let memory = sealed(0x4000);
    assert_eq!(client.map(0x10_0000, 0x2000, 0x1000, &memory), None);
    rig.guest.write(Gpa(0x10_0ffe), &[1, 2, 3, 4]).unwrap();
    let mut bytes = [0; 4];
    rustix::io::pread(&memory, &mut bytes, 0x1ffe).unwrap();
    assert_eq!(bytes, [1, 2, 3, 4]);
    rig.guest.read(Gpa(0x10_1fff), &mut [0; 2]).unwrap_err();
    let unmapped = client.call(&Request::DmaUnmap {
        address: 0x10_0000,
        size: 0x2000,
    });
    assert_eq!(unmapped.payload.len(), 24);
    rig.guest.read(Gpa(0x10_0000), &mut [0; 4]).unwrap_err();
}

#[test]
fn an_iommu_model_reads_the_memory_that_is_mapped_at_the_moment() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let ram = viommu::mem::GuestRam::new(rig.guest.space());
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    ram.read(Gpa(0x8000), &mut [0]).unwrap_err();
    let memory = sealed(0x1000);
    rustix::io::pwrite(&memory, b"table", 0).unwrap();
    assert_eq!(client.map(0x8000, 0x1000, 0, &memory), None);
    let mut bytes = [0; 5];
    ram.read(Gpa(0x8000), &mut bytes).unwrap();
    assert_eq!(&bytes, b"table");
}

#[test]
fn memory_without_a_descriptor_is_reached_by_messages() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    let map = Request::DmaMap {
        access: MapAccess::READ,
        offset: 0,
        address: 0xf_0000,
        size: 0x1_0000,
    };
    assert_eq!(client.call(&map).error(), None);
    let guest = rig.guest.clone();
    let reading = thread::spawn(move || {
        let mut bytes = [0; 3];
        guest.read(Gpa(0xf_0010), &mut bytes).map(|()| bytes)
    });
    let asked = client.receive().unwrap();
    let limits = vfio_user_server::codec::Limits::default();
    let request = decode_request(asked.header.command, &asked.payload, &limits).unwrap();
    let expected = Request::DmaRead {
        address: 0xf_0010,
        count: 3,
    };
    assert_eq!(request, expected);
    let mut reply = Vec::new();
    let answer = Reply::DmaRead {
        address: 0xf_0010,
        data: b"ROM",
    };
    vfio_user_server::codec::encode_reply(&asked.header, &answer, &mut reply);
    client.send_bytes(&reply, &[]).unwrap();
    assert_eq!(reading.join().unwrap().unwrap(), *b"ROM");
    rig.guest.write(Gpa(0xf_0010), b"RAM").unwrap_err();
}

#[test]
fn the_next_client_finds_the_function_as_new() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    for round in 1..4 {
        let mut client = Client::ready(&path);
        let memory = sealed(0x1000);
        assert_eq!(client.map(0, 0x1000, 0, &memory), None);
        assert_eq!(rig.guest.bytes(), 0x1000);
        drop(client);
        until(|| rig.log.count("disconnected: the client left") == round);
        assert_eq!(
            *rig.device.resets.lock().unwrap(),
            u32::try_from(round).unwrap()
        );
        assert_eq!(rig.guest.bytes(), 0);
        assert!(!rig.port.is_connected());
    }
}

#[test]
fn a_second_client_is_told_that_the_function_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut first = Client::ready(&path);
    let mut second = Client::connect(&path);
    let version = Request::Version {
        major: 0,
        minor: 0,
        data: VERSION_DATA,
    };
    assert_eq!(second.refused(&version, &[]), Errno::EBUSY);
    assert!(second.is_let_go());
    works(&mut first);
    until(|| rig.log.contains("turned away"));
}

#[test]
fn a_socket_is_listened_on_once_and_a_stale_one_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let server = Server::bind(&path, rig.function()).unwrap();
    let error = Server::bind(&path, rig.function()).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error}");
    server.stop();
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "not a socket").unwrap();
    let error = Server::bind(&plain, rig.function()).unwrap_err();
    assert!(matches!(error, BindError::Io { .. }), "{error}");
    assert_eq!(std::fs::read(&plain).unwrap(), b"not a socket");
}

#[test]
fn messages_of_several_threads_never_mix() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = Client::ready(&path);
    let map = Request::DmaMap {
        access: MapAccess::all(),
        offset: 0,
        address: 0,
        size: 0x10_0000,
    };
    assert_eq!(client.call(&map).error(), None);
    until(|| rig.port.is_connected());
    const EACH: usize = 300;
    const LAST: u32 = 99;
    let limits = vfio_user_server::codec::Limits::default();
    thread::scope(|scope| {
        let port = &rig.port;
        let senders: Vec<_> = (0..2_u32)
            .map(|number| {
                scope.spawn(move || (0..EACH).for_each(|_| port.msi(0xfee0_0000, number)))
            })
            .collect();
        // The last message says that there are no more. On a busy machine some may be lost.
        scope.spawn(move || {
            senders
                .into_iter()
                .for_each(|sender| sender.join().unwrap());
            let sent = || port.counters().messages;
            let before = sent();
            while sent() == before && port.is_connected() {
                port.msi(0xfee0_0000, LAST);
            }
        });
        // Long messages: many don't fit into the socket in one piece.
        let guest = &rig.guest;
        scope.spawn(move || {
            for round in 0..20 {
                guest.write(Gpa(0), &vec![round; 0x10_0000]).unwrap();
            }
        });
        let (mut messages, mut long, mut replies, mut last) = (0, 0, 0, false);
        let read = Request::RegionRead {
            region: Region::Bar(0),
            offset: 0,
            count: 4096,
        };
        // A client that only sends fills both sockets: neither side would come to read.
        const UNANSWERED: usize = 16;
        let mut asked = 0;
        while replies < EACH || long < 20 || !last {
            while asked < EACH && asked - replies < UNANSWERED {
                client.send(false, &read, &[]);
                asked += 1;
            }
            let message = client.receive().unwrap();
            if let Kind::Reply { error } = message.header.kind {
                assert_eq!((error, message.payload.len()), (None, 16 + 4096));
                replies += 1;
                continue;
            }
            match decode_request(message.header.command, &message.payload, &limits).unwrap() {
                Request::DmaWrite { data, .. } if data.len() == 4 => {
                    messages += 1;
                    last |= data == LAST.to_le_bytes();
                }
                Request::DmaWrite { data, .. } => {
                    assert!(data.iter().all(|byte| usize::from(*byte) == long));
                    long += 1;
                    let mut done = Vec::new();
                    let reply = Reply::DmaWritten;
                    vfio_user_server::codec::encode_reply(&message.header, &reply, &mut done);
                    client.send_bytes(&done, &[]).unwrap();
                }
                request => panic!("{request:?}"),
            }
        }
        // The long writes of the guest map are no messages of the port.
        assert_eq!(rig.port.counters().messages, messages);
    });
    works(&mut client);
}
