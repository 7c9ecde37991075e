//! `iopf decode` as a user runs it.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

use assert_cmd::Command;
use std::fs;

fn iopf() -> Command {
    Command::cargo_bin("iopf").unwrap()
}

const LOG: &str = "\
[    0.012345] DMAR: Host address width 39
[   12.345678] DMAR: DRHD: handling fault status reg 3
[   12.345690] DMAR: [DMA Write NO_PASID] Request device [00:14.0] fault addr 0xffcda000 [fault reason 0x05] PTE Write access is not set
[   13.000000] dmar_fault: 44 callbacks suppressed
[   13.000001] DMAR: [DMA Read PASID 0x5] Request device [03:00.1] fault addr 0x7f001000 [fault reason 0x71] SM: Present bit in first-level paging entry is clear
";

#[test]
fn a_kernel_log_becomes_facts_and_sentences() {
    let output = iopf().arg("decode").write_stdin(LOG).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    insta::assert_snapshot!("text-log", text);
}

#[test]
fn the_json_view_is_one_object_a_fault_and_a_summary() {
    let output = iopf()
        .args(["decode", "--json"])
        .write_stdin(LOG)
        .assert()
        .success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(
        lines[0].starts_with(
            r#"{"record":0,"line":3,"time":"12.345690","arch":"vtd","kind":"dma","iommu":null,"device":"0000:00:14.0","pasid":null,"address":"0xffcda000","access":"write","privileged":null,"code":5,"name":"PTE Write access is not set","flags":null,"index":null,"text":""#
        ),
        "{}",
        lines[0]
    );
    assert_eq!(
        lines[2],
        r#"{"summary":{"records":2,"suppressed":44,"lines":5,"not_faults":3,"first":"12.345690","last":"13.000001"}}"#
    );
}

#[test]
fn raw_records_are_read_in_hex_and_in_binary() {
    // A read of 0x7f001000 by 00:05.0, reason 6, as FRCD_REG lies in the registers.
    let record = [
        0x00, 0x10, 0x00, 0x7f, 0, 0, 0, 0, 0x28, 0, 0, 0, 0x06, 0, 0, 0xc0u8,
    ];
    let hex: String = record.iter().map(|byte| format!("{byte:02x} ")).collect();
    for input in [record.repeat(8), hex.into_bytes()] {
        let output = iopf()
            .args(["decode", "--arch", "vtd", "--json"])
            .write_stdin(input)
            .assert()
            .success();
        let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
        assert!(
            text.contains(
                r#""device":"0000:00:05.0","pasid":null,"address":"0x7f001000","access":"read""#
            ),
            "{text}"
        );
    }
}

#[test]
fn raw_records_of_amd_vi_are_read_when_asked_for() {
    // A write of 01:00.0 in domain 13 to 0xcff49550, flags 0x070, as it lies in the event log.
    let event = [
        0x00, 0x01, 0, 0, 0x0d, 0, 0x70, 0x20, 0x50, 0x95, 0xf4, 0xcf, 0, 0, 0, 0u8,
    ];
    let hex: String = event.iter().map(|byte| format!("{byte:02x} ")).collect();
    for input in [event.repeat(8), hex.into_bytes()] {
        let output = iopf()
            .args(["decode", "--arch", "amdvi", "--json"])
            .write_stdin(input)
            .assert()
            .success();
        let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
        assert!(
            text.contains(
                r#""arch":"amdvi","kind":"dma","iommu":null,"device":"0000:01:00.0","pasid":null,"address":"0xcff49550","access":"write","privileged":null,"code":2,"name":"IO_PAGE_FAULT","flags":{"gn":false,"nx":false,"us":false,"i":false,"pr":true,"rw":true,"pe":true,"rz":false,"tr":false},"index":null,"text":""#
            ),
            "{text}"
        );
    }
}

#[test]
fn a_log_of_amd_vi_needs_no_arch_and_mixes_with_others() {
    let log = "\
[    5.000000] nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0000 address=0xfc189000 flags=0x0000]
[    6.000000] iommu ivhd3: AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:43:00.0 pasid=0x00000 address=0x3737b01000 flags=0x0020]
[    6.000001] AMD-Vi: DTE[0]: 6000000000000003
[    6.000002] AMD-Vi: DTE[1]: 0000000000000001
[    6.000003] AMD-Vi: DTE[2]: 2000003088b3e013
[    6.000004] AMD-Vi: DTE[3]: 0000000000000000
[    7.000000] amd_iommu_report_page_fault: 12 callbacks suppressed
[    8.000000] DMAR: [DMA Write NO_PASID] Request device [00:14.0] fault addr 0xffcda000 [fault reason 0x05] PTE Write access is not set
";
    let output = iopf().arg("decode").write_stdin(log).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    insta::assert_snapshot!("text-log-amdvi", text);
}

#[test]
fn raw_records_of_smmuv3_are_read_when_asked_for() {
    // A stalled write of stream 0x7501, substream 1, to 0xaaaada7af000, as it lies in the event queue.
    let event = [
        0x10, 0x18, 0, 0, 0x01, 0x75, 0, 0, 0x76, 0x01, 0, 0x80, 0, 0x02, 0, 0, 0, 0xf0, 0x7a,
        0xda, 0xaa, 0xaa, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0u8,
    ];
    let hex: String = event.iter().map(|byte| format!("{byte:02x} ")).collect();
    for input in [event.repeat(4), hex.into_bytes()] {
        let output = iopf()
            .args(["decode", "--arch", "smmuv3", "--json"])
            .write_stdin(input)
            .assert()
            .success();
        let text = String::from_utf8_lossy(&output.get_output().stdout).into_owned();
        assert!(
            text.contains(
                r#""arch":"smmuv3","kind":"dma","iommu":null,"device":29953,"pasid":1,"address":"0xaaaada7af000","access":"write","privileged":false,"code":16,"name":"F_TRANSLATION","flags":null,"index":null,"text":""#
            ),
            "{text}"
        );
    }
}

#[test]
fn a_log_of_arm_needs_no_arch_and_mixes_with_others() {
    let log = "\
[    5.000000] nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0000 address=0xfc189000 flags=0x0000]
[   70.355743] arm-smmu-v3 arm-smmu-v3.5.auto: event 0x10 received:
[   70.361893] arm-smmu-v3 arm-smmu-v3.5.auto: \t0x0002060000000010
[   70.367948] arm-smmu-v3 arm-smmu-v3.5.auto: \t0x0000020000000000
[   70.374002] arm-smmu-v3 arm-smmu-v3.5.auto: \t0x00000000ff9bc000
[   70.380055] arm-smmu-v3 arm-smmu-v3.5.auto: \t0x0000000000000000
[   70.386109] arm-smmu-v3 arm-smmu-v3.5.auto: event: F_TRANSLATION client: 0001:06:00.0 sid: 0x20600 ssid: 0x0 iova: 0xff9bc000 ipa: 0x0
[   70.398531] arm-smmu-v3 arm-smmu-v3.5.auto: unpriv data write s1 \"Input address caused fault\" stag: 0x0
[   71.000000] arm_smmu_context_fault: 83 callbacks suppressed
[   71.000001] arm-smmu 5000000.iommu: Unhandled context fault: fsr=0x402, iova=0xff3cf000, fsynr=0x300003, cbfrsynra=0x409, cb=10
[   72.000000] arm-smmu-v3 arm-smmu-v3.5.auto: unexpected PRI request received:
[   72.000001] arm-smmu-v3 arm-smmu-v3.5.auto: \tsid 0x00020600.0x00005: [3L] unprivileged RW access at iova 0x00007f0000001000
[   73.000000] arm-smmu-v3 arm-smmu-v3.5.auto: unexpected global error reported (0x00000001), this could be serious
[   73.000001] arm-smmu-v3 arm-smmu-v3.5.auto: CMDQ error (cons 0x01000022): Illegal command
[   73.000002] arm-smmu-v3 arm-smmu-v3.5.auto: skipping command in error state:
[   73.000003] arm-smmu-v3 arm-smmu-v3.5.auto: \t0x0000000000000003
[   73.000004] arm-smmu-v3 arm-smmu-v3.5.auto: \t0x0000000000000001
";
    let output = iopf().arg("decode").write_stdin(log).assert().success();
    let text = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    insta::assert_snapshot!("text-log-arm", text);
}

#[test]
fn faults_set_the_status_only_when_asked() {
    iopf()
        .args(["decode", "--fail-on-fault"])
        .write_stdin(LOG)
        .assert()
        .code(1);
    iopf()
        .args(["decode", "--fail-on-fault"])
        .write_stdin("nothing\n")
        .assert()
        .code(0);
}

#[test]
fn an_empty_log_has_no_faults() {
    let output = iopf().args(["decode", "/dev/null"]).assert().success();
    assert_eq!(output.get_output().stdout, b"0 faults in 0 lines\n");
}

#[test]
fn what_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let rubbish = dir.path().join("rubbish");
    let bytes: Vec<u8> = (0..4096u32).map(|i| (i * 37 % 251) as u8).collect();
    fs::write(&rubbish, bytes).unwrap();
    for (path, code, said) in [
        ("/no/such/file", 3, "no such file"),
        (dir.path().to_str().unwrap(), 4, "a directory"),
        (
            rubbish.to_str().unwrap(),
            4,
            "neither a log nor fault records",
        ),
    ] {
        let output = iopf().args(["decode", path]).assert().code(code);
        let error = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
        assert!(
            error.starts_with("iopf: ") && error.contains(said),
            "{error}"
        );
    }
}
