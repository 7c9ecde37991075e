use crate::oracle::{Episode, Hits, World};

/// Enough random steps, all on the model alone.
fn played(seed: u64, episodes: usize) -> (Vec<Episode>, Hits) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::default();
    let episodes = (0..episodes)
        .map(|_| Episode::random(&mut rng, 200, &mut world))
        .collect();
    (episodes, world.hits().clone())
}

#[test]
fn a_seed_says_everything() {
    assert_eq!(played(7, 3), played(7, 3));
}

#[test]
fn random_scripts_reach_every_branch() {
    let (_, hits) = played(1, 100);
    println!("{hits}");
    assert_eq!(hits.missing(), Vec::<&str>::new());
}
