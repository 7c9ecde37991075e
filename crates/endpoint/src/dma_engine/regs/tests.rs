use super::*;
use proptest::prelude::*;

/// A channel as a guest program sets it up, byte by byte.
#[rustfmt::skip]
const COPY: [u8; 0x68] = [
    0, 0, 0, 0, 0, 0, 0, 0, // ID and VERSION take nothing
    0x00, 0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // SRC 0x1_0000_1000
    0x00, 0x20, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, // DST 0x2_0000_2000
    0x00, 0x00, 0x01, 0x00, // LEN 64 KiB
    0x45, 0x23, 0xf1, 0xff, // PASID 0x12345, present; reserved bits 30:20 written as ones
    0x73, 0xfd, 0xff, 0xff, // CONTROL: COPY, privileged, execute, path 1, interrupt, GO
    0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
    1, 2, 3, 4, 5, 6, 7, 8, // PATTERN
    0x10, 0x00, 0x00, 0x80, // REQUESTER 00:02.0
    0x03, 0x00, 0x00, 0x00, // REPEAT 3
    0x00, 0x10, 0, 0, 0, 0, 0, 0, // STRIDE 0x1000
    0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 0, 0, 0, // FLAGS, of which three exist
    0, 0, 0, 0,
];

#[test]
fn an_order_reads_as_the_table_says() {
    let mut regs = Regs::new();
    assert!(regs.write(0, &COPY));
    assert!(regs.deaf());
    assert_eq!(
        regs.order(),
        Order {
            task: Some(Task::Copy),
            path: Path::Untranslated,
            from: Iova(0x1_0000_1000),
            to: Iova(0x2_0000_2000),
            len: 0x1_0000,
            pasid: Pasid::new(0x1_2345),
            privileged: true,
            execute: true,
            interrupt: true,
            write: false,
            pattern: [1, 2, 3, 4, 5, 6, 7, 8],
            requester: Some(Rid(0x10)),
            repeat: 3,
            stride: 0x1000,
            flood: true,
            without_bus_master: true,
            window: Vec::new(),
        }
    );
    let mut shown = [0; 0x30];
    regs.read(0, &mut shown);
    // "IOPF", version 1; reserved bits and GO read as zero.
    assert_eq!(shown[..8], [0x49, 0x4f, 0x50, 0x46, 1, 0, 0, 0]);
    assert_eq!(
        shown[0x1c..0x24],
        [0x45, 0x23, 0x01, 0x80, 0x73, 0x01, 0, 0]
    );
}

#[test]
fn progress_shows_where_the_table_says() {
    let mut regs = Regs::new();
    regs.show(&Progress {
        outcome: Outcome::Error,
        error: 3,
        pages: 0x1_2345,
        fault: 0x1122_3344_5566_7788,
        moved: 0x10_0000,
        errors: 2,
        check: 0xe306_9283,
        nanos: 1_000_000_000,
    });
    regs.count();
    let mut shown = [0; 0x68];
    regs.read(0, &mut shown);
    assert_eq!(shown[0x24..0x28], [0x03, 0x03, 0xff, 0xff]);
    assert_eq!(
        shown[0x28..0x30],
        [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]
    );
    assert_eq!(shown[0x30..0x38], [0, 0, 0x10, 0, 0, 0, 0, 0]);
    assert_eq!(shown[0x50..0x58], [2, 0, 0, 0, 0x83, 0x92, 0x06, 0xe3]);
    assert_eq!(shown[0x58..0x60], [0, 0xca, 0x9a, 0x3b, 0, 0, 0, 0]);
    assert_eq!(shown[0x64..0x68], [1, 0, 0, 0]);
}

#[test]
fn the_window_holds_two_kibibytes_and_no_more() {
    let mut regs = Regs::new();
    assert!(!regs.write(0x7f8, &[7; 0x808]));
    regs.fill_window(&[9; 0x1000]);
    let mut shown = [0; 0x808];
    regs.read(0x7f8, &mut shown);
    assert_eq!(shown[..8], [0; 8]);
    assert_eq!(shown[8..], [9; 0x800]);
}

proptest! {
    #[test]
    fn no_write_changes_what_only_the_engine_writes(
        writes in prop::collection::vec((0u16..0x90, prop::collection::vec(any::<u8>(), 0..32)), 1..40),
    ) {
        let mut regs = Regs::new();
        for (at, data) in writes {
            let go = regs.write(at, &data);
            let end = u64::from(at) + data.len() as u64;
            prop_assert!(!go || (at <= 0x23 && end > 0x23));
        }
        let mut shown = [0; 0x90];
        regs.read(0, &mut shown);
        prop_assert_eq!(&shown[..8], &[0x49, 0x4f, 0x50, 0x46, 1, 0, 0, 0]);
        prop_assert_eq!(&shown[0x24..0x38], &[0; 0x14]);
        prop_assert_eq!(&shown[0x50..0x60], &[0; 0x10]);
        prop_assert_eq!(&shown[0x64..], &[0; 0x2c]);
        prop_assert_eq!(shown[0x23], 0);
    }
}
