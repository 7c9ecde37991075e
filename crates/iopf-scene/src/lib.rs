//! What is known of a fault: captures, kernel log lines, explanations.
//!
//! Nothing here shows anything: a capture or a log line becomes data, the data becomes an
//! explanation, and whoever calls decides how it looks.
#![forbid(unsafe_code)]

pub mod capture;
pub mod explain;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz;
pub mod log;
pub mod record;

/// Bytes as lower-case hex digits.
fn hex_text(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(*byte)])
        .collect()
}
