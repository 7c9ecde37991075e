//! A pretended registry for tests: shell scripts in place of apt and dpkg.

use super::Apt;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// What `apt-get` does; `$0`'s directory holds its state and the packages. Like the real one, it
/// plans only for what its archives lack. The last package's download breaks off once where there
/// is a file `flaky`.
const APT_GET: &str = r#"#!/bin/sh
here=$(dirname "$0")
archives=$(sed -n 's/^Dir::Cache "\(.*\)";/\1\/archives/p' "$APT_CONFIG" 2>/dev/null)
all="$*"
planned=${all##*Dir::Cache::archives=}
[ "$planned" = "$all" ] && planned=$archives
pool=$(cd "$here" && ls *.deb)
last=${pool##*
}
case "$all" in
*indextargets*)
    echo http://deb.example/debian-security/
    echo http://deb.example/debian/ ;;
*update*)
    [ -e "$here/offline" ] && { echo 'Err:1 no route to host'; exit 100; }
    exit 0 ;;
*--print-uris*)
    for deb in $pool; do
        [ -e "$planned/$deb" ] && continue
        hash=$(sha256sum < "$here/$deb" | cut -d' ' -f1)
        echo "'http://deb.example/$deb' $deb 6 SHA256:$hash"
    done ;;
*--download-only*)
    for deb in $pool; do
        [ -e "$archives/$deb" ] && continue
        partial="$archives/partial/$deb"
        if [ $deb = $last ] && [ -e "$here/flaky" ]; then
            rm "$here/flaky"; head -c 3 "$here/$deb" > "$partial"
            echo 'E: Connection reset'; exit 100
        fi
        have=$(cat "$partial" 2>/dev/null | wc -c)
        echo "${deb%%_*} from $have" >> "$here/downloads"
        tail -c +$((have + 1)) "$here/$deb" >> "$partial"
        mv "$partial" "$archives/"
    done ;;
esac
"#;

/// What `apt-helper download-file URI FILE HASH…` does.
const APT_HELPER: &str = r#"#!/bin/sh
here=$(dirname "$0")
while [ "$1" != download-file ]; do shift; done
shift
while [ $# -gt 0 ]; do
    deb=${1##*/}
    have=$(cat "$2" 2>/dev/null | wc -c)
    if [ -e "$here/flaky" ]; then
        rm "$here/flaky"; head -c 3 "$here/$deb" > "$2"
        echo 'E: Connection reset'; exit 100
    fi
    echo "${deb%%_*} alone from $have" >> "$here/downloads"
    tail -c +$((have + 1)) "$here/$deb" >> "$2"
    shift 3
done
"#;

/// A registry in a temporary directory, with a cache beside it.
pub(crate) struct Registry {
    dir: tempfile::TempDir,
}

impl Registry {
    /// With these packages, and a shell script in place of `dpkg-deb`.
    pub(crate) fn new(packages: &[(&str, &str)], dpkg_deb: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let registry = Self { dir };
        registry.program("apt-get", APT_GET);
        registry.program("apt-config", "#!/bin/sh\n");
        registry.program("apt-helper", APT_HELPER);
        registry.program("dpkg-deb", dpkg_deb);
        registry.put("keyring.gpg", "");
        for (name, content) in packages {
            registry.put(name, content);
        }
        registry
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The tools, with their state in the cache.
    pub(crate) fn apt(&self) -> Apt {
        let keyring = self.path().join("keyring.gpg");
        Apt::with_tools(&self.cache(), self.path(), vec![keyring])
    }

    /// A directory for what is fetched.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path().join("cache")
    }

    /// Writes a file.
    pub(crate) fn put(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("a file");
    }

    /// Writes a program.
    pub(crate) fn program(&self, name: &str, text: &str) {
        self.put(name, text);
        let rights = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.path().join(name), rights).expect("a program");
    }

    /// Writes an empty file: a switch of the scripts.
    pub(crate) fn touch(&self, name: &str) {
        self.put(name, "");
    }

    /// The lines of a file; none where there is no file.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}
