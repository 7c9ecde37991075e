//! `iopf explain`: a capture becomes explanations, and a view shows them.

mod lines;
mod text;

use crate::args::{ArchArg, ExplainArgs};
use crate::exit::{Exit, Stop};
use crate::input::Input;
use iopf_scene::capture::{Arch, Capture, Limits, Problem};
use iopf_scene::explain::{Difference, Explanation, check, explain};
use std::fmt::Write as _;
use std::io::Write;

/// What to do, as the arguments say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    input: Input,
    form: Form,
    /// The only architecture to take.
    arch: Option<Arch>,
    check: bool,
    fail_on_fault: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Lines,
}

impl From<&ExplainArgs> for Plan {
    fn from(args: &ExplainArgs) -> Self {
        Self {
            input: args.file.as_path().into(),
            form: match (args.lines, args.json) {
                (true, _) => Form::Lines,
                (false, true) => Form::Json,
                (false, false) => Form::Text,
            },
            arch: args.arch.map(|arch| match arch {
                ArchArg::Vtd => Arch::Vtd,
                ArchArg::Amdvi => Arch::Amdvi,
                ArchArg::Smmuv3 => Arch::Smmuv3,
            }),
            check: args.check,
            fail_on_fault: args.fail_on_fault,
        }
    }
}

/// What was seen so far, as far as the exit status depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    faults: u64,
    different: u64,
    bad: u64,
}

impl Tally {
    fn exit(self, plan: &Plan) -> Exit {
        match self {
            Self { different: 1.., .. } => Exit::Found,
            // A capture that cannot be read cannot be as expected.
            Self { bad: 1.., .. } if plan.check => Exit::Input,
            Self { faults: 1.., .. } if plan.fail_on_fault => Exit::Found,
            _ => Exit::Done,
        }
    }
}

/// Runs the command.
pub(crate) fn main(args: &ExplainArgs, out: &mut dyn Write) -> Result<Exit, Stop> {
    let plan = Plan::from(args);
    match plan.form {
        Form::Lines => lines::run(&plan, out),
        Form::Text | Form::Json => one(&plan, out),
    }
}

/// One file with one capture.
fn one(plan: &Plan, out: &mut dyn Write) -> Result<Exit, Stop> {
    let bytes = plan.input.read_all(Limits::BYTES)?;
    let name = plan.input.name();
    let capture = Capture::parse(&bytes).map_err(|error| {
        // What starts like JSON is a capture with a slip; anything else was meant for somebody else.
        let hint = match (&error.problem, bytes.trim_ascii_start().first()) {
            (Problem::Json(_), first) if first != Some(&b'{') => {
                "; a capture is a JSON object, for a kernel log use `iopf decode`"
            }
            _ => "",
        };
        Stop::input(format_args!("{name}: {error}{hint}"))
    })?;
    if let Some(text) = other(plan, &capture) {
        return Err(Stop::input(format_args!("{name}: {text}")));
    }
    let explanations =
        explain(&capture).map_err(|error| Stop::input(format_args!("{name}: {error}")))?;
    let mut tally = Tally::default();
    if plan.form == Form::Text {
        text::head(&capture, out)?;
    }
    for explanation in explanations {
        tally.faults += u64::from(explanation.is_fault());
        let differences = differences(plan, &capture, &explanation);
        tally.different += u64::from(!differences.is_empty());
        if plan.form == Form::Text {
            text::explanation(&capture, &explanation, out)?;
        } else {
            serde_json::to_writer(&mut *out, &explanation).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        if let Some(text) = mismatch(&explanation, &differences) {
            out.flush()?;
            return Err(Stop::found(format_args!("{name}: {text}")));
        }
    }
    if plan.check && plan.form == Form::Text {
        match capture.expect.len() {
            0 => writeln!(
                out,
                "check: the capture expects nothing, so nothing was compared"
            )?,
            expected => writeln!(out, "check: all {expected} as expected")?,
        }
    }
    Ok(tally.exit(plan))
}

/// What to say where the capture is of another architecture than asked for.
fn other(plan: &Plan, capture: &Capture) -> Option<String> {
    let asked = plan.arch.filter(|arch| *arch != capture.arch)?;
    Some(format!("a capture of {}, not of {asked}", capture.arch))
}

/// What is not as the capture expects, where that is asked for.
fn differences(plan: &Plan, capture: &Capture, explanation: &Explanation) -> Vec<Difference> {
    match capture.expect.get(explanation.request) {
        Some(expect) if plan.check => check(explanation, expect),
        _ => Vec::new(),
    }
}

/// The differences of one request, field by field; `None` where there are none.
fn mismatch(explanation: &Explanation, differences: &[Difference]) -> Option<String> {
    if differences.is_empty() {
        return None;
    }
    let mut text = format!("request {} is not as expected", explanation.request);
    for difference in differences {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  {difference}");
    }
    Some(text)
}
