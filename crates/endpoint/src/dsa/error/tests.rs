use super::*;

fn error() -> SoftwareError {
    let origin = Origin {
        operation: Operation(3),
        pasid: Pasid::new(0x12345),
        privileged: true,
        batch_index: Some(7),
    };
    let outcome = Outcome {
        fault: 0x7fff_0000_3000,
        ..Outcome::of(Status::RECORD_FAULT.with_write(true))
    };
    SoftwareError::of_descriptor(2, &origin, &outcome)
}

#[test]
fn a_faulting_completion_record_is_literal_words() {
    // 59:40 PASID 0x12345, 39:32 operation 3, 23:16 WQ 2, 15:8 error 0x1a,
    // 6 Priv, 5 write, 4 batch, 3 WQ valid, 2 descriptor valid, 0 valid.
    let words = [0x0123_4503_0002_1a7d, 7, 0x7fff_0000_3000, 0];
    assert_eq!(error().words, words);
}

#[test]
fn the_fields_lie_where_union_sw_err_reg_has_them() {
    // drivers/dma/idxd/registers.h, as shifts: a second author.
    let word = error().words[0];
    let bits = |shift: u32, width: u32| word >> shift & ((1 << width) - 1);
    assert_eq!(bits(0, 1), 1, "valid");
    assert_eq!(bits(2, 1), 1, "desc_valid");
    assert_eq!(bits(3, 1), 1, "wq_idx_valid");
    assert_eq!(bits(4, 1), 1, "batch");
    assert_eq!(bits(5, 1), 1, "fault_rw");
    assert_eq!(bits(6, 1), 1, "priv");
    assert_eq!(bits(8, 8), 0x1a, "error");
    assert_eq!(bits(16, 8), 2, "wq_idx");
    assert_eq!(bits(32, 8), 3, "operation");
    assert_eq!(bits(40, 20), 0x12345, "pasid");
}

#[test]
fn the_register_keeps_the_first_error_until_it_is_acknowledged() {
    let mut register = Register::default();
    assert!(register.record(&error()));
    assert!(!register.record(&SoftwareError::new(code::WQ_FULL, Some(1))));
    assert_eq!(register.word(0), 0x0123_4503_0002_1a7f, "and overflow");
    register.acknowledge(1);
    assert!(register.record(&SoftwareError::new(code::WQ_FULL, Some(1))));
    assert_eq!(register.word(0) & 0xff_ffff, 0x01_530b, "overflow stays");
    register.acknowledge(3);
    assert_eq!(register.word(0) & 3, 0);
}
