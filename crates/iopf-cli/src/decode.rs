//! `iopf decode`: logs and records become the normal form, and a view shows it.

mod text;

use crate::args::{ArchArg, DecodeArgs};
use crate::exit::{Exit, Stop};
use crate::input::Input;
use iopf_scene::log::{Arch, Form, Record, Summary, SummaryObject, decode_of, detect};
use std::io::{self, BufRead, Write};

/// What to do, as the arguments say.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    input: Input,
    /// Whose records raw ones are.
    arch: Arch,
    json: bool,
    fail_on_fault: bool,
}

impl From<&DecodeArgs> for Plan {
    fn from(args: &DecodeArgs) -> Self {
        Self {
            input: args.file.as_path().into(),
            arch: match args.arch {
                Some(ArchArg::Vtd) | None => Arch::Vtd,
                Some(ArchArg::Amdvi) => Arch::Amdvi,
                Some(ArchArg::Smmuv3) => Arch::Smmuv3,
            },
            json: args.json,
            fail_on_fault: args.fail_on_fault,
        }
    }
}

/// Runs the command.
pub(crate) fn main(args: &DecodeArgs, out: &mut dyn Write) -> Result<Exit, Stop> {
    let plan = Plan::from(args);
    let mut from = plan.input.open()?;
    let start = from
        .fill_buf()
        .map_err(|error| plan.input.refused(&error))?;
    let form = detect(plan.arch, start);
    let text = form != Form::Log || !start.contains(&0);

    // An error of writing comes back through the reader; it is told apart here.
    let mut writing = None;
    let decoded = decode_of(plan.arch, &mut from, form, |record| {
        show(&plan, &record, out).map_err(|error| {
            let kind = error.kind();
            writing = Some(error);
            kind.into()
        })
    });
    let summary = match (decoded, writing) {
        (Ok(summary), _) => summary,
        (Err(_), Some(error)) => return Err(error.into()),
        (Err(error), None) => return Err(plan.input.refused(&error)),
    };
    if summary.records == 0 && !text {
        return Err(Stop::input(format_args!(
            "{}: neither a log nor fault records; give dmesg output, or records of 16 or 32 bytes \
             in binary or hex, with --arch where they are not those of VT-d",
            plan.input.name()
        )));
    }
    end(&plan, &summary, out)?;
    Ok(if plan.fail_on_fault && summary.records > 0 {
        Exit::Found
    } else {
        Exit::Done
    })
}

fn show(plan: &Plan, record: &Record, out: &mut dyn Write) -> io::Result<()> {
    if plan.json {
        serde_json::to_writer(&mut *out, record)?;
        out.write_all(b"\n")
    } else {
        text::record(record, out)
    }
}

fn end(plan: &Plan, summary: &Summary, out: &mut dyn Write) -> io::Result<()> {
    if plan.json {
        serde_json::to_writer(&mut *out, &SummaryObject { summary })?;
        out.write_all(b"\n")
    } else {
        text::summary(summary, out)
    }
}
