//! Fault to answer, in instructions, system calls and allocations: the pump against the smallest
//! loop, on the same descriptor, in alternating rounds.

use crate::answerer::{Answerer, WHO, named};
use crate::mock::Mock;
use crate::{Outcome, heap, steps, tsc};

/// Groups that wait when an answerer's turn comes.
const WAITING: [usize; 2] = [1, 64];

/// Faults of a round. The first round of each answerer warms up and does not count.
const FAULTS: usize = 256;

/// What was counted while answers were given.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    faults: u64,
    instructions: u64,
    allocations: u64,
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
    for waiting in WAITING {
        let mut counts = [Count::default(); WHO.len()];
        for round in 0..=rounds {
            for (answerer, count) in answerers.iter_mut().zip(&mut counts) {
                let one = one(&mut mock, answerer.as_mut(), waiting, empty)?;
                if round > 0 {
                    count.faults += one.faults;
                    count.instructions += one.instructions;
                    count.allocations += one.allocations;
                }
            }
        }
        for (who, count) in WHO.into_iter().zip(counts) {
            let steps = steps::of(who, waiting)?;
            println!(
                "speed who={who} waiting={waiting} faults={} instructions={} allocations={} \
                 stepped={} user={} calls={} poll={} read={} write={} other={}",
                count.faults,
                count.instructions,
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
fn one(mock: &mut Mock, answerer: &mut dyn Answerer, waiting: usize, empty: u64) -> Outcome<Count> {
    let mut count = Count::default();
    for _ in 0..FAULTS / waiting {
        for _ in 0..waiting {
            mock.ask()?;
        }
        let mut answered = 0;
        let (made, start) = (heap::allocations(), tsc::now());
        while answered < waiting {
            answered += answerer.turn()?;
        }
        let (end, after) = (tsc::now(), heap::allocations());
        count.faults += answered as u64;
        count.instructions += (end - start).saturating_sub(empty);
        count.allocations += after - made;
    }
    Ok(count)
}
