//! Programs of Debian's that run in a guest, with the libraries and the loader they need.

use crate::debian::{Apt, Order, SetupError, Store, cache_dir};
use object::Object as _;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where Debian's loader looks for libraries.
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The loader, where programs of x86-64 expect it.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";

/// The tool that sets up the devices of Intel's DSA driver, as users do.
const ACCEL_CONFIG: Order = Order {
    what: "accel-config",
    name: "accel-config",
    suite: "trixie",
    packages: &["accel-config"],
    only: &[],
    named_after: "accel-config_",
    instead: "run the other tiers (cargo xtask test --tier unit), or copy the cache from another machine",
};

/// A program and all it needs, as it lies in a guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    dir: PathBuf,
    version: String,
    files: Vec<String>,
}

impl Program {
    fn open(dir: &Path) -> Result<Self, String> {
        let version = dir.file_name().unwrap_or_default().to_string_lossy();
        let mut files = Vec::new();
        for folder in ["usr/bin", LIBRARIES, "lib64"] {
            for entry in fs::read_dir(dir.join(folder)).map_err(|error| error.to_string())? {
                let name = entry.map_err(|error| error.to_string())?.file_name();
                files.push(format!("{folder}/{}", name.to_string_lossy()));
            }
        }
        files.sort();
        Ok(Self {
            dir: dir.to_owned(),
            version: version.into_owned(),
            files,
        })
    }

    /// Its version as Debian's package has it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The path of each of its files in a guest, without the leading slash, and here.
    pub(super) fn files(&self) -> Vec<(String, PathBuf)> {
        let pair = |file: &String| (file.clone(), self.dir.join(file));
        self.files.iter().map(pair).collect()
    }
}

/// Finds or fetches `accel-config`, which a guest then has as `/usr/bin/accel-config`. Once a
/// process; progress goes to standard error.
///
/// # Errors
/// As [`SetupError`] says.
pub fn accel_config() -> Result<&'static Program, &'static SetupError> {
    static PROGRAM: OnceLock<Result<Program, SetupError>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| {
            let store = Store {
                order: ACCEL_CONFIG,
                dir: cache_dir().join("programs/accel-config"),
                apt: Apt::new(&cache_dir().join("debian")),
                arrange: Box::new(|tree, keep| arrange("accel-config", tree, keep)),
                vouched: Box::new(|dir| Ok(Program::open(dir)?.files())),
                open: Box::new(Program::open),
            };
            store.ensure(&mut io::stderr())
        })
        .as_ref()
}

/// Keeps a program, its loader, and the libraries that it and they name as needed.
fn arrange(program: &str, tree: &Path, keep: &Path) -> Result<(), String> {
    let mut libraries = BTreeMap::new();
    for folder in ["usr/lib/x86_64-linux-gnu", LIBRARIES] {
        for entry in fs::read_dir(tree.join(folder))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            libraries.insert(name, entry.path());
        }
    }
    let copy = |from: &Path, to: &str| {
        let to = keep.join(to);
        let folder = to.parent().unwrap_or(keep);
        fs::create_dir_all(folder)
            .and_then(|()| fs::copy(from, &to))
            .map(|_| ())
            .map_err(|error| format!("{}: {error}", from.display()))
    };
    let binary = tree.join("usr/bin").join(program);
    copy(&binary, &format!("usr/bin/{program}"))?;
    let mut have: Vec<String> = Vec::new();
    let mut want = needed(&binary)?;
    want.push("ld-linux-x86-64.so.2".to_owned());
    while let Some(name) = want.pop() {
        if have.contains(&name) {
            continue;
        }
        let from = libraries
            .get(&name)
            .ok_or_else(|| format!("the packages hold no {name}"))?;
        if LOADER.ends_with(&name) {
            copy(from, LOADER)?;
        } else {
            copy(from, &format!("{LIBRARIES}/{name}"))?;
        }
        want.extend(needed(from)?);
        have.push(name);
    }
    Ok(())
}

/// The libraries that an ELF file names as needed.
fn needed(path: &Path) -> Result<Vec<String>, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let data = fs::read(path).map_err(|error| at(&error))?;
    let file = object::File::parse(&*data).map_err(|error| at(&error))?;
    let mut names = Vec::new();
    for library in file.import_libraries().map_err(|error| at(&error))? {
        let library = library.map_err(|error| at(&error))?;
        names.push(String::from_utf8_lossy(library.name()).into_owned());
    }
    Ok(names)
}
