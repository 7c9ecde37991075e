//! Our own builds of Linux, for what no Debian kernel has.
//!
//! Debian's kernels come without iommufd, and for arm64 without shared virtual addressing. Ours are
//! Debian's source with the configuration in `guests/kernel/x86_64.config` or `arm64.config`, that for
//! x86-64 with the patches in `guests/kernel/oracle` and with the kernel's own tests of iommufd. Each is
//! built once (6 and 7 minutes of two processors) and kept by the source's version and the hash of what
//! goes in. While it is built, its tree takes 2.2 GB in the cache; afterwards only the image (5 MB)
//! and the tests (2 MB) stay, since a changed configuration or patch is rare. A build that was
//! interrupted goes on.

use super::build::{Tree, failed};
use super::recipe::Recipe;
use super::{BUILTIN, CONFIG, IMAGE, Kernel, SELFTESTS, SetupError, vouched};
use crate::debian::{Apt, Order, cache_dir, io, sha256};
use crate::qemu::root::Target;
use crate::tools;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

#[cfg(test)]
mod tests;

/// The source package: the newest of Debian's backports as this is written.
const SOURCE: &str = "linux-source-7.3";

const ORDER: Order = Order {
    what: "own kernel",
    name: "Linux's source",
    suite: "trixie-backports",
    packages: &[SOURCE],
    only: &["linux-source-7.3_"],
    named_after: "linux-source-7.3_",
    instead: "run the other tiers (cargo xtask test --tier unit), or copy the cache from another machine",
};

/// The file whose presence makes a kernel complete.
const MANIFEST: &str = "manifest.txt";

/// [`own_for`] x86-64.
///
/// # Errors
/// As of [`own_for`].
pub fn own() -> Result<&'static Kernel, &'static SetupError> {
    own_for(Target::X86_64)
}

/// Finds our own kernel for a target or builds it, once a process. Progress goes to standard error.
///
/// # Errors
/// As [`SetupError`] says: the source is not there, a tool is missing, or the build fails.
pub fn own_for(target: Target) -> Result<&'static Kernel, &'static SetupError> {
    type Built = OnceLock<Result<Kernel, SetupError>>;
    static X86_64: Built = OnceLock::new();
    static AARCH64: Built = OnceLock::new();
    let (kernel, dir) = match target {
        Target::X86_64 => (&X86_64, "kernels/own"),
        Target::Aarch64 => (&AARCH64, "kernels/own-arm64"),
    };
    kernel
        .get_or_init(|| {
            let workshop = Workshop {
                recipe: Recipe::read(target)?,
                dir: cache_dir().join(dir),
                apt: Apt::new(&cache_dir().join("debian")),
                make: "make".into(),
                tools: |recipe, progress| {
                    tools::ensure("our own kernel", &recipe.needs(), progress)
                },
            };
            workshop.ensure(&mut io::stderr())
        })
        .as_ref()
}

/// Where our kernels are built and kept.
struct Workshop {
    recipe: Recipe,
    dir: PathBuf,
    apt: Apt,
    make: PathBuf,
    /// Makes sure that the tools of a build are there.
    tools: fn(&Recipe, &mut dyn io::Write) -> Result<(), SetupError>,
}

impl Workshop {
    fn ensure(&self, progress: &mut dyn io::Write) -> Result<Kernel, SetupError> {
        let at = || format!("preparing {}", self.dir.display());
        let name = self.recipe.name();
        if let Some(kernel) = self.existing() {
            return Ok(kernel);
        }
        io(at, fs::create_dir_all(&self.dir))?;
        let lock = io(at, File::create(self.dir.join("lock")))?;
        if lock.try_lock().is_err() {
            let _ = writeln!(progress, "{name}: waiting for another process to build it");
            io(at, lock.lock())?;
        }
        // Whoever held the lock may have done the work.
        if let Some(kernel) = self.existing() {
            return Ok(kernel);
        }
        (self.tools)(&self.recipe, progress)?;
        let version = self.unpacked(&lock, progress)?;
        let tree = Tree {
            make: &self.make,
            lock: &lock,
            source: self.tree(),
            recipe: &self.recipe,
        };
        let _ = writeln!(
            progress,
            "{name}: building {version} in {}; it may be interrupted and goes on when run again",
            self.dir.display()
        );
        tree.configure()?;
        tree.build(progress)?;
        tree.selftests()?;
        let place = self.keep(&tree, &version)?;
        let _ = writeln!(progress, "{name}: ready in {}", place.display());
        Kernel::open(&place, self.recipe.target).map_err(failed)
    }

    /// A complete and undamaged kernel of this recipe.
    fn existing(&self) -> Option<Kernel> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
        found.sort();
        let end = format!("-{}", self.recipe.hash());
        let ours = |path: &&PathBuf| path.to_string_lossy().ends_with(&end) && intact(path);
        found
            .iter()
            .rev()
            .filter(ours)
            .find_map(|path| Kernel::open(path, self.recipe.target).ok())
    }

    /// Where the source is while it is needed.
    fn build(&self) -> PathBuf {
        self.dir.join("build")
    }

    /// The file whose presence says that the source is unpacked and patched, and as what.
    fn stamp(&self) -> PathBuf {
        self.build().join("unpacked")
    }

    fn tree(&self) -> PathBuf {
        self.build().join(SOURCE)
    }

    /// Unpacks and patches the source where that is not done yet; gives its version.
    fn unpacked(&self, lock: &File, progress: &mut dyn io::Write) -> Result<String, SetupError> {
        let stamp = self.stamp();
        // A patch that changed since is not what was applied.
        let patches = self.recipe.patched();
        if let Ok(text) = fs::read_to_string(&stamp)
            && let Some((version, applied)) = text.split_once('\n')
            && applied == patches
        {
            return Ok(version.to_owned());
        }
        let (version, packages) = self.apt.download(&ORDER, progress)?;
        let build = self.build();
        let at = || format!("unpacking into {}", build.display());
        io(at, self.discard())?;
        io(at, fs::create_dir_all(&build))?;
        let name = self.recipe.name();
        let _ = writeln!(progress, "{name}: unpacking the source (1.6 GB)");
        let deb = build.join("package");
        for package in &packages {
            self.apt.unpack_checked(package, &deb)?;
        }
        let archive = deb.join(format!("usr/src/{SOURCE}.tar.xz"));
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(&build);
        run(lock, &mut tar)?;
        io(at, fs::remove_dir_all(&deb))?;
        for patch in &self.recipe.patches {
            let file = build.join(&patch.name);
            io(at, fs::write(&file, &patch.text))?;
            let mut command = Command::new("patch");
            command.args(["-p1", "-s", "-i"]).arg(&file);
            run(lock, command.current_dir(self.tree()))?;
        }
        io(at, fs::write(&stamp, format!("{version}\n{patches}")))?;
        self.apt.forget(&packages);
        Ok(version)
    }

    /// Keeps what a guest needs, and drops the tree.
    fn keep(&self, tree: &Tree<'_>, version: &str) -> Result<PathBuf, SetupError> {
        let place = self.dir.join(format!("{version}-{}", self.recipe.hash()));
        let temp = self.dir.join("keeping");
        let at = || format!("keeping {}", place.display());
        for old in [&temp, &place] {
            if old.exists() {
                io(at, fs::remove_dir_all(old))?;
            }
        }
        io(at, fs::create_dir_all(temp.join(SELFTESTS)))?;
        for (name, file) in [
            (IMAGE, self.recipe.image().1),
            (CONFIG, ".config"),
            (BUILTIN, "modules.builtin"),
        ] {
            io(at, fs::copy(tree.file(file), temp.join(name)))?;
        }
        for (name, program) in tree.selftest_programs() {
            io(at, fs::copy(program, temp.join(SELFTESTS).join(name)))?;
        }
        let manifest = manifest(&temp).map_err(failed)?;
        io(at, fs::write(temp.join(MANIFEST), manifest))?;
        io(at, fs::rename(&temp, &place))?;
        io(at, self.discard())?;
        Ok(place)
    }

    /// Removes the tree.
    fn discard(&self) -> io::Result<()> {
        let gone = |came: io::Result<()>| match came {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            came => came,
        };
        // First what says that it is whole: the rest takes a while, and may be interrupted.
        gone(fs::remove_file(self.stamp()))?;
        gone(fs::remove_dir_all(self.build()))
    }
}

/// Hashes of a kernel's files, one a line.
fn manifest(dir: &Path) -> Result<String, String> {
    let mut text = String::new();
    for (name, path) in vouched(dir)? {
        let hash = sha256(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        text += &format!("{hash}  {name}\n");
    }
    Ok(text)
}

/// Whether a kernel is complete and as it was built.
fn intact(dir: &Path) -> bool {
    let kept = fs::read_to_string(dir.join(MANIFEST)).ok();
    kept.is_some() && kept == manifest(dir).ok()
}

/// Runs it. It keeps the locked file open, should it outlive this process.
fn run(lock: &File, command: &mut Command) -> Result<(), SetupError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let at = || format!("running {name}");
    let lock = io(at, lock.try_clone())?;
    let output = io(at, command.stdin(lock).output())?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{name}: {}", said.trim())))
}
