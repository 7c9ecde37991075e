//! Fetching a kernel from a pretended registry.

use super::*;
use crate::debian::registry::Registry;

/// Two packages, as Debian splits its kernels since 7.x; the modules are no ELF files and need
/// nothing.
const DPKG_DEB: &str = r#"#!/bin/sh
at="$3/usr/lib/modules/7.3.4+deb13-amd64"
mkdir -p "$at/kernel/drivers/dma/idxd" "$at/kernel/sound"
case "$2" in
*linux-binary*) echo image > "$at/vmlinuz" ;;
*linux-base*)
    echo CONFIG_INTEL_IOMMU=y > "$at/config"
    echo kernel/drivers/virtio/virtio_pci.ko > "$at/modules.builtin" ;;
*linux-modules*)
    echo bus > "$at/kernel/drivers/dma/idxd/idxd_bus.ko"
    echo idxd > "$at/kernel/drivers/dma/idxd/idxd.ko"
    echo sound > "$at/kernel/sound/snd.ko" ;;
esac
"#;

fn registry() -> Registry {
    let packages = [
        ("initramfs-tools_0.148_all.deb", "x"),
        ("linux-base-7.3.4+deb13-amd64_7.3.4-1_amd64.deb", "base"),
        ("linux-binary-7.3.4+deb13-amd64_7.3.4-1_amd64.deb", "image"),
        (
            "linux-modules-7.3.4+deb13-amd64_7.3.4-1_amd64.deb",
            "modules",
        ),
    ];
    Registry::new(&packages, DPKG_DEB)
}

fn fetch(registry: &Registry) -> Result<Kernel, SetupError> {
    store(Target::X86_64, NEWEST, registry.cache(), registry.apt()).ensure(&mut io::sink())
}

#[test]
fn what_guests_need_is_kept_and_nothing_else_is_fetched_or_kept() {
    let registry = registry();
    let kernel = fetch(&registry).unwrap();
    assert_eq!(kernel.version(), "7.3.4+deb13-amd64_7.3.4-1_amd64");
    assert_eq!(fs::read_to_string(kernel.image()).unwrap(), "image\n");
    assert_eq!(kernel.config("INTEL_IOMMU").as_deref(), Some("y"));
    let modules = kernel.modules(&["idxd", "virtio-pci"]).unwrap();
    assert_eq!(modules.len(), 1);
    assert!(modules[0].ends_with("modules/idxd.ko"));
    let missing = kernel.modules(&["snd"]).unwrap_err();
    assert!(missing.ends_with("has no module snd"), "{missing}");
    assert_eq!(fetch(&registry).unwrap(), kernel);
    let fetched = registry.lines("downloads");
    assert_eq!(fetched.len(), 3, "{fetched:?}");
    assert!(!fetched.iter().any(|line| line.starts_with("initramfs")));
}

#[test]
fn a_damaged_or_lost_module_or_a_longer_list_means_a_new_kernel() {
    let registry = registry();
    let kernel = fetch(&registry).unwrap();
    let module = kernel.modules(&["idxd"]).unwrap().remove(0);
    fs::write(&module, "damage").unwrap();
    fetch(&registry).unwrap();
    assert_eq!(fs::read_to_string(&module).unwrap(), "idxd\n");
    assert_eq!(registry.lines("downloads").len(), 6);
    fs::remove_file(&module).unwrap();
    fetch(&registry).unwrap();
    assert!(module.exists());
    assert_eq!(registry.lines("downloads").len(), 9);
    fs::write(module.parent().unwrap().with_file_name(LIST), "vfio").unwrap();
    fetch(&registry).unwrap();
    assert_eq!(registry.lines("downloads").len(), 12);
}

#[test]
fn packages_without_an_image_are_refused() {
    let packages = [("linux-binary-7.3.4+deb13-amd64_7.3.4-1_amd64.deb", "image")];
    let registry = Registry::new(&packages, "#!/bin/sh\n");
    let text = fetch(&registry).unwrap_err().to_string();
    assert!(text.contains("the packages hold no vmlinuz"), "{text}");
}
