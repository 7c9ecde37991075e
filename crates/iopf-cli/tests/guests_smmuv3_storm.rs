//! Storms in front of `iopf serve --arch smmuv3`: bad DMA without end.

mod process;
mod served;
mod storm;

const SMMUV3: [&str; 2] = ["--arch", "smmuv3"];

#[test]
fn a_hundred_thousand_bad_dmas_leave_guest_log_and_memory_as_they_were() {
    storm::leaves_guest_log_and_memory_as_they_were(&SMMUV3, "", &storm::SMMUV3);
}

#[test]
fn by_default_a_storm_gets_no_line_of_ours_at_all() {
    storm::gets_no_line_of_ours(&SMMUV3, "", &storm::SMMUV3);
}
