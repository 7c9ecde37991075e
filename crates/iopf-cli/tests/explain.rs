//! `iopf explain` as a user runs it.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use assert_cmd::Command;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn iopf() -> Command {
    Command::cargo_bin("iopf").unwrap()
}

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/captures")
}

fn capture(name: &str) -> String {
    captures().join(name).display().to_string()
}

/// Every example, sorted.
fn all() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(captures())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    assert!(files.len() >= 110);
    files
}

fn out(command: &mut Command) -> String {
    let output = command.assert().success().get_output().clone();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_example_is_as_its_author_typed_it() {
    for file in all() {
        let expect: usize = fs::read_to_string(&file)
            .unwrap()
            .matches("\"outcome\"")
            .count();
        assert!(expect > 0, "{} expects nothing", file.display());
        let text = out(iopf().arg("explain").arg("--check").arg(&file));
        assert!(
            text.ends_with(&format!("check: all {expect} as expected\n")),
            "{}\n{text}",
            file.display()
        );
    }
}

#[test]
fn the_text_view_shows_the_walk_the_entry_and_what_to_do() {
    for name in [
        "legacy-write-to-read-only",
        "legacy-reserved-context",
        "legacy-table-outside-memory",
        "legacy-ats-not-enabled",
        "legacy-interrupt-range",
        "sva-healthy",
        "sva-page-not-present",
        "nested-table-not-mapped",
        "off",
        "amdvi-healthy",
        "amdvi-write-to-read-only",
        "amdvi-blocked-device",
        "amdvi-reserved-device-entry",
        "amdvi-device-outside-table",
        "amdvi-table-outside-memory",
        "amdvi-skipped-levels",
        "amdvi-ats-not-enabled",
        "amdvi-interrupt-range",
        "amdvi-sva-page-not-present",
        "amdvi-sva-pasid-not-bound",
        "amdvi-page-requests-not-enabled",
        "amdvi-suppressed-repeats",
        "amdvi-nested-table-not-mapped",
        "amdvi-off",
        "smmuv3-healthy",
        "smmuv3-write-to-read-only",
        "smmuv3-hardware-flags",
        "smmuv3-no-stream",
        "smmuv3-no-entry",
        "smmuv3-blocked-device",
        "smmuv3-two-level-stream-table",
        "smmuv3-context-outside-memory",
        "smmuv3-upper-half",
        "smmuv3-table-outside-memory",
        "smmuv3-read-as-zero",
        "smmuv3-ats-not-enabled",
        "smmuv3-ats",
        "smmuv3-sva-page-not-present",
        "smmuv3-sva-not-bound",
        "smmuv3-two-level-context",
        "smmuv3-stage2-read-only",
        "smmuv3-nested-table-not-mapped",
        "smmuv3-nested-context-not-mapped",
        "smmuv3-page-request",
        "smmuv3-page-requests-not-enabled",
        "smmuv3-off-aborts",
    ] {
        let text = out(iopf().arg("explain").arg(capture(&format!("{name}.json"))));
        insta::assert_snapshot!(format!("text-{name}"), text);
    }
}

#[test]
fn the_json_view_is_one_object_a_request() {
    for name in [
        "legacy-write-to-read-only",
        "sva-page-not-present",
        "legacy-interrupt-range",
        "amdvi-sva-page-not-present",
        "smmuv3-sva-page-not-present",
    ] {
        let text = out(iopf()
            .args(["explain", "--json"])
            .arg(capture(&format!("{name}.json"))));
        for line in text.lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(value["trail"].is_array() && value["writes"].is_array());
        }
        insta::assert_snapshot!(format!("json-{name}"), text);
    }
}

#[test]
fn captures_come_one_a_line_and_a_bad_one_does_not_stop_the_next() {
    let line = |name: &str| {
        fs::read_to_string(capture(name))
            .unwrap()
            .replace('\n', " ")
    };
    let input = format!(
        "{}\nrubbish\n{{\"iopf_capture\":1,\"arch\":\"riscv\",\"requests\":[]}}\n\n{}",
        line("legacy-unmapped.json"),
        line("off.json")
    );
    let text = out(iopf().args(["explain", "--lines", "-"]).write_stdin(input));
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let told: Vec<String> = lines
        .iter()
        .map(|line| {
            let of = if line["error"].is_string() {
                &line["error"]
            } else {
                &line["outcome"]
            };
            format!("{} {} {of}", line["capture"], line["request"])
        })
        .collect();
    assert_eq!(
        told,
        [
            "0 0 \"fault\"",
            "0 1 \"fault\"",
            "1 null \"line 1, column 1: not JSON: expected value\"",
            "2 null \"captures of riscv are read but their walks are not built in yet; built in: vtd, amdvi, smmuv3\"",
            "3 null \"whole file: empty: not a capture\"",
            "4 0 \"translated\"",
        ]
    );
    assert!(text.starts_with("{\"capture\":0,\"request\":0,\"outcome\":\"fault\",\"code\":5,"));
}

#[test]
fn what_is_not_as_expected_is_shown_field_by_field_with_status_1() {
    let text = fs::read_to_string(capture("legacy-write-to-read-only.json")).unwrap();
    let text = text
        .replace("\"code\": 5", "\"code\": [6, 7]")
        .replace("\"level\": 1", "\"level\": 2");
    for form in [
        &["explain", "--check", "-"][..],
        &["explain", "--check", "--json", "-"],
    ] {
        let output = iopf().args(form).write_stdin(text.clone()).assert().code(1);
        let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert_eq!(
            error,
            "iopf: stdin: request 0 is not as expected\n  code: expected [6,7], found 5\n  \
             level: expected 2, found 1\n"
        );
    }
    let line = text.replace('\n', " ");
    let output = iopf()
        .args(["explain", "--check", "--lines", "-"])
        .write_stdin(format!("{line}\n{line}\n"))
        .assert()
        .code(1);
    let output = output.get_output();
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 4);
    assert!(
        String::from_utf8_lossy(&output.stderr).starts_with("iopf: capture 0: request 0 is not")
    );
}

#[test]
fn faults_set_the_status_only_when_asked() {
    let faulty = capture("legacy-unmapped.json");
    iopf().args(["explain", &faulty]).assert().code(0);
    iopf()
        .args(["explain", "--fail-on-fault", &faulty])
        .assert()
        .code(1);
    let healthy = capture("legacy-healthy.json");
    iopf()
        .args(["explain", "--fail-on-fault", &healthy])
        .assert()
        .code(0);
}

#[test]
fn a_capture_of_another_iommu_than_asked_for_is_refused() {
    let amdvi = capture("amdvi-healthy.json");
    iopf()
        .args(["explain", "--arch", "amdvi", &amdvi])
        .assert()
        .code(0);
    let output = iopf()
        .args(["explain", "--arch", "vtd", &amdvi])
        .assert()
        .code(4);
    let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        error.ends_with("amdvi-healthy.json: a capture of amdvi, not of vtd\n"),
        "{error}"
    );
    let smmuv3 = capture("smmuv3-healthy.json");
    iopf()
        .args(["explain", "--arch", "smmuv3", &smmuv3])
        .assert()
        .code(0);
    let output = iopf()
        .args(["explain", "--arch", "smmuv3", &amdvi])
        .assert()
        .code(4);
    let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(
        error.ends_with("amdvi-healthy.json: a capture of amdvi, not of smmuv3\n"),
        "{error}"
    );
    let line = fs::read_to_string(&amdvi).unwrap().replace('\n', " ");
    let text = out(iopf()
        .args(["explain", "--arch", "vtd", "--lines", "-"])
        .write_stdin(line));
    assert_eq!(
        text,
        "{\"capture\":0,\"error\":\"a capture of amdvi, not of vtd\"}\n"
    );
}

#[test]
fn a_packed_capture_is_unpacked() {
    let bytes = fs::read(capture("legacy-healthy.json")).unwrap();
    let capture = iopf_scene::capture::Capture::parse(&bytes).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&capture.to_gzip()).unwrap();
    let plain = out(iopf()
        .arg("explain")
        .arg(self::capture("legacy-healthy.json")));
    assert_eq!(out(iopf().arg("explain").arg(file.path())), plain);
}

#[test]
fn input_that_is_no_capture_has_status_4_and_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    for (bytes, said) in [
        (&b""[..], "empty: not a capture"),
        (b"\x7fELF\x02\x01\x01\x00\xff\xfe", "not UTF-8 text"),
        (
            b"{\"iopf_capture\":1,\"arch\":\"vtd\",\"requests\":[],\"x\":1}",
            "x (line 1, column 48): unknown key `x`",
        ),
        (b"\x1f\x8b\x08\x00", "starts like gzip and does not unpack"),
        (
            b"[ 0.000000] DMAR: Host address width 39",
            "for a kernel log use `iopf decode`",
        ),
        (
            b"{\"iopf_capture\":1,\"arch\":\"virtio\",\"requests\":[]}",
            "not built in yet",
        ),
    ] {
        fs::write(&file, bytes).unwrap();
        let output = iopf().arg("explain").arg(&file).assert().code(4);
        let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(
            error.starts_with("iopf: ") && error.contains(said),
            "{error}"
        );
        assert_eq!(output.get_output().stdout, b"");
    }
    for (path, code, said) in [
        ("/dev/null", 4, "empty: not a capture"),
        (
            dir.path().to_str().unwrap(),
            4,
            "a directory; give one of the files in it",
        ),
        (
            "/no/such/file",
            3,
            "no such file; give the path of a file, or - for stdin",
        ),
    ] {
        let output = iopf().args(["explain", path]).assert().code(code);
        let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(error.contains(said), "{error}");
    }
}
