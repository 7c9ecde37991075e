use super::*;

fn map(at: u64, bytes: usize) -> Arc<GuestMemoryMmap<()>> {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(at), bytes)]).unwrap())
}

#[test]
fn frames_over_a_map_lie_in_that_map() {
    let memory = map(0, (1 << 20) + 2 * 4096 + 100);
    let ram = Ram::over(memory.clone());
    assert_eq!(ram.size(), (1 << 20) + 2 * 4096);
    let frame = ram.frame().unwrap();
    ram.store(frame, 0x1234_5678_9abc_def0);
    let seen: u64 = memory.read_obj(GuestAddress(frame.0)).unwrap();
    assert_eq!(seen, 0x1234_5678_9abc_def0);
    assert!(ram.frame().is_ok());
    assert_eq!(ram.frame(), Err(OutOfMemory));
}

#[test]
fn a_map_that_does_not_begin_at_zero_has_no_frames() {
    let ram = Ram::over(map(0x10_0000, 1 << 20));
    assert_eq!(ram.size(), 0);
    assert_eq!(ram.frame(), Err(OutOfMemory));
}
