//! `iopf run` from the outside.

use assert_cmd::Command;
use serde_json::Value;

fn iopf(args: &[&str]) -> Command {
    let mut command = Command::cargo_bin("iopf").expect("the program is built");
    command.arg("run").args(args);
    command
}

fn stdout(command: &mut Command) -> String {
    let output = command.output().expect("the program runs");
    String::from_utf8(output.stdout).expect("reports are text")
}

/// Every duration replaced: a number, a space and a unit.
fn redacted(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let mut i = 0;
        while i < words.len() {
            let number = words[i].parse::<f64>().is_ok();
            let unit = words.get(i + 1).map(|w| w.trim_end_matches(','));
            if number && matches!(unit, Some("ns" | "us" | "ms" | "s")) {
                out.push_str("[time]");
                i += 2;
            } else {
                out.push_str(words[i]);
                i += 1;
            }
            if i < words.len() {
                out.push(' ');
            }
        }
        out.push('\n');
    }
    out
}

/// Every `--arch`.
const ARCHITECTURES: [&str; 3] = ["vtd", "amdvi", "smmuv3"];

#[test]
fn the_guest_is_told_of_every_mistake() {
    let text = stdout(&mut iopf(&["--scenario", "mistakes", "--quiet"]));
    insta::assert_snapshot!(redacted(&text));
}

#[test]
fn a_guest_of_an_amd_iommu_is_told_of_every_mistake() {
    let args = ["--arch", "amdvi", "--scenario", "mistakes", "--quiet"];
    let text = stdout(&mut iopf(&args));
    insta::assert_snapshot!(redacted(&text));
}

#[test]
fn a_guest_of_an_smmu_is_told_of_every_mistake() {
    let args = ["--arch", "smmuv3", "--scenario", "mistakes", "--quiet"];
    let text = stdout(&mut iopf(&args));
    insta::assert_snapshot!(redacted(&text));
}

#[test]
fn every_scenario_holds_and_json_is_one_object() {
    for arch in ARCHITECTURES {
        let args = ["--arch", arch, "--json", "--quiet", "--pages", "2000"];
        let text = stdout(&mut iopf(&args));
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["schema"], 1);
        assert_eq!(report["arch"], arch);
        let names: Vec<&str> = report["scenarios"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["healthy", "mistakes", "storm"]);
        assert_eq!(report["passed"], true, "{text}");
        let healthy = &report["scenarios"][0];
        assert_eq!(healthy["faults"].as_array().unwrap().len(), 0);
        for by in ["guest", "engine"] {
            let rows = healthy["answers"].as_array().unwrap();
            let row = rows.iter().find(|r| r["by"] == by).unwrap();
            assert!(row["success"].as_u64().unwrap() > 0, "{row}");
            assert!(row["p50_ns"].as_u64() <= row["max_ns"].as_u64(), "{row}");
        }
    }
}

/// As Linux has it: the request stalls, its event is read, the page is made present, RESUME has it tried
/// again.
#[test]
fn pages_come_to_devices_of_an_smmu_that_stall_and_to_those_that_ask() {
    let args = [
        "--arch",
        "smmuv3",
        "--scenario",
        "healthy",
        "--pages",
        "500",
    ];
    let text = stdout(iopf(&args).args(["--json", "--quiet", "--devices", "2"]));
    let report: Value = serde_json::from_str(&text).unwrap();
    let healthy = &report["scenarios"][0];
    assert_eq!(report["passed"], true, "{text}");
    let [stalls] = healthy["stalls"].as_array().unwrap().as_slice() else {
        panic!("{text}");
    };
    assert_eq!(stalls["device"], "0000:00:01.0");
    assert!(stalls["retried"].as_u64().unwrap() > 0, "{stalls}");
    let devices = healthy["devices"].as_array().unwrap();
    assert_eq!(devices[0]["translations"], 0, "{text}");
    assert_eq!(devices[1]["device"], "0000:00:02.0");
    assert!(devices[1]["groups"].as_u64().unwrap() > 0, "{text}");
}

#[test]
fn one_device_is_enough_and_time_is_a_limit() {
    for arch in ARCHITECTURES {
        let args = ["--scenario", "healthy", "--devices", "1", "--seconds", "1"];
        iopf(&args)
            .args(["--arch", arch, "--quiet", "--seed", "9"])
            .assert()
            .success();
    }
}

#[test]
fn without_an_architecture_it_is_vtd() {
    let args = ["--scenario", "mistakes", "--quiet", "--json"];
    let report: Value = serde_json::from_str(&stdout(&mut iopf(&args))).unwrap();
    assert_eq!(report["arch"], "vtd");
}

#[test]
fn faults_are_a_status_only_where_asked_for() {
    let args = ["--scenario", "mistakes", "--quiet"];
    iopf(&args).assert().code(0);
    iopf(&args).arg("--fail-on-fault").assert().code(1);
    let args = ["--scenario", "healthy", "--quiet", "--pages", "500"];
    iopf(&args).arg("--fail-on-fault").assert().code(0);
}

#[test]
fn arguments_that_make_no_sense_are_a_usage_error() {
    for args in [
        ["--devices", "0"],
        ["--devices", "17"],
        ["--pages", "0"],
        ["--scenario", "calm"],
        ["--arch", "z80"],
    ] {
        iopf(&args).assert().code(2);
    }
}

#[test]
fn arguments_of_the_other_backend_are_a_usage_error() {
    let device = ["--backend", "iommufd", "--device", "00:04.0"];
    for (args, said) in [
        (
            &["--pasid", "3"][..],
            "--pasid belongs to --backend iommufd",
        ),
        (
            &["--resolver", "deny"],
            "--resolver belongs to --backend iommufd",
        ),
        (&["--backend", "iommufd"], "needs a --device"),
        (
            &[&device[..], &["--seed", "3"]].concat(),
            "--seed belongs to --backend model",
        ),
        (
            &[&device[..], &["--arch", "amdvi"]].concat(),
            "--arch belongs to --backend model",
        ),
        (
            &[&device[..], &["--device", "0000:00:04.0"]].concat(),
            "given twice",
        ),
        (
            &[&device[..], &["--socket", "x"]].concat(),
            "--socket is for --resolver forward",
        ),
        (
            &[&device[..], &["--resolver", "forward"]].concat(),
            "needs a --socket",
        ),
        (
            &[&device[..], &["--resume"]].concat(),
            "--resume is for --resolver inspect",
        ),
        (
            &[&device[..], &["--memory", "1M"]].concat(),
            "--memory is for --resolver memory",
        ),
        (
            &[&device[..], &["--deadline", "0"]].concat(),
            "write 0.001 to 86400 seconds",
        ),
        (
            &[&device[..], &["--deadline", "NaN"]].concat(),
            "write 0.001 to 86400 seconds",
        ),
        (
            &["--backend", "iommufd", "--device", "4.0"],
            "is no PCI function",
        ),
        (
            &[&device[..], &["--resolver", "memory", "--iova", "0x1001"]].concat(),
            "a page's address",
        ),
        (
            &[&device[..], &["--resolver", "memory", "--memory", "1"]].concat(),
            "whole pages",
        ),
        (
            &[
                &device[..],
                &["--resolver", "memory", "--iova", "0xfffffffffffff000"],
            ]
            .concat(),
            "leave the address space",
        ),
        (
            &[&device[..], &["--pasid", "1048576"]].concat(),
            "not in 1..=1048575",
        ),
        (
            &[&device[..], &["--groups", "1", "--seconds", "1"]].concat(),
            "cannot be used with",
        ),
    ] {
        let output = iopf(args).assert().code(2);
        let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(told.contains(said), "{args:?}: {told}");
    }
}

/// Whatever this machine has or lacks, there is no such device on it.
#[test]
fn what_the_host_lacks_is_said_with_status_3() {
    let output = iopf(&["--backend", "iommufd", "--device", "ffff:ff:1f.7"])
        .assert()
        .code(3);
    let told = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    let iommufd = told.starts_with("iopf: /dev/iommu: ");
    let device = told.starts_with("iopf: ffff:ff:1f.7: no such PCI function");
    assert!(iommufd || device, "{told}");
    let there = std::path::Path::new("/dev/iommu").exists();
    assert!(there || iommufd, "{told}");
    assert!(told.contains("CONFIG_IOMMUFD") || there, "{told}");
}

#[test]
fn progress_goes_to_stderr_and_quiet_means_quiet() {
    let args = ["--scenario", "mistakes"];
    let output = iopf(&args).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told, "mistakes: started\nmistakes: passed\n");
    let output = iopf(&args).arg("--quiet").output().unwrap();
    assert!(output.stderr.is_empty());
}
