//! Where `Policy::default()` is stricter: the kernel does the weak thing, recorded on the kernel here
//! and now, and the default does not. The rows are those of the table at `iopf::engine::Policy`.
//!
//! Lines are those of `testkit::oracle`: what a call returned, records read (`r:` device, flags,
//! PASID, group, perm, reserved, address, length, cookie), answers to devices (`a:` device, PASID,
//! group, code, flags, address).
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod scene;

use iopf::engine::{
    Attachment, Delivery, DeviceConfig, DeviceId, DomainId, Engine, Group, Handle, Pages, Policy,
    Reported, Stray, Tick, Verdict,
};
use iopf::resolve::{Decision, Forward, Resolver, serve};
use iopf::{Access, Fault, GroupIndex, Iova, PageRequest, Pasid, Response};
use scene::{Scene, attach, last, partial, read, replace, with_two_tables, write};
use testkit::oracle::{Object, Page, Step, Table};

#[test]
fn pages_of_two_pasids_are_one_group_to_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    scene.plays(&attach(0, 5, 2));
    scene.plays(&partial(0, 5, 8, 0x1000));
    scene.plays(&last(0, 0, 8, 0x2000));
    scene.tell(
        &read(0, 400),
        "80 r:d0,0x1,5,8,1,0,0x1000,0,1 r:d0,0x2,0,8,1,0,0x2000,0,1",
        "40 r:d0,0x2,0,8,1,0,0x2000,0,1",
    );
    scene.compare();
}

#[test]
fn a_page_that_nobody_handles_gets_an_answer_of_its_own_from_the_kernel() {
    let mut scene = Scene::new(vec![Step::Open, Step::Device(0, true)]);
    // Two answers for one group, of which the device expects one.
    scene.tell(
        &partial(0, 0, 8, 0x1000),
        "-22 a:d0,0,8,1,0x0,0x1000",
        "-22",
    );
    scene.tell(
        &last(0, 0, 8, 0x2000),
        "-22 a:d0,0,8,1,0x2,0x2000",
        "-22 a:d0,0,8,1,0x2,0x2000",
    );
    scene.compare();
}

#[test]
fn a_page_of_the_old_address_space_is_delivered_under_the_new_one_by_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    scene.plays(&partial(0, 0, 8, 0x1000));
    scene.plays(&replace(0, 0, 2));
    scene.plays(&last(0, 0, 8, 0x2000));
    scene.tell(
        &read(0, 400),
        "80 r:d0,0x0,0,8,1,0,0x1000,0,1 r:d0,0x2,0,8,1,0,0x2000,0,1",
        "40 r:d0,0x2,0,8,1,0,0x2000,0,1",
    );
    scene.compare();
}

#[test]
fn a_late_answer_completes_another_group_in_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    scene.plays(&last(0, 0, 8, 0x1000));
    scene.plays(&read(0, 40));
    // Both deny the group of the old tables: the kernel's handler does, ours is done by the engine.
    scene.plays(&replace(0, 0, 2));
    scene.plays(&last(0, 0, 9, 0x2000));
    scene.tell(
        &read(0, 40),
        "40 r:d0,0x2,0,9,1,0,0x2000,0,1",
        "40 r:d0,0x2,0,9,1,0,0x2000,0,2",
    );
    // The answer to the first group, on its way since before the replace.
    scene.tell(&write(0, &[(1, 0)]), "8 a:d0,0,9,0,0x2,0x2000", "-22");
    scene.compare();
}

#[test]
fn an_answer_to_no_cookie_makes_a_cookie_of_0_in_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    scene.plays(&last(0, 0, 8, 0x1000));
    scene.plays(&last(0, 0, 9, 0x2000));
    scene.plays(&read(0, 40));
    scene.plays(&write(0, &[(0, 0)]));
    scene.tell(
        &read(0, 40),
        "40 r:d0,0x2,0,9,1,0,0x2000,0,0",
        "40 r:d0,0x2,0,9,1,0,0x2000,0,2",
    );
    scene.compare();
}

#[test]
fn without_memory_the_kernel_answers_failure_whatever_the_wire() {
    let mut scene = Scene::new(with_two_tables());
    let short = Step::Page(Page {
        no_memory: true,
        ..scene::page(0, 0, 8, 0x1000, true)
    });
    // FAILURE (2): the device must stop its page requests for good. One group's trouble.
    scene.tell(&short, "0 a:d0,0,8,2,0x2,0x1000", "0 a:d0,0,8,1,0x2,0x1000");
    scene.compare();
    // Nor does the default say it for a resolver that takes no more, or where the wire cannot.
    for (policy, refused, failure) in [
        (Policy::linux(), Response::Failure, Ok(())),
        (Policy::default(), Response::Invalid, Err(())),
    ] {
        let mut engine = engine(policy);
        report(&mut engine, 0, 8);
        serve(&mut engine, NOW, &mut Refuses, 1);
        assert_eq!(engine.poll_answer().unwrap().response, refused);
        report(&mut engine, 0, 9);
        let group = deliver(&mut engine);
        let said = engine.answer(NOW, group, Response::Failure);
        assert_eq!(said.map_err(|_| ()), failure);
    }
}

#[test]
fn a_queue_that_nobody_reads_grows_without_end_in_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    for group in 0..600 {
        scene.plays(&last(0, 0, group, u64::from(group + 1) << 12));
    }
    // 600 groups of a page: 24,000 bytes. A device of ours has 512 credits, and the rest was
    // answered as it came.
    let (kernel, ours) = scene.play(&read(0, 32_000));
    assert!(kernel.starts_with("24000 "), "{kernel}");
    assert!(ours.starts_with("20480 "), "{ours}");
    let told = &scene.ours()[scene.ours().len() - 2];
    assert_eq!(told, "0 a:d0,0,599,1,0x2,0x258000");
    scene.compare();
}

#[test]
fn a_group_whose_reader_is_gone_waits_for_good_in_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    scene.plays(&last(0, 0, 8, 0x1000));
    scene.plays(&read(0, 40));
    scene.plays(&Step::Close(0));
    // The kernel has no deadline: nothing comes of waiting, and only a detach ends it.
    let waited = scene.waits();
    assert_eq!(waited, ["0 a:d0,0,8,1,0x2,0x1000"]);
    // Here the engine alone: an answer by the deadline, whoever forgot it.
    let mut engine = engine(Policy::default());
    let mut forward = Forward::new(engine.policy());
    report(&mut engine, 0, 8);
    assert_eq!(serve(&mut engine, NOW, &mut forward, 1), 1);
    let mut record = [0; 40];
    assert_eq!(forward.read_into(&engine, &mut record), Ok(40));
    assert_eq!(engine.poll_answer(), None);
    let deadline = engine.poll_timeout().unwrap();
    engine.handle_timeout(deadline);
    assert_eq!(engine.poll_answer().unwrap().response, Response::Invalid);
    let mut none = forgetful();
    assert_eq!(none.poll_timeout(), None);
    none.handle_timeout(Tick(u64::MAX));
    assert_eq!(none.poll_answer(), None);
}

#[test]
fn a_device_that_leaves_takes_the_groups_of_its_resolver_along_only_by_the_default() {
    // In the kernel a group that its handler has dequeued is spared by `iopf_queue_remove_device`;
    // iommufd's own lists answer it, so that on the kernel this shows in who answers, not whether.
    for (policy, answered) in [(Policy::linux(), false), (Policy::default(), true)] {
        let mut engine = engine(policy);
        report(&mut engine, 0, 8);
        let group = deliver(&mut engine);
        engine.dequeue(group).unwrap();
        engine.remove_device(NOW, DeviceId(0)).unwrap();
        assert_eq!(engine.poll_answer().is_some(), answered);
    }
    // The kernel: read groups of a device that is destroyed are denied, after those not read, which
    // is iommufd's order and not that of `iopf_queue_remove_device`.
    let mut scene = Scene::new(with_two_tables());
    for group in 1..=3 {
        scene.plays(&last(0, 0, group, u64::from(group) << 12));
    }
    scene.plays(&read(0, 40));
    scene.tell(
        &Step::Destroy(Object::Device(0)),
        "0 a:d0,0,3,1,0x2,0x3000 a:d0,0,2,1,0x2,0x2000 a:d0,0,1,1,0x2,0x1000",
        "0 a:d0,0,1,1,0x2,0x1000 a:d0,0,2,1,0x2,0x2000 a:d0,0,3,1,0x2,0x3000",
    );
    scene.compare();
}

#[test]
fn pasid_0_is_the_function_itself_to_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    // The function is attached, so PASID 0 is: EBUSY.
    let (kernel, _) = scene.play(&Step::Attach(0, 0, Table::Made(2)));
    assert_eq!(kernel, "-16");
    for (policy, apart) in [(Policy::linux(), false), (Policy::default(), true)] {
        let mut engine = engine(policy);
        let attachment = Attachment::new(DomainId(9));
        let attached = engine.attach(DeviceId(0), Pasid::new(0), attachment);
        assert_eq!(attached.is_ok(), apart);
    }
}

#[test]
fn one_devices_storm_is_before_another_devices_page_in_the_kernel() {
    let mut scene = Scene::new(with_two_tables());
    scene.plays(&Step::Device(1, true));
    scene.plays(&replace(1, 0, 1));
    for group in 0..100 {
        scene.plays(&last(0, 0, group, u64::from(group + 1) << 12));
    }
    scene.plays(&last(1, 0, 7, 0xf_f000));
    // Its record is the 101st that is read.
    let (kernel, _) = scene.play(&read(0, 32_000));
    let place = kernel
        .split(" r:")
        .position(|record| record.starts_with("d1,"));
    assert_eq!(place, Some(101));
    // The engine alone, since the world above delivers each group as it comes.
    for (policy, expected) in [(Policy::linux(), 100), (Policy::default(), 1)] {
        let mut engine = engine(policy);
        for group in 0..100 {
            report(&mut engine, 0, group);
        }
        report(&mut engine, 1, 7);
        let delivered = std::iter::from_fn(|| engine.poll_fault());
        let devices: Vec<DeviceId> = delivered
            .map(|delivery| match delivery {
                Delivery::Group(group) => group.device,
                Delivery::Stray(stray) => stray.device,
            })
            .collect();
        let place = devices.iter().position(|device| *device == DeviceId(1));
        assert_eq!(place, Some(expected));
    }
}

const NOW: Tick = Tick(0);

/// An engine with two devices behind a wire without FAILURE, both attached.
fn engine(policy: Policy) -> Engine {
    let mut engine = Engine::new(policy);
    let config = DeviceConfig {
        carries_failure: false,
        ..DeviceConfig::default()
    };
    for device in [0, 1].map(DeviceId) {
        engine.add_device(device, config).unwrap();
        let attachment = Attachment::new(DomainId(device.0));
        engine.attach(device, None, attachment).unwrap();
    }
    engine
}

/// One with the kernel's policy that holds a group which nobody answers.
fn forgetful() -> Engine {
    let mut engine = engine(Policy::linux());
    report(&mut engine, 0, 8);
    engine
}

fn report(engine: &mut Engine, device: u32, group: u32) {
    let page = PageRequest {
        pasid: None,
        group: GroupIndex(group),
        addr: Iova(0x1000),
        access: Access::READ,
        last: true,
        response_needs_pasid: false,
        private_data: [0; 2],
    };
    let reported = engine.report(NOW, DeviceId(device), &Fault::PageRequest(page));
    assert!(matches!(reported, Ok(Reported::Queued(_))));
}

fn deliver(engine: &mut Engine) -> Handle {
    match engine.poll_fault() {
        Some(Delivery::Group(group)) => group.handle,
        other => panic!("{other:?}"),
    }
}

/// A resolver that takes nothing.
struct Refuses;

impl Resolver for Refuses {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Refuse
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Unhandled
    }
}
