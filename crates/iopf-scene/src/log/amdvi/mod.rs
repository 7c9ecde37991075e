//! The event messages of AMD-Vi, as Linux and Xen print them.
//!
//! | kernel | shape |
//! |---|---|
//! | Linux 2.6.27–2.6.31 | `AMD IOMMU: Event logged [IO_PAGE_FAULT device=00:12.0 domain=0x000a address=0x00000000fdf9103f flags=0x0070]` |
//! | Linux to 4.16 | the same with `AMD-Vi:`; where `printk` ends a line by itself, the name and all after it stand on a line of their own |
//! | Linux 4.17–4.20 | `iommu ivhd0: AMD-Vi: Event logged [`, and the rest on a line of its own that begins with `iommu ivhd0: ` |
//! | Linux since 4.14 | page faults of a known device: `nvme 0000:01:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x0000 address=0xfc189000 flags=0x0000]` |
//! | Linux since 5.0 | one line, addresses without leading zeros, `pasid=0x00000` in four events |
//! | Linux since 6.0 | the segment too, `device=0000:43:00.0` |
//! | Xen to 4.13 | `AMD-Vi: IO_PAGE_FAULT: domain = 0, device id = 0x2600, fault address = 0xfffffffdf8000000, flags = 0x8` |
//! | Xen since | `AMD-Vi: IO_PAGE_FAULT: 0000:00:14.0 d0 addr 000000fdf8010140 flags 0x8 I` |
//!
//! With debug messages on, Linux prints page requests that it refuses too:
//! `PPR logged [Request ignored due to GN=0 (device=…`, with the flags of the PPR log.
//!
//! Linux prints an event's name and no number: the name decides `code`. The device table entry that
//! follows an `ILLEGAL_DEV_TABLE_ENTRY` and the command that follows an `ILLEGAL_COMMAND_ERROR`
//! belong to the message. In an `IO_PAGE_FAULT`, `domain=` is a PASID if the GN flag says so.
//! `rw` is read as Linux does, whatever `pr` is: hardware sets it for pages that are not present too.

mod advice;
mod meaning;
mod names;
mod scan;
mod tables;

pub(super) use advice::{advice, why};
pub(crate) use meaning::raw_event;
pub(crate) use names::name_of;
pub(super) use scan::{find_start, scan};
pub(super) use tables::{dump, is_table};

use memchr::memmem;

/// Whether `line` names the driver or the architecture.
pub(super) fn marked(line: &[u8]) -> bool {
    [&b"AMD-Vi"[..], b"AMD IOMMU", b"iommu ivhd"]
        .iter()
        .any(|mark| memmem::find(line, mark).is_some())
}
