//! What modules need: Debian's packages come without the `modules.dep` that depmod(8) makes.

use object::{Object as _, ObjectSection as _};

/// The one spelling of a module's name.
pub(super) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// The names in a `modules.builtin` file, which lists them as paths.
pub(super) fn builtin(list: &str) -> Vec<String> {
    let name = |line: &str| {
        let file = line.rsplit('/').next()?;
        file.strip_suffix(".ko").map(canonical)
    };
    list.lines().filter_map(name).collect()
}

/// The names after `depends=` in the `.modinfo` section of a module file.
pub(super) fn needs(module: &[u8]) -> Vec<String> {
    let section = object::File::parse(module).ok().and_then(|file| {
        let section = file.section_by_name(".modinfo")?;
        Some(section.data().ok()?.to_vec())
    });
    let info = section.unwrap_or_default();
    info.split(|byte| *byte == 0)
        .filter_map(|field| std::str::from_utf8(field).ok()?.strip_prefix("depends="))
        .flat_map(|list| list.split(','))
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

/// The named modules and all that they need, each after what it needs. `file` gives a module's
/// file by its canonical name; the error is the name of the first that has none.
pub(super) fn closure(
    names: impl IntoIterator<Item = impl AsRef<str>>,
    file: impl Fn(&str) -> Option<Vec<u8>>,
) -> Result<Vec<String>, String> {
    let mut order = Vec::new();
    for name in names {
        add(&canonical(name.as_ref()), &file, &mut order)?;
    }
    Ok(order)
}

fn add(
    name: &str,
    file: &impl Fn(&str) -> Option<Vec<u8>>,
    order: &mut Vec<String>,
) -> Result<(), String> {
    if order.iter().any(|have| have == name) {
        return Ok(());
    }
    // The kernel's build refuses modules that need each other, so this ends.
    for need in needs(&file(name).ok_or(name)?) {
        add(&need, file, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A little-endian ELF64 relocatable file with a `.modinfo` of these bytes: the header and
    /// three sections, after the ELF specification.
    fn module(info: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let (info_at, names_at) = (64, 64 + info.len());
        let table_at = (names_at + names.len()).next_multiple_of(8);
        let mut file = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend([1, 0, 62, 0, 1, 0, 0, 0]);
        file.extend([0; 16]);
        file.extend((table_at as u64).to_le_bytes());
        file.extend([0, 0, 0, 0, 64, 0, 0, 0, 0, 0, 64, 0, 3, 0, 2, 0]);
        file.extend(info.as_bytes());
        file.extend(names);
        file.resize(table_at + 64, 0);
        for (name, kind, at, len) in [
            (1_u32, 1_u32, info_at, info.len()),
            (10, 3, names_at, names.len()),
        ] {
            file.extend(name.to_le_bytes());
            file.extend(kind.to_le_bytes());
            file.extend([0; 16]);
            file.extend((at as u64).to_le_bytes());
            file.extend((len as u64).to_le_bytes());
            file.extend([0; 8]);
            file.extend(1_u64.to_le_bytes());
            file.extend([0; 8]);
        }
        file
    }

    fn file(name: &str) -> Option<Vec<u8>> {
        Some(module(match name {
            "idxd" => "license=GPL\0depends=idxd_bus\0",
            "vfio_pci" => "depends=vfio-pci-core,vfio\0",
            "vfio_pci_core" => "depends=vfio,irqbypass\0",
            "vfio" | "irqbypass" | "idxd_bus" => "depends=\0",
            _ => return None,
        }))
    }

    #[test]
    fn each_module_comes_after_what_it_needs_and_once() {
        let order = closure(["vfio-pci", "idxd", "vfio"], file).unwrap();
        let expected = [
            "vfio",
            "irqbypass",
            "vfio_pci_core",
            "vfio_pci",
            "idxd_bus",
            "idxd",
        ];
        assert_eq!(order, expected);
    }

    #[test]
    fn a_module_that_is_not_there_is_named() {
        assert_eq!(
            closure(["idxd", "no-such"], file),
            Err("no_such".to_owned())
        );
    }

    #[test]
    fn what_is_built_in_is_listed_by_path() {
        let list = "kernel/drivers/virtio/virtio_pci.ko\nkernel/drivers/vfio/pci/vfio-pci.ko\n";
        assert_eq!(builtin(list), ["virtio_pci", "vfio_pci"]);
    }

    #[test]
    fn a_file_that_is_no_module_needs_nothing() {
        assert!(needs(b"not an ELF file").is_empty());
    }
}
