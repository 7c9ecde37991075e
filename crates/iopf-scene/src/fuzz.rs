//! Fuzz targets as plain functions over bytes: any input, no panic, bounded work.

use crate::capture::{Arch, Builder, Capture, Device, Limits, Request, RequestKind};
use crate::explain;
pub use crate::log::fuzz::log;
use iopf::{Access, Gpa, GroupIndex, Iova, Pasid, Rid};

/// Reads a capture; what is taken must survive being written and read again.
///
/// # Panics
/// Where it does not: that is the finding.
pub fn capture(bytes: &[u8]) {
    let Ok(capture) = Capture::parse(bytes) else {
        return;
    };
    let text = capture.to_line();
    if text.len() <= Limits::BYTES {
        let again = Capture::parse(text.as_bytes()).expect("what is written can be read");
        assert_eq!(again, capture, "a round trip changes nothing");
    }
}

/// Explains the first requests of a capture, as JSON and against its expectations. Bytes that are no
/// capture become the tables of one.
///
/// # Panics
/// Where an explanation cannot be written: that is the finding.
pub fn explain(bytes: &[u8]) {
    let capture = Capture::parse(bytes).unwrap_or_else(|_| tables(bytes));
    let Ok(explanations) = explain::explain(&capture) else {
        return;
    };
    for explanation in explanations.take(64) {
        let text = serde_json::to_string(&explanation).expect("an explanation can be written");
        assert!(text.len() < 64 << 10, "an explanation has a bound");
        if let Some(expect) = capture.expect.get(explanation.request) {
            let _ = explain::check(&explanation, expect);
        }
        let _ = explanation.blamed();
    }
}

/// A capture of 64 KiB of tables made of `bytes`. Most of their pointers stay inside.
fn tables(bytes: &[u8]) -> Capture {
    const MEMORY: u64 = 0x1_0000;
    let arch = match bytes.first().map_or(0, |byte| byte & 3) {
        1 => Arch::Amdvi,
        3 => Arch::Smmuv3,
        _ => Arch::Vtd,
    };
    let mut builder = Builder::new(arch);
    let words = bytes.as_chunks::<8>().0;
    let word = |index: usize| {
        let word = words.get(index).map_or(0, |word| u64::from_le_bytes(*word));
        // An address is kept inside memory unless the highest bit asks for it as it is.
        if word >> 63 == 0 {
            word & !(u64::MAX >> 12 & !(MEMORY - 1))
        } else {
            word
        }
    };
    builder.memory_bounds(Gpa(0), Gpa(MEMORY));
    let registers = match arch {
        Arch::Amdvi => vec![
            // 16 pages of device table, or what the word says.
            ("DEV_TAB_BASE", word(0) & (MEMORY - 1) | 0xf),
            ("EXCL_BASE", word(1)),
            ("EXCL_LIMIT", word(2)),
        ],
        Arch::Smmuv3 => vec![
            ("SMMU_STRTAB_BASE", word(0) & (MEMORY - 1)),
            // A table of 2^10 entries or 2^16 StreamIDs, of one level or two.
            ("SMMU_STRTAB_BASE_CFG", word(0) & 1 << 16 | 0x20a),
            ("SMMU_CR2", 2),
        ],
        _ => vec![("RTADDR_REG", word(0) & (MEMORY - 1))],
    };
    for (name, value) in registers {
        let known = builder.register(name, value);
        debug_assert!(known, "{name} is a register of the format");
    }
    let count = words.len().max(1);
    for index in 0..MEMORY / 8 {
        let at = usize::try_from(index).unwrap_or(0) % count;
        builder.word(Gpa(index * 8), word(at));
    }
    for index in 0..8 {
        let pick = word(index);
        let [kind, access, pasid, group, rid @ ..] = pick.to_le_bytes();
        builder.request(Request {
            device: device(arch, u16::from_le_bytes([rid[0], rid[1]])),
            pasid: (pasid & 1 == 1).then(|| Pasid::truncate(pasid.into())),
            kind: RequestKind::ALL[usize::from(kind & 3)],
            addr: Iova(word(index + 1) >> 4),
            len: 1,
            access: Access::from_bits_truncate(access),
            no_write: kind & 4 != 0,
            group: GroupIndex(group.into()),
            last: kind & 8 != 0,
        });
    }
    builder.build()
}

/// A device of an architecture, as it names them.
fn device(arch: Arch, id: u16) -> Device {
    if arch.names_pci() {
        Device::Pci {
            segment: 0,
            rid: Rid::from_pci(id),
        }
    } else {
        Device::Number(id.into())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn the_examples_cut_and_damaged_are_read_without_a_panic() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/captures");
        for entry in std::fs::read_dir(folder).unwrap() {
            let whole = std::fs::read(entry.unwrap().path()).unwrap();
            super::capture(&whole);
            super::explain(&whole);
            for at in (0..whole.len()).step_by(61) {
                super::capture(&whole[..at]);
                for byte in *b"\x00\"0f{[-" {
                    let mut damaged = whole.clone();
                    damaged[at] = byte;
                    super::capture(&damaged);
                    if crate::capture::Capture::parse(&damaged).is_ok() {
                        super::explain(&damaged);
                    }
                }
            }
        }
    }

    #[test]
    fn bytes_of_every_kind_are_explained() {
        let mut state = 1u64;
        let mut bytes = Vec::new();
        for round in 0..40usize {
            bytes.clear();
            for _ in 0..round * 8 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                bytes.push((state >> 33).to_le_bytes()[0]);
            }
            super::explain(&bytes);
            super::capture(&bytes);
        }
    }
}
