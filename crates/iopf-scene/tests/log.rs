//! Logs of `tests/data/log` against what they say, typed by hand.

use std::fs;
use std::io::Cursor;
use std::path::Path;

use iopf_scene::log::{Form, Record, Summary, decode};
use serde_json::{Map, Value, json};

/// All of `log` decoded.
fn decoded(log: &[u8]) -> (Vec<Record>, Summary) {
    let mut records = Vec::new();
    let summary = decode(Cursor::new(log), Form::Log, |record| {
        records.push(record);
        Ok(())
    })
    .expect("nothing fails in memory");
    (records, summary)
}

/// The flags of an AMD-Vi event, of which those that are set are typed: `"pr rw"`.
fn flags(typed: &str) -> Value {
    let mut all = Map::new();
    for name in ["gn", "nx", "us", "i", "pr", "rw", "pe", "rz", "tr"] {
        all.insert(
            name.to_owned(),
            typed.split(' ').any(|set| set == name).into(),
        );
    }
    assert!(
        typed
            .split(' ')
            .all(|set| set.is_empty() || all.contains_key(set)),
        "{typed}"
    );
    all.into()
}

/// A typed object with the keys that were left out.
fn whole(arch: &str, typed: &Map<String, Value>, number: usize) -> Map<String, Value> {
    let defaults = json!({
        "record": number, "line": null, "time": null, "arch": arch, "kind": null, "iommu": null,
        "device": null, "pasid": null, "address": null, "access": "unknown", "privileged": null,
        "code": null, "name": null, "flags": null, "index": null,
    });
    let mut out = defaults.as_object().expect("typed as one").clone();
    for (key, value) in typed {
        if let (true, Some(set)) = (key == "flags", value.as_str()) {
            out.insert(key.clone(), flags(set));
        } else if key != "shows" {
            out.insert(key.clone(), value.clone());
        }
    }
    out
}

/// Compares one case; gives what is wrong with it.
fn check(arch: &str, log: &str, expected: &str) -> Result<(), String> {
    let (records, summary) = decoded(log.as_bytes());
    let mut lines: Vec<Value> = Vec::new();
    for line in expected.lines() {
        lines.push(serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?);
    }
    let figures = lines.pop().ok_or("no summary is typed")?;
    for (number, typed) in lines.iter().enumerate() {
        let typed = typed.as_object().ok_or("not an object")?;
        let record = records
            .get(number)
            .ok_or_else(|| format!("record {number} is missing"))?;
        let mut got = serde_json::to_value(record).map_err(|error| error.to_string())?;
        let got = got.as_object_mut().ok_or("not an object")?;
        let text = got.remove("text").ok_or("no text")?;
        let text = text.as_str().ok_or("text is none")?;
        if text.is_empty() || !text.ends_with('.') || text.contains('\n') {
            return Err(format!("not a sentence: {text:?}"));
        }
        if let Some(shows) = typed.get("shows").and_then(Value::as_str)
            && !text.contains(shows)
        {
            return Err(format!("record {number} does not say {shows:?}: {text}"));
        }
        let want = whole(arch, typed, number);
        if *got != want {
            return Err(format!("record {number}\n got {got:?}\nwant {want:?}"));
        }
    }
    if records.len() > lines.len() {
        return Err(format!("too many: {:?}", records.get(lines.len())));
    }
    let got = serde_json::to_value(summary.object()).map_err(|error| error.to_string())?;
    if got != figures {
        return Err(format!("summary\n got {got}\nwant {figures}"));
    }
    Ok(())
}

#[test]
fn every_pasted_log_says_what_was_typed_beside_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/log");
    let (mut cases, mut wrong) = (0, Vec::new());
    for entry in fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("readable");
        let arch = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("amdvi") => "amdvi",
            Some("arm") => "smmuv3",
            _ => "vtd",
        };
        for case in text.split("=== ").skip(1) {
            let (title, body) = case.split_once('\n').expect("a title has a line");
            let (log, expected) = body.split_once("\n---\n").expect("a case has two halves");
            cases += 1;
            if let Err(error) = check(arch, log, expected) {
                wrong.push(format!("{}: {title}\n{error}\n", path.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {cases} wrong\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(cases >= 40, "only {cases} cases");
}
