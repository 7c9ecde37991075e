use super::*;
use crate::codec::{HEADER_SIZE, RawHeader, encode_request};
use viommu_api::Interrupts;
use zerocopy::FromBytes;

struct Function;

impl PciFunction for Function {
    fn bar_size(&self, bar: u8) -> u64 {
        [0x1000, 0, 0x10_0000, 0, 0, 0x40][usize::from(bar)]
    }
    fn interrupts(&self) -> Interrupts {
        Interrupts {
            intx: 1,
            msi: 4,
            msix: 9,
        }
    }
    fn read_config(&self, _: u16, _: &mut [u8]) {}
    fn write_config(&self, _: u16, _: &[u8]) {}
    fn read_bar(&self, _: u8, _: u64, _: &mut [u8]) {}
    fn write_bar(&self, _: u8, _: u64, _: &[u8]) {}
    fn reset(&self) {}
}

/// What a session makes of a request, as text.
fn says(session: &mut Session, request: &Request<'_>, descriptors: usize) -> String {
    let mut bytes = Vec::new();
    encode_request(1, false, request, &mut bytes);
    let raw = RawHeader::ref_from_prefix(&bytes).unwrap().0;
    let header = Header::decode(raw, &Limits::default()).unwrap();
    let action = session.handle(&header, &bytes[HEADER_SIZE..], descriptors);
    match action {
        Action::Refuse(why) => format!("{}: {why}", why.errno()),
        action => format!("{action:?}"),
    }
}

fn session() -> Session {
    Session::new(Shape::of(&Function), Limits::default())
}

const VERSION: Request<'_> = Request::Version {
    major: 0,
    minor: 3,
    data: b"{\"capabilities\":{\"max_data_xfer_size\":4096}}\0",
};

#[test]
fn a_session_begins_with_its_version() {
    let mut session = session();
    let info = says(&mut session, &Request::GetInfo, 0);
    assert_eq!(info, "EINVAL: DEVICE_GET_INFO comes before VERSION");
    assert_eq!(session.peer_transfer(), None);
    assert!(says(&mut session, &VERSION, 0).starts_with("Reply(Version { major: 0, minor: 0"));
    assert_eq!(session.peer_transfer(), Some(4096));
    assert_eq!(
        says(&mut session, &VERSION, 0),
        "EINVAL: VERSION comes a second time"
    );
    let info = says(&mut session, &Request::GetInfo, 0);
    assert_eq!(info, "Reply(Info { flags: 3, regions: 9, irqs: 5 })");
}

#[test]
fn a_version_that_fails_may_be_followed_by_nothing_else() {
    let mut session = session();
    let newer = Request::Version {
        major: 2,
        minor: 1,
        data: b"",
    };
    let refused = says(&mut session, &newer, 0);
    assert_eq!(
        refused,
        "EINVAL: version 2.1 is proposed; this is version 0.0"
    );
    let reset = says(&mut session, &Request::Reset, 0);
    assert_eq!(reset, "EINVAL: DEVICE_RESET comes before VERSION");
}

#[test]
fn refusals_say_what_was_wrong_in_one_line() {
    let mut session = session();
    says(&mut session, &VERSION, 0);
    let read = |region, offset, count| Request::RegionRead {
        region,
        offset,
        count,
    };
    let listen = |start, count| Request::SetIrqs {
        index: IrqIndex::Msix,
        start,
        count,
        action: IrqAction::Trigger,
        data: IrqData::Eventfd,
    };
    let map = |address, size| Request::DmaMap {
        access: MapAccess::READ,
        offset: 0,
        address,
        size,
    };
    for (request, descriptors, expected) in [
        (
            read(Region::Bar(5), 0x3d, 4),
            0,
            "EINVAL: 4 bytes at 0x3d leave the 0x40 bytes of BAR 5",
        ),
        (
            read(Region::Config, 0, 0x20_0000),
            0,
            "E2BIG: REGION_READ moves 2097152 bytes; the limit is 1048576",
        ),
        (listen(8, 2), 2, "EINVAL: vectors 8+2 of MSI-X; it has 9"),
        (
            listen(0, 4),
            3,
            "EINVAL: DEVICE_SET_IRQS comes with 3 descriptors; it takes 4",
        ),
        (
            map(0x800, 0x1000),
            0,
            "EINVAL: DMA_MAP of 0x1000 bytes at 0x800, offset 0x0, is not made of pages",
        ),
        (
            map(0xffff_ffff_ffff_f000, 0x1000),
            0,
            "EINVAL: DMA_MAP of 0x1000 bytes at 0xfffffffffffff000, offset 0x0, wraps round",
        ),
        (
            Request::DmaRead {
                address: 0,
                count: 1,
            },
            0,
            "ENOTSUP: DMA_READ is not served",
        ),
    ] {
        assert_eq!(says(&mut session, &request, descriptors), expected);
    }
}

#[test]
fn accesses_at_the_edge_of_a_region_are_let_through() {
    let mut session = session();
    says(&mut session, &VERSION, 0);
    for (region, offset, count) in [
        (Region::Bar(5), 0x3c, 4),
        (Region::Bar(2), 0xf_ffff, 1),
        (Region::Config, 4096, 0),
        (Region::Rom, 0, 0),
    ] {
        let read = Request::RegionRead {
            region,
            offset,
            count,
        };
        let expected = Action::Read {
            region,
            offset,
            count,
        };
        assert_eq!(says(&mut session, &read, 0), format!("{expected:?}"));
    }
}
