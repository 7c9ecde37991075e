//! Building Linux from a source tree.

use super::SetupError;
use super::recipe::Recipe;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How often progress is told.
const TELL: Duration = Duration::from_secs(10);

/// The kernel's own tests of iommufd, and where they are in the tree.
pub(super) const SELFTEST_PROGRAMS: [&str; 2] = ["iommufd", "iommufd_fail_nth"];
const SELFTEST_FOLDER: &str = "tools/testing/selftests/iommu";

/// What make says.
const LOG: &str = "iopf.log";

/// An unpacked source tree.
pub(super) struct Tree<'a> {
    /// The program make(1).
    pub(super) make: &'a Path,
    /// A locked file. Every program that is started here keeps it open, and so the lock, should it
    /// outlive this process.
    pub(super) lock: &'a File,
    /// Where it is.
    pub(super) source: PathBuf,
    /// What it becomes.
    pub(super) recipe: &'a Recipe,
}

impl Tree<'_> {
    /// Writes the configuration, if the one that is there is not of the same fragment.
    ///
    /// The fragment is kept beside it; with the same one, a build goes on where it was.
    pub(super) fn configure(&self) -> Result<(), SetupError> {
        let fragment = self.source.join("iopf.config");
        let same = fs::read_to_string(&fragment).is_ok_and(|text| text == self.recipe.fragment);
        if same && self.dropped()?.is_empty() {
            return Ok(());
        }
        // Its presence says that what follows is done.
        let _ = fs::remove_file(&fragment);
        let written = self.source.join("iopf.config.new");
        self.at(fs::write(&written, &self.recipe.fragment))?;
        self.make(&["tinyconfig"])?;
        let merge = "scripts/kconfig/merge_config.sh";
        self.run(Command::new(self.source.join(merge)).args(["-m", ".config", "iopf.config.new"]))?;
        self.make(&["olddefconfig"])?;
        let dropped = self.dropped()?;
        if !dropped.is_empty() {
            return Err(failed(format!("Kconfig dropped {}", dropped.join(", "))));
        }
        self.at(fs::rename(&written, &fragment))
    }

    /// Lines of the fragment that the configuration does not have.
    fn dropped(&self) -> Result<Vec<String>, SetupError> {
        let config = self.at(fs::read_to_string(self.source.join(".config")))?;
        Ok(dropped(&self.recipe.fragment, &config))
    }

    /// Builds the image; every ten seconds a line of progress. Objects that are there are not built
    /// again.
    pub(super) fn build(&self, progress: &mut dyn io::Write) -> Result<(), SetupError> {
        let name = self.recipe.name();
        let mut child = self.start()?;
        let log = self.file(LOG);
        let mut reader = self.at(File::open(&log))?;
        let (started, mut told) = (Instant::now(), Instant::now());
        let mut steps = 0;
        let status = loop {
            let status = self.at(child.try_wait())?;
            if let Some(status) = status {
                break status;
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                steps += self.at(lines(&mut reader))?;
                let seconds = started.elapsed().as_secs();
                let _ = writeln!(progress, "{name}: {steps} build steps in {seconds} s");
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(&log).unwrap_or_default();
        Err(failed(format!(
            "make ended with {status}:\n{}",
            complaint(&text)
        )))
    }

    /// Builds the kernel's own tests of iommufd against its own headers, static, where they are wanted.
    pub(super) fn selftests(&self) -> Result<(), SetupError> {
        if self.recipe.selftests().is_empty() {
            return Ok(());
        }
        self.make(&["headers"])?;
        self.make(&["-C", SELFTEST_FOLDER, "LDFLAGS=-static"])
    }

    /// Name and place of each of them.
    pub(super) fn selftest_programs(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let place = |name: &&'static str| (*name, self.file(SELFTEST_FOLDER).join(name));
        self.recipe.selftests().iter().map(place)
    }

    /// Starts make for the image, with a job for each processor; what it says goes to a file.
    pub(super) fn start(&self) -> Result<Child, SetupError> {
        let out = self.at(File::create(self.file(LOG)))?;
        let err = self.at(out.try_clone())?;
        let lock = self.at(self.lock.try_clone())?;
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        let mut command = self.command();
        command.arg(format!("-j{jobs}")).arg(self.recipe.image().0);
        self.at(command.stdin(lock).stdout(out).stderr(err).spawn())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.make);
        command
            .current_dir(&self.source)
            .env("LC_ALL", "C")
            .env("KBUILD_BUILD_USER", "iopf")
            .env("KBUILD_BUILD_HOST", "iopf")
            .envs(self.recipe.variables().iter().copied())
            // Those of a cargo that runs this mean something else to make.
            .env_remove("MAKEFLAGS")
            .env_remove("MFLAGS");
        command
    }

    fn make(&self, arguments: &[&str]) -> Result<(), SetupError> {
        self.run(self.command().args(arguments))
    }

    fn run(&self, command: &mut Command) -> Result<(), SetupError> {
        let lock = self.at(self.lock.try_clone())?;
        command.current_dir(&self.source).stdin(lock);
        let output = self.at(command.output())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(failed(format!(
            "{:?}: {}",
            command.get_program(),
            complaint(&said)
        )))
    }

    /// Names the place of an I/O error.
    fn at<T>(&self, result: io::Result<T>) -> Result<T, SetupError> {
        crate::debian::io(|| format!("building in {}", self.source.display()), result)
    }

    /// A file of the tree.
    pub(super) fn file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.source.join(name)
    }
}

/// The error for a build that did not succeed.
pub(super) fn failed(why: String) -> SetupError {
    SetupError::Build {
        what: "our own kernel",
        why,
    }
}

/// Options of a fragment that a configuration does not have as written.
fn dropped(fragment: &str, config: &str) -> Vec<String> {
    let has = |line: &&str| config.lines().any(|other| other == *line);
    let kept = |line: &&str| match line.strip_suffix("=n") {
        // An option that cannot be set at all is off as well.
        Some(name) => !config
            .lines()
            .any(|other| other.starts_with(&format!("{name}="))),
        None => has(line),
    };
    let options = fragment.lines().filter(|line| line.starts_with("CONFIG_"));
    options
        .filter(|line| !kept(line))
        .map(str::to_owned)
        .collect()
}

/// The first error of a build's log with what follows, or its end.
fn complaint(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    let wrong = |line: &&str| line.contains("error:") || line.contains("Error ");
    let at = lines
        .iter()
        .position(wrong)
        .unwrap_or(lines.len().saturating_sub(10));
    lines[at..lines.len().min(at + 10)].join("\n")
}

/// How many lines were added to a file since the last call.
fn lines(file: &mut File) -> io::Result<usize> {
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    Ok(text.iter().filter(|byte| **byte == b'\n').count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_kconfig_dropped_is_named() {
        let config = "CONFIG_PCI=y\n# CONFIG_SAMPLES is not set\nCONFIG_NR_CPUS=64\nCONFIG_SMB=y\n";
        let fragment = "# a comment\nCONFIG_PCI=y\nCONFIG_SAMPLES=n\nCONFIG_FTRACE=n\n";
        assert!(dropped(fragment, config).is_empty());
        let fragment = "CONFIG_NR_CPUS=8\nCONFIG_SMB=n\nCONFIG_UIO=y\n";
        assert_eq!(
            dropped(fragment, config),
            fragment.lines().collect::<Vec<_>>()
        );
    }

    #[test]
    fn the_first_error_of_a_build_is_the_one_shown() {
        let log = "  CC a.o\nb.c:1:1: error: no\nmake: *** [b.o] Error 1\n";
        assert!(complaint(log).starts_with("b.c:1:1: error: no\n"));
        assert_eq!(complaint("  CC a.o\nKilled"), "  CC a.o\nKilled");
    }
}
