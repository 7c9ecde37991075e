//! Many captures, one a line.

use super::{Plan, Tally, differences, mismatch, other};
use crate::exit::{Exit, Stop};
use crate::input::{Line, read_line};
use iopf_scene::capture::Capture;
use iopf_scene::explain::{Explanation, explain};
use serde::Serialize;
use std::io::Write;

/// Bytes of one line at most. A capture on a line is one fault scene; a longer line is passed over.
const LINE: usize = 16 << 20;

/// One output line.
#[derive(Serialize)]
struct Numbered<'a> {
    capture: u64,
    #[serde(flatten)]
    explanation: &'a Explanation,
}

/// One bad capture.
#[derive(Serialize)]
struct Bad {
    capture: u64,
    error: String,
}

pub(super) fn run(plan: &Plan, out: &mut dyn Write) -> Result<Exit, Stop> {
    let mut from = plan.input.open()?;
    let mut line = Vec::new();
    let mut tally = Tally::default();
    let mut first: Option<String> = None;
    for number in 0.. {
        let read = read_line(&mut from, &mut line, LINE);
        let error = match read.map_err(|error| plan.input.refused(&error))? {
            Line::End => break,
            Line::TooLong => Some(format!("a line of more than {LINE} bytes")),
            Line::Whole => {
                let text = line.trim_ascii_end();
                one(plan, number, text, &mut tally, &mut first, out)?
            }
        };
        if let Some(error) = error {
            tally.bad += 1;
            let bad = Bad {
                capture: number,
                error,
            };
            object(&bad, out)?;
        }
        // Nothing more has arrived: whoever feeds us may be waiting for what we have.
        if from.buffer().is_empty() {
            out.flush()?;
        }
    }
    out.flush()?;
    match first {
        Some(text) => Err(Stop::found(text)),
        None => Ok(tally.exit(plan)),
    }
}

/// Explains one line; gives what is wrong with it, if anything is.
fn one(
    plan: &Plan,
    number: u64,
    line: &[u8],
    tally: &mut Tally,
    first: &mut Option<String>,
    out: &mut dyn Write,
) -> Result<Option<String>, Stop> {
    let capture = match Capture::parse(line) {
        Ok(capture) => capture,
        Err(error) => return Ok(Some(error.to_string())),
    };
    if let Some(error) = other(plan, &capture) {
        return Ok(Some(error));
    }
    let explanations = match explain(&capture) {
        Ok(explanations) => explanations,
        Err(error) => return Ok(Some(error.to_string())),
    };
    for explanation in explanations {
        tally.faults += u64::from(explanation.is_fault());
        let numbered = Numbered {
            capture: number,
            explanation: &explanation,
        };
        object(&numbered, out)?;
        let differences = differences(plan, &capture, &explanation);
        tally.different += u64::from(!differences.is_empty());
        if let (None, Some(text)) = (&first, mismatch(&explanation, &differences)) {
            *first = Some(format!("capture {number}: {text}"));
        }
    }
    Ok(None)
}

fn object(value: &impl Serialize, out: &mut dyn Write) -> Result<(), Stop> {
    serde_json::to_writer(&mut *out, value).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
