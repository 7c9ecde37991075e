use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// Twenty-four bytes of storage.
#[derive(Default)]
struct File(Mutex<[u8; 24]>);

impl Registers for File {
    fn size(&self) -> u64 {
        24
    }
    fn read(&self, offset: u64, data: &mut [u8]) {
        let at = usize::try_from(offset).unwrap();
        data.copy_from_slice(&self.0.lock().unwrap()[at..at + data.len()]);
    }
    fn write(&self, offset: u64, data: &[u8]) {
        let at = usize::try_from(offset).unwrap();
        self.0.lock().unwrap()[at..at + data.len()].copy_from_slice(data);
    }
}

#[test]
fn the_function_is_what_linux_leaves_alone() {
    let function = IommuFunction::new(Arc::new(File::default()), || {}).unwrap();
    let mut header = [0; 16];
    function.read_config(0, &mut header);
    // Bus master on; class 08 00 20; header type 0; no capabilities.
    assert_eq!(
        header,
        [
            0x4f, 0x49, 0x55, 0x4d, 4, 0, 0, 0, 0, 0x20, 0, 8, 0, 0, 0, 0
        ]
    );
    assert_eq!((function.bar_size(0), function.bar_size(1)), (4096, 0));
    assert_eq!(function.interrupts(), Interrupts::default());
}

#[test]
fn the_place_that_firmware_chose_can_be_read() {
    let function = IommuFunction::new(Arc::new(File::default()), || {}).unwrap();
    function.write_config(0x10, &[0xff; 4]);
    let mut sized = [0; 4];
    function.read_config(0x10, &mut sized);
    assert_eq!(u32::from_le_bytes(sized), 0xffff_f000);
    function.write_config(0x10, &0xfebf_4000u32.to_le_bytes());
    assert_eq!(function.bar_address(), None);
    function.write_config(4, &[2, 0]);
    assert_eq!(function.bar_address(), Some(0xfebf_4000));
}

#[test]
fn accesses_reach_the_registers_and_nothing_else() {
    let function = IommuFunction::new(Arc::new(File::default()), || {}).unwrap();
    function.write_bar(0, 20, &[1, 2, 3, 4, 5, 6, 7, 8]);
    function.write_bar(1, 0, &[9]);
    function.write_bar(0, u64::MAX, &[9; 8]);
    let mut bytes = [0xaa; 8];
    function.read_bar(0, 20, &mut bytes);
    assert_eq!(bytes, [1, 2, 3, 4, 0, 0, 0, 0]);
    for (bar, offset) in [(1, 0), (0, 24), (0, u64::MAX)] {
        let mut bytes = [0xaa; 8];
        function.read_bar(bar, offset, &mut bytes);
        assert_eq!(bytes, [0; 8]);
    }
}

#[test]
fn a_reset_reaches_the_iommu_behind() {
    static RESETS: AtomicU32 = AtomicU32::new(0);
    let function = IommuFunction::new(Arc::new(File::default()), || {
        RESETS.fetch_add(1, Ordering::Relaxed);
    })
    .unwrap();
    function.write_config(4, &[2, 0]);
    function.reset();
    assert_eq!(RESETS.load(Ordering::Relaxed), 1);
    assert_eq!(function.bar_address(), None);
}

#[test]
fn a_register_file_beyond_a_bar_is_refused() {
    struct Huge;
    impl Registers for Huge {
        fn size(&self) -> u64 {
            u64::MAX
        }
        fn read(&self, _: u64, _: &mut [u8]) {}
        fn write(&self, _: u64, _: &[u8]) {}
    }
    let refused = IommuFunction::new(Arc::new(Huge), || {}).unwrap_err();
    assert!(matches!(refused, Impossible::BarSize { bar: 0, .. }));
}
