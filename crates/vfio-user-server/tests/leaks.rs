//! Descriptors, threads and mappings of this process, counted. One test, so that no other counts.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod client;

use client::{Client, Rig, eventfd, sealed, until, works};
use std::os::fd::AsFd;
use vfio_user_server::Server;
use vfio_user_server::codec::{Errno, IrqAction, IrqData, IrqIndex, MapAccess, Request};

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

fn counts() -> (usize, usize, usize) {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let memory = maps.lines().filter(|l| l.contains("memfd:")).count();
    (count("/proc/self/fd"), count("/proc/self/task"), memory)
}

/// A client that leaves all it can behind: memory, interrupts, refused descriptors, half a message.
fn litter(path: &std::path::Path, round: usize) {
    let mut client = Client::ready(path);
    let memory = sealed(0x4000);
    assert_eq!(client.map(0, 0x2000, 0, &memory), None);
    assert_eq!(client.map(0x8000, 0x2000, 0x2000, &memory), None);
    assert_eq!(client.map(0x8000, 0x1000, 0, &memory), Some(Errno::EEXIST));
    assert_eq!(
        client.map(0x1_0000, 0x8000, 0, &memory),
        Some(Errno::EINVAL)
    );
    let (a, b) = (eventfd(), eventfd());
    let listen = Request::SetIrqs {
        index: IrqIndex::Msix,
        start: 1,
        count: 2,
        action: IrqAction::Trigger,
        data: IrqData::Eventfd,
    };
    let both = [a.as_fd(), b.as_fd()];
    assert_eq!(client.call_with(&listen, &both).error(), None);
    // In place of those that are there.
    assert_eq!(client.call_with(&listen, &both).error(), None);
    assert_eq!(client.refused(&listen, &both[..1]), Errno::EINVAL);
    match round % 4 {
        0 => drop(client.send(false, &Request::GetInfo, &[a.as_fd(); 30])),
        1 => {
            let map = Request::DmaMap {
                access: MapAccess::all(),
                offset: 0,
                address: 0x10_0000,
                size: 0x1000,
            };
            let mut bytes = Vec::new();
            vfio_user_server::codec::encode_request(1, false, &map, &mut bytes);
            client.send_bytes(&bytes[..20], &[memory.as_fd()]).unwrap();
        }
        2 => client.send_bytes(&[0; 16], &[memory.as_fd()]).unwrap(),
        _ => works(&mut client),
    }
}

#[test]
fn clients_that_come_and_go_leave_no_descriptor_no_thread_and_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rig) = (dir.path().join("a"), Rig::new());
    let before = counts();
    let server = Server::bind(&path, rig.function()).unwrap();
    // What a server has when a client has come and gone.
    litter(&path, 3);
    until(|| rig.log.count("disconnected") == 1);
    let served = counts();
    for round in 0..60 {
        litter(&path, round);
        until(|| rig.log.count("disconnected") == round + 2);
    }
    // The last thread may still be on its way out.
    until(|| counts() <= served);
    assert_eq!(counts().0, served.0);
    assert_eq!(counts().2, before.2);
    server.stop();
    until(|| counts().1 == before.1);
    assert_eq!(counts(), before);
    // Servers too.
    for _ in 0..60 {
        let server = Server::bind(&path, rig.function()).unwrap();
        let mut client = Client::ready(&path);
        works(&mut client);
        server.stop();
        assert!(client.is_let_go());
    }
    until(|| counts() == before);
    assert_eq!(rig.guest.bytes(), 0);
}
