//! What a build needs of the system.

use crate::debian::SetupError;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A program or a file, and the Debian package that has it.
pub(crate) type Tool = (&'static str, &'static str);

/// What a kernel is built with.
pub(crate) const KERNEL: &[Tool] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("patch", "patch"),
    ("/usr/include/gelf.h", "libelf-dev"),
];

/// What the kernel's own tests are built with.
pub(crate) const SELFTESTS: &[Tool] = &[
    ("/usr/include/stdlib.h", "libc6-dev"),
    ("/usr/include/sys/capability.h", "libcap-dev"),
];

/// What kernels and static programs for arm64 are compiled and linked with.
pub(crate) const ARM64: &[Tool] = &[
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/lib/libc.a", "libc6-dev-arm64-cross"),
];

/// Makes sure that what `what` needs is there: as root on Debian it is installed, else the error says
/// what to install.
pub(crate) fn ensure(
    what: &'static str,
    needs: &[&[Tool]],
    progress: &mut dyn io::Write,
) -> Result<(), SetupError> {
    let missing = missing(needs, have);
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !root || !have("apt-get") {
        return Err(lacking(what, &list, "not installed"));
    }
    let _ = writeln!(progress, "{what}: installing {list}");
    for arguments in [
        vec!["update", "-q"],
        [
            &["install", "-y", "-q", "--no-install-recommends"][..],
            &missing,
        ]
        .concat(),
    ] {
        let output = Command::new("apt-get")
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| lacking(what, &list, &error.to_string()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(lacking(what, &list, said.trim()));
        }
    }
    Ok(())
}

fn lacking(what: &'static str, list: &str, why: &str) -> SetupError {
    SetupError::Build {
        what,
        why: format!("it needs these packages: {list} ({why}); as root: apt-get install {list}"),
    }
}

/// The packages of what is not there.
fn missing(needs: &[&[Tool]], have: impl Fn(&str) -> bool) -> Vec<&'static str> {
    let needs = needs.iter().copied().flatten();
    let lacks = needs.filter(|(what, _)| !have(what));
    lacks.map(|(_, package)| *package).collect()
}

/// Whether a program is on the search path, or a file of an absolute path exists.
fn have(what: &str) -> bool {
    if what.starts_with('/') {
        return Path::new(what).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(what).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_by_its_package() {
        let needs = [KERNEL, SELFTESTS];
        assert_eq!(missing(&needs, |_| true), Vec::<&str>::new());
        assert_eq!(missing(&needs, |what| what != "xz"), ["xz-utils"]);
        let headers = missing(&needs, |what| !what.starts_with('/'));
        assert_eq!(headers, ["libelf-dev", "libc6-dev", "libcap-dev"]);
        let text = lacking("our own kernel", "flex bc", "not installed").to_string();
        assert!(text.ends_with("as root: apt-get install flex bc"), "{text}");
    }

    #[test]
    fn a_program_is_found_on_the_search_path() {
        assert!(have("sh") && have("/bin/sh"));
        assert!(!have("no-such-program") && !have("/no/such/file"));
    }
}
