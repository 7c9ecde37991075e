//! Why something the tests need is not there.

use std::io;
use std::path::PathBuf;

/// Why a fetched or built thing is not there. The text is meant for a person.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The named QEMU is not usable.
    #[error("{path} (from {variable}) is not usable: {why}")]
    Named {
        /// The path the user gave.
        path: PathBuf,
        /// The environment variable that names it.
        variable: &'static str,
        /// What it lacks.
        why: String,
    },
    /// A program that the set-up calls is missing.
    #[error("{tool} is needed to fetch {what} and is not on this system; {instead}")]
    NoTool {
        /// The program.
        tool: String,
        /// What was to be fetched.
        what: &'static str,
        /// What a person can do.
        instead: &'static str,
    },
    /// No Debian archive keyring: nothing could be verified.
    #[error(
        "no Debian archive keyring is installed, so no package could be verified; install the \
         package debian-archive-keyring, or: {instead}"
    )]
    NoKeyring {
        /// What else a person can do.
        instead: &'static str,
    },
    /// The registry did not deliver.
    #[error(
        "cannot fetch {what} from {mirror}: {why}\n\
         What is downloaded so far is kept in {cache}; run the same command again to go on.\n\
         Behind a proxy, set http_proxy; for another Debian mirror, set IOPF_DEBIAN_MIRROR; \
         without a network: {instead}."
    )]
    Registry {
        /// What was to be fetched.
        what: &'static str,
        /// The Debian mirror that was asked.
        mirror: String,
        /// Its first complaint.
        why: String,
        /// Where partial downloads are.
        cache: PathBuf,
        /// What else a person can do.
        instead: &'static str,
    },
    /// A package is not what the signed index says.
    #[error(
        "{file} does not match its checksum: expected {expected}, found {found}; it was removed, run again"
    )]
    Checksum {
        /// The package's file name.
        file: String,
        /// SHA-256 from the index.
        expected: String,
        /// SHA-256 of the file.
        found: String,
    },
    /// What was fetched or built cannot be used.
    #[error("the {what} that was fetched is not usable: {why}")]
    Unusable {
        /// What was fetched.
        what: &'static str,
        /// What it lacks.
        why: String,
    },
    /// A build did not succeed.
    #[error("{what} was not built: {why}")]
    Build {
        /// What was being built.
        what: &'static str,
        /// The reason, and what to do.
        why: String,
    },
    /// A file operation failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// Names the place of an I/O error.
pub(crate) fn io<T>(what: impl FnOnce() -> String, result: io::Result<T>) -> Result<T, SetupError> {
    result.map_err(|source| SetupError::Io {
        what: what(),
        source,
    })
}
