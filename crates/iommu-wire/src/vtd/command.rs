//! Invalidation queue descriptors.
