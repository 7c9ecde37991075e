//! The channel against a pretended agent.

use super::*;

/// A channel whose other end says `text` and stays open.
fn saying(text: &str) -> (Control, UnixStream) {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    theirs.write_all(text.as_bytes()).unwrap();
    (Control::new(ours).unwrap(), theirs)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_millis(50)
}

#[test]
fn a_command_gets_its_own_lines_and_status() {
    let text = "9 | of another\n1 | state=done moved=64\n1 | \n10 = 0\n1 = 22\n";
    let (mut control, mut agent) = saying(text);
    let output = control.run("dma", soon()).unwrap();
    assert_eq!(output.lines, ["state=done moved=64", ""]);
    assert_eq!(output.status, 22);
    assert_eq!(output.value("moved"), Some("64"));
    assert_eq!(output.value("state"), Some("done"));
    assert_eq!(output.value("code"), None);
    let mut sent = [0; 6];
    agent.read_exact(&mut sent).unwrap();
    assert_eq!(&sent, b"1 dma\n");
}

#[test]
fn a_hello_is_kept_for_the_one_who_waits_for_it() {
    let text = "* hello release=6.12.1+deb13 uptime=4.10 failed=loading a: no b\n1 = 0\n";
    let (mut control, _agent) = saying(text);
    assert_eq!(control.run("ping", soon()).unwrap(), Output::default());
    let hello = control.hello(soon()).unwrap();
    assert_eq!(hello.release, "6.12.1+deb13");
    assert_eq!(hello.uptime, "4.10");
    assert_eq!(hello.failed, "loading a: no b");
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_until_the_deadline() {
    let (mut control, agent) = saying("1 | half");
    let late = control.run("ping", soon()).unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    drop(agent);
    // Either the write or the read notices that the guest is gone.
    assert!(control.run("ping", soon()).is_err());
}

#[test]
fn a_command_of_two_lines_is_refused() {
    let (mut control, _agent) = saying("");
    assert!(control.run("write a b\nc", soon()).is_err());
}
