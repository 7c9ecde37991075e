//! The driver that only prints.

use super::{Decision, Resolver};
use crate::Response;
use crate::engine::{Group, Pages, Stray, Verdict};

/// Denies every page request and logs every unrecoverable fault (within the engine's budgets).
#[derive(Clone, Copy, Debug, Default)]
pub struct LogAndDeny;

impl Resolver for LogAndDeny {
    fn group(&mut self, _: &Group, _: Pages<'_>) -> Decision {
        Decision::Answer(Response::Invalid)
    }

    fn stray(&mut self, _: &Stray) -> Verdict {
        Verdict::Logged
    }
}
