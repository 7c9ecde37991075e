//! The kernel as oracle: random scripts on iommufd, on `Policy::linux()` and on `Forward`, a step at
//! a time, without a difference. `docs/oracle.md` says more.
#![expect(clippy::unwrap_used, reason = "a failure ends the test")]

mod compare;

use compare::Kernel;
use fastrand::Rng;
use std::time::Instant;
use testkit::oracle::{Episode, Hits, World};

/// Seeds of every run; one more is new each time.
const SEEDS: [u64; 3] = [1, 2, 3];

/// Names the seed to use in the place of the new one.
const SEED: &str = "IOPF_ORACLE_SEED";

/// Episodes a seed, and steps of each beside its set-up and its end.
const EPISODES: usize = 100;
const STEPS: usize = 200;

/// What a run must come to at least, in steps.
const LEAST: u64 = 20_000;

fn new_seed() -> u64 {
    match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap(),
        Err(_) => fastrand::u64(..),
    }
}

#[test]
fn the_kernel_and_the_model_do_the_same() {
    let new = new_seed();
    println!("seeds: {SEEDS:?} and {new} ({SEED}={new} for the same again)");
    let scripts: Vec<(u64, Vec<Episode>, Hits)> = SEEDS
        .into_iter()
        .chain([new])
        .map(|seed| {
            let (mut rng, mut world) = (Rng::with_seed(seed), World::default());
            let episodes = (0..EPISODES)
                .map(|_| Episode::random(&mut rng, STEPS, &mut world))
                .collect();
            (seed, episodes, world.hits().clone())
        })
        .collect();
    let texts = scripts.iter().map(|(seed, episodes, _)| {
        let text: String = episodes.iter().map(Episode::text).collect();
        (*seed, text)
    });
    let kernel = Kernel::boot(texts);
    let mut sum = Hits::default();
    for (seed, episodes, hits) in &scripts {
        let started = Instant::now();
        let said = kernel.play(*seed);
        println!(
            "seed {seed}: {} steps, played in {:.1} s",
            hits.steps(),
            started.elapsed().as_secs_f32()
        );
        kernel.compare(*seed, episodes, &said);
        sum.add(hits);
    }
    kernel.is_well();
    println!("{} steps, no difference\n{sum}", sum.steps());
    assert!(sum.steps() >= LEAST, "{} steps", sum.steps());
    assert_eq!(sum.missing(), Vec::<&str>::new(), "never hit");
}

#[test]
fn a_model_that_is_wrong_is_found_out_with_a_short_script() {
    let (mut rng, mut world) = (Rng::with_seed(1), World::default());
    let mut episode = Episode::random(&mut rng, STEPS, &mut world);
    // The first answer that the model has a device get is another's.
    let wrong = episode.lines.iter().position(|line| line.contains(" a:"));
    let wrong = wrong.unwrap();
    episode.lines[wrong] = episode.lines[wrong].replace(" a:d", " a:d9");
    let kernel = Kernel::boot([(1, episode.text())]);
    let said = kernel.play(1);
    let found = compare::difference(&episode, &said).unwrap();
    assert_eq!(found, wrong);
    // The same mistake again and again, so that there is something to shrink.
    let mistake = |steps: &[testkit::oracle::Step]| {
        let mut world = World::default();
        let lines = steps.iter().map(|step| world.play(step));
        lines.map(|line| line.replace(" a:d", " a:d9")).collect()
    };
    let short = kernel.shrunk(&episode.steps[..=wrong], mistake);
    println!("{} of {} steps are left", short.len(), wrong + 1);
    // A device must be made and must report; nothing else matters.
    assert!(short.len() <= 3, "{short:?}");
}
