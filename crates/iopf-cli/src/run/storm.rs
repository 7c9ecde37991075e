use super::args::Plan;
use super::machine::TestResult;
use super::progress::Progress;
use super::report::Scenario;
pub(crate) const FAULTS: u64 = 100_000;
pub(crate) fn play(_plan: &Plan, _progress: &mut dyn Progress) -> TestResult<Scenario> {
    Ok(Scenario::new("storm"))
}
