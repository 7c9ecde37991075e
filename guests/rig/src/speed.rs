//! Fault to answer, in instructions, system calls and allocations: the pump against the smallest
//! loop, on the same descriptor, in alternating rounds.

use crate::answerer::{Answerer, WHO, named};
use crate::mock::Mock;
use crate::{Outcome, heap, steps, tsc};

/// Groups that wait when an answerer's turn comes, and the instructions that pass before it: a pump
/// that has not been asked for so long polls before it reads.
const CASES: [(usize, u64); 3] = [(1, 0), (1, 30_000), (64, 0)];

/// Faults of a round. The first round of each answerer warms up and does not count.
const FAULTS: usize = 256;

/// What was counted while answers were given.
#[derive(Clone, Debug, Default)]
struct Count {
    /// Instructions from the first look to the last answer, each time that faults waited.
    turns: Vec<u64>,
    allocations: u64,
}

impl Count {
    /// The median: an interrupt of the timer in a turn is nobody's fault.
    fn median(&mut self) -> u64 {
        self.turns.sort_unstable();
        self.turns[self.turns.len() / 2]
    }
}

/// Says for each answerer and each number of waiting groups what a fault costs.
pub(crate) fn run(rounds: usize) -> Outcome<()> {
    let (known, empty) = tsc::calibrate();
    println!("calibration instructions=2000000 counted={known} empty={empty}");
    let (mut mock, file) = Mock::new()?;
    let mut answerers = Vec::new();
    for who in WHO {
        answerers.push(named(who, &mock, &file)?);
    }
    for (waiting, apart) in CASES {
        let mut counts = WHO.map(|_| Count::default());
        for round in 0..=rounds {
            for (answerer, count) in answerers.iter_mut().zip(&mut counts) {
                if round == 1 {
                    *count = Count::default();
                }
                one(&mut mock, answerer.as_mut(), (waiting, apart), empty, count)?;
            }
        }
        for (who, mut count) in WHO.into_iter().zip(counts) {
            let steps = steps::of(who, waiting)?;
            println!(
                "speed who={who} waiting={waiting} apart={apart} turns={} all={} median={} allocations={} \
                 stepped={} user={} calls={} poll={} read={} write={} other={}",
                count.turns.len(),
                count.turns.iter().sum::<u64>(),
                count.median(),
                count.allocations,
                steps.faults,
                steps.user,
                steps.calls(),
                steps.poll,
                steps.read,
                steps.write,
                steps.other,
            );
        }
    }
    Ok(())
}

/// One round of one answerer.
fn one(
    mock: &mut Mock,
    answerer: &mut dyn Answerer,
    (waiting, apart): (usize, u64),
    empty: u64,
    count: &mut Count,
) -> Outcome<()> {
    count.turns.reserve(FAULTS / waiting);
    for _ in 0..FAULTS / waiting {
        for _ in 0..waiting {
            mock.ask()?;
        }
        let asked = tsc::now();
        while tsc::now() - asked < apart {}
        let mut answered = 0;
        let (made, start) = (heap::allocations(), tsc::now());
        while answered < waiting {
            answered += answerer.turn()?;
        }
        let (end, after) = (tsc::now(), heap::allocations());
        count.turns.push((end - start).saturating_sub(empty));
        count.allocations += after - made;
    }
    Ok(())
}
