//! The cache against a pretended registry: shell scripts in place of apt and dpkg.

use super::*;
use crate::debian::Package;
use crate::debian::registry::Registry;

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

/// QEMU and its C library.
const PACKAGES: [(&str, &str); 2] = [
    ("libc6_2.41_amd64.deb", "loader"),
    ("qemu-system-x86_1%3a11.1_amd64.deb", "binary"),
];

fn registry() -> Registry {
    Registry::new(&PACKAGES, DPKG_DEB)
}

fn cache(registry: &Registry) -> Store<QemuRoot> {
    store(Target::X86_64, registry.cache(), registry.apt(), Ok)
}

#[test]
fn a_second_call_uses_what_the_first_unpacked() {
    let registry = registry();
    let mut progress = Vec::new();
    let first = cache(&registry).ensure(&mut progress).unwrap();
    let second = cache(&registry).ensure(&mut io::sink()).unwrap();
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
    let registry = registry();
    registry.touch("flaky");
    let error = cache(&registry).ensure(&mut io::sink()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("E: Connection reset"), "{text}");
    assert!(
        text.contains("run the same command again to go on"),
        "{text}"
    );
    cache(&registry).ensure(&mut io::sink()).unwrap();
    let resumed = ["libc6 from 0", "qemu-system-x86 from 3"];
    assert_eq!(registry.lines("downloads"), resumed);
    assert_eq!(registry.lines("unpacks"), ["libc6", "qemu-system-x86"]);
}

#[test]
fn without_a_network_the_error_names_the_mirror_and_what_to_do() {
    let registry = registry();
    registry.touch("offline");
    let text = cache(&registry)
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
    let registry = registry();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| cache(&registry).ensure(&mut io::sink()).unwrap());
        }
    });
    assert_eq!(registry.lines("downloads"), WHOLE);
    assert_eq!(registry.lines("unpacks"), ["libc6", "qemu-system-x86"]);
}

#[test]
fn a_damaged_binary_is_replaced() {
    let registry = registry();
    let root = cache(&registry).ensure(&mut io::sink()).unwrap();
    let binary = &root.prefix[3];
    fs::write(binary, "broken").unwrap();
    cache(&registry).ensure(&mut io::sink()).unwrap();
    assert_eq!(fs::read_to_string(binary).unwrap(), "binary");
    assert_eq!(registry.lines("downloads").len(), 2 * WHOLE.len());
}

#[test]
fn an_unpacking_that_was_killed_leaves_nothing_that_counts() {
    let registry = registry();
    let half = cache(&registry).dir.join("unpacking/usr/bin");
    fs::create_dir_all(&half).unwrap();
    fs::write(half.join("qemu-system-x86_64"), "half").unwrap();
    let root = cache(&registry).ensure(&mut io::sink()).unwrap();
    assert_eq!(fs::read_to_string(&root.prefix[3]).unwrap(), "binary");
    assert!(!cache(&registry).dir.join("unpacking").exists());
}

#[test]
fn a_package_that_is_not_what_the_index_says_is_refused_and_removed() {
    let registry = registry();
    let cache = cache(&registry);
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
    let registry = registry();
    fs::remove_file(registry.path().join("apt-get")).unwrap();
    let text = cache(&registry)
        .ensure(&mut io::sink())
        .unwrap_err()
        .to_string();
    assert!(text.contains("apt-get is needed"), "{text}");
    assert!(text.contains("install QEMU 11"), "{text}");
}

#[test]
fn packages_of_another_target_are_no_plan() {
    let registry = registry();
    let cache = store(Target::Aarch64, registry.cache(), registry.apt(), Ok);
    let text = cache.ensure(&mut io::sink()).unwrap_err().to_string();
    for part in ["no plan to install QEMU for arm64", "IOPF_QEMU_AARCH64"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(registry.lines("downloads").is_empty());
}

#[test]
fn versions_are_read_from_the_words_qemu_prints() {
    // Debian 13 backports, and a plain build.
    let debian = "QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1~bpo13+1)\nCopyright";
    assert_eq!(parse_version(debian), Some((11, 1)));
    assert_eq!(parse_version("QEMU emulator version 9.0.90"), Some((9, 0)));
    assert_eq!(parse_version("true (GNU coreutils) 9.1"), None);
}
