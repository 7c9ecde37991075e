//! The tests of the host's resolvers pass on our own kernel as they do here: userfaultfd, lost pages,
//! a second process and its death.

use testkit::guest::agent;
use testkit::rig::Rig;

#[test]
fn the_resolvers_tests_pass_on_the_kernel_of_the_guest() {
    let program = agent::build_test("iopf-host", "resolvers", "fake").unwrap();
    let mut said = Vec::new();
    let ended = Rig::new(&program)
        .unwrap()
        .argument("--test-threads=1")
        .argument("--nocapture")
        .run(
            |_, boot| println!("Linux is up after {:.1} s", boot.as_secs_f32()),
            &mut |_, line| said.push(line.to_owned()),
        )
        .unwrap();
    let said = said.join("\n");
    println!("{said}\nin {:.1} s", ended.ran.as_secs_f32());
    assert_eq!(ended.code, 0);
    let passed = said.matches("... ok").count() + said.matches("\nok").count();
    assert!(passed >= 14, "{passed} passed");
    assert!(said.contains("0 failed; 0 ignored"));
}
