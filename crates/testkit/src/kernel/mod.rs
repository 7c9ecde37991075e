//! Linux kernels for guests: Debian's, as they are, and one of our own build.
//!
//! A kernel lives in the cache as its image, the modules that tests may want (decompressed, with
//! whatever those need) and its configuration where Debian ships one. The version is found at run time and
//! printed: Debian moves.

mod modules;
mod stock;

pub use crate::debian::SetupError;
pub use stock::{Stock, stock};

use std::fs;
use std::path::{Path, PathBuf};

/// A kernel that a guest can boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    dir: PathBuf,
    version: String,
}

/// The image in a kernel's directory.
const IMAGE: &str = "vmlinuz";

/// The modules in a kernel's directory.
const MODULES: &str = "modules";

impl Kernel {
    /// The kernel kept in a directory; the error says what is missing.
    fn open(dir: &Path) -> Result<Self, String> {
        let image = dir.join(IMAGE);
        if !image.is_file() {
            return Err(format!("there is no {}", image.display()));
        }
        let version = dir.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            version: version.into_owned(),
            dir: dir.to_owned(),
        })
    }

    /// Where it came from and its version, as the cache names it.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The bzImage.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.dir.join(IMAGE)
    }

    /// The files of the named modules and of all that they need, in the order to load them.
    ///
    /// `-` and `_` are the same in a name. A module that is built into the kernel has no file and
    /// must not be asked for.
    ///
    /// # Errors
    /// Where a module is not in the cache; the text names it.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let folder = self.dir.join(MODULES);
        let file = |name: &str| folder.join(format!("{name}.ko"));
        modules::closure(names, |name| fs::read(file(name)).ok())
            .map(|order| order.iter().map(|name| file(name)).collect())
            .map_err(|name| format!("kernel {} has no module {name}", self.version))
    }
}

/// The files of a kernel that are checked before each use.
fn vouched(dir: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut files = vec![(IMAGE.to_owned(), dir.join(IMAGE))];
    for entry in fs::read_dir(dir.join(MODULES)).into_iter().flatten() {
        let path = entry.map_err(|error| error.to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((format!("{MODULES}/{name}"), path));
    }
    files.sort();
    Ok(files)
}
