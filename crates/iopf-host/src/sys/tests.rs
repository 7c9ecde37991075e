use super::*;
use rustix::fs::MemfdFlags;

#[test]
fn a_mapping_refuses_what_is_outside_or_unaligned() {
    let file = rustix::fs::memfd_create("mapping", MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 4096).unwrap();
    let mapping = Mapping::new(&file, 0, 4096).unwrap();
    mapping
        .write(8, Width::Eight, 0x1122_3344_5566_7788)
        .unwrap();
    assert_eq!(mapping.read32(12).unwrap(), 0x1122_3344);
    assert_eq!(mapping.read(8, Width::One).unwrap(), 0x88);
    for (offset, width) in [(4096, Width::One), (4092, Width::Eight), (2, Width::Four)] {
        assert!(mapping.read(offset, width).is_err(), "{offset:#x}");
    }
    let outside = mapping.write(usize::MAX, Width::Two, 0).unwrap_err();
    assert_eq!(
        outside.to_string(),
        "no 2 bytes at 0xffffffffffffffff of 0x1000"
    );
    // The file has what was stored.
    let mut bytes = [0; 8];
    rustix::io::pread(&file, &mut bytes, 8).unwrap();
    assert_eq!(bytes, 0x1122_3344_5566_7788_u64.to_le_bytes());
}

/// In a device's place: says, when it goes, whether its file was still mapped.
struct Mapped(std::sync::mpsc::Sender<bool>);

impl Mapped {
    const NAME: &'static str = "registers-of-a-device-that-goes";
}

impl Drop for Mapped {
    fn drop(&mut self) {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        self.0.send(maps.contains(Self::NAME)).unwrap();
    }
}

#[test]
fn a_device_is_not_closed_before_its_registers_are_unmapped() {
    let file = rustix::fs::memfd_create(Mapped::NAME, MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&file, 4096).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    let device = Arc::new(Mapped(said));
    let mapping = Mapping::new(&file, 0, 4096).unwrap();
    let mapping = mapping.of(device.clone().into());
    drop(device);
    assert!(heard.try_recv().is_err(), "the mapping holds the device");
    assert_eq!(mapping.read32(0), Ok(0));
    drop(mapping);
    assert_eq!(heard.try_recv(), Ok(false));
}

#[test]
fn a_file_that_answers_nothing_gives_no_descriptor() {
    let request = Request::FaultQueueAlloc;
    let errno = Errno::BADF;
    let refused = descriptor(request, NO_DESCRIPTOR).unwrap_err();
    assert_eq!(refused, Refused { request, errno });
}

/// The numbers that the headers give, written out: `_IO(';', 0x80 + n)` and `_IO(';', 100 + n)`.
#[test]
fn requests_have_the_numbers_of_the_headers() {
    for (request, number) in [
        (Request::Destroy, 0x3b80),
        (Request::IoasAlloc, 0x3b81),
        (Request::IoasIovaRanges, 0x3b84),
        (Request::IoasMap, 0x3b85),
        (Request::IoasUnmap, 0x3b86),
        (Request::HwptAlloc, 0x3b89),
        (Request::GetHwInfo, 0x3b8a),
        (Request::HwptInvalidate, 0x3b8d),
        (Request::FaultQueueAlloc, 0x3b8e),
        (Request::IoasMapFile, 0x3b8f),
        (Request::ViommuAlloc, 0x3b90),
        (Request::VdeviceAlloc, 0x3b91),
        (Request::VeventqAlloc, 0x3b93),
        (Request::TestCommand, 0x3ba0),
        (Request::GetRegionInfo, 0x3b6c),
        (Request::DeviceReset, 0x3b6f),
        (Request::BindIommufd, 0x3b76),
        (Request::AttachIommufdPt, 0x3b77),
        (Request::DetachIommufdPt, 0x3b78),
    ] {
        assert_eq!(opcode(request), number, "{request}");
    }
}
