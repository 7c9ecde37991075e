//! The SMMUv3 model, driven as software and devices drive hardware: registers, tables in memory,
//! requests. Every number is typed by hand from the field tables and the Linux driver.

mod bed;
#[path = "smmuv3/caches.rs"]
mod caches;
#[path = "smmuv3/commands.rs"]
mod commands;
#[path = "smmuv3/faults.rs"]
mod faults;
#[path = "smmuv3/hostile.rs"]
mod hostile;
#[path = "smmuv3/pages.rs"]
mod pages;
#[path = "smmuv3/registers.rs"]
mod registers;
#[path = "smmuv3/rig.rs"]
mod rig;
#[path = "smmuv3/stalls.rs"]
mod stalls;
#[path = "smmuv3/transparent.rs"]
mod transparent;
