//! The client against a pretended QEMU at the other end of the socket.

use super::*;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::thread::{self, JoinHandle};

/// A client, and what `answer` says to each line; the thread gives the lines when the client ends.
fn pretended(answer: fn(&str) -> String) -> (Qtest, JoinHandle<Vec<String>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let mut writer = theirs.try_clone().unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(theirs).lines().map_while(Result::ok) {
            if writer.write_all(answer(&line).as_bytes()).is_err() {
                break;
            }
            lines.push(line);
        }
        lines
    });
    ours.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let child = Command::new("sleep").arg("60").spawn().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let qtest = Qtest::over(child, ours.try_clone().unwrap(), ours, dir);
    (qtest, server)
}

#[test]
fn interrupt_lines_between_answers_are_skipped() {
    let (mut qtest, _server) = pretended(|_| "IRQ raise 4\nIRQ lower 4\nOK 0x2a\n".to_owned());
    assert_eq!(qtest.readq(0x1000).unwrap(), 42);
}

#[test]
fn commands_arrive_in_order_as_qemu_spells_them() {
    // The spelling of QEMU `system/qtest.c`.
    let (mut qtest, server) = pretended(|_| "OK\n".to_owned());
    qtest.writeq(0x1000, 0x1f).unwrap();
    qtest.writel(0xfed9_0018, 1 << 31).unwrap();
    qtest.outl(0xcf8, 0x8000_2010).unwrap();
    qtest.clock_step(100).unwrap();
    qtest.settle().unwrap();
    drop(qtest);
    assert_eq!(
        server.join().unwrap(),
        [
            "writeq 0x1000 0x1f",
            "writel 0xfed90018 0x80000000",
            "outl 0xcf8 0x80002010",
            "clock_step 100",
        ]
    );
}

#[test]
fn a_long_burst_reads_answers_in_between() {
    let (mut qtest, server) = pretended(|_| "OK\n".to_owned());
    for at in 0..10_000 {
        qtest.writeq(at * 8, at).unwrap();
        assert!(qtest.waiting.len() <= IN_FLIGHT);
    }
    qtest.settle().unwrap();
    drop(qtest);
    assert_eq!(server.join().unwrap().len(), 10_000);
}

#[test]
fn a_refusal_names_its_command() {
    let (mut qtest, _server) = pretended(|line| match line.starts_with("readl") {
        true => "ERR no such address\n".to_owned(),
        false => "OK\n".to_owned(),
    });
    qtest.writeq(0, 0).unwrap();
    let text = qtest.readl(0x10).unwrap_err().to_string();
    assert!(
        text.contains("readl 0x10") && text.contains("no such address"),
        "{text}"
    );
}

#[test]
fn silence_names_what_was_waited_for() {
    let (mut qtest, _server) = pretended(|_| String::new());
    let text = qtest.readq(0x18).unwrap_err().to_string();
    assert!(text.contains("\"readq 0x18\""), "{text}");
}

#[test]
fn a_qemu_that_ends_at_once_is_quoted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("qemu");
    fs::write(
        &path,
        "#!/bin/sh\necho 'invalid accelerator qtest' >&2\nexit 1\n",
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let root = QemuRoot::of_binary(path);
    let text = Qtest::start(&root, &[]).unwrap_err().to_string();
    assert!(text.contains("invalid accelerator qtest"), "{text}");
    assert!(text.contains("exit status: 1"), "{text}");
}

#[test]
fn a_dropped_client_leaves_no_process() {
    let (qtest, _server) = pretended(|_| String::new());
    let process = format!("/proc/{}", qtest.child.id());
    assert!(fs::exists(&process).unwrap());
    drop(qtest);
    assert!(!fs::exists(&process).unwrap());
}
