//! The dialects side by side: whose message begins where, and who reads it.

use super::message::Scan;
use super::{amdvi, vtd};

/// A place where a message, or the rest of one, begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// VT-d's `[DMA Write …`: the beginning of a message.
    Dma(usize),
    /// VT-d's `[INTR-REMAP]`, `INTR-REMAP: Request`: likewise.
    Interrupt(usize),
    /// VT-d's `Request device [`, `fault addr`, `fault index`: a part without the head it should
    /// have.
    Part(usize),
    /// VT-d's `[fault reason 05]`, `DMAR: reason 05 -`: the second half of an old message.
    Reason(usize),
    /// AMD-Vi's `AMD-Vi: Event logged [`, with the device or the IOMMU before it: the beginning of a
    /// message.
    Event(usize),
    /// AMD-Vi's `IO_PAGE_FAULT device=`, without the words that should stand before it.
    Name(usize),
}

impl Start {
    /// Where it stands.
    pub(super) const fn at(self) -> usize {
        let (Self::Dma(at)
        | Self::Interrupt(at)
        | Self::Part(at)
        | Self::Reason(at)
        | Self::Event(at)
        | Self::Name(at)) = self;
        at
    }

    /// It begins a message.
    pub(super) const fn is_head(self) -> bool {
        matches!(self, Self::Dma(_) | Self::Interrupt(_) | Self::Event(_))
    }

    /// The same at the beginning of a text.
    pub(super) const fn moved(self) -> Self {
        match self {
            Self::Dma(_) => Self::Dma(0),
            Self::Interrupt(_) => Self::Interrupt(0),
            Self::Part(_) => Self::Part(0),
            Self::Reason(_) => Self::Reason(0),
            Self::Event(_) => Self::Event(0),
            Self::Name(_) => Self::Name(0),
        }
    }
}

/// The first place from `from` on where a message or a part of one begins.
pub(super) fn find_start(line: &[u8], from: usize) -> Option<Start> {
    let starts = [vtd::find_start(line, from), amdvi::find_start(line, from)];
    starts.into_iter().flatten().min_by_key(|start| start.at())
}

/// Reads the message that `text` begins with.
pub(super) fn scan(text: &[u8], start: Start) -> Scan {
    match start {
        Start::Event(_) | Start::Name(_) => amdvi::scan(text),
        Start::Dma(_) | Start::Interrupt(_) | Start::Part(_) | Start::Reason(_) => {
            vtd::scan(text, start)
        }
    }
}

/// Whether `line` names a driver or an architecture.
pub(super) fn marked(line: &[u8]) -> bool {
    vtd::marked(line) || amdvi::marked(line)
}

/// The functions that print faults. The rate limit counts per calling function.
const PRINTERS: [&[u8]; 13] = [
    b"dmar_fault",
    b"amd_iommu_report_page_fault",
    b"amd_iommu_report_rmp_fault",
    b"amd_iommu_report_rmp_hw_error",
    b"amd_iommu_report_ppr_err",
    b"arm_smmu_evtq_thread",
    b"arm_smmu_dump_event",
    b"arm_smmu_context_fault",
    b"arm_smmu_global_fault",
    b"nvidia_smmu_context_fault_bank",
    b"nvidia_smmu_global_fault_inst",
    b"qcom_smmu_context_fault",
    b"qcom_iommu_fault",
];

/// How many fault messages `line` says the kernel left out.
///
/// `dmar_fault` counts the status headers of VT-d's faults too, so this is what the kernel states and
/// not a number of faults.
pub(super) fn suppressed(line: &[u8]) -> Option<u64> {
    let has = |words: &[u8]| memchr::memmem::find(line, words).is_some();
    if !has(b" callbacks") && !has(b" output lines") {
        return None;
    }
    PRINTERS.iter().find_map(|printer| {
        let at = memchr::memmem::find(line, printer)?;
        let rest = line.get(at + printer.len()..)?;
        let rest = rest.strip_prefix(b":")?.trim_ascii_start();
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let count = std::str::from_utf8(rest.get(..digits)?)
            .ok()?
            .parse()
            .ok()?;
        let words = rest.get(digits..)?;
        (words.starts_with(b" callbacks") || words.starts_with(b" output lines")).then_some(count)
    })
}
