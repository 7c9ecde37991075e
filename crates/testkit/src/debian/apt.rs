//! Debian's package tools with a state of their own.
//!
//! apt(8) as any user runs it: signed indexes, its own retries and partial files. The system's
//! configuration is not read, apart from how to reach the network, so none of its hooks run.

use super::{Order, SetupError, io, sha256};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// The first release whose backports carry a QEMU with the devices the tests need.
pub(crate) const RELEASE: &str = "trixie";

/// apt's own downloader of single files, which is not on the search path.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Where Debian is, when apt's own configuration does not say.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

/// Keyrings of the package debian-archive-keyring, on Debian and on Ubuntu.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// One package of the plan, as the signed index describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    /// Where it comes from.
    pub(crate) uri: String,
    /// File name in the archives directory.
    pub(crate) file: String,
    /// Size in bytes.
    pub(crate) size: u64,
    /// SHA-256 in hex.
    pub(crate) sha256: String,
}

/// apt and dpkg, and the directory their state is in.
#[derive(Clone, Debug)]
pub(crate) struct Apt {
    dir: PathBuf,
    apt_get: PathBuf,
    apt_config: PathBuf,
    apt_helper: PathBuf,
    dpkg_deb: PathBuf,
    keyrings: Vec<PathBuf>,
    /// A mirror to use whatever the system is set up with.
    pub(crate) mirror: Option<String>,
}

impl Apt {
    /// The system's tools, with their state under `cache`.
    ///
    /// `IOPF_DEBIAN_MIRROR` names another mirror than the one apt is set up with.
    pub(crate) fn new(cache: &Path) -> Self {
        let keyrings = KEYRINGS.map(PathBuf::from);
        Self {
            apt_helper: HELPER.into(),
            mirror: std::env::var("IOPF_DEBIAN_MIRROR").ok(),
            ..Self::with_tools(cache, Path::new(""), keyrings.into())
        }
    }

    /// Tools from one directory; the empty path means the search path.
    pub(crate) fn with_tools(cache: &Path, tools: &Path, keyrings: Vec<PathBuf>) -> Self {
        Self {
            dir: cache.join("apt"),
            apt_get: tools.join("apt-get"),
            apt_config: tools.join("apt-config"),
            apt_helper: tools.join("apt-helper"),
            dpkg_deb: tools.join("dpkg-deb"),
            keyrings,
            mirror: None,
        }
    }

    /// Where apt puts finished packages.
    pub(crate) fn archives(&self) -> PathBuf {
        self.dir.join("cache/archives")
    }

    /// An archives directory that stays empty.
    fn nothing(&self) -> PathBuf {
        self.dir.join("cache/nothing")
    }

    /// These packages are unpacked: their files are of no more use.
    pub(crate) fn forget(&self, packages: &[Package]) {
        for package in packages {
            // What cannot be removed only takes room.
            let _ = fs::remove_file(self.archives().join(&package.file));
        }
    }

    /// Fetches the index and every package of an order; gives the version that names the result,
    /// and the packages.
    ///
    /// One at a time, whoever asks.
    pub(crate) fn download(
        &self,
        order: &Order,
        progress: &mut dyn io::Write,
    ) -> Result<(String, Vec<Package>), SetupError> {
        let at = || format!("preparing {}", self.dir.display());
        io(at, fs::create_dir_all(&self.dir))?;
        let lock = io(at, File::create(self.dir.join("lock")))?;
        io(at, lock.lock())?;
        let tool = |error| match error {
            SetupError::NoTool { tool, .. } => order.no_tool(&tool),
            other => other,
        };
        self.download_alone(order, progress).map_err(tool)
    }

    fn download_alone(
        &self,
        order: &Order,
        progress: &mut dyn io::Write,
    ) -> Result<(String, Vec<Package>), SetupError> {
        let mirror = match &self.mirror {
            Some(mirror) => mirror.clone(),
            None => self.system_mirror()?,
        };
        self.configure(&mirror, order)?;
        let refused = |why| SetupError::Registry {
            what: order.name,
            mirror: mirror.clone(),
            why,
            cache: self.dir.clone(),
            instead: order.instead,
        };
        let what = order.what;
        let _ = writeln!(progress, "{what}: none here that will do; asking {mirror}");
        let update = ["-q", "-o", "APT::Update::Error-Mode=any", "update"];
        let update = self.get(&update)?;
        if !update.status.success() {
            return Err(refused(complaint(&update)));
        }
        let install = [
            "-y",
            "--no-install-recommends",
            "-t",
            order.suite,
            "install",
        ];
        // apt plans for what it has not got yet; we want every package, also after a download
        // that was cut short.
        let nothing = format!("Dir::Cache::archives={}", self.nothing().display());
        let with = |options: &[&str]| -> Vec<String> {
            let words = options.iter().copied().chain(install);
            let words = words.chain(order.packages.iter().copied());
            words.map(str::to_owned).collect()
        };
        let mut plan = with(&["-qq", "--print-uris"]);
        plan.extend(["-o".to_owned(), nothing]);
        let plan = self.get(&plan)?;
        let mut every = parse_uris(&String::from_utf8_lossy(&plan.stdout));
        every.retain(|package| order.wants(&package.file));
        let version = every
            .iter()
            .find_map(|p| p.file.strip_prefix(order.named_after))
            .and_then(|rest| rest.strip_suffix(".deb"))
            .map(str::to_owned);
        let (true, Some(version)) = (plan.status.success(), version) else {
            return Err(refused(format!(
                "no plan to install {}: {}",
                order.name,
                complaint(&plan)
            )));
        };
        let mut fetch = if order.only.is_empty() {
            self.apt(&with(&["-qq", "--download-only"]))
        } else {
            self.helper(&every)
        };
        self.fetch(&mut fetch, order.what, &every, progress)?
            .map_err(refused)?;
        Ok((version.replace("%3a", "-"), every))
    }

    /// Downloads single packages, without what they depend on.
    fn helper(&self, packages: &[Package]) -> Command {
        let mut command = self.configured(&self.apt_helper);
        command.arg("-qq").arg("download-file");
        for package in packages {
            command
                .arg(&package.uri)
                .arg(self.archives().join(&package.file))
                .arg(format!("SHA256:{}", package.sha256));
        }
        command
    }

    /// Runs the download, with a line of progress now and then; the inner error is apt's.
    fn fetch(
        &self,
        command: &mut Command,
        what: &str,
        packages: &[Package],
        progress: &mut dyn io::Write,
    ) -> Result<Result<(), String>, SetupError> {
        let at = || format!("downloading into {}", self.archives().display());
        let total = megabytes(packages.iter().map(|package| package.size).sum());
        let log = self.dir.join("download.log");
        let out = io(at, File::create(&log))?;
        let err = io(at, out.try_clone())?;
        let mut child = started(command.stdout(out).stderr(err).spawn(), command)?;
        let mut told = None;
        let status = loop {
            let status = io(at, child.try_wait())?;
            let have = megabytes(self.downloaded(packages));
            // A line for each further tenth is enough for a log and for a person.
            let tenth = have * 10 / total.max(1);
            if told != Some(tenth) {
                told = Some(tenth);
                let _ = writeln!(progress, "{what}: {have} of {total} MB");
            }
            if let Some(status) = status {
                break status;
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let text = fs::read_to_string(&log).unwrap_or_default();
        if !status.success() {
            return Ok(Err(complaint_in(&text)));
        }
        let missing = packages
            .iter()
            .find(|package| !self.archives().join(&package.file).is_file());
        Ok(missing.map_or(Ok(()), |package| {
            Err(format!("{} did not arrive", package.file))
        }))
    }

    /// Bytes of the packages that are on disk, finished or not.
    fn downloaded(&self, packages: &[Package]) -> u64 {
        let size = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
        let archives = self.archives();
        packages
            .iter()
            .map(|p| size(archives.join(&p.file)) + size(archives.join("partial").join(&p.file)))
            .sum()
    }

    /// Unpacks a package that was downloaded, if it is what the index says; its scripts are not run.
    pub(crate) fn unpack_checked(&self, package: &Package, into: &Path) -> Result<(), SetupError> {
        let deb = self.archives().join(&package.file);
        let found = io(|| format!("reading {}", deb.display()), sha256(&deb))?;
        if found == package.sha256 {
            return self.unpack(&deb, into);
        }
        let _ = fs::remove_file(&deb);
        Err(SetupError::Checksum {
            file: package.file.clone(),
            expected: package.sha256.clone(),
            found,
        })
    }

    fn unpack(&self, deb: &Path, into: &Path) -> Result<(), SetupError> {
        let mut command = Command::new(&self.dpkg_deb);
        let output = run(command.arg("-x").arg(deb).arg(into))?;
        if output.status.success() {
            return Ok(());
        }
        Err(SetupError::Unusable {
            what: "package",
            why: format!("{}: {}", deb.display(), complaint(&output)),
        })
    }

    /// The first Debian archive that the system's apt is set up with.
    fn system_mirror(&self) -> Result<String, SetupError> {
        let args = [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ];
        let output = run(Command::new(&self.apt_get).args(args))?;
        let text = String::from_utf8_lossy(&output.stdout);
        // The archive proper ends in /debian; security and other vendors' archives do not.
        let found = text
            .lines()
            .map(|line| line.trim().trim_end_matches('/'))
            .find(|uri| uri.ends_with("/debian"));
        Ok(found.unwrap_or(DEFAULT_MIRROR).to_owned())
    }

    /// Writes the private configuration.
    fn configure(&self, mirror: &str, order: &Order) -> Result<(), SetupError> {
        let keyring = self.keyrings.iter().find(|path| path.is_file());
        let keyring = keyring.ok_or_else(|| order.no_keyring())?.display();
        let at = || format!("preparing {}", self.dir.display());
        for sub in [
            "etc",
            "state/lists/partial",
            "cache/archives/partial",
            "cache/nothing/partial",
        ] {
            io(at, fs::create_dir_all(self.dir.join(sub)))?;
        }
        io(at, fs::write(self.dir.join("status"), ""))?;
        let source = |suite: &str| format!("deb [signed-by={keyring}] {mirror} {suite} main\n");
        let sources = source(RELEASE) + &source(&format!("{RELEASE}-backports"));
        io(at, fs::write(self.dir.join("etc/sources.list"), sources))?;
        let dir = self.dir.display();
        let mut conf = self.network_settings()?;
        conf += &format!(
            "Dir \"{dir}/\";\n\
             Dir::Etc \"{dir}/etc\";\n\
             Dir::Etc::sourcelist \"{dir}/etc/sources.list\";\n\
             Dir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{dir}/state\";\n\
             Dir::State::status \"{dir}/status\";\n\
             Dir::Cache \"{dir}/cache\";\n\
             APT::Architectures {{ \"amd64\"; \"arm64\"; }};\n\
             APT::Sandbox::User \"\";\n\
             Acquire::Languages \"none\";\n\
             Acquire::ForceHash \"SHA256\";\n\
             Acquire::Retries \"3\";\n\
             Acquire::http::Timeout \"20\";\n\
             Acquire::https::Timeout \"20\";\n"
        );
        io(at, fs::write(self.dir.join("apt.conf"), conf))
    }

    /// How the system's apt reaches the network, as configuration lines.
    fn network_settings(&self) -> Result<String, SetupError> {
        let mut command = Command::new(&self.apt_config);
        let output = run(command.args(["dump", "--no-empty"]))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let of_network = |line: &&str| {
            let line = line.to_ascii_lowercase();
            ["http", "https", "ftp", "check-valid-until", "check-date"]
                .iter()
                .any(|key| line.starts_with(&format!("acquire::{key}")))
        };
        let lines = text.lines().filter(of_network);
        Ok(lines.map(|line| format!("{line}\n")).collect())
    }

    fn apt<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = self.configured(&self.apt_get);
        command.args(args);
        command
    }

    /// A tool of apt under the private configuration.
    fn configured(&self, tool: &Path) -> Command {
        let mut command = Command::new(tool);
        command
            .env("APT_CONFIG", self.dir.join("apt.conf"))
            .env("LC_ALL", "C")
            .stdin(Stdio::null());
        command
    }

    fn get<S: AsRef<OsStr>>(&self, args: &[S]) -> Result<Output, SetupError> {
        run(&mut self.apt(args))
    }
}

fn run(command: &mut Command) -> Result<Output, SetupError> {
    started(command.stdin(Stdio::null()).output(), command)
}

fn started<T>(result: io::Result<T>, command: &Command) -> Result<T, SetupError> {
    let tool = || command.get_program().to_string_lossy().into_owned();
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(SetupError::NoTool {
            tool: tool(),
            what: "a package",
            instead: "install it",
        }),
        other => io(|| format!("running {}", tool()), other),
    }
}

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1_000_000)
}

/// The packages of `apt-get --print-uris`: `'uri' file size SHA256:hash`.
fn parse_uris(text: &str) -> Vec<Package> {
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let uri = words.next()?.strip_prefix('\'')?.strip_suffix('\'')?;
        Some(Package {
            uri: uri.to_owned(),
            file: words.next()?.to_owned(),
            size: words.next()?.parse().ok()?,
            sha256: words.next()?.strip_prefix("SHA256:")?.to_owned(),
        })
    };
    text.lines().filter_map(parse).collect()
}

/// What apt had to say.
fn complaint(output: &Output) -> String {
    let text = [&output.stderr[..], &output.stdout[..]].concat();
    complaint_in(&String::from_utf8_lossy(&text))
}

/// Its first line of weight, or its last line.
fn complaint_in(text: &str) -> String {
    let weighty = |line: &&str| ["E: ", "Err:"].iter().any(|mark| line.starts_with(mark));
    let line = text.lines().find(weighty).or_else(|| text.lines().last());
    line.unwrap_or("it said nothing").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_line_gives_file_size_and_hash() {
        // A line of apt 2.6 (Debian 12), shortened.
        let text = "Reading package lists...\n'http://m/zlib1g_1%3a1.3_amd64.deb' \
                    zlib1g_1%3a1.3_amd64.deb 88884 SHA256:015be740\n";
        let zlib = Package {
            uri: "http://m/zlib1g_1%3a1.3_amd64.deb".to_owned(),
            file: "zlib1g_1%3a1.3_amd64.deb".to_owned(),
            size: 88884,
            sha256: "015be740".to_owned(),
        };
        assert_eq!(parse_uris(text), [zlib]);
    }

    #[test]
    fn the_first_error_of_apt_is_the_one_shown() {
        let text = "Ign:1 http://m trixie InRelease\nErr:1 http://m trixie InRelease\n\
                    E: Failed to fetch http://m\n";
        assert_eq!(complaint_in(text), "Err:1 http://m trixie InRelease");
        assert_eq!(complaint_in(""), "it said nothing");
    }
}
