//! What an AMD-Vi event means to the person who reads it, and what to do.

use super::names;
use crate::log::normal::{Flags, Kind, Record};

/// The clause that says why.
pub(in crate::log) fn why(record: &Record) -> Option<String> {
    if record.code == Some(2)
        && let Some(flags) = record.flags
    {
        return Some(page_fault(flags).to_owned());
    }
    if record.code == Some(2)
        && record.address.is_none()
        && record.name.as_deref() != Some("IO_PAGE_FAULT")
    {
        return Some("it is attached to no domain, so nothing is mapped for it".to_owned());
    }
    let event = names::event(record.code?)?;
    Some(event.meaning.to_owned())
}

/// What the flags of a page fault say. Linux `amd_iommu_types.h`; VirtualBox `EVT_IO_PAGE_FAULT_T`.
fn page_fault(flags: Flags) -> &'static str {
    match flags {
        Flags {
            i: true, pr: false, ..
        } => "interrupt remapping has no valid entry for it (I=1, PR=0)",
        Flags { i: true, .. } => "interrupt remapping refuses it (I=1)",
        Flags { pr: false, .. } => "nothing is mapped there (PR=0)",
        Flags { pe: true, .. } => "the page is mapped, but not for that access (PR=1, PE=1)",
        Flags { rz: true, .. } => "an entry on the way has reserved bits set (PR=1, RZ=1)",
        _ => "an entry on the way names a level that cannot follow there (PR=1, PE=0, RZ=0)",
    }
}

/// What to do, in one clause.
pub(in crate::log) fn advice(record: &Record) -> &'static str {
    match (record.code, record.kind) {
        (Some(2), Kind::InterruptRemapping) => {
            "the interrupt was freed or moved while the device still sends it, or its MSI registers were not written by the kernel: look for a driver that frees its interrupts before it silences the device, and compare with intremap=off"
        }
        (Some(2), _) => faulted(record),
        (Some(1), _) => {
            "the operating system wrote an entry this IOMMU cannot use, or the firmware lists the device wrongly in the IVRS table: compare the entry with the features in the boot messages (AMD-Vi: Extended features), and report it to the kernel's IOMMU list"
        }
        (Some(3 | 4), _) => {
            "the table was freed or overwritten, or its memory fails: check for memory errors, and for a kexec that kept translation on"
        }
        (Some(5), _) => {
            "the driver wrote a command that this IOMMU does not know, or the command buffer was overwritten: report it to the kernel's IOMMU list"
        }
        (Some(6), _) => {
            "the address of the command buffer is wrong or its memory fails: check for memory errors, and for a kexec that kept the IOMMU on"
        }
        (Some(7), _) => {
            "the device is hung, was reset or has lost its power or link, or its ATS does not work: look for messages on the device itself before this one, and compare with pci=noats"
        }
        (Some(8), _) => {
            "the device sends interrupts, translated addresses or translation requests that its device table entry does not allow, or goes to an address range that is reserved: check ATS in its config space, how its MSI is programmed, and the firmware"
        }
        (Some(9), _) => {
            "the device sends page requests though they are not enabled for it, or sends bad ones: check that its driver binds a process before it enables PRI, and stops the device before it unbinds"
        }
        (Some(0xd), _) => {
            "the device reaches for memory of a confidential guest: check which memory the hypervisor gives it, and that the guest shared the buffer"
        }
        (Some(0xe), _) => {
            "the table's memory fails or was not set up: check for memory errors, and the firmware's SEV-SNP settings"
        }
        (Some(_), _) => {
            "the number is not in any table of ours: look at the specification of this IOMMU, and at the driver of that device"
        }
        (None, Kind::PageRequest) => {
            "the kernel answers it with FAILURE: the device must ask with a PASID and with no reserved bit set, so check how its driver enables PRI and PASID"
        }
        (None, _) => {
            "look at the driver of that device, and at the lines around this one for the missing half"
        }
    }
}

fn faulted(record: &Record) -> &'static str {
    let Some(flags) = record.flags else {
        return if record.address.is_some() {
            "look in the driver for a buffer that was unmapped or freed too early"
        } else {
            "a device that runs without a driver, or whose driver has let it go: stop it, and see whether its reset failed"
        };
    };
    if flags.pr && !flags.pe {
        return "the table was overwritten or its memory was given to somebody else: check for memory corruption, and report it to the kernel's IOMMU list";
    }
    if record.address.is_some_and(|address| address.0 == 0) {
        return "address 0 is rarely a buffer: the device uses a descriptor that was never filled in or already cleared, so look for a race between the driver's teardown and the device";
    }
    if flags.gn {
        return "the memory must be mapped in that process, and must not be unmapped while the device works";
    }
    match (flags.pr, flags.rw) {
        (true, true) => {
            "look in the driver for a buffer that was mapped DMA_TO_DEVICE though the device writes; if no driver is bound yet, the page belongs to the firmware's own mappings (an IVMD of the IVRS table)"
        }
        (true, false) => {
            "look in the driver for a buffer that was mapped DMA_FROM_DEVICE though the device reads"
        }
        (false, _) => {
            "look in the driver for a buffer that was unmapped or freed too early or is shorter than the transfer; if no driver is bound yet, the firmware left the device running or lists no memory (an IVMD of the IVRS table) for it"
        }
    }
}
