use crate::oracle::{Episode, Hits, Step, World};
use iopf::engine::Policy;
use std::collections::BTreeMap;

/// Enough random steps, all on the model alone.
fn played(seed: u64, episodes: usize, policy: Policy) -> (Vec<Episode>, Hits) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut world = World::new(policy);
    let episodes = (0..episodes)
        .map(|_| Episode::random(&mut rng, 200, &mut world))
        .collect();
    (episodes, world.hits().clone())
}

/// The fields of each word of a line that starts with `mark`.
fn fields<'a>(line: &'a str, mark: &str) -> Vec<Vec<&'a str>> {
    let words = line.split(' ').filter_map(|word| word.strip_prefix(mark));
    words.map(|word| word.split(',').collect()).collect()
}

/// The addresses that answers of a line are made from.
fn answered(line: &str) -> Vec<&str> {
    fields(line, "a:").iter().map(|answer| answer[5]).collect()
}

#[test]
fn a_seed_says_everything() {
    let linux = Policy::linux();
    assert_eq!(played(7, 3, linux), played(7, 3, linux));
}

#[test]
fn random_scripts_reach_every_branch() {
    let (_, hits) = played(1, 100, Policy::linux());
    println!("{hits}");
    assert_eq!(hits.missing(), Vec::<&str>::new());
}

#[test]
fn every_group_gets_one_answer_by_either_policy() {
    for policy in [Policy::linux(), Policy::default()] {
        let (episodes, _) = played(2, 100, policy);
        for episode in episodes {
            let mut answers = BTreeMap::new();
            for addr in episode.lines.iter().flat_map(|line| answered(line)) {
                *answers.entry(addr.to_owned()).or_insert(0) += 1;
            }
            for (step, line) in episode.steps.iter().zip(&episode.lines) {
                // A device that is not there, or no /dev/iommu: nothing was reported.
                let reported = !line.starts_with("-2 ") && line != "-2" && line != "-9";
                if let Step::Page(page) = step
                    && page.last
                    && reported
                {
                    let addr = format!("{:#x}", page.addr);
                    assert_eq!(answers.get(&addr), Some(&1), "{step}");
                }
            }
        }
    }
}

#[test]
fn by_the_default_a_cookie_answers_the_group_it_was_given_for_and_no_other() {
    let (episodes, _) = played(3, 100, Policy::default());
    let mut written = 0;
    for episode in episodes {
        // By queue, and how often that name was made anew.
        let mut made = BTreeMap::new();
        let mut given = BTreeMap::new();
        for (step, line) in episode.steps.iter().zip(&episode.lines) {
            match step {
                Step::Fault(queue) if line == "0" => *made.entry(*queue).or_insert(0) += 1,
                Step::Read(queue, ..) => {
                    for record in fields(line, "r:") {
                        let last = record[1].ends_with(['2', '3', '6', '7']);
                        if last {
                            let key = (*queue, made[queue], record[8].to_owned());
                            let before = given.insert(key, record[6].to_owned());
                            assert_eq!(before, None, "given twice: {line}");
                        }
                    }
                }
                Step::Write(queue, _, _, answers) => {
                    let bytes: i64 = line.split(' ').next().unwrap().parse().unwrap();
                    let taken = usize::try_from(bytes.max(0) / 8).unwrap();
                    let asked: Vec<&str> = answers[..taken]
                        .iter()
                        .map(|(cookie, _)| {
                            given[&(*queue, made[queue], cookie.to_string())].as_str()
                        })
                        .collect();
                    assert_eq!(answered(line), asked, "{step}");
                    written += taken;
                }
                _ => {}
            }
        }
    }
    // Otherwise nothing of this was tried.
    assert!(written > 100, "{written}");
}
