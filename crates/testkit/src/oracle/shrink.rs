//! A long script that shows a difference, made short.

/// The shortest script that this finds from `steps` for which `shows` still holds, by leaving out
/// ever smaller pieces. Calls `shows` at most `most` times.
///
/// # Errors
/// Those of `shows`.
pub fn shrink<T: Clone, E>(
    steps: &[T],
    most: usize,
    mut shows: impl FnMut(&[T]) -> Result<bool, E>,
) -> Result<Vec<T>, E> {
    let mut best = steps.to_vec();
    let mut piece = best.len().div_ceil(2);
    let mut left = most;
    while piece > 0 {
        let mut at = 0;
        let mut shrunk = false;
        while at < best.len() {
            if left == 0 {
                return Ok(best);
            }
            left -= 1;
            let end = (at + piece).min(best.len());
            let without = [&best[..at], &best[end..]].concat();
            if shows(&without)? {
                best = without;
                shrunk = true;
            } else {
                at = end;
            }
        }
        if piece > 1 || !shrunk {
            piece /= 2;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::shrink;
    use std::convert::Infallible;

    #[test]
    fn what_does_not_matter_is_left_out() {
        let steps: Vec<u32> = (0..200).collect();
        let shows = |steps: &[u32]| {
            Ok::<_, Infallible>(steps.contains(&17) && steps.contains(&18) && steps.contains(&150))
        };
        assert_eq!(shrink(&steps, 1_000, shows), Ok(vec![17, 18, 150]));
    }

    #[test]
    fn it_gives_up_after_so_many_tries() {
        let steps: Vec<u32> = (0..200).collect();
        let mut tries = 0;
        let shows = |_: &[u32]| {
            tries += 1;
            Ok::<_, Infallible>(false)
        };
        assert_eq!(shrink(&steps, 10, shows), Ok(steps.clone()));
        assert_eq!(tries, 10);
    }
}
