//! The cache against a pretended registry: shell scripts in place of apt and dpkg.

use super::*;
use crate::debian::Package;
use std::os::unix::fs::PermissionsExt as _;

/// What `apt-get` does in each test; `$0`'s directory holds its state. Like the real one, it plans
/// only for what its archives lack.
const APT_GET: &str = r#"#!/bin/sh
here=$(dirname "$0")
archives=$(sed -n 's/^Dir::Cache "\(.*\)";/\1\/archives/p' "$APT_CONFIG" 2>/dev/null)
all="$*"
planned=${all##*Dir::Cache::archives=}
[ "$planned" = "$all" ] && planned=$archives
library=libc6_2.41_amd64.deb
qemu=qemu-system-x86_1%3a11.1_amd64.deb
case "$all" in
*indextargets*)
    echo http://deb.example/debian-security/
    echo http://deb.example/debian/ ;;
*update*)
    [ -e "$here/offline" ] && { echo 'Err:1 no route to host'; exit 100; }
    exit 0 ;;
*--print-uris*)
    for deb in $library $qemu; do
        [ -e "$planned/$deb" ] && continue
        hash=$(sha256sum < "$here/$deb" | cut -d' ' -f1)
        echo "'http://deb.example/$deb' $deb 6 SHA256:$hash"
    done ;;
*--download-only*)
    for deb in $library $qemu; do
        [ -e "$archives/$deb" ] && continue
        partial="$archives/partial/$deb"
        if [ $deb = $qemu ] && [ -e "$here/flaky" ]; then
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

const DPKG_DEB: &str = r#"#!/bin/sh
echo "$(basename "$2" | cut -d_ -f1)" >> "$(dirname "$0")/unpacks"
case "$2" in
*qemu*)
    mkdir -p "$3/usr/bin"
    cp "$2" "$3/usr/bin/qemu-system-x86_64" ;;
*)
    mkdir -p "$3/usr/lib/x86_64-linux-gnu"
    cp "$2" "$3/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2" ;;
esac
"#;

/// What a download from the start leaves in the registry's log.
const WHOLE: [&str; 2] = ["libc6 from 0", "qemu-system-x86 from 0"];

/// A registry in a temporary directory, with a cache beside it.
struct Registry {
    dir: tempfile::TempDir,
}

impl Registry {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("apt-get", APT_GET),
            ("apt-config", "#!/bin/sh\n"),
            ("dpkg-deb", DPKG_DEB),
        ] {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(dir.path().join("keyring.gpg"), "").unwrap();
        let deb = |name| dir.path().join(name);
        fs::write(deb("libc6_2.41_amd64.deb"), "loader").unwrap();
        fs::write(deb("qemu-system-x86_1%3a11.1_amd64.deb"), "binary").unwrap();
        Self { dir }
    }

    fn cache(&self) -> Store<QemuRoot> {
        let dir = self.dir.path().join("cache");
        let keyring = self.dir.path().join("keyring.gpg");
        let apt = Apt::with_tools(&dir, self.dir.path(), vec![keyring]);
        store(dir, apt, Ok)
    }

    fn touch(&self, name: &str) {
        fs::write(self.dir.path().join(name), "").unwrap();
    }

    fn lines(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.path().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_second_call_uses_what_the_first_unpacked() {
    let registry = Registry::new();
    let mut progress = Vec::new();
    let first = registry.cache().ensure(&mut progress).unwrap();
    let second = registry.cache().ensure(&mut io::sink()).unwrap();
    assert_eq!(first, second);
    assert_eq!(registry.lines("downloads"), WHOLE);
    let progress = String::from_utf8(progress).unwrap();
    assert!(
        progress.contains("asking http://deb.example/debian\n"),
        "{progress}"
    );
    assert!(progress.contains("qemu: 1 of 1 MB"), "{progress}");
    let own_loader = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
    assert!(first.prefix[0].ends_with(own_loader), "{first:?}");
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let registry = Registry::new();
    registry.touch("flaky");
    let error = registry.cache().ensure(&mut io::sink()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("E: Connection reset"), "{text}");
    assert!(
        text.contains("run the same command again to go on"),
        "{text}"
    );
    registry.cache().ensure(&mut io::sink()).unwrap();
    let resumed = ["libc6 from 0", "qemu-system-x86 from 3"];
    assert_eq!(registry.lines("downloads"), resumed);
    assert_eq!(registry.lines("unpacks"), ["libc6", "qemu-system-x86"]);
}

#[test]
fn without_a_network_the_error_names_the_mirror_and_what_to_do() {
    let registry = Registry::new();
    registry.touch("offline");
    let text = registry
        .cache()
        .ensure(&mut io::sink())
        .unwrap_err()
        .to_string();
    for part in [
        "http://deb.example/debian",
        "no route to host",
        "http_proxy",
        "IOPF_DEBIAN_MIRROR",
        "IOPF_QEMU",
    ] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(registry.lines("downloads").is_empty());
}

#[test]
fn of_many_at_once_one_downloads() {
    let registry = Registry::new();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| registry.cache().ensure(&mut io::sink()).unwrap());
        }
    });
    assert_eq!(registry.lines("downloads"), WHOLE);
    assert_eq!(registry.lines("unpacks"), ["libc6", "qemu-system-x86"]);
}

#[test]
fn a_damaged_binary_is_replaced() {
    let registry = Registry::new();
    let root = registry.cache().ensure(&mut io::sink()).unwrap();
    let binary = &root.prefix[3];
    fs::write(binary, "broken").unwrap();
    registry.cache().ensure(&mut io::sink()).unwrap();
    assert_eq!(fs::read_to_string(binary).unwrap(), "binary");
    assert_eq!(registry.lines("downloads").len(), 2 * WHOLE.len());
}

#[test]
fn an_unpacking_that_was_killed_leaves_nothing_that_counts() {
    let registry = Registry::new();
    let half = registry.cache().dir.join("unpacking/usr/bin");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("qemu-system-x86_64"), "half").unwrap();
    let root = registry.cache().ensure(&mut io::sink()).unwrap();
    assert_eq!(fs::read_to_string(&root.prefix[3]).unwrap(), "binary");
    assert!(!registry.cache().dir.join("unpacking").exists());
}

#[test]
fn a_package_that_is_not_what_the_index_says_is_refused_and_removed() {
    let registry = Registry::new();
    let cache = registry.cache();
    let archives = cache.apt.archives();
    fs::create_dir_all(&archives).unwrap();
    fs::create_dir_all(&cache.dir).unwrap();
    fs::write(archives.join("evil.deb"), "evil").unwrap();
    let package = Package {
        uri: "http://deb.example/evil.deb".to_owned(),
        file: "evil.deb".to_owned(),
        size: 4,
        sha256: "00".to_owned(),
    };
    let error = cache
        .unpack("name", &[package], &mut io::sink())
        .unwrap_err();
    assert!(matches!(error, SetupError::Checksum { .. }), "{error}");
    assert!(!archives.join("evil.deb").exists());
    assert!(registry.lines("unpacks").is_empty());
}

#[test]
fn a_system_without_apt_is_told_what_to_install() {
    let registry = Registry::new();
    fs::remove_file(registry.dir.path().join("apt-get")).unwrap();
    let text = registry
        .cache()
        .ensure(&mut io::sink())
        .unwrap_err()
        .to_string();
    assert!(text.contains("apt-get is needed"), "{text}");
    assert!(text.contains("install QEMU 11"), "{text}");
}

#[test]
fn versions_are_read_from_the_words_qemu_prints() {
    // Debian 13 backports, and a plain build.
    let debian = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright";
    assert_eq!(parse_version(debian), Some((11, 1)));
    assert_eq!(parse_version("QEMU emulator version 9.0.90"), Some((9, 0)));
    assert_eq!(parse_version("true (GNU coreutils) 9.1"), None);
}
