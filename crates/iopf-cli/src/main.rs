//! The program `iopf`.
fn main() {}
