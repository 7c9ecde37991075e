//! What is known of a fault: captures, kernel log lines, explanations.
