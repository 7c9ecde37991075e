//! The fault messages of VT-d, as Linux and Xen print them.
//!
//! | kernel | shape |
//! |---|---|
//! | Linux 2.6–4.2 | `DMAR:[DMA Write] Request device [00:02.0] fault addr 6df084000`, then on a line of its own `DMAR:[fault reason 05] PTE Write access is not set`; interrupts `INTR-REMAP: Request device [[f0:1f.0] fault index 0`, then `INTR-REMAP:[fault reason 37] …`; reason in decimal |
//! | Linux 4.2–4.20 | all on one line, `DMAR: [DMA Write] …`, `DMAR: [INTR-REMAP] …`; decimal |
//! | Linux 5.0–5.13 | `… Request device [00:02.0] PASID ffffffff fault addr …`; decimal |
//! | Linux 5.14 | `[DMA Read NO_PASID]` or `[DMA Read PASID 0x1]`, `[0x00:0x02.0]`, `fault addr 0x…`, `[fault reason 0x06]` |
//! | Linux 5.18 on | the same with `[00:02.0]` |
//! | Linux 7.x | the same with the segment, `[0000:00:02.0]` |
//! | Xen to 4.3 | two lines, `[VT-D]DMAR:[DMA Write] Request device [0000:00:1e.6] fault addr 0, iommu reg = …` and `DMAR:[fault reason 02h] …` |
//! | Xen since | second line `[VT-D]DMAR: reason 02 - …`, in hexadecimal |
//!
//! A reason without `0x` or `h` is read in the base that its words confirm, and as decimal (Linux)
//! or hexadecimal (Xen) where there are none. Where words and number contradict each other in
//! either base, one of them is damaged, and the number is left out.

mod page;
mod scan;
mod values;

pub(super) use page::{Report, page_report};
pub(super) use scan::{find_start, head_before, scan};

/// Whether `line` names the driver or the architecture.
pub(super) fn marked(line: &[u8]) -> bool {
    line.iter().enumerate().any(|(at, byte)| {
        let marks: &[&[u8]] = match byte {
            b'D' => &[b"DMAR"],
            b'd' => &[b"dmar"],
            b'V' => &[b"VT-D"],
            b'I' => &[b"INTR-REMAP"],
            _ => return false,
        };
        let text = line.get(at..).unwrap_or_default();
        marks.iter().any(|mark| text.starts_with(mark))
    })
}
