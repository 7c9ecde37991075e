//! The AMD-Vi model, driven as software and devices drive hardware: registers, tables in memory,
//! requests. Every number is typed by hand from the field tables and the Linux driver.

mod bed;
#[path = "amdvi/caches.rs"]
mod caches;
#[path = "amdvi/commands.rs"]
mod commands;
#[path = "amdvi/faults.rs"]
mod faults;
#[path = "amdvi/hostile.rs"]
mod hostile;
#[path = "amdvi/pages.rs"]
mod pages;
#[path = "amdvi/races.rs"]
mod races;
#[path = "amdvi/registers.rs"]
mod registers;
#[path = "amdvi/rig.rs"]
mod rig;
#[path = "amdvi/transparent.rs"]
mod transparent;
