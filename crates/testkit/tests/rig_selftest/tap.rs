//! What a test program of the kernel says: TAP, as its `kselftest.h` writes it.

use std::fmt;

/// How a program's tests went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tap {
    planned: Option<usize>,
    passed: Vec<String>,
    failed: Vec<String>,
    skipped: Vec<(String, String)>,
}

impl Tap {
    /// Takes a line; what is no result is passed over.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(count) = line.strip_prefix("1..") {
            self.planned = count.parse().ok();
            return;
        }
        let (list, rest) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (&mut self.passed, rest),
            (_, Some(rest)) => (&mut self.failed, rest),
            _ => return,
        };
        // Each has a number, which is its place and says nothing.
        let (_, name) = rest.split_once(' ').unwrap_or(("", rest));
        match name.split_once("# SKIP") {
            Some((name, why)) => {
                let skipped = (name.trim().to_owned(), why.trim().to_owned());
                self.skipped.push(skipped);
            }
            None => list.push(name.trim().to_owned()),
        }
    }

    /// Tests that passed.
    pub(crate) fn passed(&self) -> &[String] {
        &self.passed
    }

    /// Tests that failed.
    pub(crate) fn failed(&self) -> &[String] {
        &self.failed
    }

    /// Tests that did not run, and why.
    pub(crate) fn skipped(&self) -> &[(String, String)] {
        &self.skipped
    }

    /// Whether each planned test has a result.
    pub(crate) fn whole(&self) -> bool {
        self.planned == Some(self.passed.len() + self.failed.len() + self.skipped.len())
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed.len(),
            self.failed.len(),
            self.skipped.len()
        )
    }
}

#[test]
fn results_are_told_apart_and_counted_against_the_plan() {
    let mut tap = Tap::default();
    for line in [
        "TAP version 13",
        "1..3",
        "#  RUN           a.b.one ...",
        "#            OK  a.b.one",
        "ok 1 a.b.one",
        "# x.c:9:two:Expected 0 (0) == 1 (1)",
        "not ok 2 a.b.two",
    ] {
        tap.line(line);
    }
    assert!(!tap.whole());
    tap.line("ok 3 a.c.three # SKIP no such thing here");
    assert!(tap.whole());
    assert_eq!(tap.to_string(), "1 passed, 1 failed, 1 skipped");
    assert_eq!(tap.passed(), ["a.b.one"]);
    assert_eq!(tap.failed(), ["a.b.two"]);
    let skipped = ("a.c.three".to_owned(), "no such thing here".to_owned());
    assert_eq!(tap.skipped(), [skipped]);
}
