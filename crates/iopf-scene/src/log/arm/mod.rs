//! The messages of Arm's SMMUs, as Linux and Xen print them.
//!
//! A message is several lines, each with the driver and the unit before it:
//!
//! | kernel | shape |
//! |---|---|
//! | SMMUv3, Linux since 4.2 | `arm-smmu-v3 arm-smmu-v3.0.auto: event 0x10 received:`, then the record's four words, `\t0x…`, on lines of their own |
//! | SMMUv3, Linux since 6.13 | after these `event: F_TRANSLATION client: 0000:01:00.0 sid: 0x100 ssid: 0x0 iova: 0x… ipa: 0x…`, and for a fault of a translation `unpriv data write s1 "Input address caused fault" stag: 0x0` |
//! | SMMUv3, Xen | `(XEN) SMMUv3: /smmuv3@9050000: event 0x10 received:` and the words |
//! | SMMUv3, Linux since 4.2 | `unexpected PRI request received:`, then `\tsid 0x00000100.0x00001: [3L] unprivileged RW access at iova 0x…` |
//! | SMMUv3, Linux since 4.2 | `CMDQ error (cons 0x01000022): Illegal command`, then `skipping command in error state:` and the two words of the command, or `retrying command fetch` |
//! | SMMUv2, Linux 3.11–4.8 | `arm-smmu 5000000.iommu: Unhandled context fault: iova=0x06030040, fsynr=0x12, cb=0` |
//! | SMMUv2, Linux 4.9–5.3, Xen | with `fsr=0x402` first |
//! | SMMUv2, Linux since 5.4 | with `cbfrsynra=0x409`, which holds the StreamID |
//! | SMMUv2, Linux since 6.11 | after it `FSR    = 00000402 [Format=2 TF], SID=0x409` and `FSYNR0 = 00300003 [S1CBNDX=48 PLVL=3]` |
//! | SMMUv2, Android | `Unhandled context fault: iova=0x…, cb=0, fsr=0x…, fsynr0=0x…, fsynr1=0x…`, with `FAR    =`, `FSR    =`, `SID=` beside it |
//! | SMMUv2, Linux since 3.11 | `Unexpected global fault, this could be serious`, or since 5.2 `Blocked unknown Stream ID 0x429; boot with …`; then `\tGFSR 0x…, GFSYNR0 0x…, GFSYNR1 0x…, GFSYNR2 0x…` |
//!
//! Whose lines belong together is told by the unit's name. The words of an SMMUv3 record decide where
//! they are there; the decoded lines repeat them, and give the client's name besides.
//!
//! What the hardware reports through `GERROR` (a command it cannot carry out, a queue it cannot write,
//! Service Failure Mode) are messages. `unexpected global error reported (0x…)` is the header of
//! these and none itself. Nor are the driver's complaints: `CMD_SYNC timeout`, `EVTQ overflow
//! detected -- events lost`, `PRIQ overflow detected`, `TLB sync timed out`.
//!
//! Where the code of an SMMUv2 message is a number, it is that of its fault status register: FSR of a
//! context fault ([`Kind::Dma`](super::Kind::Dma)), GFSR of a global one
//! ([`Kind::Configuration`](super::Kind::Configuration)).

mod advice;
mod names;
mod scan;

pub(super) use advice::{advice, own, why};
pub(crate) use names::{event_name, kind_of};
pub(super) use scan::{GAP, scan};

use memchr::memmem;

use super::clean::unquote;
use super::waiting::without_prefix;

/// A stretch of a line that one unit's driver has printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part<'a> {
    /// Where its prefix begins: the name of the driver.
    pub(super) at: usize,
    /// The unit, where it is named.
    pub(super) unit: Option<&'a str>,
    /// What the driver says.
    pub(super) body: &'a [u8],
}

/// How the names of drivers begin, as they stand before their messages.
const DRIVERS: [&[u8]; 3] = [b"arm-smmu", b"SMMUv3:", b"smmu:"];

/// Whether `line` names a driver.
pub(super) fn marked(line: &[u8]) -> bool {
    DRIVERS
        .iter()
        .any(|driver| memmem::find(line, driver).is_some())
}

/// The stretches of `line` that drivers of SMMUs have printed, in order. A line that a mail program
/// has joined has several.
pub(super) fn parts(line: &[u8]) -> Vec<Part<'_>> {
    let mut parts: Vec<Part<'_>> = Vec::new();
    let mut from = 0;
    while let Some((at, unit, body)) = mark(line, from) {
        if let Some(before) = parts.last_mut() {
            let end = before
                .body
                .len()
                .min(at.saturating_sub(offset(line, before.body)));
            before.body = without_prefix(before.body.get(..end).unwrap_or_default());
        }
        parts.push(Part {
            at,
            unit,
            body: line.get(body..).unwrap_or_default(),
        });
        from = body;
    }
    for part in &mut parts {
        part.body = plain(part.body);
    }
    parts
}

/// What may begin a message on a line that does not name the driver.
const HEADS: [&[u8]; 4] = [
    b"event 0x",
    b"event: ",
    b"Unhandled context fault: ",
    b"CMDQ error (cons 0x",
];

/// A message of a line that names no driver. Its unit is the word before it if that has an address.
pub(super) fn unmarked(line: &[u8]) -> Option<Part<'_>> {
    let at = HEADS
        .iter()
        .filter_map(|head| memmem::find(line, head))
        .min()?;
    let before = line.get(..at)?.trim_ascii_end();
    let unit = before
        .strip_suffix(b":")
        .and_then(|before| before.rsplit(|&byte| byte == b' ').next())
        .filter(|word| word.contains(&b'.') && word.first().is_some_and(u8::is_ascii_hexdigit))
        .and_then(|word| std::str::from_utf8(word).ok());
    Some(Part {
        at,
        unit,
        body: line.get(at..)?,
    })
}

/// Where `part`, which is the end of `line`, begins in it.
const fn offset(line: &[u8], part: &[u8]) -> usize {
    line.len().saturating_sub(part.len())
}

/// `text` without what stands for the tab before a word: syslog writes `#011`.
fn plain(text: &[u8]) -> &[u8] {
    let text = unquote(text);
    let text = text.strip_prefix(b"#011").unwrap_or(text);
    text.strip_prefix(b"\\t").unwrap_or(text).trim_ascii()
}

/// The next prefix from `from` on: where it begins, the unit it names, and where it ends.
fn mark(line: &[u8], from: usize) -> Option<(usize, Option<&str>, usize)> {
    let mut from = from;
    loop {
        let text = line.get(from..)?;
        let at = from
            + DRIVERS
                .iter()
                .filter_map(|driver| memmem::find(text, driver))
                .min()?;
        // The driver, then the unit; either may be all there is.
        let mut end = at;
        let mut words = [""; 2];
        for slot in &mut words {
            let rest = line.get(end..)?;
            let blanks = rest.iter().take_while(|&&byte| byte == b' ').count();
            let rest = rest.get(blanks..)?;
            let len = memchr::memchr(b' ', rest).unwrap_or(rest.len());
            *slot = std::str::from_utf8(rest.get(..len)?).unwrap_or_default();
            if slot.ends_with(':') || slot.is_empty() {
                end += blanks + len;
                let xen = matches!(*slot, "SMMUv3:" | "smmu:");
                if !xen {
                    break;
                }
            } else {
                end += blanks + len;
            }
        }
        let unit = words.iter().rev().find_map(|word| word.strip_suffix(':'));
        match unit {
            Some(unit) if !unit.is_empty() => {
                let driver = matches!(unit, "arm-smmu" | "arm-smmu-v3" | "SMMUv3" | "smmu");
                return Some((at, (!driver).then_some(unit), end));
            }
            // No prefix of a message: words about the driver.
            _ => from = at + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn units(line: &str) -> Vec<(Option<&str>, &str)> {
        parts(line.as_bytes())
            .iter()
            .map(|part| (part.unit, std::str::from_utf8(part.body).unwrap()))
            .collect()
    }

    #[test]
    fn a_prefix_names_the_driver_and_the_unit() {
        assert_eq!(
            units("[    1.0] arm-smmu-v3 arm-smmu-v3.0.auto: event 0x10 received:"),
            [(Some("arm-smmu-v3.0.auto"), "event 0x10 received:")]
        );
        assert_eq!(
            units("> arm-smmu 5000000.iommu: #0110x1"),
            [(Some("5000000.iommu"), "0x1")]
        );
        assert_eq!(
            units("(XEN) SMMUv3: /smmuv3@9050000:  0x0000000800000010"),
            [(Some("/smmuv3@9050000"), "0x0000000800000010")]
        );
        assert_eq!(
            units("(XEN) smmu: /axi/smmu@fd800000: Unhandled"),
            [(Some("/axi/smmu@fd800000"), "Unhandled")]
        );
        assert_eq!(units("  arm-smmu-v3:  0x0"), [(None, "0x0")]);
        assert_eq!(units("the arm-smmu driver is one of two"), []);
    }

    #[test]
    fn the_rest_of_a_broken_prefix_is_one_too() {
        assert_eq!(
            units("arm-smmu-v3.3.auto: CMD_SYNC timeout"),
            [(Some("arm-smmu-v3.3.auto"), "CMD_SYNC timeout")]
        );
    }

    #[test]
    fn joined_lines_come_apart() {
        assert_eq!(
            units("arm-smmu-v3 a.auto:  0x1 [ 2.5] arm-smmu-v3 b.auto:  0x2 ["),
            [(Some("a.auto"), "0x1"), (Some("b.auto"), "0x2 [")]
        );
    }
}
