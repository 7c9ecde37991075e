//! Records, registers and tables of IOMMUs, as bytes and as meaning.
