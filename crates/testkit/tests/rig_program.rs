//! A static program of this machine runs in a guest of its own, and comes back with its output and
//! its status.

use testkit::guest::{Stream, agent};
use testkit::rig::{Rig, RigError};

#[test]
fn a_program_comes_back_with_its_lines_and_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let note = folder.path().join("note");
    std::fs::write(&note, "from outside").unwrap();
    // The agent is a static program as any other, and starts what is in the guest.
    let rig = Rig::new(agent::binary().unwrap())
        .unwrap()
        .argument("run")
        .argument("cat /etc/note")
        .file(&note, "/etc/note")
        .unwrap();
    let mut said = Vec::new();
    let ended = rig.run(
        |guest, boot| {
            assert!(guest.hello().release.contains("-iopf"));
            println!("Linux is up after {:.1} s", boot.as_secs_f32());
        },
        &mut |stream, line| said.push((stream, line.to_owned())),
    );
    let ended = ended.unwrap();
    println!("the program took {:.1} s", ended.ran.as_secs_f32());
    assert_eq!(said, [(Stream::Out, "from outside".to_owned())]);
    assert_eq!(ended.code, 0);
    // 64 is what the agent ends with where a command makes no sense.
    let rig = Rig::new(agent::binary().unwrap()).unwrap();
    let rig = rig.argument("run").argument("no-such");
    assert_eq!(rig.run(|_, _| (), &mut |_, _| ()).unwrap().code, 64);
}

#[test]
fn a_program_that_needs_a_loader_is_refused_before_anything_boots() {
    let own = std::env::current_exe().unwrap();
    let refused = Rig::new(&own).unwrap_err();
    assert!(matches!(refused, RigError::Dynamic(path) if path == own));
}
