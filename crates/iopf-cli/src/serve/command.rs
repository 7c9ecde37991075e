//! The QEMU command line that fits what is served.

use super::arch::Names;
use super::args::SlotArg;
use iopf::Rid;
use std::path::Path;

/// A function and its socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket<'a> {
    pub(super) place: Rid,
    pub(super) path: &'a Path,
}

/// The arguments that QEMU needs for this much memory, for what tells the guest of the unit, and for
/// these sockets.
pub(super) fn arguments(
    names: &Names,
    memory: &str,
    told: Vec<String>,
    sockets: &[Socket<'_>],
) -> Vec<String> {
    let mut words = vec![
        "-machine".to_owned(),
        format!("{},memory-backend=iopf-ram", names.machine),
        "-object".to_owned(),
        format!("memory-backend-memfd,id=iopf-ram,size={memory},share=on"),
    ];
    words.extend(told);
    for socket in sockets {
        let mut device = serde_json::json!({
            "driver": "vfio-user-pci",
            "addr": SlotArg(socket.place).to_string(),
            "socket": { "type": "unix", "path": socket.path },
        });
        // QEMU lets other functions in beside a function 0 that says so only.
        let place = socket.place;
        let beside = |other: &Socket<'_>| other.place != place && other.place.0 & !7 == place.0;
        if sockets.iter().any(beside) {
            device["multifunction"] = true.into();
        }
        words.extend(["-device".to_owned(), device.to_string()]);
    }
    words
}

/// The arguments as a shell reads them.
pub(super) fn quoted(words: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=,./:".contains(c);
    let quoted = words.iter().map(|word| {
        if word.chars().all(plain) && !word.is_empty() {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::arch::Serve;
    use viommu::vtd::Vtd;

    #[test]
    fn the_arguments_are_those_that_attach_a_model_to_qemu() {
        let sockets = [Socket {
            place: Rid(0x0028),
            path: Path::new("/run/it's/iommu.sock"),
        }];
        let table = ["-acpitable", "sig=DMAR"].map(str::to_owned).into();
        let words = arguments(&Vtd::NAMES, "512M", table, &sockets);
        assert_eq!(
            quoted(&words),
            "-machine q35,memory-backend=iopf-ram \
             -object memory-backend-memfd,id=iopf-ram,size=512M,share=on \
             -acpitable sig=DMAR \
             -device '{\"addr\":\"05.0\",\"driver\":\"vfio-user-pci\",\
             \"socket\":{\"path\":\"/run/it'\\''s/iommu.sock\",\"type\":\"unix\"}}'"
        );
    }

    #[test]
    fn a_device_of_several_functions_says_so_at_its_function_0() {
        let path = Path::new("/s");
        let sockets = [0x28, 0x29, 0x20].map(|place| Socket {
            place: Rid(place),
            path,
        });
        let words = arguments(&Vtd::NAMES, "512M", Vec::new(), &sockets);
        let devices: Vec<_> = words.iter().filter(|word| word.starts_with('{')).collect();
        let several = |word: &&String| word.contains("\"multifunction\":true");
        let said: Vec<_> = devices.iter().copied().map(|word| several(&word)).collect();
        assert_eq!(said, [true, false, false], "{devices:?}");
    }
}
