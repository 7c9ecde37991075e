//! Fetching a toolchain from a pretended registry.

use super::*;
use crate::debian::registry::Registry;
use std::process::Command;

/// A compiler whose loader says what it was started with.
const DPKG_DEB: &str = r#"#!/bin/sh
lib="$3/usr/lib/x86_64-linux-gnu"
case "$2" in
*rustc*) mkdir -p "$3/usr/bin"; echo compiler > "$3/usr/bin/rustc" ;;
*std-rust-dev*arm64*)
    std="$3/usr/lib/rustlib/aarch64-unknown-linux-gnu/lib"
    mkdir -p "$std"; echo std > "$std/libstd-0123456789abcdef.rlib" ;;
*libc6_*)
    mkdir -p "$lib"
    printf '#!/bin/sh\necho "$@"\n' > "$lib/ld-linux-x86-64.so.2"
    chmod +x "$lib/ld-linux-x86-64.so.2" ;;
esac
"#;

const PACKAGES: [(&str, &str); 7] = [
    ("gcc-14_14.2.0-19_amd64.deb", "x"),
    ("libc6_2.41-12_amd64.deb", "loader"),
    ("libc6_2.41-12_arm64.deb", "x"),
    ("libstd-rust-1.96_1.96.1+dfsg1-2_arm64.deb", "x"),
    ("libstd-rust-dev_1.96.1+dfsg1-2_amd64.deb", "std"),
    ("libstd-rust-dev_1.96.1+dfsg1-2_arm64.deb", "std"),
    ("rustc_1.96.1+dfsg1-2_amd64.deb", "compiler"),
];

#[test]
fn a_toolchain_runs_from_where_it_is_kept_and_brings_no_other_compiler() {
    let registry = Registry::new(&PACKAGES, DPKG_DEB);
    let ensure = || store(registry.cache(), registry.apt()).ensure(&mut io::sink());
    let rustc = ensure().unwrap();
    assert_eq!(ensure().unwrap(), rustc);
    let place = registry.cache().join("1.96.1+dfsg1-2_amd64");
    assert_eq!(rustc, place.join("rustc"));
    let output = Command::new(&rustc).arg("-vV").output().unwrap();
    let at = place.display();
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!(
            "--library-path {at}/usr/lib/x86_64-linux-gnu {at}/usr/bin/rustc --sysroot {at}/usr -vV\n"
        )
    );
    let fetched = [
        "libc6 alone from 0",
        "libstd-rust-dev alone from 0",
        "libstd-rust-dev alone from 0",
        "rustc alone from 0",
    ];
    assert_eq!(registry.lines("downloads"), fetched);
}

#[test]
fn a_damaged_standard_library_is_replaced() {
    let registry = Registry::new(&PACKAGES, DPKG_DEB);
    let ensure = || store(registry.cache(), registry.apt()).ensure(&mut io::sink());
    let place = ensure().unwrap().parent().unwrap().join(STD);
    let library = place.join("libstd-0123456789abcdef.rlib");
    fs::write(&library, "damage").unwrap();
    ensure().unwrap();
    assert_eq!(fs::read_to_string(&library).unwrap(), "std\n");
}

#[test]
fn packages_without_a_standard_library_for_arm64_are_refused() {
    let packages = [PACKAGES[1], PACKAGES[6]];
    let registry = Registry::new(&packages, DPKG_DEB);
    let text = store(registry.cache(), registry.apt())
        .ensure(&mut io::sink())
        .unwrap_err()
        .to_string();
    assert!(
        text.contains("the packages hold no usr/lib/rustlib"),
        "{text}"
    );
}
