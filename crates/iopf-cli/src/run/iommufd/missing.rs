//! What is missing, said exactly: which part of the kernel, which right, which command.

use flate2::read::GzDecoder;
use iopf_host::{Errno, OpenError, Refused, Request, VfioError};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// The most of a kernel's configuration that is read.
const CONFIG: u64 = 4 << 20;

/// What can be learned of the running kernel and of this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Where the kernel's configuration was found, and what it says.
    pub(super) config: Option<(PathBuf, String)>,
    /// Its release, as uname has it.
    pub(super) release: String,
    /// `iommufd` is in /proc/modules.
    pub(super) loaded: bool,
    /// This process's user.
    pub(super) user: u32,
}

impl Facts {
    /// Of this machine.
    pub(super) fn here() -> Self {
        let release = rustix::system::uname()
            .release()
            .to_string_lossy()
            .into_owned();
        let boot = PathBuf::from(format!("/boot/config-{release}"));
        let packed = PathBuf::from("/proc/config.gz");
        let config = unpacked(&packed)
            .map(|text| (packed, text))
            .or_else(|| fs::read_to_string(&boot).ok().map(|text| (boot, text)));
        let modules = fs::read_to_string("/proc/modules").unwrap_or_default();
        Self {
            config,
            release,
            loaded: modules.lines().any(|line| line.starts_with("iommufd ")),
            user: rustix::process::geteuid().as_raw(),
        }
    }

    /// The sentence about an option: whether the kernel was built with it, and where that stands.
    fn option(&self, name: &str) -> (Built, String) {
        let Some((path, text)) = &self.config else {
            let why = format!(
                "whether Linux {} was built with {name} is not known here: there is no /proc/config.gz and no \
                 /boot/config-{}",
                self.release, self.release
            );
            return (Built::Unknown, why);
        };
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        let path = path.display();
        match value {
            Some("y") => (Built::In, format!("{name}=y in {path}")),
            Some("m") => (Built::Module, format!("{name}=m in {path}")),
            _ => (
                Built::Not,
                format!(
                    "Linux {} was built without {name}, says {path}",
                    self.release
                ),
            ),
        }
    }
}

/// How the kernel has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Built {
    In,
    Module,
    Not,
    Unknown,
}

fn unpacked(path: &Path) -> Option<String> {
    let mut text = String::new();
    let file = fs::File::open(path).ok()?;
    GzDecoder::new(file)
        .take(CONFIG)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// Why there is no iommufd, and what to do.
pub(super) fn iommufd(error: &OpenError, facts: &Facts) -> String {
    match error {
        OpenError::NoIommufd { path } => {
            let (built, says) = facts.option("CONFIG_IOMMUFD");
            let what = match built {
                Built::In => format!("{says}, but it did not start: the kernel's log may say why"),
                Built::Module if facts.loaded => {
                    format!(
                        "{says}, and the module is loaded, but there is no node: is this a container?"
                    )
                }
                Built::Module => format!("{says}, and the module is not loaded: modprobe iommufd"),
                Built::Not => format!("{says}: another kernel is needed"),
                Built::Unknown => format!("{says}; modprobe iommufd tells"),
            };
            format!("{}: there is no iommufd: {what}", path.display())
        }
        OpenError::NotAllowed { path, errno } => {
            format!("{}: {errno}: {}", path.display(), rights(path, facts))
        }
        OpenError::Busy { path } => match holders(path).as_slice() {
            [] => error.to_string(),
            some => format!("{error}: it is open in {}", some.join(", ")),
        },
        other => other.to_string(),
    }
}

/// Who may open a node, and how another user may.
fn rights(path: &Path, facts: &Facts) -> String {
    let Ok(data) = fs::metadata(path) else {
        return "its folder does not let this user in".to_owned();
    };
    let (mode, owner, group) = (data.mode() & 0o777, data.uid(), data.gid());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let subsystem = if name == "iommu" { "misc" } else { "vfio-dev" };
    format!(
        "its mode is {mode:03o}, its owner {owner}, its group {group}, and this user is {}; run as its owner, or \
         give a group the right with a udev rule such as \
         SUBSYSTEM==\"{subsystem}\", KERNEL==\"{name}\", GROUP=\"kvm\", MODE=\"0660\"",
        facts.user
    )
}

/// Processes that have a file open, as far as /proc tells this user: `qemu-system-x86 (pid 4711)`.
fn holders(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let own = std::process::id().to_string();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = process.file_name().to_string_lossy().into_owned();
        if pid == own || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let files = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        let mut links = files.filter_map(|file| fs::read_link(file.path()).ok());
        if links.any(|link| link == path) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            found.push(format!("{} (pid {pid})", name.trim()));
        }
    }
    found
}

/// Nodes of vfio through which a function can be in use: its own, and that of its group.
fn nodes(name: &str) -> Vec<PathBuf> {
    let function = Path::new("/sys/bus/pci/devices").join(name);
    let own = fs::read_dir(function.join("vfio-dev"))
        .into_iter()
        .flatten()
        .flatten();
    let mut nodes: Vec<_> = own
        .map(|entry| Path::new("/dev/vfio/devices").join(entry.file_name()))
        .collect();
    if let Ok(link) = fs::read_link(function.join("iommu_group"))
        && let Some(number) = link.file_name()
    {
        nodes.push(Path::new("/dev/vfio").join(number));
    }
    nodes
}

/// Why a device could not be had or attached, and what to do.
pub(super) fn device(name: &str, error: &VfioError, facts: &Facts) -> String {
    match error {
        VfioError::NoFunction { .. } => {
            format!("{name}: no such PCI function; `lspci -D` lists those that are there")
        }
        VfioError::NotVfio { driver, .. } => {
            let of = driver.as_deref().unwrap_or("nothing");
            let unbind = match driver {
                Some(_) => format!("echo {name} > /sys/bus/pci/devices/{name}/driver/unbind; "),
                None => String::new(),
            };
            let (built, says) = facts.option("CONFIG_VFIO_PCI");
            let module = match built {
                Built::Not => format!("; but {says}"),
                Built::Module => " (after modprobe vfio-pci)".to_owned(),
                Built::In | Built::Unknown => String::new(),
            };
            format!(
                "{name}: driven by {of}, not by vfio-pci; this binds it{module}: {unbind}echo vfio-pci > \
                 /sys/bus/pci/devices/{name}/driver_override; echo {name} > /sys/bus/pci/drivers_probe"
            )
        }
        VfioError::NoCdev { .. } => {
            let (built, says) = facts.option("CONFIG_VFIO_DEVICE_CDEV");
            let what = match built {
                Built::Not | Built::Unknown => says,
                Built::In | Built::Module => format!("{says}, yet vfio made no character device"),
            };
            format!("{name}: vfio has no character device of it: {what}")
        }
        VfioError::Open { path, errno } if matches!(*errno, Errno::ACCESS | Errno::PERM) => {
            format!(
                "{name}: {}: {errno}: {}",
                path.display(),
                rights(path, facts)
            )
        }
        VfioError::Open { path, errno } => {
            let who = holders(path);
            let who = match who.as_slice() {
                [] => String::new(),
                some => format!(": it is open in {}", some.join(", ")),
            };
            format!("{name}: {}: {errno}{who}", path.display())
        }
        VfioError::Refused(refused) => refusal(name, refused),
        other => format!("{name}: {other}"),
    }
}

/// Why the kernel refused something about a device, and by whom it is held where that is the reason.
pub(super) fn refusal(name: &str, refused: &Refused) -> String {
    let busy = refused.request == Request::BindIommufd
        && matches!(refused.errno, Errno::BUSY | Errno::INVAL);
    let who: Vec<String> = match busy {
        true => nodes(name).iter().flat_map(|node| holders(node)).collect(),
        false => Vec::new(),
    };
    if !who.is_empty() {
        return format!(
            "{name}: busy: {}: it is open in {}",
            refused.request,
            who.join(", ")
        );
    }
    let more = match (refused.request, refused.errno) {
        (Request::AttachIommufdPt, Errno::NODEV) => {
            ". The device has no PRI capability, or ATS and PRI could not be switched on, or its IOMMU \
             takes no page requests: it can't ask for pages, so nothing must be missing for its DMA"
        }
        _ => "",
    };
    format!("{name}: {refused}{more}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(config: Option<&str>) -> Facts {
        Facts {
            config: config.map(|text| (PathBuf::from("/boot/config-7.3"), text.to_owned())),
            release: "7.3".to_owned(),
            loaded: false,
            user: 1000,
        }
    }

    fn none() -> OpenError {
        OpenError::NoIommufd {
            path: "/dev/iommu".into(),
        }
    }

    #[test]
    fn without_iommufd_the_kernel_s_configuration_says_why() {
        let said = |config| iommufd(&none(), &facts(config));
        assert_eq!(
            said(Some(
                "# CONFIG_IOMMUFD is not set\nCONFIG_IOMMUFD_DRIVER=y\n"
            )),
            "/dev/iommu: there is no iommufd: Linux 7.3 was built without CONFIG_IOMMUFD, says \
             /boot/config-7.3: another kernel is needed"
        );
        assert_eq!(
            said(Some("CONFIG_IOMMUFD=m\n")),
            "/dev/iommu: there is no iommufd: CONFIG_IOMMUFD=m in /boot/config-7.3, and the module is \
             not loaded: modprobe iommufd"
        );
        assert!(said(Some("CONFIG_IOMMUFD=y\n")).contains("it did not start"));
        assert!(said(None).contains("no /proc/config.gz and no /boot/config-7.3"));
        let loaded = Facts {
            loaded: true,
            ..facts(Some("CONFIG_IOMMUFD=m\n"))
        };
        assert!(iommufd(&none(), &loaded).contains("is this a container?"));
    }

    #[test]
    fn a_refusal_of_rights_says_whose_the_node_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("iommu");
        fs::write(&path, "").unwrap();
        let error = OpenError::NotAllowed {
            path: path.clone(),
            errno: Errno::ACCESS,
        };
        let said = iommufd(&error, &facts(None));
        assert!(said.contains("and this user is 1000"), "{said}");
        assert!(
            said.contains("SUBSYSTEM==\"misc\", KERNEL==\"iommu\""),
            "{said}"
        );
    }

    #[test]
    fn a_device_of_another_driver_comes_with_the_commands_that_bind_it() {
        let error = |driver: Option<&str>| VfioError::NotVfio {
            path: "/sys/bus/pci/devices/0000:00:04.0".into(),
            driver: driver.map(str::to_owned),
        };
        let said = device("0000:00:04.0", &error(Some("nvme")), &facts(None));
        assert_eq!(
            said,
            "0000:00:04.0: driven by nvme, not by vfio-pci; this binds it: \
             echo 0000:00:04.0 > /sys/bus/pci/devices/0000:00:04.0/driver/unbind; \
             echo vfio-pci > /sys/bus/pci/devices/0000:00:04.0/driver_override; \
             echo 0000:00:04.0 > /sys/bus/pci/drivers_probe"
        );
        let said = device(
            "0000:00:04.0",
            &error(None),
            &facts(Some("CONFIG_VFIO_PCI=m\n")),
        );
        assert!(said.contains("driven by nothing"), "{said}");
        assert!(
            said.contains("(after modprobe vfio-pci): echo vfio-pci >"),
            "{said}"
        );
    }

    #[test]
    fn a_vfio_without_character_devices_is_named() {
        let error = VfioError::NoCdev { path: "/x".into() };
        let said = device("0000:00:04.0", &error, &facts(Some("CONFIG_VFIO=y\n")));
        assert_eq!(
            said,
            "0000:00:04.0: vfio has no character device of it: Linux 7.3 was built without \
             CONFIG_VFIO_DEVICE_CDEV, says /boot/config-7.3"
        );
    }

    #[test]
    fn an_attachment_without_pri_says_what_that_means() {
        let refused = Refused {
            request: Request::AttachIommufdPt,
            errno: Errno::NODEV,
        };
        let said = refusal("0000:00:04.0", &refused);
        assert!(said.contains("The device has no PRI capability"), "{said}");
    }

    #[test]
    fn who_has_a_file_open_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        fs::write(&path, "").unwrap();
        assert_eq!(holders(&path), Vec::<String>::new());
        let file = fs::File::open(&path).unwrap();
        // A program that reads it and waits until its other input ends.
        let mut child = std::process::Command::new("/bin/cat")
            .arg("-")
            .stdin(std::process::Stdio::piped())
            .stdout(file)
            .spawn()
            .unwrap();
        // `spawn` returns after exec.
        let found = holders(&path);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(found, [format!("cat (pid {})", child.id())]);
    }
}
