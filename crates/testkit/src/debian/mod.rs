//! Debian's packages as a source of things the tests need: QEMU, kernels, tools, sources.
//!
//! Nothing outside the cache is written and no privilege is needed.
//!
//! Promised: one download however many processes ask at once; an interrupted one goes on where
//! it stopped; every package is checked against the hash its signed index names; what is damaged
//! is made again; without a network the error says what to do.

mod apt;
mod error;
#[cfg(test)]
pub(crate) mod registry;
mod store;

pub(crate) use apt::{Apt, Package};
pub use error::SetupError;
pub(crate) use error::io;
pub(crate) use store::{Store, hex, sha256};

use std::path::PathBuf;

/// What is wanted from the registry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    /// The word that lines of progress start with.
    pub(crate) what: &'static str,
    /// Its name in a sentence.
    pub(crate) name: &'static str,
    /// The suite whose versions are preferred.
    pub(crate) suite: &'static str,
    /// Packages to plan for.
    pub(crate) packages: &'static [&'static str],
    /// Of the plan, only files whose names start so, or start and end so around a `*`; empty for
    /// all.
    pub(crate) only: &'static [&'static str],
    /// The start of the file name whose rest is the version.
    pub(crate) named_after: &'static str,
    /// What a person can do where the registry is out of reach.
    pub(crate) instead: &'static str,
}

impl Order {
    /// Whether a file of the plan is wanted.
    fn wants(&self, file: &str) -> bool {
        let like = |pattern: &&str| match pattern.split_once('*') {
            Some((start, end)) => file.starts_with(start) && file.ends_with(end),
            None => file.starts_with(*pattern),
        };
        self.only.is_empty() || self.only.iter().any(like)
    }

    fn no_tool(&self, tool: &str) -> SetupError {
        SetupError::NoTool {
            tool: tool.to_owned(),
            what: self.name,
            instead: self.instead,
        }
    }

    fn no_keyring(&self) -> SetupError {
        SetupError::NoKeyring {
            instead: self.instead,
        }
    }
}

/// Where big things that can be fetched again are kept, outside the checkout.
#[must_use]
pub fn cache_dir() -> PathBuf {
    let var = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    var("IOPF_CACHE")
        .or_else(|| var("XDG_CACHE_HOME").map(|dir| dir.join("iopf")))
        .or_else(|| var("HOME").map(|home| home.join(".cache/iopf")))
        .unwrap_or_else(|| std::env::temp_dir().join("iopf"))
}
