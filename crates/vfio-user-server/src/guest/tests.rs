use super::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// A client whose memory behind messages is one byte, everywhere.
#[derive(Debug)]
struct Everywhere(u8);

impl ByMessage for Everywhere {
    fn read(&self, _: u64, into: &mut [u8]) -> bool {
        into.fill(self.0);
        true
    }
    fn write(&self, _: u64, from: &[u8]) -> bool {
        from.iter().all(|byte| *byte == self.0)
    }
}

fn memory(size: u64) -> OwnedFd {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = memfd_create("guest", flags).unwrap();
    ftruncate(&fd, size).unwrap();
    fcntl_add_seals(&fd, SealFlags::SHRINK).unwrap();
    fd
}

fn guest() -> Arc<GuestMap> {
    Arc::new(GuestMap::new(MapLimits::default()))
}

fn join(guest: &Arc<GuestMap>, byte: u8) -> Membership {
    let joined = guest.join(Arc::new(Everywhere(byte)), 1, 1000, Duration::ZERO);
    joined.unwrap()
}

fn range(access: MapAccess, offset: u64, address: u64, size: u64) -> Range {
    Range {
        access,
        offset,
        address,
        size,
    }
}

fn rw(offset: u64, address: u64, size: u64) -> Range {
    range(MapAccess::all(), offset, address, size)
}

/// The published map, one `base+len` a region.
fn published(guest: &GuestMap) -> String {
    let memory = guest.space().memory();
    let regions: Vec<_> = memory
        .iter()
        .map(|region| format!("{:#x}+{:#x}", region.start_addr().0, region.len()))
        .collect();
    regions.join(" ")
}

fn byte(guest: &GuestMap, at: u64) -> Option<u8> {
    let mut byte = [0];
    guest.read(Gpa(at), &mut byte).ok().map(|()| byte[0])
}

#[test]
fn what_two_connections_map_is_there_once_and_until_the_last_one_unmaps_it() {
    let (guest, file) = (guest(), memory(0x4000));
    let (a, b) = (join(&guest, 0), join(&guest, 0));
    for member in [&a, &b] {
        let file = file.try_clone().unwrap();
        member.map(&rw(0, 0x1000, 0x4000), Some(file)).unwrap();
    }
    assert_eq!(published(&guest), "0x1000+0x4000");
    let before = guest.space().memory().iter().next().unwrap().as_ptr();
    a.unmap(0x1000, 0x4000).unwrap();
    assert_eq!(published(&guest), "0x1000+0x4000");
    let after = guest.space().memory().iter().next().unwrap().as_ptr();
    assert_eq!(before, after, "it was mapped anew");
    drop(b);
    assert_eq!(published(&guest), "");
    assert_eq!(guest.lock().files_kept(), 0);
}

#[test]
fn a_layout_that_changes_for_one_connection_after_the_other_has_no_hole_meanwhile() {
    let (guest, file) = (guest(), memory(0x10_0000));
    let (a, b) = (join(&guest, 0), join(&guest, 0));
    let map = |member: &Membership, range: Range| {
        let file = file.try_clone().unwrap();
        member.map(&range, Some(file)).unwrap();
    };
    for member in [&a, &b] {
        map(member, rw(0, 0, 0x10_0000));
    }
    guest.write(Gpa(0x9_fff0), &[7]).unwrap();
    // The firmware makes a part read-only, as QEMU does it: the first connection, then the second.
    for member in [&a, &b] {
        member.unmap(0, 0x10_0000).unwrap();
        assert_eq!(byte(&guest, 0x9_fff0), Some(7));
        map(member, rw(0, 0, 0xc_0000));
        map(member, range(MapAccess::READ, 0xc_0000, 0xc_0000, 0x1_0000));
        map(member, rw(0xd_0000, 0xd_0000, 0x3_0000));
        assert_eq!(published(&guest), "0x0+0xc0000 0xd0000+0x30000");
        assert_eq!(byte(&guest, 0x9_fff0), Some(7));
    }
    assert_eq!(byte(&guest, 0xc_0000), Some(0));
    assert!(guest.write(Gpa(0xc_0000), &[1]).is_err());
    assert!(guest.write(Gpa(0xb_ffff), &[1, 2]).is_err());
    // And back again.
    for member in [&a, &b] {
        member.unmap_all();
        map(member, rw(0, 0, 0x10_0000));
    }
    assert_eq!(published(&guest), "0x0+0x100000");
    guest.write(Gpa(0xb_ffff), &[1, 2]).unwrap();
}

#[test]
fn where_connections_disagree_the_newest_map_counts() {
    let guest = guest();
    let (a, b) = (join(&guest, 0xaa), join(&guest, 0xbb));
    a.map(&rw(0, 0, 0x3000), None).unwrap();
    b.map(&rw(0, 0x1000, 0x1000), Some(memory(0x1000))).unwrap();
    let see = |guest: &GuestMap| [0, 0x1000, 0x2000, 0x3000].map(|at| byte(guest, at));
    assert_eq!(see(&guest), [Some(0xaa), Some(0), Some(0xaa), None]);
    a.unmap(0, 0x3000).unwrap();
    assert_eq!(see(&guest), [None, Some(0), None, None]);
    a.map(&rw(0, 0, 0x2000), None).unwrap();
    assert_eq!(see(&guest), [Some(0xaa), Some(0xaa), None, None]);
    drop(a);
    assert_eq!(see(&guest), [None, Some(0), None, None]);
}

#[test]
fn an_access_may_cross_from_memory_to_messages() {
    let guest = guest();
    let a = join(&guest, 0xaa);
    a.map(&rw(0, 0, 0x1000), Some(memory(0x1000))).unwrap();
    a.map(&range(MapAccess::READ, 0, 0x1000, 0x1000), None)
        .unwrap();
    a.map(
        &range(MapAccess::WRITE, 0, 0x2000, 0x1000),
        Some(memory(0x1000)),
    )
    .unwrap();
    let mut bytes = [1; 4];
    guest.read(Gpa(0xffe), &mut bytes).unwrap();
    assert_eq!(bytes, [0, 0, 0xaa, 0xaa]);
    assert_eq!(byte(&guest, 0x2000), None);
    guest.write(Gpa(0x2000), &[1, 2]).unwrap();
    guest.write(Gpa(0x2ffe), &[1, 2, 3]).unwrap_err();
    let error = guest.read(Gpa(u64::MAX), &mut [0; 2]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("no memory for 2 bytes at {}", Gpa(u64::MAX))
    );
    assert_eq!(published(&guest), "0x0+0x1000");
    assert_eq!((guest.ranges(), guest.bytes()), (3, 0x3000));
}

#[test]
fn a_map_that_fails_leaves_everything_as_it_was() {
    let guest = guest();
    let a = join(&guest, 0);
    a.map(&rw(0, 0, 0x1000), Some(memory(0x1000))).unwrap();
    let twice = a.map(&rw(0, 0, 0x1000), Some(memory(0x1000))).unwrap_err();
    assert_eq!(twice.errno(), Errno::EEXIST);
    let reads = rustix::fs::open("/dev/null", rustix::fs::OFlags::RDONLY, 0.into()).unwrap();
    let device = a.map(&rw(0, 0x1000, 0x1000), Some(reads)).unwrap_err();
    assert_eq!(device, MapError::NotAFile { address: 0x1000 });
    assert_eq!(published(&guest), "0x0+0x1000");
    assert_eq!(guest.lock().files_kept(), 1);
    // The place is free again.
    a.map(&rw(0, 0x1000, 0x1000), Some(memory(0x1000))).unwrap();
    assert_eq!(published(&guest), "0x0+0x1000 0x1000+0x1000");
}

#[test]
fn a_guest_is_one_process_at_a_time() {
    let guest = guest();
    let join = |process, patience| {
        let link = Arc::new(Everywhere(0));
        guest.join(link, process, 10, patience)
    };
    let first = join(100, Duration::ZERO).unwrap();
    assert!(join(200, Duration::from_millis(20)).is_none());
    let second = join(100, Duration::ZERO).unwrap();
    drop(first);
    assert!(join(200, Duration::ZERO).is_none());
    // Its successor waits for the last of it to be gone.
    thread::scope(|scope| {
        let next = scope.spawn(|| join(200, Duration::from_secs(10)).is_some());
        thread::sleep(Duration::from_millis(20));
        drop(second);
        assert!(next.join().unwrap());
    });
}

#[test]
fn accesses_under_way_see_a_map_that_was_while_it_changes() {
    let (guest, file) = (guest(), memory(0x10_0000));
    let stop = AtomicBool::new(false);
    let stays = join(&guest, 0);
    let map = |member: &Membership, range: Range| {
        member.map(&range, Some(file.try_clone().unwrap())).unwrap();
    };
    map(&stays, rw(0, 0, 0x8000));
    guest.write(Gpa(0x1000), &[0x55; 4096]).unwrap();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut reads = 0_u64;
                    let mut bytes = [0; 256];
                    while !stop.load(Ordering::Relaxed) {
                        guest.read(Gpa(0x1f00), &mut bytes).unwrap();
                        assert_eq!(bytes, [0x55; 256]);
                        // This one comes and goes.
                        let _ = guest.read(Gpa(0x9000), &mut bytes);
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        for round in 0..300_u64 {
            let other = join(&guest, 0);
            map(&other, rw(0, 0, 0x1000 * (1 + round % 8)));
            map(&other, rw(0x9000, 0x9000, 0x4000));
            other.unmap(0x9000, 0x4000).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
    assert_eq!(published(&guest), "0x0+0x8000");
}
