//! A directory of things unpacked from packages, one a version.

use super::{Apt, Order, Package, SetupError, io};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The file whose presence makes a thing complete: hashes, one a line.
const MANIFEST: &str = "manifest.txt";

/// How the names of packages end in a manifest; they are not kept.
const PACKAGE: &str = ".deb";

/// Where a thing is put together before it gets its name.
const UNPACKING: &str = "unpacking";

/// Takes what is to be kept out of an unpacked tree (first argument) into a directory of its own
/// (second, not there yet).
type Arrange = dyn Fn(&Path, &Path) -> Result<(), String>;

/// Names and paths of the files whose hashes are checked before each use.
type Vouched = dyn Fn(&Path) -> Result<Vec<(String, PathBuf)>, String>;

/// Makes use of a kept directory; the error says what it lacks.
type Open<T> = dyn Fn(&Path) -> Result<T, String>;

/// A directory of unpacked things of one kind, one a version; the newest complete one is used.
pub(crate) struct Store<T> {
    /// What is fetched where there is none.
    pub(crate) order: Order,
    /// Where they are kept.
    pub(crate) dir: PathBuf,
    /// The package tools.
    pub(crate) apt: Apt,
    /// What is kept of the packages.
    pub(crate) arrange: Box<Arrange>,
    /// What is checked before each use.
    pub(crate) vouched: Box<Vouched>,
    /// What a kept directory is to its user.
    pub(crate) open: Box<Open<T>>,
}

impl<T> Store<T> {
    /// The newest complete and undamaged one, fetched where there is none.
    pub(crate) fn ensure(&self, progress: &mut dyn io::Write) -> Result<T, SetupError> {
        if let Some(thing) = self.existing() {
            return Ok(thing);
        }
        let what = self.order.what;
        let at = || format!("preparing {}", self.dir.display());
        io(at, fs::create_dir_all(&self.dir))?;
        let lock = io(at, File::create(self.dir.join("lock")))?;
        if lock.try_lock().is_err() {
            let _ = writeln!(progress, "{what}: waiting for another process to set it up");
            io(at, lock.lock())?;
        }
        // Whoever held the lock may have done the work.
        if let Some(thing) = self.existing() {
            return Ok(thing);
        }
        let (name, packages) = self.apt.download(&self.order, progress)?;
        let place = self.unpack(&name, &packages, progress)?;
        self.try_open(&place).map_err(|why| self.unusable(why))
    }

    fn unusable(&self, why: String) -> SetupError {
        SetupError::Unusable {
            what: self.order.name,
            why,
        }
    }

    /// The newest complete and undamaged one.
    fn existing(&self) -> Option<T> {
        self.newest_first()
            .iter()
            .find_map(|dir| self.try_open(dir).ok())
    }

    /// Complete ones, the latest unpacked first.
    fn newest_first(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter(|entry| entry.file_name() != UNPACKING)
            .filter_map(|entry| {
                let unpacked = fs::metadata(entry.path().join(MANIFEST)).ok()?.modified();
                Some((unpacked.ok()?, entry.path()))
            })
            .collect();
        found.sort();
        found.into_iter().rev().map(|(_, path)| path).collect()
    }

    /// Checks the hashes and opens it.
    fn try_open(&self, dir: &Path) -> Result<T, String> {
        let manifest = fs::read_to_string(dir.join(MANIFEST)).map_err(|e| e.to_string())?;
        let mut kept: Vec<_> = manifest
            .lines()
            .filter(|line| !line.ends_with(PACKAGE))
            .collect();
        for (name, path) in (self.vouched)(dir)? {
            let line = format!("{}  {name}", sha256(&path).map_err(|e| e.to_string())?);
            let Some(at) = kept.iter().position(|other| *other == line) else {
                return Err(format!("{} is damaged", path.display()));
            };
            kept.swap_remove(at);
        }
        if let Some(line) = kept.first() {
            return Err(format!("{} lacks {line}", dir.display()));
        }
        (self.open)(dir)
    }

    /// Checks and unpacks the packages; gives the directory of the result.
    pub(crate) fn unpack(
        &self,
        name: &str,
        packages: &[Package],
        progress: &mut dyn io::Write,
    ) -> Result<PathBuf, SetupError> {
        let what = self.order.what;
        let temp = self.dir.join(UNPACKING);
        let at = || format!("unpacking into {}", temp.display());
        if temp.exists() {
            io(at, fs::remove_dir_all(&temp))?;
        }
        let (tree, keep) = (temp.join("tree"), temp.join("keep"));
        io(at, fs::create_dir_all(&tree))?;
        let _ = writeln!(progress, "{what}: unpacking {} packages", packages.len());
        let mut manifest = String::new();
        for package in packages {
            self.apt.unpack_checked(package, &tree)?;
            manifest += &format!("{}  {}\n", package.sha256, package.file);
        }
        (self.arrange)(&tree, &keep).map_err(|why| self.unusable(why))?;
        for (name, path) in (self.vouched)(&keep).map_err(|why| self.unusable(why))? {
            manifest += &format!("{}  {name}\n", io(at, sha256(&path))?);
        }
        let write = |path: PathBuf| -> io::Result<()> {
            let mut file = File::create(path)?;
            file.write_all(manifest.as_bytes())?;
            file.sync_all()
        };
        io(at, write(keep.join(MANIFEST)))?;
        let place = self.dir.join(name);
        if place.exists() {
            io(at, fs::remove_dir_all(&place))?;
        }
        io(at, fs::rename(&keep, &place))?;
        io(at, fs::remove_dir_all(&temp))?;
        self.apt.forget(packages);
        let _ = writeln!(progress, "{what}: ready in {}", place.display());
        Ok(place)
    }
}

/// SHA-256 of a file, in hex.
pub(crate) fn sha256(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path)?;
    io::copy(&mut file, &mut HashWriter(&mut hasher))?;
    Ok(hex(&hasher.finalize()))
}

/// Digits of a hash.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
