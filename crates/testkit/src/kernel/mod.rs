//! Linux kernels for guests: Debian's, as they are, and one of our own build.
//!
//! A kernel lives in the cache as its image, its configuration, the modules that tests may want
//! (decompressed, with whatever those need) and the list of those built in. The version is found at run time: Debian moves.

mod build;
mod modules;
mod own;
mod recipe;
mod stock;

pub use crate::debian::SetupError;
pub use crate::qemu::root::Target;
pub use own::{own, own_for};
pub use stock::{Stock, stock, stock_for};

use std::fs;
use std::path::{Path, PathBuf};

/// A kernel that a guest can boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    dir: PathBuf,
    version: String,
    target: Target,
}

/// What is in a kernel's directory.
const IMAGE: &str = "vmlinuz";
const CONFIG: &str = "config";
const BUILTIN: &str = "modules.builtin";
const MODULES: &str = "modules";
const SELFTESTS: &str = "selftests";

impl Kernel {
    /// The kernel kept in a directory; the error says what is missing.
    fn open(dir: &Path, target: Target) -> Result<Self, String> {
        for file in [IMAGE, CONFIG, BUILTIN] {
            if !dir.join(file).is_file() {
                return Err(format!("there is no {file} in {}", dir.display()));
            }
        }
        let version = dir.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            version: version.into_owned(),
            dir: dir.to_owned(),
            target,
        })
    }

    /// Its version as Debian's package has it; of our own build, with the hash of what went in.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The processor it is for.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// The image as QEMU's `-kernel` takes it.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.dir.join(IMAGE)
    }

    /// One of the kernel's own test programs, static: of our own build `iommufd` and
    /// `iommufd_fail_nth` (Linux, `tools/testing/selftests/iommu`). Debian's kernels come without.
    #[must_use]
    pub fn selftest(&self, name: &str) -> Option<PathBuf> {
        let program = self.dir.join(SELFTESTS).join(name);
        program.is_file().then_some(program)
    }

    /// What it was configured with: `name` as in `CONFIG_name`. `None` where it is not set.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.dir.join(CONFIG)).unwrap_or_default();
        let start = format!("CONFIG_{name}=");
        let value = text.lines().find_map(|line| line.strip_prefix(&start))?;
        Some(value.to_owned())
    }

    /// The files of the named modules and of all that they need, in the order to load them.
    ///
    /// `-` and `_` are the same in a name. What is built into the kernel has no file and is passed
    /// over.
    ///
    /// # Errors
    /// Where a module is neither in the cache nor built in; the text names it.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>, String> {
        let folder = self.dir.join(MODULES);
        let file = |name: &str| folder.join(format!("{name}.ko"));
        let list = fs::read_to_string(self.dir.join(BUILTIN)).unwrap_or_default();
        let builtin = modules::builtin(&list);
        let missing = |name: &str| !builtin.iter().any(|other| other == name);
        let names: Vec<_> = names.iter().map(|name| modules::canonical(name)).collect();
        modules::closure(names.iter().filter(|name| missing(name)), |name| {
            fs::read(file(name)).ok()
        })
        .map(|order| order.iter().map(|name| file(name)).collect())
        .map_err(|name| format!("kernel {} has no module {name}", self.version))
    }
}

/// The files of a kernel that are checked before each use.
fn vouched(dir: &Path) -> Result<Vec<(String, PathBuf)>, String> {
    let mut files: Vec<_> = [IMAGE, CONFIG, BUILTIN]
        .map(|name| (name.to_owned(), dir.join(name)))
        .into();
    for folder in [MODULES, SELFTESTS] {
        for entry in fs::read_dir(dir.join(folder)).into_iter().flatten() {
            let path = entry.map_err(|error| error.to_string())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            files.push((format!("{folder}/{name}"), path));
        }
    }
    files.sort();
    Ok(files)
}
