//! The kernel's side, and what differs.

use std::time::Duration;
use testkit::guest::{Guest, Output};
use testkit::kernel::own;
use testkit::oracle::{Episode, Step, World, shrink};

/// How long a seed's script may take in the guest.
const PATIENCE: Duration = Duration::from_secs(600);

/// Tries to make a script shorter.
const TRIES: usize = 400;

/// Lines around a difference that are told.
const AROUND: usize = 8;

/// A guest whose kernel plays scripts.
#[derive(Debug)]
pub(crate) struct Kernel(Guest);

fn place(seed: u64) -> String {
    format!("/oracle/{seed}")
}

impl Kernel {
    /// Boots it, with a script for each seed.
    pub(crate) fn boot(scripts: impl IntoIterator<Item = (u64, String)>) -> Self {
        let mut builder = Guest::builder(own().unwrap());
        for (seed, text) in scripts {
            builder = builder.file(&place(seed), text);
        }
        Self(builder.boot().unwrap())
    }

    fn lines(output: Output) -> Vec<String> {
        let last = output.lines.last().map_or("nothing", String::as_str);
        assert_eq!(output.status, 0, "the agent said {last}");
        output.lines
    }

    /// Plays the script of a seed; a line each step.
    pub(crate) fn play(&self, seed: u64) -> Vec<String> {
        let command = format!("oracle {}", place(seed));
        Self::lines(self.0.run_within(&command, PATIENCE).unwrap())
    }

    /// Plays these steps; a line each.
    pub(crate) fn steps(&self, steps: &[Step]) -> Vec<String> {
        if steps.is_empty() {
            return Vec::new();
        }
        let words: Vec<String> = steps.iter().map(Step::to_string).collect();
        let command = format!("oracle-steps {}", words.join(";"));
        Self::lines(self.0.run_within(&command, PATIENCE).unwrap())
    }

    /// Fails where a line differs, and tells the shortest script that shows it.
    pub(crate) fn compare(&self, seed: u64, episodes: &[Episode], said: &[String]) {
        let mut rest = said;
        for (number, episode) in episodes.iter().enumerate() {
            let Some(at) = difference(episode, rest) else {
                rest = &rest[episode.steps.len()..];
                continue;
            };
            println!("seed {seed}, episode {number}, step {at} differs:");
            for index in at.saturating_sub(AROUND)..=at {
                println!("  {} => {}", episode.steps[index], episode.lines[index]);
            }
            let kernel = rest.get(at).map_or("nothing", String::as_str);
            println!("  the kernel: {kernel}");
            let model = |steps: &[Step]| {
                let mut world = World::default();
                steps.iter().map(|step| world.play(step)).collect()
            };
            let short = self.shrunk(&episode.steps[..=at], model);
            let (model, kernel) = (model(&short), self.steps(&short));
            println!("short script (step => model, and where it differs, kernel):");
            for (index, step) in short.iter().enumerate() {
                println!("  {step} => {}", model[index]);
                if model[index] != kernel[index] {
                    println!("    kernel: {}", kernel[index]);
                }
            }
            panic!("seed {seed}: the kernel and the model differ");
        }
        assert!(rest.is_empty(), "{} lines too many", rest.len());
    }

    /// The shortest part of a script for which the kernel and `model` differ, or all of it where it
    /// does not show alone.
    pub(crate) fn shrunk(
        &self,
        steps: &[Step],
        model: impl Fn(&[Step]) -> Vec<String>,
    ) -> Vec<Step> {
        let shows =
            |steps: &[Step]| Ok::<_, std::convert::Infallible>(model(steps) != self.steps(steps));
        shrink(steps, TRIES, shows).unwrap()
    }

    /// Fails where the kernel has complained.
    pub(crate) fn is_well(&self) {
        let log = self.0.must("dmesg").unwrap();
        let mut complaints = log.iter();
        let complaint = complaints.find(|line| line.contains("WARNING:") || line.contains("BUG:"));
        assert_eq!(complaint, None);
    }
}

/// The first step of an episode whose line the kernel did not say.
pub(crate) fn difference(episode: &Episode, said: &[String]) -> Option<usize> {
    (0..episode.lines.len()).find(|index| said.get(*index) != episode.lines.get(*index))
}
