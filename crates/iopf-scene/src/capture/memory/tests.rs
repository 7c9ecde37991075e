use super::*;

fn scene(text: &str) -> Capture {
    let text = format!(r#"{{"iopf_capture":1,"arch":"vtd","requests":[],{text}}}"#);
    Capture::parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"))
}

fn word(memory: &SceneMemory<'_>, at: u64) -> Option<u64> {
    memory.load(Gpa(at)).ok()
}

#[test]
fn bytes_that_no_range_names_are_zero_inside_memory_and_abort_outside() {
    let capture = scene(
        r#""memory_base":"0x1000","memory_limit":"0x3004","memory":[
           {"addr":"0x1ffc","data":"0102030405060708"},{"addr":"0x2009","data":"ff"}]"#,
    );
    let memory = SceneMemory::new(&capture);
    assert_eq!(word(&memory, 0x1000), Some(0));
    assert_eq!(word(&memory, 0x1ff8), Some(0x0403_0201_0000_0000));
    assert_eq!(word(&memory, 0x2000), Some(0x0807_0605));
    assert_eq!(word(&memory, 0x2008), Some(0xff00));
    assert_eq!(word(&memory, 0xff8), None);
    assert_eq!(word(&memory, 0x2ff8), Some(0));
    assert_eq!(word(&memory, 0x3000), None); // half of it lies past the limit
    assert_eq!(word(&memory, 0x1001), None);
}

#[test]
fn one_aborting_byte_aborts_the_whole_of_an_entry() {
    let capture =
        scene(r#""aborts":[{"addr":"0x101f","len":"0x1"},{"addr":"0x2000","len":"0x0"}]"#);
    let memory = SceneMemory::new(&capture);
    assert!(memory.load_words::<4>(Gpa(0x1000)).is_err());
    assert_eq!(memory.load_words::<3>(Gpa(0x1000)), Ok([0; 3]));
    assert_eq!(word(&memory, 0x1018), None);
    assert_eq!(word(&memory, 0x1020), Some(0));
    assert_eq!(word(&memory, 0x2000), Some(0)); // a stretch of no bytes aborts nothing
}

#[test]
fn stretches_that_overlap_abort_as_one() {
    let capture = scene(
        r#""aborts":[{"addr":"0x3000","len":"0x8"},{"addr":"0x1000","len":"0x100"},
           {"addr":"0x1010","len":"0x8"},{"addr":"0x1100","len":"0x8"}]"#,
    );
    let memory = SceneMemory::new(&capture);
    assert_eq!(word(&memory, 0xff8), Some(0));
    for at in [0x1000, 0x1010, 0x1018, 0x10f8, 0x1100, 0x3000] {
        assert_eq!(word(&memory, at), None, "{at:#x}");
    }
    assert_eq!(word(&memory, 0x1108), Some(0));
    assert_eq!(word(&memory, 0x2ff8), Some(0));
    assert_eq!(word(&memory, 0x3008), Some(0));
}

#[test]
fn writes_lie_over_what_the_capture_holds() {
    let capture = scene(r#""memory":[{"addr":"0x1000","words":["0x1"]}],"memory_limit":"0x2000""#);
    let memory = SceneMemory::new(&capture);
    assert_eq!(memory.compare_exchange(Gpa(0x1000), 1, 0x21), Ok(true));
    assert_eq!(word(&memory, 0x1000), Some(0x21));
    assert_eq!(memory.compare_exchange(Gpa(0x1000), 1, 0x41), Ok(false));
    assert_eq!(word(&memory, 0x1000), Some(0x21));
    assert!(memory.compare_exchange(Gpa(0x2000), 0, 1).is_err());
    assert!(memory.compare_exchange(Gpa(0x1004), 0, 1).is_err());
}

#[test]
fn the_ends_of_the_address_space_do_not_overflow() {
    let capture = scene(
        r#""memory":[{"addr":"0xfffffffffffffff8","words":["0x7"]}],
           "aborts":[{"addr":"0xffffffffffffffff","len":"0x1"}]"#,
    );
    let memory = SceneMemory::new(&capture);
    assert_eq!(word(&memory, u64::MAX - 7), None);
    assert!(memory.load_words::<2>(Gpa(u64::MAX - 7)).is_err());
    let none = scene(r#""memory_base":"0x0","memory_limit":"0x0""#);
    assert_eq!(word(&SceneMemory::new(&none), 0), None);
}
