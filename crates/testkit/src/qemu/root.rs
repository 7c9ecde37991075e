//! Finds a QEMU that is new enough, or puts one into the user's cache.
//!
//! The system's own QEMU is used where it will do. Otherwise Debian's packages are fetched with a
//! private apt state and unpacked into the cache; nothing outside the cache is written, no
//! privilege is needed, and the binary runs through the C library it came with.
//!
//! Promised: one download however many processes ask at once; an interrupted one goes on where
//! it stopped; every package is checked against the hash its signed index names; a damaged root
//! is rebuilt; without a network the error says what to do.

use crate::debian::{Apt, Store};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

mod target;
#[cfg(test)]
mod tests;

pub use target::Target;

/// The oldest version worth probing: the first with the vfio-user client.
const OLDEST: (u32, u32) = (10, 1);

pub use crate::debian::{SetupError, cache_dir};

/// A QEMU that runs here and has the devices the tests need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuRoot {
    /// Program and leading arguments: the binary alone, or its own loader around it.
    prefix: Vec<PathBuf>,
    /// Where it finds its modules, the qtest accelerator among them, if not where it was built.
    modules: Option<PathBuf>,
    /// As `--version` prints it, first line.
    version: String,
}

impl QemuRoot {
    /// A command that starts it; the caller adds arguments.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.prefix[0]);
        command.args(&self.prefix[1..]);
        if let Some(modules) = &self.modules {
            command.env("QEMU_MODULE_DIR", modules);
        }
        command
    }

    /// The first line of `--version`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(super) fn of_binary(binary: PathBuf) -> Self {
        Self {
            prefix: vec![binary],
            modules: None,
            version: String::new(),
        }
    }

    /// Runs and probes a QEMU; the error says what it lacks for the tests of this target.
    fn probe(mut self, target: Target) -> Result<Self, String> {
        let root = &self;
        let version = root.output(&["--version"])?;
        let found = parse_version(&version)
            .ok_or_else(|| format!("no version in {:?}", version.lines().next()))?;
        if found < OLDEST {
            let (major, minor) = OLDEST;
            return Err(format!(
                "version {}.{} is older than {major}.{minor}",
                found.0, found.1
            ));
        }
        for (device, word) in target.needed() {
            let help = root.output(&["-M", "none", "-device", &format!("{device},help")])?;
            if !help.contains(word) {
                return Err(format!("its {device} device lacks {word:?} or is absent"));
            }
        }
        version
            .lines()
            .next()
            .unwrap_or_default()
            .clone_into(&mut self.version);
        Ok(self)
    }

    fn output(&self, args: &[&str]) -> Result<String, String> {
        let output = self
            .command()
            .args(args)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{}: {error}", self.prefix[0].display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// `(major, minor)` of a `--version` text.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let after = text.split_once("version ")?.1;
    let mut numbers = after
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// [`ensure_for`] the x86-64 machines.
///
/// # Errors
/// As [`ensure_for`].
pub fn ensure() -> Result<&'static QemuRoot, &'static SetupError> {
    ensure_for(Target::X86_64)
}

/// Finds or fetches the QEMU of a target, once a process. Progress goes to standard error.
///
/// [`Target::variable`] names a binary to use; `IOPF_CACHE` the cache (default: `iopf` in the
/// user's cache directory); `IOPF_DEBIAN_MIRROR` the registry (default: the Debian mirror apt is
/// set up with).
///
/// # Errors
/// As [`SetupError`] says; its text is meant for a person.
pub fn ensure_for(target: Target) -> Result<&'static QemuRoot, &'static SetupError> {
    type Found = OnceLock<Result<QemuRoot, SetupError>>;
    static X86_64: Found = OnceLock::new();
    static AARCH64: Found = OnceLock::new();
    let root = match target {
        Target::X86_64 => &X86_64,
        Target::Aarch64 => &AARCH64,
    };
    root.get_or_init(|| find(target)).as_ref()
}

fn find(target: Target) -> Result<QemuRoot, SetupError> {
    let variable = target.variable();
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        let named = QemuRoot::of_binary(path.clone()).probe(target);
        return named.map_err(|why| SetupError::Named {
            path,
            variable,
            why,
        });
    }
    if let Ok(system) = QemuRoot::of_binary(target.binary().into()).probe(target) {
        return Ok(system);
    }
    let dir = cache_dir().join(target.cached());
    let apt = Apt::new(&dir);
    let store = store(target, dir, apt, move |root| root.probe(target));
    store.ensure(&mut io::stderr())
}

/// The cache of unpacked QEMUs of a target; `accept` probes a binary.
fn store(
    target: Target,
    dir: PathBuf,
    apt: Apt,
    accept: impl Fn(QemuRoot) -> Result<QemuRoot, String> + 'static,
) -> Store<QemuRoot> {
    let layout = move |dir: &Path| {
        let binary = target.binary();
        let lacking = || format!("the packages hold no {binary} or no C library");
        Layout::of(dir, binary).ok_or_else(lacking)
    };
    Store {
        order: target.order(),
        dir,
        apt,
        arrange: Box::new(|tree, keep| {
            fs::rename(tree, keep).map_err(|error| error.to_string())?;
            Ok(())
        }),
        vouched: Box::new(move |dir| Ok(vec![("binary".to_owned(), layout(dir)?.binary)])),
        open: Box::new(move |dir| accept(layout(dir)?.root())),
    }
}

/// Where things lie in an unpacked root.
struct Layout {
    binary: PathBuf,
    loader: PathBuf,
    libraries: PathBuf,
    data: [PathBuf; 2],
}

impl Layout {
    fn of(root: &Path, binary: &str) -> Option<Self> {
        let binary = root.join("usr/bin").join(binary);
        let directories = fs::read_dir(root.join("usr/lib")).ok()?.flatten();
        let (libraries, loader) = directories.map(|entry| entry.path()).find_map(|dir| {
            let files = fs::read_dir(&dir).ok()?.flatten();
            let loader = files.map(|file| file.path()).find(|file| {
                let name = file.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("ld-linux") && name.contains(".so")
            })?;
            Some((dir, loader))
        })?;
        let data = ["usr/share/qemu", "usr/share/seabios"].map(|dir| root.join(dir));
        binary.is_file().then_some(Self {
            binary,
            loader,
            libraries,
            data,
        })
    }

    fn root(self) -> QemuRoot {
        let [qemu, seabios] = self.data;
        QemuRoot {
            modules: Some(self.libraries.join("qemu")),
            prefix: vec![
                self.loader,
                "--library-path".into(),
                self.libraries,
                self.binary,
                "-L".into(),
                qemu,
                "-L".into(),
                seabios,
            ],
            version: String::new(),
        }
    }
}
