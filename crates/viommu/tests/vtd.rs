//! The VT-d model, driven as software and devices drive hardware: registers, tables in memory,
//! requests. Every number is typed by hand from the specification's tables and the Linux driver.

mod bed;
#[path = "vtd/caches.rs"]
mod caches;
#[path = "vtd/devices.rs"]
mod devices;
#[path = "vtd/faults.rs"]
mod faults;
#[path = "vtd/guest.rs"]
mod guest;
#[path = "vtd/hostile.rs"]
mod hostile;
#[path = "vtd/queue.rs"]
mod queue;
#[path = "vtd/registers.rs"]
mod registers;
#[path = "vtd/rig.rs"]
mod rig;
