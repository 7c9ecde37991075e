use super::*;
use serde_json::json;

/// Server steps of one fault: missed, asked, message, answered, found at these times.
fn server(group: u64, times: [i64; 5]) -> Vec<Value> {
    let steps = [MISSED, ASKED, MESSAGE, ANSWER, FOUND];
    let groups = [None, Some(group), None, Some(group), None];
    let events = steps.iter().zip(times).zip(groups);
    events
        .map(|((step, nanos), group)| json!({"event": "step", "nanos": nanos, "step": step, "group": group}))
        .collect()
}

/// Guest steps: read, decided, mapped, sent, written.
fn guest(group: u64, times: [i64; 5]) -> Vec<Value> {
    let steps = [READ, DECIDED, MAPPED, SENT, WRITTEN];
    let events = steps.iter().zip(times);
    events
        .map(|(step, nanos)| json!({"event": "step", "nanos": nanos, "step": step, "group": group}))
        .collect()
}

/// Two faults; the guest's clock is 1,000,000 ahead.
fn traces() -> (Vec<Value>, Vec<Value>) {
    let outside = [
        server(3, [0, 10, 20, 400, 450]),
        server(4, [1000, 1010, 1020, 1500, 1600]),
    ];
    let inside = [
        guest(3, [1_000_110, 1_000_120, 1_000_300, 1_000_320, 1_000_420]),
        guest(4, [1_001_050, 1_001_060, 1_001_300, 1_001_340, 1_001_540]),
    ];
    (outside.concat(), inside.concat())
}

#[test]
fn the_clocks_are_as_far_apart_as_cause_and_effect_allow() {
    let (outside, inside) = traces();
    let both = Both::of("7.3", &outside, &inside).unwrap();
    // Reads: 1,000,110 - 10 and 1,001,050 - 1,010; answers: 1,000,320 - 400 and 1,001,340 - 1,500.
    assert_eq!(both.offset, (999_920, 1_000_040));
    assert_eq!(both.uncertainty(), 60);
    let steps: Vec<_> = both.faults[0].steps.iter().map(|seen| seen.step).collect();
    assert_eq!(
        steps,
        [
            MISSED, ASKED, MESSAGE, READ, DECIDED, MAPPED, SENT, ANSWER, WRITTEN, FOUND
        ]
    );
    // The middle is 999,980.
    assert_eq!(both.faults[0].steps[3].nanos, 130);
    assert_eq!(both.faults[1].group, 4);
}

#[test]
fn the_text_has_each_step_once_with_its_side() {
    let (outside, inside) = traces();
    let mut shown = String::new();
    text(&Both::of("7.3", &outside, &inside).unwrap(), &mut shown).unwrap();
    assert!(shown.starts_with("One of 2 page requests"), "{shown}");
    assert_eq!(shown.lines().count(), 13, "{shown}");
    assert!(shown.contains("run    IOAS_MAP done\n"), "{shown}");
    assert!(shown.ends_with("right to +-0.0 us.\n"), "{shown}");
}

#[test]
fn traces_that_do_not_fit_are_refused() {
    let (outside, inside) = traces();
    let why = |outside: &[Value], inside: &[Value]| Both::of("7.3", outside, inside).unwrap_err();
    assert_eq!(
        why(&outside, &inside[..5]),
        "the server saw 2 faults, the guest 1"
    );
    assert_eq!(why(&[], &[]), "the server saw 0 faults, the guest 0");
    // An answer that arrives before it was sent, by any clock.
    let early = guest(3, [110, 120, 300, 320, 420]);
    let late = guest(4, [5_000_110, 5_000_120, 5_000_300, 5_000_320, 5_000_420]);
    assert!(why(&outside, &[early, late].concat()).contains("no difference of the clocks fits"));
    let other = [
        guest(9, [1_000_110, 1_000_120, 1_000_300, 1_000_320, 1_000_420]),
        inside[5..].to_vec(),
    ];
    assert!(why(&outside, &other.concat()).contains("the guest read Some(9)"));
    let without: Vec<_> = inside
        .iter()
        .filter(|e| e["step"] != SENT)
        .cloned()
        .collect();
    assert_eq!(
        why(&outside, &without),
        "a fault has no \"answer on its way\""
    );
}

#[test]
fn times_are_shown_in_microseconds() {
    assert_eq!(micros(12_345), "12.3");
    assert_eq!(micros(-950), "-0.9");
    assert_eq!(micros(2_000_050_000), "2000050.0");
}
