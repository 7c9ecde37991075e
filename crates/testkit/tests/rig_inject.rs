//! A guest answers for devices of a real iommufd: page requests of the kernel's mock devices, on nested
//! tables with a fault queue, go by the kernel's descriptor and the pump into the page request queue
//! of our VT-d unit, whose guest is scripted. What the devices are told is what the kernel says, with its
//! oracle's patch, until everything is closed.
//!
//! The scenes are in `guests/rig/src/inject.rs`; the same on a descriptor in memory is
//! `crates/iopf-cli/tests/inject`.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use testkit::guest::agent;
use testkit::rig::Rig;

/// What a scene came to.
struct Scene {
    /// All that the devices were told, in order.
    responses: Vec<String>,
    guest: String,
    pump: String,
}

/// A pump that had nothing to regret.
const CALM: &str = "late=0 strangers=0 orphaned=0 panics=0 given_up=0 unwritten=0";

/// Plays a scene in a guest of its own.
fn play(scene: &str) -> Scene {
    let program = agent::build("iopf-rig", "iopf-rig", "guest").unwrap();
    let rig = Rig::new(&program).unwrap();
    let rig = rig.argument("inject").argument(scene);
    let mut said = Vec::new();
    let ended = rig.run(|_, _| (), &mut |_, line| said.push(line.to_owned()));
    println!("{}", said.join("\n"));
    let ended = ended.unwrap();
    assert_eq!(ended.code, 0, "{said:?}");
    println!("in {:.1} s", ended.ran.as_secs_f32());
    let of = |word: &str| -> Vec<String> {
        let lines = said.iter().filter_map(|line| line.strip_prefix(word));
        lines.map(str::to_owned).collect()
    };
    let [guest] = of("guest ").try_into().unwrap();
    let [pump] = of("pump ").try_into().unwrap();
    Scene {
        responses: of("response "),
        guest,
        pump,
    }
}

/// A response to a group of the first device, with a PASID: flags 1 (it has one), 2 (the last page) and
/// 4 (so must the response), and the address of its last page. Code 0 is SUCCESS, 1 INVALID.
fn response(group: u32, code: u32, page: u64) -> String {
    let at = 0x7f00_0000_0000 + page * 0x1000;
    format!("dev=iommufd_mock0 pasid=5 grpid={group} code={code} flags=0x7 addr={at:#x}")
}

#[test]
fn what_the_guest_answers_is_what_the_device_is_told() {
    let scene = play("answers");
    assert_eq!(scene.responses, [response(7, 0, 0), response(8, 1, 64)]);
    assert_eq!(scene.guest, "requests=2 success=1 invalid=1 overflows=0");
    assert_eq!(scene.pump, CALM);
}

#[test]
fn a_group_of_several_pages_has_one_answer() {
    let scene = play("pages");
    let expected = [
        response(7, 0, 3),
        // One of its pages is not the process's.
        response(8, 1, 5),
        // Pages of these two came by turns.
        response(10, 0, 8),
        response(9, 0, 9),
    ];
    assert_eq!(scene.responses, expected);
    assert_eq!(scene.guest, "requests=11 success=3 invalid=1 overflows=0");
    assert_eq!(scene.pump, CALM);
}

#[test]
fn a_group_without_a_pasid_is_not_the_one_with_its_index_and_a_pasid() {
    let scene = play("no-pasid");
    let expected = [
        // The guest answered this one first, though it asked last.
        response(7, 0, 4),
        "dev=iommufd_mock0 pasid=0 grpid=7 code=0 flags=0x2 addr=0x7f0000002000".to_owned(),
        "dev=iommufd_mock0 pasid=0 grpid=8 code=1 flags=0x2 addr=0x7f0000040000".to_owned(),
    ];
    assert_eq!(scene.responses, expected);
    assert_eq!(scene.guest, "requests=7 success=2 invalid=1 overflows=0");
    assert_eq!(scene.pump, CALM);
}

#[test]
fn a_full_queue_of_the_guests_has_the_device_ask_again() {
    let scene = play("full");
    // 127 found room. The others are told SUCCESS by the unit, before the guest does anything.
    let early = (127..130).map(|group| response(group, 0, u64::from(group) % 64));
    let mut expected: Vec<String> = early.chain([response(130, 0, 1)]).collect();
    expected.extend((0..127).map(|group| response(group, 0, u64::from(group) % 64)));
    // The one of two pages, once more.
    expected.push(response(130, 0, 1));
    assert_eq!(scene.responses, expected);
    assert_eq!(
        scene.guest,
        "requests=129 success=128 invalid=0 overflows=1"
    );
    assert_eq!(scene.pump, CALM);
}

#[test]
fn a_guest_that_never_answers_leaves_it_to_the_deadline_and_its_late_answer_hits_nothing() {
    let scene = play("silent");
    assert_eq!(scene.responses, [response(7, 1, 0), response(7, 1, 1)]);
    // It never saw the second.
    assert_eq!(scene.guest, "requests=1 success=1 invalid=0 overflows=0");
    assert_eq!(scene.pump, CALM.replace("late=0", "late=1"));
}

#[test]
fn a_reset_of_the_guest_tells_the_device_invalid_once_for_each_group() {
    let mut scene = play("reset");
    let next = scene.responses.split_off(3);
    scene.responses.sort_unstable();
    let mut expected = [
        response(7, 1, 1),
        "dev=iommufd_mock0 pasid=0 grpid=8 code=1 flags=0x2 addr=0x7f0000002000".to_owned(),
        // Nobody had read it: the kernel itself answered.
        response(9, 1, 3),
    ];
    expected.sort_unstable();
    assert_eq!(scene.responses, expected);
    // The next guest has the index to itself.
    assert_eq!(next, [response(7, 0, 0)]);
    assert_eq!(scene.guest, "requests=1 success=1 invalid=0 overflows=0");
    assert_eq!(scene.pump, CALM);
}

#[test]
fn two_devices_with_one_index_are_told_each_its_own() {
    let scene = play("devices");
    let second = response(7, 1, 1).replace("mock0", "mock1");
    assert_eq!(scene.responses, [second, response(7, 0, 0)]);
    assert_eq!(scene.guest, "requests=2 success=1 invalid=1 overflows=0");
    assert_eq!(scene.pump, CALM);
}
