//! From arguments to what is to be served.

use super::super::args::{Args, ResolverArg};
use iopf::{Iova, Pasid};
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;

/// Where memory starts when nobody says: above 4 GiB, clear of the window of interrupt messages.
const IOVA: u64 = 0x1_0000_0000;

/// How much there is when nobody says.
const MEMORY: u64 = 64 << 20;

/// The deadline when nobody says, in seconds: the engine's own.
const DEADLINE: f64 = 10.0;

/// Memory for devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    /// Where it starts for devices; a page's address.
    pub(super) start: Iova,
    /// Bytes, whole pages.
    pub(super) len: u64,
    /// The file that it is, or none: memory of this process alone.
    pub(super) backing: Option<PathBuf>,
}

/// Who decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolver {
    /// Nobody: INVALID.
    Deny,
    /// A page is mapped where it is asked for.
    Memory(Window),
    /// The device is looked at first.
    Inspect {
        /// And then retries.
        resume: bool,
    },
    /// The process at the other end of this socket.
    Forward {
        /// Where it connects.
        socket: PathBuf,
        /// What is mapped before it says SUCCESS.
        window: Window,
    },
}

impl Resolver {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Memory(_) => "memory",
            Self::Inspect { .. } => "inspect",
            Self::Forward { .. } => "forward",
        }
    }

    /// The memory that it maps, if any.
    pub(super) fn window(&self) -> Option<&Window> {
        match self {
            Self::Memory(window) | Self::Forward { window, .. } => Some(window),
            Self::Deny | Self::Inspect { .. } => None,
        }
    }
}

/// What is to be served, checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Plan {
    /// PCI functions, as sysfs names them.
    pub(super) devices: Vec<String>,
    pub(super) pasid: Option<Pasid>,
    pub(super) resolver: Resolver,
    pub(super) deadline: Duration,
    pub(super) seconds: Option<Duration>,
    pub(super) groups: Option<u64>,
    pub(super) trace: bool,
    pub(super) json: bool,
    pub(super) quiet: bool,
    pub(super) fail_on_fault: bool,
}

impl Plan {
    /// What the arguments ask for.
    ///
    /// # Errors
    /// A sentence, where one is missing, malformed, or of no use to the resolver.
    pub(crate) fn of(args: &Args) -> Result<Self, String> {
        let given = &args.iommufd;
        if given.functions.is_empty() {
            return Err("--backend iommufd needs a --device, such as 0000:00:04.0".to_owned());
        }
        let devices = given.functions.iter().map(|text| function(text));
        let devices = devices.collect::<Result<Vec<_>, _>>()?;
        for (at, name) in devices.iter().enumerate() {
            if devices[..at].contains(name) {
                return Err(format!("{name} is given twice"));
            }
        }
        let choice = given.resolver.unwrap_or(ResolverArg::Deny);
        let takes_memory = matches!(choice, ResolverArg::Memory | ResolverArg::Forward);
        for (name, given, fits, takers) in [
            (
                "--iova",
                given.iova.is_some(),
                takes_memory,
                "memory and forward",
            ),
            (
                "--memory",
                given.memory.is_some(),
                takes_memory,
                "memory and forward",
            ),
            (
                "--backing",
                given.backing.is_some(),
                takes_memory,
                "memory and forward",
            ),
            (
                "--resume",
                given.resume,
                choice == ResolverArg::Inspect,
                "inspect",
            ),
            (
                "--socket",
                given.socket.is_some(),
                choice == ResolverArg::Forward,
                "forward",
            ),
        ] {
            if given && !fits {
                return Err(format!("{name} is for --resolver {takers}"));
            }
        }
        let window = || -> Result<Window, String> {
            let start = given.iova.as_deref().map_or(Ok(IOVA), address)?;
            let len = given.memory.as_deref().map_or(Ok(MEMORY), size)?;
            start.checked_add(len - 1).ok_or_else(|| {
                format!("{len:#x} bytes from {start:#x} on leave the address space")
            })?;
            Ok(Window {
                start: Iova(start),
                len,
                backing: given.backing.clone(),
            })
        };
        let resolver = match choice {
            ResolverArg::Deny => Resolver::Deny,
            ResolverArg::Memory => Resolver::Memory(window()?),
            ResolverArg::Inspect => Resolver::Inspect {
                resume: given.resume,
            },
            ResolverArg::Forward => Resolver::Forward {
                socket: given
                    .socket
                    .clone()
                    .ok_or("--resolver forward needs a --socket")?,
                window: window()?,
            },
        };
        let deadline = given.deadline.unwrap_or(DEADLINE);
        let deadline = Duration::try_from_secs_f64(deadline)
            .ok()
            .filter(|time| {
                *time >= Duration::from_millis(1) && *time <= Duration::from_secs(86_400)
            })
            .ok_or_else(|| format!("--deadline {deadline}: write 0.001 to 86400 seconds"))?;
        Ok(Self {
            devices,
            pasid: given.pasid.and_then(Pasid::new),
            resolver,
            deadline,
            seconds: args.seconds.map(Duration::from_secs),
            groups: given.groups,
            trace: given.trace,
            json: args.json,
            quiet: args.quiet,
            fail_on_fault: args.fail_on_fault,
        })
    }
}

/// The name that sysfs has for a PCI function; the segment may be left out.
fn function(text: &str) -> Result<String, String> {
    let wrong = || format!("{text:?} is no PCI function: write 0000:00:04.0");
    let digits = |word: &str, most: usize| {
        let fits = (1..=most).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_hexdigit());
        let number = fits.then(|| u32::from_str_radix(word, 16).ok()).flatten();
        number.ok_or_else(wrong)
    };
    let (bus, slot) = text.rsplit_once(':').ok_or_else(wrong)?;
    let (segment, bus) = bus.split_once(':').unwrap_or(("0", bus));
    let (device, function) = slot.split_once('.').ok_or_else(wrong)?;
    let (segment, bus) = (digits(segment, 8)?, digits(bus, 2)?);
    let (device, function) = (digits(device, 2)?, digits(function, 1)?);
    if device > 0x1f || function > 7 {
        return Err(wrong());
    }
    Ok(format!("{segment:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// A page's address, decimal or with 0x.
fn address(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    number
        .ok()
        .filter(|at| at.is_multiple_of(PAGE))
        .ok_or_else(|| format!("--iova {text}: write a page's address, such as 0x100000000"))
}

/// Bytes of whole pages: `64M`, `4K`, `1G`, or a number; at most 1 TiB.
fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("--memory {text}: write whole pages, such as 64M, at most 1024G");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|len| len.is_multiple_of(PAGE) && (PAGE..=1 << 40).contains(len))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_named_as_sysfs_names_them() {
        assert_eq!(function("0000:00:04.0").unwrap(), "0000:00:04.0");
        assert_eq!(function("3a:1F.7").unwrap(), "0000:3a:1f.7");
        assert_eq!(function("10000:e1:00.0").unwrap(), "10000:e1:00.0");
        for text in [
            "",
            "00:04",
            "00:20.0",
            "00:04.8",
            "x:04.0",
            "../4.0",
            "00:+4.0",
            "1:2:3:4.0",
        ] {
            assert!(function(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_whole_pages_and_addresses_those_of_pages() {
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("64M"), Ok(64 << 20));
        assert_eq!(size("1024G"), Ok(1 << 40));
        for text in [
            "0",
            "1",
            "1025G",
            "M",
            "-4K",
            "18446744073709551615K",
            "4Kib",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(address("0x40001000"), Ok(0x4000_1000));
        assert_eq!(address("8192"), Ok(8192));
        for text in ["0x1001", "1", "x", "0x10000000000000000"] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
