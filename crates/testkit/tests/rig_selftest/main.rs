//! The kernel's own tests of iommufd pass on the kernel that is our oracle.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod tap;

use tap::Tap;
use testkit::kernel::own;
use testkit::rig::{Ended, Rig};

/// Runs one of them; says how it went.
fn run(name: &str) -> (Tap, Ended, Vec<String>) {
    let kernel = own().unwrap();
    let program = kernel.selftest(name).unwrap();
    let (mut tap, mut said) = (Tap::default(), Vec::new());
    let ended = Rig::new(&program)
        .unwrap()
        // The programs map memory in huge pages and leave out no test where there are some.
        .huge_pages(64)
        .run(
            |_, boot| println!("{name}: Linux is up after {:.1} s", boot.as_secs_f32()),
            &mut |_, line| {
                tap.line(line);
                said.push(line.to_owned());
            },
        )
        .unwrap();
    println!(
        "{name} on {}: {tap}, in {:.1} s",
        kernel.version(),
        ended.ran.as_secs_f32()
    );
    (tap, ended, said)
}

/// The lines about tests that failed.
fn complaints(tap: &Tap, said: &[String]) -> String {
    let about = |line: &&String| {
        let last = |name: &String| name.rsplit('.').next().unwrap_or_default().to_owned();
        line.starts_with('#') && tap.failed().iter().any(|name| line.contains(&last(name)))
    };
    let lines: Vec<_> = said.iter().filter(about).map(String::as_str).collect();
    lines.join("\n")
}

#[test]
fn the_kernels_iommufd_tests_pass() {
    let (tap, ended, said) = run("iommufd");
    assert!(tap.whole(), "it broke off:\n{}", said.join("\n"));
    // Not the eight dmabuf tests either, which fail on an unpatched 7.3.4: the second patch in
    // guests/kernel/oracle says why.
    assert_eq!(tap.failed(), [""; 0], "{}", complaints(&tap, &said));
    assert_eq!(ended.code, 0);
    assert!(
        tap.passed()
            .iter()
            .any(|name| name.contains("dmabuf_revoke"))
    );
    assert!(tap.passed().len() >= 200, "{tap}");
    for (name, why) in tap.skipped() {
        println!("skipped: {name} ({why})");
        // Tests of a virtual IOMMU in the variant that has none.
        assert!(
            name.starts_with("iommufd_viommu.no_viommu."),
            "{name}: {why}"
        );
    }
}

#[test]
fn the_kernels_iommufd_tests_with_every_allocation_failing_in_turn_pass() {
    let (tap, ended, said) = run("iommufd_fail_nth");
    assert!(tap.whole(), "it broke off:\n{}", said.join("\n"));
    assert_eq!(tap.failed(), [""; 0], "{}", complaints(&tap, &said));
    assert_eq!(ended.code, 0);
    assert!(tap.skipped().is_empty(), "{:?}", tap.skipped());
    assert!(tap.passed().len() >= 8, "{tap}");
}
