//! A client by other authors (the `vfio_user` crate) against our server.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod client;

use client::{Rig, eventfd, raised, sealed, until};
use iopf::Gpa;
use std::os::fd::AsRawFd;
use vfio_user_server::Server;
use viommu_api::{InterruptKind, IrqSink, PhysicalMemory};

/// `<linux/vfio.h>`: one eventfd a vector, to be raised.
const EVENTFD_TRIGGER: u32 = 0x24;
/// None: all vectors of the kind are taken away.
const NONE_TRIGGER: u32 = 0x21;
const MSIX: u32 = 2;
const CONFIG: u32 = 7;

#[test]
fn a_client_by_other_authors_finds_a_function() {
    let dir = tempfile::tempdir().unwrap();
    let (rig, path) = (Rig::new(), dir.path().join("f.sock"));
    let _server = Server::bind(&path, rig.function()).unwrap();
    let mut client = vfio_user::Client::new(&path).unwrap();
    assert_eq!(
        client.region(0).map(|region| (region.size, region.flags)),
        Some((4096, 3))
    );
    assert_eq!(client.region(CONFIG).map(|region| region.size), Some(4096));

    let mut id = [0; 4];
    client.region_read(CONFIG, 0, &mut id).unwrap();
    assert_eq!(u32::from_le_bytes(id), 0x0001_1b36);
    client.region_write(0, 0x10, &[1, 2, 3, 4]).unwrap();
    let mut back = [0; 4];
    client.region_read(0, 0x10, &mut back).unwrap();
    assert_eq!(back, [1, 2, 3, 4]);

    let memory = sealed(0x2000);
    client
        .dma_map(0x1000, 0x8000, 0x1000, memory.as_raw_fd())
        .unwrap();
    rig.guest.write(Gpa(0x8000), b"here").unwrap();
    let mut bytes = [0; 4];
    rustix::io::pread(&memory, &mut bytes, 0x1000).unwrap();
    assert_eq!(&bytes, b"here");
    client.dma_unmap(0x8000, 0x1000).unwrap();
    assert_eq!(rig.guest.bytes(), 0);

    assert_eq!(client.get_irq_info(MSIX).unwrap().count, 4);
    let (a, b) = (eventfd(), eventfd());
    client
        .set_irqs(MSIX, EVENTFD_TRIGGER, 1, 2, &[a.as_raw_fd(), b.as_raw_fd()])
        .unwrap();
    rig.port.raise(InterruptKind::Msix, 2);
    assert_eq!(raised(&b), 1);
    client.set_irqs(MSIX, NONE_TRIGGER, 0, 0, &[]).unwrap();
    rig.port.raise(InterruptKind::Msix, 2);
    assert_eq!(rig.port.counters().interrupts_dropped, 1);

    client.reset().unwrap();
    assert_eq!(*rig.device.resets.lock().unwrap(), 1);
    client.shutdown().unwrap();
    until(|| rig.log.contains("disconnected: the client left"));
}
