//! Compilers for arm64 guests.
//!
//! C, and the linking of everything, is the system's cross compiler's. A Rust toolchain seldom has
//! another processor's standard library, and the package registries that a test machine reaches have
//! none for it, but Debian's: so its compiler comes with the standard library of the same build, in a
//! folder of the cache that only arm64 programs are built with. The system's cargo drives it.

use crate::debian::{Apt, Order, SetupError, Store, cache_dir};
use crate::tools;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[cfg(test)]
mod tests;

/// How the names of the cross tools of C start.
pub(crate) const PREFIX: &str = "aarch64-linux-gnu-";

/// What links, also for Rust.
pub(crate) const LINKER: &str = "aarch64-linux-gnu-gcc";

/// The compiler, the standard libraries of both processors (that of this one for build scripts and
/// procedural macros), and what the compiler runs on. What it would link with stays away.
const RUST: Order = Order {
    what: "rust for arm64",
    name: "Rust for arm64",
    suite: "trixie-backports",
    packages: &["rustc", "libstd-rust-dev:arm64"],
    only: &[
        "rustc_",
        "libstd-rust-dev_",
        "lib*_amd64.deb",
        "zlib1g_*_amd64.deb",
    ],
    named_after: "rustc_",
    instead: "run the other tiers (cargo xtask test --tier unit), or copy the cache from another machine",
};

/// The program of a kept toolchain that cargo calls as `rustc`.
const RUSTC: &str = "rustc";

/// Starts the compiler with the C library and the standard libraries it came with, wherever it lies.
const WRAPPER: &str = r#"#!/bin/sh
here=$(dirname "$0")/usr
lib=$here/lib/x86_64-linux-gnu
exec "$lib/ld-linux-x86-64.so.2" --library-path "$lib" "$here/bin/rustc" --sysroot "$here" "$@"
"#;

/// Where the standard library for arm64 is.
const STD: &str = "usr/lib/rustlib/aarch64-unknown-linux-gnu/lib";

/// What is kept of the packages.
const KEPT: [&str; 3] = [
    "usr/bin/rustc",
    "usr/lib/rustlib",
    "usr/lib/x86_64-linux-gnu",
];

/// Finds or fetches a Rust compiler for arm64, and what links for it, once a process; gives the
/// program to set `RUSTC` to. Progress goes to standard error.
///
/// # Errors
/// As [`SetupError`] says.
pub(crate) fn rustc() -> Result<&'static Path, &'static SetupError> {
    static FOUND: OnceLock<Result<PathBuf, SetupError>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        tools::ensure("programs for arm64", &[tools::ARM64], &mut io::stderr())?;
        let apt = Apt::new(&cache_dir().join("debian"));
        store(cache_dir().join("rust-arm64"), apt).ensure(&mut io::stderr())
    });
    found.as_ref().map(PathBuf::as_path)
}

fn store(dir: PathBuf, apt: Apt) -> Store<PathBuf> {
    Store {
        order: RUST,
        dir,
        apt,
        arrange: Box::new(arrange),
        vouched: Box::new(vouched),
        open: Box::new(|dir| Ok(dir.join(RUSTC))),
    }
}

fn arrange(tree: &Path, keep: &Path) -> Result<(), String> {
    for part in KEPT {
        let (from, to) = (tree.join(part), keep.join(part));
        let folder = to.parent().unwrap_or(keep);
        fs::create_dir_all(folder)
            .and_then(|()| fs::rename(&from, &to))
            .map_err(|error| format!("the packages hold no {part}: {error}"))?;
    }
    let wrapper = keep.join(RUSTC);
    fs::write(&wrapper, WRAPPER)
        .and_then(|()| fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)))
        .map_err(|error| format!("{}: {error}", wrapper.display()))
}

/// The programs, and of the standard library the crate that all of it is in.
fn vouched(dir: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut files: Vec<_> = [RUSTC, KEPT[0]]
        .map(|name| (name.to_owned(), dir.join(name)))
        .into();
    let library = dir.join(STD);
    let at = |error: io::Error| format!("{}: {error}", library.display());
    for entry in fs::read_dir(&library).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("libstd-") && name.ends_with(".rlib") {
            files.push((format!("{STD}/{name}"), path));
        }
    }
    if files.len() == 2 {
        return Err(format!("there is no libstd in {}", library.display()));
    }
    files.sort();
    Ok(files)
}
