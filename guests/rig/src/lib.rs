//! What tests on a real iommufd share with tests that only play one.

pub mod join;
