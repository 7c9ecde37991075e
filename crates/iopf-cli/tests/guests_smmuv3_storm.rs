//! Storms in front of `iopf serve --arch smmuv3`: bad DMA without end.

mod process;
mod served;
mod storm;

/// A guest may keep up with its device; with room for 16 events it does not.
const SMMUV3: [&str; 4] = ["--arch", "smmuv3", "--event-queue", "4"];

#[test]
fn a_hundred_thousand_bad_dmas_leave_guest_log_and_memory_as_they_were() {
    storm::leaves_guest_log_and_memory_as_they_were(&SMMUV3, "", &storm::SMMUV3);
}

#[test]
fn by_default_a_storm_gets_no_line_of_ours_at_all() {
    storm::gets_no_line_of_ours(&SMMUV3, "", &storm::SMMUV3);
}
