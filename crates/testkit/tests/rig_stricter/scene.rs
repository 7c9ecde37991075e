//! One script, on the kernel and under both policies.

use iopf::engine::Policy;
use std::time::Duration;
use testkit::guest::Guest;
use testkit::kernel::own;
use testkit::oracle::{Name, PASID, Page, Step, Table, World};

/// How many differences of a script are printed.
const MOST: usize = 3;

/// A script as it goes: what each step came to, and what the kernel must say.
#[derive(Debug)]
pub(crate) struct Scene {
    linux: World,
    default: World,
    steps: Vec<Step>,
    /// By `Policy::linux()`, which the kernel must say as well.
    weak: Vec<String>,
    /// By `Policy::default()`.
    strict: Vec<String>,
}

impl Scene {
    pub(crate) fn new(set_up: Vec<Step>) -> Self {
        let mut scene = Self {
            linux: World::new(Policy::linux()),
            default: World::new(Policy::default()),
            steps: Vec::new(),
            weak: Vec::new(),
            strict: Vec::new(),
        };
        for step in &set_up {
            scene.tell(step, "0", "0");
        }
        scene
    }

    /// Plays a step; what it comes to by either policy.
    pub(crate) fn play(&mut self, step: &Step) -> (String, String) {
        let (weak, strict) = (self.linux.play(step), self.default.play(step));
        self.steps.push(step.clone());
        self.weak.push(weak.clone());
        self.strict.push(strict.clone());
        (weak, strict)
    }

    /// Plays a step that is on the way, whatever it comes to; the kernel must agree all the same.
    pub(crate) fn plays(&mut self, step: &Step) {
        self.play(step);
    }

    /// Plays a step that must come to this by the kernel's policy, and to that by the default.
    pub(crate) fn tell(&mut self, step: &Step, weak: &str, strict: &str) {
        let came = self.play(step);
        let both = (came.0.as_str(), came.1.as_str());
        assert_eq!(both, (weak, strict), "{step}");
    }

    /// The lines of the default so far.
    pub(crate) fn ours(&self) -> &[String] {
        &self.strict
    }

    /// The kernel plays it, and must say what the kernel's policy does.
    pub(crate) fn compare(&self) {
        let words: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        let kernel = said(&words);
        let mut told = 0;
        for (index, step) in self.steps.iter().enumerate() {
            assert_eq!(kernel.get(index), self.weak.get(index), "{step}");
            if self.weak[index] != self.strict[index] && told < MOST {
                told += 1;
                println!(
                    "{step}\n  kernel  {}\n  default {}",
                    kernel[index], self.strict[index]
                );
            }
        }
    }

    /// The kernel plays it and is left alone for two seconds with it, and then everything is closed:
    /// what only the closing came to.
    pub(crate) fn waits(&self) -> Vec<String> {
        let mut words: Vec<String> = self.steps.iter().map(Step::to_string).collect();
        words.push("wait 2000".to_owned());
        words.push(Step::Shut.to_string());
        let kernel = said(&words);
        let steps = self.steps.len();
        assert_eq!(kernel[..steps], self.weak);
        assert_eq!(kernel[steps], "0", "waiting came to something");
        kernel[steps + 1..].to_vec()
    }
}

/// What a kernel says to steps and other words, a line each.
fn said(words: &[String]) -> Vec<String> {
    let guest = Guest::builder(own().unwrap()).boot().unwrap();
    let command = format!("oracle-steps {}", words.join(";"));
    let output = guest
        .run_within(&command, Duration::from_secs(120))
        .unwrap();
    assert_eq!(output.status, 0, "{:?}", output.lines.last());
    output.lines
}

/// A device on tables 1, beside them tables 2, both for PASIDs and with fault queue 0.
pub(crate) fn with_two_tables() -> Vec<Step> {
    vec![
        Step::Open,
        Step::Device(0, true),
        Step::Fault(0),
        Step::Hwpt(1, 0, Table::Ioas, PASID, Some(0)),
        Step::Hwpt(2, 0, Table::Ioas, PASID, Some(0)),
        replace(0, 0, 1),
    ]
}

pub(crate) fn page(device: Name, pasid: u32, group: u32, addr: u64, last: bool) -> Page {
    Page {
        device,
        pasid,
        group,
        perm: 1,
        addr,
        needs_pasid: false,
        last,
        no_memory: false,
    }
}

pub(crate) fn partial(device: Name, pasid: u32, group: u32, addr: u64) -> Step {
    Step::Page(page(device, pasid, group, addr, false))
}

pub(crate) fn last(device: Name, pasid: u32, group: u32, addr: u64) -> Step {
    Step::Page(page(device, pasid, group, addr, true))
}

pub(crate) fn attach(device: Name, pasid: u32, tables: Name) -> Step {
    Step::Attach(device, pasid, Table::Made(tables))
}

pub(crate) fn replace(device: Name, pasid: u32, tables: Name) -> Step {
    Step::Replace(device, pasid, Table::Made(tables))
}

pub(crate) fn read(queue: Name, bytes: u32) -> Step {
    Step::Read(queue, bytes, bytes)
}

pub(crate) fn write(queue: Name, answers: &[(u32, u32)]) -> Step {
    let bytes = 8 * u32::try_from(answers.len()).unwrap();
    Step::Write(queue, bytes, bytes, answers.to_vec())
}
