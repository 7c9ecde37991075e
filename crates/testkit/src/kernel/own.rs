//! Our own kernel.
