use super::*;
use crate::run::report::{Device, FaultRow, LossRow, Mistake, StallRow};

/// A report with something in every part of it.
fn sample() -> Report {
    let mut scenario = Scenario::new("storm");
    scenario.devices.push(Device {
        device: "00:01.0".into(),
        served_by: "guest".into(),
        done: 145,
        failed: 10,
        bytes: 7_340_032,
        translations: 9824,
        atc_hits: 7616,
        pages_requested: 5488,
        groups: 425,
        invalidations: 310,
        blocked: 0,
    });
    scenario.faults.push(FaultRow {
        device: "00:02.0".into(),
        code: 0x59,
        name: "SPT.2".into(),
        count: 4544,
        first: 0x6baf_c0dc_0000,
        last: 0x1000,
    });
    scenario.answers.push(AnswerRow {
        by: "guest".into(),
        groups: 425,
        success: 415,
        invalid: 10,
        failure: 0,
        unanswered: 0,
        p50_ns: 344_123,
        p99_ns: 15_900_000,
        max_ns: 2_000_000_000,
    });
    scenario.stalls.push(StallRow {
        device: "00:03.0".into(),
        stalled: 567,
        retried: 560,
        aborted: 6,
        ignored: 1,
    });
    scenario.losses.push(LossRow {
        what: "faults the guest never saw".into(),
        count: 258_856,
    });
    scenario.mistakes.push(Mistake {
        name: "write to a read-only page".into(),
        expected: "0x05 LGN.2".into(),
        seen: "no record".into(),
        device: "blocked at 0x11000".into(),
        guest_log: String::new(),
        ok: false,
    });
    scenario.check("memory stays flat", true, "5348 KiB, then 5700 KiB");
    scenario.check("the books balance", false, "3 = 1 + 1");
    scenario
        .host_log
        .push("00:1f.0: 2045 faults suppressed".into());
    let scenario = scenario.close(666_000_000);
    Report {
        schema: 1,
        arch: "vtd".into(),
        seed: 7,
        elapsed_ns: 1_234_567_890,
        passed: scenario.passed,
        scenarios: vec![scenario],
    }
}

#[test]
fn the_text_view_shows_every_part_of_a_report() {
    let mut view = String::new();
    text(&sample(), &mut view).unwrap();
    insta::assert_snapshot!(view);
}

#[test]
fn the_json_view_is_one_object_with_every_part_of_a_report() {
    let json = serde_json::to_string_pretty(&sample()).unwrap();
    insta::assert_snapshot!(json);
}

#[test]
fn durations_have_three_figures_and_a_unit() {
    let shown: Vec<String> = [
        0,
        999,
        1_000,
        12_345,
        999_999,
        59_600_000,
        3_600_000_000_000,
    ]
    .map(duration)
    .into();
    let expected = [
        "0 ns", "999 ns", "1.00 us", "12.3 us", "999 us", "59.6 ms", "3600 s",
    ];
    assert_eq!(shown, expected);
}

#[test]
fn a_failed_check_or_mistake_fails_the_scenario() {
    let mut good = Scenario::new("x");
    good.check("fine", true, "");
    assert!(good.clone().close(0).passed);
    good.check("not fine", false, "");
    assert!(!good.close(0).passed);
    assert!(!sample().passed);
    assert!(sample().has_faults());
}
