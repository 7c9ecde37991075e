//! The workshop with a pretended source and a pretended make.

use super::*;
use crate::debian::registry::Registry;
use crate::kernel::recipe::Patch;

/// Unpacks to an archive with the one script of a source tree that is called by its path: what it
/// merges is all that is set to a value.
const DPKG_DEB: &str = r#"#!/bin/sh
echo unpack >> "$(dirname "$0")/log"
tree="$3/linux-source-7.3"
mkdir -p "$tree/scripts/kconfig" "$3/usr/src"
cat > "$tree/scripts/kconfig/merge_config.sh" <<'SH'
#!/bin/sh
grep -v '=n$' "$3" >> .config
SH
chmod +x "$tree/scripts/kconfig/merge_config.sh"
tar -cf "$3/usr/src/linux-source-7.3.tar.xz" -C "$3" linux-source-7.3
"#;

/// Builds one object a run and ends in an error before the second, where there is a file `broken`. It
/// holds the lock, as whatever may outlive its starter.
const MAKE: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $(readlink "/proc/$$/fd/0") in
*/lock) ;;
*) echo "without the lock: $*" >> "$here/log" ;;
esac
case "$*" in
tinyconfig) : > .config ;;
olddefconfig) [ -e "$here/drop" ] && sed -i /CONFIG_IOMMUFD=/d .config ;;
*bzImage)
    [ -e first.o ] || { echo "  CC first.o"; echo first >> "$here/log"; : > first.o; }
    [ -e "$here/broken" ] && { rm "$here/broken"; echo "second.c:1: error: no"; exit 2; }
    [ -e "$here/slow" ] && sleep 1
    echo second >> "$here/log"
    mkdir -p arch/x86/boot
    echo image > arch/x86/boot/bzImage
    : > modules.builtin ;;
"-C tools/testing/selftests/iommu LDFLAGS=-static")
    mkdir -p "$2"
    for name in iommufd iommufd_fail_nth; do echo "$name" > "$2/$name"; done ;;
esac
exit 0
"#;

fn registry() -> Registry {
    let source = ("linux-source-7.3_7.3.4-1_all.deb", "source");
    // Of the plan, only the source is wanted.
    let registry = Registry::new(&[source, ("binutils_2.44_amd64.deb", "x")], DPKG_DEB);
    registry.program("make", MAKE);
    registry
}

/// A patch of the one file that the pretended source has.
const PATCH: &str = "--- a/scripts/kconfig/merge_config.sh
+++ b/scripts/kconfig/merge_config.sh
@@ -1,2 +1,3 @@
 #!/bin/sh
+echo '# patched' >> .config
 grep -v '=n$' \"$3\" >> .config
";

fn recipe() -> Recipe {
    Recipe {
        target: Target::X86_64,
        fragment: "CONFIG_IOMMUFD=y\nCONFIG_SAMPLES=n\n".to_owned(),
        patches: vec![Patch {
            name: "0001-one.patch".to_owned(),
            text: PATCH.to_owned(),
        }],
    }
}

fn workshop(registry: &Registry) -> Workshop {
    Workshop {
        recipe: recipe(),
        dir: registry.cache(),
        apt: registry.apt(),
        make: registry.path().join("make"),
        tools: |_, _| Ok(()),
    }
}

/// The file that is locked while something is built.
fn lock(registry: &Registry) -> File {
    fs::create_dir_all(registry.cache()).unwrap();
    let lock = File::create(registry.cache().join("lock")).unwrap();
    lock.lock().unwrap();
    lock
}

const WHOLE: [&str; 3] = ["unpack", "first", "second"];

#[test]
fn a_kernel_is_built_once_and_its_tree_goes() {
    let registry = registry();
    let first = workshop(&registry).ensure(&mut io::sink()).unwrap();
    let second = workshop(&registry).ensure(&mut io::sink()).unwrap();
    assert_eq!(first, second);
    assert_eq!(registry.lines("log"), WHOLE);
    assert_eq!(
        registry.lines("downloads"),
        ["linux-source-7.3 alone from 0"]
    );
    assert_eq!(first.version(), format!("7.3.4-1_all-{}", recipe().hash()));
    assert_eq!(fs::read_to_string(first.image()).unwrap(), "image\n");
    assert_eq!(first.config("IOMMUFD").as_deref(), Some("y"));
    assert_eq!(first.config("SAMPLES"), None);
    let config = fs::read_to_string(registry.cache().join(first.version()).join(CONFIG)).unwrap();
    assert!(config.contains("# patched\n"), "{config}");
    for name in ["iommufd", "iommufd_fail_nth"] {
        let program = first.selftest(name).unwrap();
        assert_eq!(fs::read_to_string(program).unwrap().trim(), name);
    }
    assert_eq!(first.selftest("no-such"), None);
    assert!(!registry.cache().join("build").exists());
}

#[test]
fn a_build_that_broke_off_goes_on_where_it_was() {
    let registry = registry();
    registry.touch("broken");
    let error = workshop(&registry).ensure(&mut io::sink()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("our own kernel was not built"), "{text}");
    assert!(text.contains("second.c:1: error: no"), "{text}");
    workshop(&registry).ensure(&mut io::sink()).unwrap();
    assert_eq!(registry.lines("log"), WHOLE);
    assert_eq!(registry.lines("downloads").len(), 1);
}

#[test]
fn a_download_that_broke_off_goes_on_where_it_was() {
    let registry = registry();
    registry.touch("flaky");
    let error = workshop(&registry).ensure(&mut io::sink()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("cannot fetch Linux's source"), "{text}");
    assert!(text.contains("E: Connection reset"), "{text}");
    workshop(&registry).ensure(&mut io::sink()).unwrap();
    assert_eq!(
        registry.lines("downloads"),
        ["linux-source-7.3 alone from 3"]
    );
}

#[test]
fn a_damaged_kernel_is_built_again() {
    let registry = registry();
    let kernel = workshop(&registry).ensure(&mut io::sink()).unwrap();
    for (file, whole) in [
        (kernel.image(), "image\n"),
        (kernel.selftest("iommufd").unwrap(), "iommufd\n"),
    ] {
        fs::write(&file, "damage").unwrap();
        workshop(&registry).ensure(&mut io::sink()).unwrap();
        assert_eq!(fs::read_to_string(file).unwrap(), whole);
    }
    assert_eq!(registry.lines("log").len(), 3 * WHOLE.len());
}

#[test]
fn a_patch_that_changed_is_applied_to_a_fresh_tree() {
    let registry = registry();
    let mut workshop = workshop(&registry);
    let lock = lock(&registry);
    let unpack = |workshop: &Workshop| workshop.unpacked(&lock, &mut io::sink()).unwrap();
    unpack(&workshop);
    unpack(&workshop);
    assert_eq!(registry.lines("log"), ["unpack"]);
    workshop.recipe.patches[0].text = PATCH.replace("patched", "changed");
    unpack(&workshop);
    assert_eq!(registry.lines("log"), ["unpack", "unpack"]);
    let script = workshop.tree().join("scripts/kconfig/merge_config.sh");
    let script = fs::read_to_string(script).unwrap();
    assert!(
        script.contains("# changed") && !script.contains("# patched"),
        "{script}"
    );
}

#[test]
fn an_option_that_kconfig_drops_is_an_error_and_is_named() {
    let registry = registry();
    registry.touch("drop");
    let error = workshop(&registry).ensure(&mut io::sink()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("Kconfig dropped CONFIG_IOMMUFD=y"), "{text}");
    // It is not taken for configured when run again.
    workshop(&registry).ensure(&mut io::sink()).unwrap_err();
    assert_eq!(registry.lines("log"), ["unpack"]);
}

#[test]
fn of_many_at_once_one_builds() {
    let registry = registry();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| workshop(&registry).ensure(&mut io::sink()).unwrap());
        }
    });
    assert_eq!(registry.lines("log"), WHOLE);
}

#[test]
fn a_make_that_outlives_its_starter_is_waited_for() {
    let registry = registry();
    registry.touch("slow");
    let workshop = workshop(&registry);
    let lock = lock(&registry);
    workshop.unpacked(&lock, &mut io::sink()).unwrap();
    let tree = |lock| Tree {
        make: &workshop.make,
        lock,
        source: workshop.tree(),
        recipe: &workshop.recipe,
    };
    tree(&lock).configure().unwrap();
    let mut orphan = tree(&lock).start().unwrap();
    drop(lock);
    let mut progress = Vec::new();
    workshop.ensure(&mut progress).unwrap();
    let progress = String::from_utf8(progress).unwrap();
    assert!(
        progress.starts_with("own kernel: waiting for another"),
        "{progress}"
    );
    assert!(orphan.wait().unwrap().success());
    // It has built what is built no more.
    assert_eq!(
        registry.lines("log"),
        ["unpack", "first", "second", "second"]
    );
}

#[test]
fn a_missing_tool_is_told_before_anything_is_fetched() {
    let registry = registry();
    let workshop = Workshop {
        tools: |_, _| Err(failed("it needs flex".to_owned())),
        ..workshop(&registry)
    };
    let text = workshop.ensure(&mut io::sink()).unwrap_err().to_string();
    assert_eq!(text, "our own kernel was not built: it needs flex");
    assert!(registry.lines("downloads").is_empty());
}
