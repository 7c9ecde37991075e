//! First- and second-stage paging entries.
