//! Bytes typed by hand from the tables of the specification, and bytes that QEMU 11.1.3 sent.

use super::*;
use zerocopy::{FromBytes, IntoBytes};

/// Cuts a message into its header and payload.
fn cut(bytes: &[u8]) -> (Header, &[u8]) {
    let (raw, payload) = RawHeader::ref_from_prefix(bytes).unwrap();
    let header = Header::decode(raw, &Limits::default()).unwrap();
    assert_eq!(header.size as usize, bytes.len());
    (header, payload)
}

/// The bytes mean the request, and the request gives the bytes.
fn means(bytes: &[u8], no_reply: bool, request: &Request<'_>) {
    let (header, payload) = cut(bytes);
    assert_eq!(header.kind, Kind::Command { no_reply });
    let decoded = decode_request(header.command, payload, &Limits::default());
    assert_eq!(decoded.as_ref(), Ok(request));
    let mut encoded = Vec::new();
    encode_request(header.id, no_reply, request, &mut encoded);
    assert_eq!(encoded, bytes);
}

/// The bytes are the reply to `command` number 0x102, and the reply gives the bytes.
fn answers(bytes: &[u8], command: Command, reply: &Reply<'_>) {
    let (header, payload) = cut(bytes);
    assert_eq!((header.id, header.command), (0x102, command));
    match header.kind {
        Kind::Reply { error: None } => {
            assert_eq!(decode_reply(command, payload).as_ref(), Ok(reply));
        }
        Kind::Reply { error: Some(errno) } => assert_eq!(*reply, Reply::Error(errno)),
        Kind::Command { .. } => panic!("{header:?}"),
    }
    let asked = Header::command(0x102, command, 16, false);
    let mut encoded = Vec::new();
    encode_reply(&asked, reply, &mut encoded);
    assert_eq!(encoded, bytes);
}

#[test]
fn a_header_has_id_command_size_flags_and_error_at_0_2_4_8_and_12() {
    let bytes = [
        0x34, 0x12, // id
        0x09, 0x00, // REGION_READ
        0x20, 0x00, 0x01, 0x00, // 0x10020 bytes
        0x21, 0x00, 0x00, 0x00, // reply, error
        0x16, 0x00, 0x00, 0x00, // EINVAL
    ];
    let raw = RawHeader::read_from_bytes(&bytes).unwrap();
    let header = Header::decode(&raw, &Limits::default()).unwrap();
    let expected = Header {
        id: 0x1234,
        command: Command::REGION_READ,
        size: 0x1_0020,
        kind: Kind::Reply {
            error: Some(Errno::EINVAL),
        },
    };
    assert_eq!(header, expected);
    assert_eq!(header.encode().as_bytes(), bytes);
}

/// `include/vfio-user.h` of libvfio-user: a second author's masks and numbers.
#[test]
fn flags_and_commands_agree_with_libvfio_user() {
    let (reply, no_reply, error) = (0x1, 0x10, 0x20);
    let flags = |header: Header| header.encode().flags.get();
    let command = Header::command(0, Command::RESET, 16, false);
    assert_eq!(flags(command), 0);
    assert_eq!(
        flags(Header::command(0, Command::RESET, 16, true)),
        no_reply
    );
    assert_eq!(flags(command.reply(16, None)), reply);
    assert_eq!(flags(command.reply(16, Some(Errno::EIO))), reply | error);
    let numbers = [
        (1, "VERSION"),
        (2, "DMA_MAP"),
        (3, "DMA_UNMAP"),
        (4, "DEVICE_GET_INFO"),
        (5, "DEVICE_GET_REGION_INFO"),
        (7, "DEVICE_GET_IRQ_INFO"),
        (8, "DEVICE_SET_IRQS"),
        (9, "REGION_READ"),
        (10, "REGION_WRITE"),
        (11, "DMA_READ"),
        (12, "DMA_WRITE"),
        (13, "DEVICE_RESET"),
    ];
    for (number, name) in numbers {
        assert_eq!(Command(number).name(), Some(name));
    }
    assert_eq!(Command(15).to_string(), "command 15");
}

/// `<errno.h>` of Linux on x86, as rustix has it from the kernel's headers.
#[test]
fn error_numbers_are_those_of_the_kernel() {
    use rustix::io::Errno as Kernel;
    for (ours, theirs) in [
        (Errno::EPERM, Kernel::PERM),
        (Errno::ENOENT, Kernel::NOENT),
        (Errno::EIO, Kernel::IO),
        (Errno::E2BIG, Kernel::TOOBIG),
        (Errno::ENOMEM, Kernel::NOMEM),
        (Errno::EACCES, Kernel::ACCESS),
        (Errno::EBUSY, Kernel::BUSY),
        (Errno::EEXIST, Kernel::EXIST),
        (Errno::EINVAL, Kernel::INVAL),
        (Errno::ENOSPC, Kernel::NOSPC),
        (Errno::ENOTSUP, Kernel::NOTSUP),
        (Errno::ETIMEDOUT, Kernel::TIMEDOUT),
    ] {
        assert_eq!(i32::try_from(ours.0), Ok(theirs.raw_os_error()), "{ours}");
        assert!(ours.name().is_some());
    }
}

#[test]
fn sizes_that_lead_nowhere_are_errors() {
    let limits = Limits::default();
    let decode = |size: u32, flags: u32| {
        let raw = RawHeader {
            size: size.into(),
            flags: flags.into(),
            ..RawHeader::default()
        };
        Header::decode(&raw, &limits)
    };
    assert!(matches!(
        decode(15, 0),
        Err(HeaderError::Short { size: 15, .. })
    ));
    assert!(decode(16, 0).is_ok());
    assert!(decode(limits.max_message(), 0).is_ok());
    assert!(matches!(
        decode(limits.max_message() + 1, 0),
        Err(HeaderError::Long { .. })
    ));
    assert!(matches!(
        decode(16, 2),
        Err(HeaderError::Type { kind: 2, .. })
    ));
    assert!(matches!(
        decode(16, 0xf),
        Err(HeaderError::Type { kind: 15, .. })
    ));
}

#[test]
fn version_is_two_numbers_and_json_with_a_nul() {
    let bytes = [
        0x01, 0x00, 0x01, 0x00, 0x17, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // header, 23 bytes
        0x00, 0x00, // major
        0x01, 0x00, // minor
        b'{', b'}', 0x00,
    ];
    let data = b"{}\0";
    let (major, minor) = (0, 1);
    means(&bytes, false, &Request::Version { major, minor, data });
    let bytes = [
        0x02, 0x01, 0x01, 0x00, 0x17, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // reply
        0x00, 0x00, 0x00, 0x00, b'{', b'}', 0x00,
    ];
    let (major, minor) = (0, 0);
    answers(
        &bytes,
        Command::VERSION,
        &Reply::Version { major, minor, data },
    );
}

#[test]
fn dma_map_has_argsz_flags_offset_address_and_size() {
    let bytes = [
        0x05, 0x00, 0x02, 0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // header, 48 bytes
        0x20, 0x00, 0x00, 0x00, // argsz 32
        0x03, 0x00, 0x00, 0x00, // readable, writeable
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // offset
        0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0x00, 0x00, // address
        0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // size
    ];
    let request = Request::DmaMap {
        access: MapAccess::READ | MapAccess::WRITE,
        offset: 0x1000,
        address: 0x1_8000_0000,
        size: 0x2000,
    };
    means(&bytes, false, &request);
}

#[test]
fn dma_unmap_has_argsz_flags_address_and_size_and_comes_back() {
    let bytes = [
        0x02, 0x01, 0x03, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // header, 40 bytes
        0x18, 0x00, 0x00, 0x00, // argsz 24
        0x00, 0x00, 0x00, 0x00, // flags
        0x00, 0x00, 0x00, 0x80, 0x01, 0x00, 0x00, 0x00, // address
        0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // size
    ];
    let request = Request::DmaUnmap {
        address: 0x1_8000_0000,
        size: 0x2000,
    };
    means(&bytes, false, &request);
    let block = DmaUnmap::read_from_bytes(&bytes[16..]).unwrap();
    let mut reply = bytes;
    reply[8] = 1;
    answers(&reply, Command::DMA_UNMAP, &Reply::Unmapped(block));
}

#[test]
fn unmapping_all_is_flag_1_and_a_bitmap_is_not_served() {
    let mut bytes = [0; 40];
    bytes[..8].copy_from_slice(&[0x02, 0x01, 0x03, 0x00, 0x28, 0x00, 0x00, 0x00]);
    bytes[16..24].copy_from_slice(&[0x18, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00]);
    means(&bytes, false, &Request::DmaUnmapAll);
    let refused = |bytes: &[u8]| {
        decode_request(Command::DMA_UNMAP, &bytes[16..], &Limits::default()).unwrap_err()
    };
    // All of a range contradicts itself.
    bytes[24] = 1;
    assert!(matches!(refused(&bytes), Refusal::Flags { flags: 2, .. }));
    // `VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP`.
    (bytes[20], bytes[24]) = (1, 0);
    assert!(matches!(refused(&bytes), Refusal::Flags { flags: 1, .. }));
}

#[test]
fn device_info_has_argsz_flags_regions_and_interrupts() {
    let bytes = [
        0x02, 0x01, 0x04, 0x00, 0x20, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // reply, 32 bytes
        0x10, 0x00, 0x00, 0x00, // argsz 16
        0x03, 0x00, 0x00, 0x00, // reset, PCI
        0x09, 0x00, 0x00, 0x00, // regions
        0x05, 0x00, 0x00, 0x00, // interrupts
    ];
    let reply = Reply::Info {
        flags: 3,
        regions: 9,
        irqs: 5,
    };
    answers(&bytes, Command::GET_INFO, &reply);
}

#[test]
fn region_info_has_its_index_at_8_and_its_size_at_16() {
    let bytes = [
        0x02, 0x01, 0x05, 0x00, 0x30, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // reply, 48 bytes
        0x20, 0x00, 0x00, 0x00, // argsz 32
        0x03, 0x00, 0x00, 0x00, // readable, writeable
        0x07, 0x00, 0x00, 0x00, // configuration space
        0x00, 0x00, 0x00, 0x00, // no capabilities
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // size
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // offset
    ];
    let reply = Reply::Region {
        region: Region::Config,
        flags: 3,
        size: 4096,
    };
    answers(&bytes, Command::GET_REGION_INFO, &reply);
}

#[test]
fn interrupt_info_has_its_index_at_8_and_its_count_at_12() {
    let bytes = [
        0x02, 0x01, 0x07, 0x00, 0x20, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // reply, 32 bytes
        0x10, 0x00, 0x00, 0x00, // argsz 16
        0x01, 0x00, 0x00, 0x00, // eventfd
        0x02, 0x00, 0x00, 0x00, // MSI-X
        0x00, 0x08, 0x00, 0x00, // 2048 vectors
    ];
    let reply = Reply::Irq {
        index: IrqIndex::Msix,
        flags: 1,
        count: 2048,
    };
    answers(&bytes, Command::GET_IRQ_INFO, &reply);
}

#[test]
fn set_irqs_has_argsz_flags_index_start_count_and_booleans_at_20() {
    let bytes = [
        0x01, 0x00, 0x08, 0x00, 0x26, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // header, 38 bytes
        0x16, 0x00, 0x00, 0x00, // argsz 22
        0x0a, 0x00, 0x00, 0x00, // booleans, mask
        0x00, 0x00, 0x00, 0x00, // INTx
        0x03, 0x00, 0x00, 0x00, // start
        0x02, 0x00, 0x00, 0x00, // count
        0x01, 0x00,
    ];
    let request = Request::SetIrqs {
        index: IrqIndex::Intx,
        start: 3,
        count: 2,
        action: IrqAction::Mask,
        data: IrqData::Bool(&[1, 0]),
    };
    means(&bytes, false, &request);
}

#[test]
fn region_accesses_have_offset_region_count_and_data_at_16() {
    let read = [
        0x02, 0x01, 0x09, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // header, 32 bytes
        0x34, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // offset
        0x00, 0x00, 0x00, 0x00, // BAR 0
        0x04, 0x00, 0x00, 0x00, // count
    ];
    let region = Region::Bar(0);
    let (offset, count) = (0x34, 4);
    let request = Request::RegionRead {
        region,
        offset,
        count,
    };
    means(&read, false, &request);
    let mut reply = [&read[..], &[0x78, 0x56, 0x34, 0x12]].concat();
    (reply[4], reply[8]) = (0x24, 1);
    let data = &[0x78, 0x56, 0x34, 0x12];
    let answer = Reply::RegionRead {
        region,
        offset,
        data,
    };
    answers(&reply, Command::REGION_READ, &answer);
    // A posted write: the flag is bit 4.
    let mut write = reply.clone();
    (write[2], write[8]) = (0x0a, 0x10);
    let request = Request::RegionWrite {
        region,
        offset,
        data,
    };
    means(&write, true, &request);
    // Its reply has no data.
    let mut written = read;
    (written[2], written[8]) = (0x0a, 1);
    let answer = Reply::RegionWritten {
        region,
        offset,
        count,
    };
    answers(&written, Command::REGION_WRITE, &answer);
}

#[test]
fn dma_has_address_a_count_of_64_bits_and_data_at_32_of_the_message() {
    let write = [
        0xff, 0xff, 0x0c, 0x00, 0x24, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, // header, 36 bytes, no reply wanted
        0x00, 0x10, 0xe0, 0xfe, 0x00, 0x00, 0x00, 0x00, // address
        0x04, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // count
        0x21, 0x40, 0x00, 0x00, // data
    ];
    let address = 0xfee0_1000;
    let data = &[0x21, 0x40, 0, 0];
    means(&write, true, &Request::DmaWrite { address, data });
    let mut reply = write;
    (reply[0], reply[1], reply[2], reply[8]) = (0x02, 0x01, 0x0b, 0x01);
    answers(&reply, Command::DMA_READ, &Reply::DmaRead { address, data });
    let mut read = [0; 32];
    read.copy_from_slice(&write[..32]);
    (read[2], read[4], read[8]) = (0x0b, 0x20, 0);
    let count = 4;
    means(&read, false, &Request::DmaRead { address, count });
}

#[test]
fn an_error_is_a_header_and_nothing_else() {
    let bytes = [
        0x02, 0x01, 0x02, 0x00, 0x10, 0x00, 0x00, 0x00, 0x21, 0x00, 0x00, 0x00, 0x11, 0x00, 0x00,
        0x00,
    ];
    answers(&bytes, Command::DMA_MAP, &Reply::Error(Errno::EEXIST));
}

/// What QEMU 11.1.3 sent when it began with a function, byte for byte.
#[test]
fn messages_of_qemu_mean_what_it_meant() {
    let limits = Limits::default();
    let json = concat!(
        "{\"capabilities\": {\"pgsizes\": 4096, \"max_msg_fds\": 16, \"max_dma_maps\": 65535, ",
        "\"max_data_xfer_size\": 1048576, \"migration\": {\"max_bitmap_size\": 268435456, ",
        "\"pgsize\": 4096}, \"write_multiple\": true}}\0",
    );
    let mut version = vec![
        0x00, 0x00, 0x01, 0x00, 0xd6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    version.extend([0, 0, 0, 0]);
    version.extend(json.as_bytes());
    let (header, payload) = cut(&version);
    let request = decode_request(header.command, payload, &limits).unwrap();
    let Request::Version { data, .. } = request else {
        panic!("{request:?}");
    };
    let capabilities = Capabilities::decode(data, &limits).unwrap();
    let expected = Capabilities {
        max_msg_fds: Some(16),
        max_data_xfer_size: Some(1 << 20),
        max_dma_maps: Some(65535),
        pgsizes: Some(4096),
    };
    assert_eq!(capabilities, expected);
    let rom = [
        0x02, 0x00, 0x02, 0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x20, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0xfc, 0xff, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, 0x00,
        0x00, 0x00, 0x00,
    ];
    let request = Request::DmaMap {
        access: MapAccess::READ,
        offset: 0,
        address: 0xfffc_0000,
        size: 0x4_0000,
    };
    means(&rom, false, &request);
    let unmap = [
        0x3c, 0x00, 0x03, 0x00, 0x28, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x18, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00,
    ];
    let request = Request::DmaUnmap {
        address: 0,
        size: 0x1000_0000,
    };
    means(&unmap, false, &request);
    let info = [
        0x03, 0x00, 0x04, 0x00, 0x20, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x10, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00,
    ];
    means(&info, false, &Request::GetInfo);
    let irqs = [
        0x13, 0x00, 0x08, 0x00, 0x24, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x14, 0x00, 0x00, 0x00, 0x24, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x01, 0x00, 0x00, 0x00,
    ];
    let request = Request::SetIrqs {
        index: IrqIndex::Error,
        start: 0,
        count: 1,
        action: IrqAction::Trigger,
        data: IrqData::Eventfd,
    };
    means(&irqs, false, &request);
    let rom_bar = [
        0x0e, 0x00, 0x0a, 0x00, 0x24, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
        0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00, 0x04, 0x00,
        0x00, 0x00, 0x00, 0xf8, 0xff, 0xff,
    ];
    let request = Request::RegionWrite {
        region: Region::Config,
        offset: 0x30,
        data: &[0x00, 0xf8, 0xff, 0xff],
    };
    means(&rom_bar, false, &request);
    // It could not write an interrupt message, because Bus Master was off.
    let refused = [
        0xff, 0xff, 0x0c, 0x00, 0x10, 0x00, 0x00, 0x00, 0x21, 0x00, 0x00, 0x00, 0x13, 0x00, 0x00,
        0x00,
    ];
    let (header, _) = cut(&refused);
    let error = Some(Errno(19));
    assert_eq!(header.kind, Kind::Reply { error });
}

#[test]
fn a_server_answers_with_a_subset_of_what_was_proposed() {
    let limits = Limits::default();
    let answer = |json: &[u8]| {
        let theirs = Capabilities::decode(json, &limits).unwrap();
        String::from_utf8(theirs.answer(&limits).encode()).unwrap()
    };
    assert_eq!(answer(b""), "{\"capabilities\":{}}\0");
    assert_eq!(answer(b"{}\0"), "{\"capabilities\":{}}\0");
    assert_eq!(
        answer(b"{\"capabilities\":{\"max_msg_fds\":1,\"twin_socket\":{\"supported\":true}}}\0"),
        "{\"capabilities\":{\"max_msg_fds\":8}}\0"
    );
    assert_eq!(
        answer(
            b"{\"capabilities\":{\"pgsizes\":4096,\"max_dma_maps\":7,\"max_data_xfer_size\":1}}\0"
        ),
        "{\"capabilities\":{\"max_data_xfer_size\":1048576,\"max_dma_maps\":4096,\"pgsizes\":4096}}\0"
    );
}
