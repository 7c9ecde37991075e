//! Finds a QEMU that is new enough, or puts one into the user's cache.
//!
//! The system's own QEMU is used where it will do. Otherwise Debian's packages are fetched with a
//! private apt state and unpacked into the cache; nothing outside the cache is written, no
//! privilege is needed, and the binary runs through the C library it came with.
//!
//! Promised: one download however many processes ask at once; an interrupted one goes on where
//! it stopped; every package is checked against the hash its signed index names; a damaged root
//! is rebuilt; without a network the error says what to do.

use super::apt::{Apt, Package};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

#[cfg(test)]
mod tests;

/// The oldest version worth probing: the first with the vfio-user client.
const OLDEST: (u32, u32) = (10, 1);

/// What the tests need, each with a property or device QEMU must list under its help.
const NEEDED: [(&str, &str); 3] = [
    ("iommu-testdev", "iommu-testdev options:"),
    ("intel-iommu", "fsts="),
    ("edu", "dma_mask="),
];

/// The file whose presence makes a root complete: hashes, one a line.
const MANIFEST: &str = "manifest.txt";

/// Where a root is put together before it gets its name.
const UNPACKING: &str = "unpacking";

/// Why there is no QEMU to use.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The named QEMU is not usable.
    #[error("{path} (from IOPF_QEMU) is not usable: {why}")]
    Named {
        /// The path the user gave.
        path: PathBuf,
        /// What it lacks.
        why: String,
    },
    /// A program that the set-up calls is missing.
    #[error(
        "{tool} is needed to fetch QEMU and is not on this system; install QEMU 11 or later (with \
         iommu-testdev), or name one in IOPF_QEMU"
    )]
    NoTool {
        /// The program.
        tool: String,
    },
    /// No Debian archive keyring: nothing could be verified.
    #[error(
        "no Debian archive keyring is installed, so no package could be verified; install the \
         package debian-archive-keyring, or name a QEMU 11 or later in IOPF_QEMU"
    )]
    NoKeyring,
    /// The registry did not deliver.
    #[error(
        "cannot fetch QEMU from {mirror}: {why}\n\
         What is downloaded so far is kept in {cache}; run the same command again to go on.\n\
         Behind a proxy, set http_proxy; for another Debian mirror, set IOPF_DEBIAN_MIRROR; \
         without a network, name a QEMU 11 or later in IOPF_QEMU."
    )]
    Registry {
        /// The Debian mirror that was asked.
        mirror: String,
        /// Its first complaint.
        why: String,
        /// Where partial downloads are.
        cache: PathBuf,
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
    /// The unpacked QEMU does not run or lacks a device.
    #[error("the QEMU that was fetched is not usable: {why}")]
    Unusable {
        /// What it lacks.
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
pub(super) fn io<T>(what: impl FnOnce() -> String, result: io::Result<T>) -> Result<T, SetupError> {
    result.map_err(|source| SetupError::Io {
        what: what(),
        source,
    })
}

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
    /// A command that starts `qemu-system-x86_64`; the caller adds arguments.
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

    /// Runs and probes a QEMU; the error says what it lacks.
    fn probe(mut self) -> Result<Self, String> {
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
        for (device, word) in NEEDED {
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

/// Finds or fetches QEMU, once a process. Progress goes to standard error.
///
/// `IOPF_QEMU` names a binary to use; `IOPF_CACHE` the cache (default: `iopf` in the user's cache
/// directory); `IOPF_DEBIAN_MIRROR` the registry (default: the Debian mirror apt is set up with).
///
/// # Errors
/// As [`SetupError`] says; its text is meant for a person.
pub fn ensure() -> Result<&'static QemuRoot, &'static SetupError> {
    static ROOT: OnceLock<Result<QemuRoot, SetupError>> = OnceLock::new();
    ROOT.get_or_init(|| {
        if let Some(path) = std::env::var_os("IOPF_QEMU").map(PathBuf::from) {
            return QemuRoot::of_binary(path.clone())
                .probe()
                .map_err(|why| SetupError::Named { path, why });
        }
        if let Ok(system) = QemuRoot::of_binary("qemu-system-x86_64".into()).probe() {
            return Ok(system);
        }
        let mut apt = Apt::new(&cache_dir().join("qemu"));
        if let Ok(mirror) = std::env::var("IOPF_DEBIAN_MIRROR") {
            apt.mirror = Some(mirror);
        }
        Cache {
            dir: cache_dir().join("qemu"),
            apt,
            accept: QemuRoot::probe,
        }
        .ensure(&mut io::stderr())
    })
    .as_ref()
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

/// A directory of unpacked roots, one a version.
struct Cache {
    dir: PathBuf,
    apt: Apt,
    /// Probes a binary; tests put their own here.
    accept: fn(QemuRoot) -> Result<QemuRoot, String>,
}

impl Cache {
    fn ensure(&self, progress: &mut dyn io::Write) -> Result<QemuRoot, SetupError> {
        if let Some(root) = self.existing() {
            return Ok(root);
        }
        let at = || format!("preparing {}", self.dir.display());
        io(at, fs::create_dir_all(&self.dir))?;
        let lock = io(at, File::create(self.dir.join("lock")))?;
        if lock.try_lock().is_err() {
            let _ = writeln!(progress, "qemu: waiting for another process to set it up");
            io(at, lock.lock())?;
        }
        // Whoever held the lock may have done the work.
        if let Some(root) = self.existing() {
            return Ok(root);
        }
        let (name, packages) = self.apt.download(progress)?;
        self.unpack(&name, &packages, progress)?;
        self.existing().ok_or_else(|| SetupError::Unusable {
            why: self
                .newest_first()
                .first()
                .map_or("nothing was unpacked".to_owned(), |dir| {
                    self.open(dir).err().unwrap_or_default()
                }),
        })
    }

    /// The newest complete and undamaged root.
    fn existing(&self) -> Option<QemuRoot> {
        self.newest_first()
            .iter()
            .find_map(|dir| self.open(dir).ok())
    }

    /// Complete roots, the latest unpacked first.
    fn newest_first(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut roots: Vec<_> = entries
            .filter(|entry| entry.file_name() != UNPACKING)
            .filter_map(|entry| {
                let unpacked = fs::metadata(entry.path().join(MANIFEST)).ok()?.modified();
                Some((unpacked.ok()?, entry.path()))
            })
            .collect();
        roots.sort();
        roots.into_iter().rev().map(|(_, path)| path).collect()
    }

    /// Checks the hash of the binary and probes it.
    fn open(&self, dir: &Path) -> Result<QemuRoot, String> {
        let manifest = fs::read_to_string(dir.join(MANIFEST)).map_err(|e| e.to_string())?;
        let layout = Layout::of(dir).ok_or("the root lacks the binary or its C library")?;
        let line = format!(
            "{}  binary",
            sha256(&layout.binary).map_err(|e| e.to_string())?
        );
        if !manifest.lines().any(|l| l == line) {
            return Err(format!("{} is damaged", layout.binary.display()));
        }
        (self.accept)(layout.root())
    }

    fn unpack(
        &self,
        name: &str,
        packages: &[Package],
        progress: &mut dyn io::Write,
    ) -> Result<(), SetupError> {
        let temp = self.dir.join(UNPACKING);
        let at = || format!("unpacking into {}", temp.display());
        if temp.exists() {
            io(at, fs::remove_dir_all(&temp))?;
        }
        io(at, fs::create_dir_all(&temp))?;
        let _ = writeln!(progress, "qemu: unpacking {} packages", packages.len());
        let mut manifest = String::new();
        for package in packages {
            let deb = self.apt.archives().join(&package.file);
            let found = io(at, sha256(&deb))?;
            if found != package.sha256 {
                let _ = fs::remove_file(&deb);
                return Err(SetupError::Checksum {
                    file: package.file.clone(),
                    expected: package.sha256.clone(),
                    found,
                });
            }
            self.apt.unpack(&deb, &temp)?;
            manifest += &format!("{found}  {}\n", package.file);
        }
        let layout = Layout::of(&temp).ok_or_else(|| SetupError::Unusable {
            why: "the packages hold no qemu-system-x86_64 or no C library".to_owned(),
        })?;
        manifest += &format!("{}  binary\n", io(at, sha256(&layout.binary))?);
        let write = |path: PathBuf| -> io::Result<()> {
            let mut file = File::create(path)?;
            file.write_all(manifest.as_bytes())?;
            file.sync_all()
        };
        io(at, write(temp.join(MANIFEST)))?;
        let place = self.dir.join(name);
        if place.exists() {
            io(at, fs::remove_dir_all(&place))?;
        }
        io(at, fs::rename(&temp, &place))?;
        self.apt.forget_archives();
        let _ = writeln!(progress, "qemu: ready in {}", place.display());
        Ok(())
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
    fn of(root: &Path) -> Option<Self> {
        let binary = root.join("usr/bin/qemu-system-x86_64");
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

/// SHA-256 of a file, in hex.
fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    io::copy(&mut file, &mut HashWriter(&mut hasher))?;
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Feeds what is written to a hash.
struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
