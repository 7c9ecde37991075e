//! What every command of `iopf` does alike.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use assert_cmd::Command;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;

fn iopf() -> Command {
    Command::cargo_bin("iopf").unwrap()
}

fn stdout(command: &mut Command) -> String {
    let output = command.assert().success().get_output().clone();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_lists_the_commands_and_the_exit_status() {
    let text = stdout(iopf().arg("--help"));
    for word in [
        "run",
        "explain",
        "decode",
        "completions",
        "man",
        "Exit status:",
    ] {
        assert!(text.contains(word), "{word}\n{text}");
    }
}

#[test]
fn each_command_has_help_with_examples() {
    for command in ["run", "explain", "decode", "completions", "man"] {
        let text = stdout(iopf().args([command, "--help"]));
        assert!(text.contains("Example"), "{text}");
        assert!(text.contains(&format!("iopf {command}")), "{text}");
    }
}

#[test]
fn arguments_that_make_no_sense_have_status_2_and_say_so_on_stderr() {
    for args in [
        &[][..],
        &["explain"],
        &["nonsense"],
        &["explain", "--colour", "x"],
        &["man", "x"],
    ] {
        let output = iopf().args(args).assert().code(2);
        let output = output.get_output();
        assert_eq!(output.stdout, b"");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn completions_and_manual_pages_come_from_the_same_table() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(iopf().args(["completions", shell])).contains("fail-on-fault"));
    }
    assert!(stdout(iopf().arg("man")).contains(".TH iopf 1"));
    assert!(stdout(iopf().args(["man", "explain"])).contains("\\-\\-check"));
}

#[test]
fn version_is_printed() {
    assert_eq!(
        stdout(iopf().arg("--version")),
        format!("iopf {}\n", env!("CARGO_PKG_VERSION"))
    );
}

/// Runs `iopf` with a stdout whose reader goes away after a few bytes.
fn with_closed_stdout(args: &[&str], input: &[u8]) -> (Option<i32>, String) {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin("iopf"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut few = [0; 4];
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = std::thread::spawn(move || {
        // The program may stop reading before the end.
        let _ = std::io::Write::write_all(&mut stdin, &input);
    });
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut few).unwrap();
    drop(out);
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/captures");
    let text = std::fs::read_to_string(captures.join("legacy-unmapped.json")).unwrap();
    let many = format!("{}\n", text.replace('\n', " ")).repeat(500);
    assert_eq!(
        with_closed_stdout(&["explain", "--lines", "-"], many.as_bytes()),
        (Some(0), String::new())
    );
    let log = "[   12.3] DMAR: [DMA Read NO_PASID] Request device [00:02.0] fault addr 0x7f001000 \
               [fault reason 0x06] PTE Read access is not set\n"
        .repeat(5000);
    assert_eq!(
        with_closed_stdout(&["decode"], log.as_bytes()),
        (Some(0), String::new())
    );
}
