//! What a message of Arm's SMMUs means to the person who reads it, and what to do.

use iommu_wire::smmuv3::event::Class;
use std::fmt::Write;

use super::names;
use crate::log::normal::{Arch, Kind, Record};

/// The sentence's subject where the message is not about a request that was refused.
pub(in crate::log) fn own(record: &Record, who: &str) -> Option<String> {
    if record.arch == Arch::Smmuv3 && record.code == Some(0x24) {
        let place = record
            .address
            .map_or_else(String::new, |address| format!(" {address}"));
        return Some(format!("{who} announced that it will use{place}"));
    }
    let unit = record.iommu.as_deref().unwrap_or("the SMMU");
    match (record.kind, record.device) {
        (Kind::Command, _) => Some(format!("{unit} stopped at a command of the driver")),
        (Kind::Hardware, None) if record.code.is_none() => Some(format!("{unit} failed")),
        _ => None,
    }
}

/// The clause that says why.
pub(in crate::log) fn why(record: &Record) -> Option<String> {
    if record.kind == Kind::PageRequest && record.code.is_none() {
        return Some(
            "the kernel serves no page requests of this SMMU and denies this one".to_owned(),
        );
    }
    let code = record.code?;
    let mut why = match (record.arch, record.kind) {
        (Arch::Smmuv2, Kind::Dma) => context(code).to_owned(),
        (Arch::Smmuv2, _) => global(code).to_owned(),
        _ => names::meaning(code)?.to_owned(),
    };
    let Some(detail) = record.detail else {
        return Some(why);
    };
    // Writing to a string cannot fail.
    let _ = match (detail.stage, detail.class) {
        (Some(1), _) => write!(why, " in stage 1"),
        (Some(2), Some(Class::CD)) => write!(why, " in stage 2, for a context descriptor"),
        (Some(2), Some(Class::TT)) => write!(why, " in stage 2, for a page table of stage 1"),
        (Some(2), _) => write!(why, " in stage 2"),
        _ => Ok(()),
    };
    if let Some(ipa) = detail.ipa {
        let _ = write!(why, " at the intermediate address {ipa}");
    }
    if let Some(fetch) = detail.fetch {
        let _ = write!(why, " (at {fetch})");
    }
    if let Some(tag) = detail.stalled {
        let _ = write!(
            why,
            ", and the transaction waits under tag {tag:#x} until the driver resumes it"
        );
    }
    Some(why)
}

/// What FSR says. IHI 0062, `SMMU_CBn_FSR`.
const fn context(fsr: u32) -> &'static str {
    match fsr {
        fsr if fsr & 1 << 4 != 0 => "a page table could not be read (EF)",
        fsr if fsr & 1 << 3 != 0 => "the page is mapped, but not for that access (PF)",
        fsr if fsr & 1 << 2 != 0 => "the page's access flag is clear (AFF)",
        fsr if fsr & 1 << 1 != 0 => "nothing is mapped there (TF)",
        fsr if fsr & 1 << 7 != 0 => "an entry on the way has an address that is too wide (ASF)",
        fsr if fsr & (1 << 5 | 1 << 6) != 0 => {
            "the SMMU's TLB is at odds with itself or locked (TLBMCF, TLBLKF)"
        }
        fsr if fsr & 1 << 8 != 0 => "it is a transaction that the SMMU does not understand (UUT)",
        _ => "the SMMU gives no reason for it (FSR)",
    }
}

/// What GFSR says. IHI 0062, `SMMU_sGFSR`.
const fn global(gfsr: u32) -> &'static str {
    match gfsr {
        gfsr if gfsr & 1 << 1 != 0 => "no stream mapping matches its StreamID (USF)",
        gfsr if gfsr & 1 << 2 != 0 => "several stream mappings match its StreamID (SMCF)",
        gfsr if gfsr & 1 << 0 != 0 => "its stream mapping leads to an invalid context (ICF)",
        gfsr if gfsr & 1 << 3 != 0 => {
            "its stream mapping leads to a context bank that does not exist (UCBF)"
        }
        gfsr if gfsr & 1 << 4 != 0 => {
            "its context bank has an interrupt that does not exist (UCIF)"
        }
        gfsr if gfsr & 1 << 5 != 0 => {
            "a register of the SMMU was used in a way that is not allowed (CAF)"
        }
        gfsr if gfsr & 1 << 6 != 0 => "memory or a device answered the SMMU with an error (EF)",
        gfsr if gfsr & 1 << 7 != 0 => "it may not use that context (PF)",
        gfsr if gfsr & 1 << 8 != 0 => "it is a transaction that the SMMU does not understand (UUT)",
        _ => "the SMMU gives no reason for it (GFSR)",
    }
}

/// What to do, in one clause.
pub(in crate::log) fn advice(record: &Record) -> &'static str {
    match (record.arch, record.kind, record.code) {
        (_, Kind::Command, _) => command(record),
        (_, Kind::PageRequest, None) => {
            "Linux's SMMUv3 driver denies every page request today: pin the memory that the device uses, let it stall instead where it can, and disable PRI in it"
        }
        (_, _, None) if record.kind == Kind::Hardware => hardware(record),
        (Arch::Smmuv2, Kind::Dma, Some(fsr)) => context_advice(record, fsr),
        (Arch::Smmuv2, Kind::Dma, None) => unmapped(record),
        (Arch::Smmuv2, _, Some(gfsr)) => global_advice(gfsr),
        (_, _, Some(code)) => event_advice(record, code),
        (Arch::Smmuv2, _, None) => global_advice(2),
        (_, _, None) => {
            "look at the driver of that device, and at the lines around this one for the missing half"
        }
    }
}

fn unmapped(record: &Record) -> &'static str {
    if record.address.is_some_and(|address| address.0 == 0) {
        return "address 0 is rarely a buffer: the device uses a descriptor that was never filled in or already cleared, so look for a race between the driver's teardown and the device";
    }
    if record.pasid.is_some() {
        return "the memory must be mapped in that process, and must not be unmapped while the device works";
    }
    "look in the driver for a buffer that was unmapped or freed too early or is shorter than the transfer; if no driver is bound yet, the firmware left the device running or lists no memory (RMR in the IORT, iommu-addresses in the device tree) for it"
}

fn denied(record: &Record) -> &'static str {
    match record.access {
        crate::log::Wanted::Write => {
            "look in the driver for a buffer that was mapped DMA_TO_DEVICE though the device writes"
        }
        crate::log::Wanted::Exec => {
            "the device fetches instructions from memory that may not be executed: check which memory the driver gives it, and how it was mapped"
        }
        _ => {
            "look in the driver for a buffer that was mapped DMA_FROM_DEVICE though the device reads, or for a device that asks without privilege for what is mapped for the kernel only"
        }
    }
}

fn event_advice(record: &Record, code: u32) -> &'static str {
    if record.detail.is_some_and(|detail| detail.stage == Some(2)) && (0x10..=0x13).contains(&code)
    {
        return "stage 2 belongs to the hypervisor: look at what it maps of the guest's memory, MSI doorbells and devices for this device";
    }
    match code {
        0x01 => {
            "the device or the interconnect sends what this SMMU does not take: check the device's attributes and the SMMU's errata"
        }
        0x02 => {
            "the firmware's IORT (or iommu-map in the device tree) gives the device another StreamID or none: compare it with the requester ID that the device sends, behind bridges too"
        }
        0x03 | 0x09 | 0x0b | 0x25 => {
            "the pointer to it is wrong, or its memory was freed or fails: check for memory errors, and for a kexec that kept the SMMU on"
        }
        0x04 | 0x08 | 0x0a => {
            "the device is attached to no domain, or the driver wrote an entry that this SMMU cannot use (check its IDR registers; an SMMU emulated in a guest is a frequent cause): stop a device that runs without its driver, and report the rest to the kernel's IOMMU list"
        }
        0x05 | 0x07 => {
            "the device uses ATS though the kernel did not enable it for this device: check the ATS bit in its config space and the ATS attribute of the root complex in the IORT"
        }
        0x06 => {
            "check that the driver gives the device a PASID that is bound, and that the device does not use its plain requests while only PASIDs are set up"
        }
        0x10 => unmapped(record),
        0x11 => {
            "the table was overwritten or built for an SMMU with a wider address: check for memory corruption, and report it to the kernel's IOMMU list"
        }
        0x12 => {
            "Linux sets the access flag in all that it maps for DMA; of a shared address space, the memory must be touched or faulted in first"
        }
        0x13 => denied(record),
        0x20 | 0x21 => {
            "the driver changed a table without an invalidation between, or missed one: report it to the kernel's IOMMU list"
        }
        0x24 => "nothing has to be done",
        _ => {
            "the number is not in any table of ours: look at the specification of this SMMU, and at the driver of that device"
        }
    }
}

fn context_advice(record: &Record, fsr: u32) -> &'static str {
    if fsr & 1 << 3 != 0 {
        denied(record)
    } else if fsr & (1 << 1 | 1 << 2) != 0 {
        unmapped(record)
    } else {
        "the page table was freed or overwritten, or its memory fails: check for memory errors, and report it to the kernel's IOMMU list"
    }
}

const fn global_advice(gfsr: u32) -> &'static str {
    if gfsr & 0b10 != 0 {
        "the device has no iommus property in the device tree, or one with another StreamID, or runs without a driver: compare them; arm-smmu.disable_bypass=0 lets such devices through, and the protection with it"
    } else if gfsr & 0b100 != 0 {
        "two entries of the device tree give overlapping StreamIDs and masks: compare them, and what the firmware left in the stream mappings"
    } else {
        "check the stream mappings that the firmware leaves, and the StreamIDs in the device tree; report it to the kernel's IOMMU list"
    }
}

fn command(record: &Record) -> &'static str {
    match record.name.as_deref() {
        Some("ATC invalidate timeout") => {
            "a device did not answer an invalidation of its own TLB: it is hung, was reset or has lost its power or link, so look for messages on devices before this one, and compare with pci=noats"
        }
        Some("Abort on command fetch") => {
            "the command queue's memory fails or its address is wrong: check for memory errors, and for a kexec that kept the SMMU on"
        }
        _ => {
            "the driver wrote a command that this SMMU does not know, or the queue was overwritten: report it to the kernel's IOMMU list with the command's words"
        }
    }
}

fn hardware(record: &Record) -> &'static str {
    match record.name.as_deref() {
        Some(name) if name.contains("Service Failure Mode") => {
            "it stops all transactions until it is reset: this is a fault of the hardware or its firmware"
        }
        Some(name) if name.contains("MSI") => {
            "the address of its interrupt is wrong: check the MSI controller (ITS) that the firmware gives for the SMMU"
        }
        _ => {
            "the memory of its queue fails or its address is wrong, and records are lost: check for memory errors"
        }
    }
}
