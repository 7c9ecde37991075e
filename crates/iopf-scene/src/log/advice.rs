//! What a fault means to the person who reads it, and what to do.

use iommu_wire::vtd::event::FaultReason;
use iopf::Rid;

use super::normal::{Arch, Kind, Record, Wanted};
use super::{amdvi, arm};
use crate::capture::Device;

/// One sentence on `record`: who wanted what, why it was refused, and what to do.
#[must_use]
pub fn text_of(record: &Record) -> String {
    if record.arch != Arch::Vtd
        && record.kind == Kind::PageRequest
        && record.code.is_none()
        && record.name.is_none()
    {
        return asked(record);
    }
    let mut text = subject(record);
    match why(record) {
        Some(why) => {
            text.push_str(": ");
            text.push_str(&why);
        }
        None => text.push_str(" for a reason that the log does not show"),
    }
    if let Some(shown) = record
        .dump
        .as_ref()
        .and_then(|dump| dump.finding.as_deref())
    {
        text.push_str("; the printed tables show that ");
        text.push_str(shown);
    }
    text.push_str("; ");
    text.push_str(advice(record));
    text.push('.');
    text
}

/// `0000:00:14.0 was refused a write to 0xffcda000`.
fn subject(record: &Record) -> String {
    let device = device(record);
    if let Some(text) = own(record, &device) {
        return text;
    }
    let what = match (record.kind, record.access) {
        (Kind::InterruptRemapping, _) => "an interrupt",
        (Kind::PageRequest, Wanted::Read) => "a page request for reading",
        (Kind::PageRequest, Wanted::Write) => "a page request for writing",
        (Kind::PageRequest, Wanted::Exec) => "a page request for execution",
        (Kind::PageRequest, Wanted::Unknown) => "a page request",
        (_, Wanted::Read) => "a read",
        (_, Wanted::Write) => "a write",
        (_, Wanted::Exec) => "an instruction fetch",
        (Kind::Dma, Wanted::Unknown) => "a DMA",
        (_, Wanted::Unknown) => "a request",
    };
    let place = match (record.address, record.index) {
        (_, Some(index)) => format!(" with index {index:#x}"),
        (Some(address), None) => {
            let to = match (record.kind, record.access) {
                (Kind::PageRequest, _) => "at",
                (_, Wanted::Read | Wanted::Exec) => "of",
                _ => "to",
            };
            format!(" {to} {address}")
        }
        (None, None) => String::new(),
    };
    let space = record
        .pasid
        .map_or_else(String::new, |pasid| match record.arch {
            Arch::Smmuv3 => format!(" in substream {pasid}"),
            _ => format!(" in PASID {pasid}"),
        });
    format!("{device} was refused {what}{place}{space}")
}

/// Who asked.
fn device(record: &Record) -> String {
    match (record.device, &record.client) {
        (Some(Device::Number(id)), Some(client)) => format!("{client} (StreamID {id:#x})"),
        (Some(Device::Number(id)), None) => format!("StreamID {id:#x}"),
        (Some(device), _) => device.to_string(),
        (None, Some(client)) => client.clone(),
        (None, None) => "A device that the log does not name".to_owned(),
    }
}

/// An entry of AMD-Vi's PPR log or SMMUv3's PRI queue: nothing was refused.
fn asked(record: &Record) -> String {
    let refused = subject(record);
    let asked = refused.replace(" was refused ", " sent ");
    let answer = match record.arch {
        Arch::Amdvi => "COMPLETE_PPR_REQUEST",
        _ => "CMD_PRI_RESP",
    };
    format!(
        "{asked}; it waits until the driver answers with {answer}, so look at who handles page requests of that PASID if it waits in vain."
    )
}

/// The events that tell of the IOMMU's own work and not of a request.
fn own(record: &Record, device: &str) -> Option<String> {
    if matches!(record.arch, Arch::Smmuv3 | Arch::Smmuv2) {
        return arm::own(record, device);
    }
    let iommu = record.iommu.as_deref().unwrap_or("the IOMMU");
    let at = record
        .address
        .map_or_else(String::new, |address| format!(" at {address}"));
    match (record.kind, record.device) {
        (Kind::Command, Some(device)) => Some(format!(
            "{iommu} waited in vain for {device} to carry out the command{at}"
        )),
        (Kind::Command, None) => Some(format!("{iommu} stopped at the command{at}")),
        (Kind::Hardware, None) => Some(format!("{iommu} failed{at}")),
        _ => None,
    }
}

/// The clause that says why; the log's own words where the number means nothing to us.
fn why(record: &Record) -> Option<String> {
    let known = match record.arch {
        Arch::Vtd => record
            .code
            .and_then(|code| u8::try_from(code).ok())
            .and_then(|code| FaultReason(code).info())
            .map(|info| info.meaning.to_owned()),
        Arch::Amdvi => amdvi::why(record),
        Arch::Smmuv3 | Arch::Smmuv2 => arm::why(record),
    };
    known.or_else(|| {
        record
            .name
            .as_deref()
            .map(|name| format!("the log says \"{name}\""))
    })
}

/// What to do, in one clause.
fn advice(record: &Record) -> &'static str {
    match record.arch {
        Arch::Amdvi => return amdvi::advice(record),
        Arch::Smmuv3 | Arch::Smmuv2 => return arm::advice(record),
        Arch::Vtd => {}
    }
    if record.kind == Kind::PageRequest && record.code.is_none() {
        return page_request(record);
    }
    match record.code {
        Some(0x05 | 0x85) => writing(record),
        Some(0x06 | 0x86) => reading(record),
        Some(code) => by_code(code),
        None => {
            "look at the driver of that device, and at the lines around this one for the missing half"
        }
    }
}

fn integrated_graphics(record: &Record) -> bool {
    matches!(record.device, Some(Device::Pci { segment: 0, rid }) if Some(rid) == Rid::new(0, 2, 0))
}

fn writing(record: &Record) -> &'static str {
    if integrated_graphics(record) {
        return "the graphics device still uses memory that the firmware gave it: update the firmware, and compare with intel_iommu=igfx_off";
    }
    if record.address.is_some_and(|address| address.0 == 0) {
        return "address 0 is rarely a buffer: the device uses a descriptor that was never filled in or already cleared, so look for a race between the driver's teardown and the device";
    }
    "look in the driver for a buffer that was unmapped or freed too early, was mapped DMA_TO_DEVICE though the device writes, or is shorter than the transfer; if no driver is bound yet, the firmware left the device running or lists no reserved region (RMRR) for it"
}

fn reading(record: &Record) -> &'static str {
    if integrated_graphics(record) {
        return "the graphics device still scans out of memory that the firmware gave it, which no RMRR covers: harmless if it ends when the driver loads, else update the firmware, and compare with intel_iommu=igfx_off";
    }
    "look in the driver for a buffer that was unmapped or freed too early, was mapped DMA_FROM_DEVICE though the device reads, or ends before the device's prefetch does; if no driver is bound yet, the firmware left the device running or lists no reserved region (RMRR) for it"
}

fn page_request(record: &Record) -> &'static str {
    match record.name.as_deref() {
        Some("Page request without PASID") => {
            "the device asks for pages outside any shared address space, so check that its driver binds a process before it enables PRI"
        }
        Some("Page request for invalid PASID") => {
            "the process is gone or was unbound while the device still worked for it: the driver must stop the device's work before it unbinds"
        }
        Some("Address is not canonical") => {
            "the device was given a pointer that is none, so check the descriptor that user space submitted"
        }
        Some("Page request in Privilege Mode" | "Unexpected page request in Privilege Mode") => {
            "the kernel serves no supervisor page requests, so the driver must not let the device set the privileged bit"
        }
        Some("Execution request not supported") => {
            "the kernel serves no page requests for execution, so the driver must not let the device ask for it"
        }
        _ => {
            "the device gets INVALID for an answer and fails that access: check the address its work was given, and that the process still has it mapped"
        }
    }
}

fn by_code(code: u32) -> &'static str {
    match code {
        0x01 | 0x39 => {
            "the device runs before a driver set it up, or is not where the firmware's DMAR table says: find it in lspci, stop it in the firmware set-up (legacy USB, network boot), and update the firmware"
        }
        0x02 | 0x41 => {
            "no driver has attached that function: a device left running by the firmware or by the kernel before a kdump, or one that sends with another function's number and needs a DMA alias quirk"
        }
        0x03 | 0x43 | 0x5b => {
            "the operating system wrote an entry this IOMMU cannot use: compare its capability registers with the entry (an IOMMU emulated in a guest is a frequent cause), and report it to the kernel's IOMMU list"
        }
        0x04 | 0x80 | 0x83 | 0x84 => {
            "the driver's DMA mask is wider than the domain, or the device was given a pointer instead of a DMA address: check dma_set_mask and the descriptor"
        }
        0x07 | 0x70 | 0x78 => {
            "the entry points at memory the IOMMU cannot read: a page table was freed or overwritten, so look for memory corruption, or for a stale table after kexec"
        }
        0x08 | 0x38 => {
            "the root table address is wrong or its memory fails: check for memory errors and for a kexec that kept translation on"
        }
        0x09 | 0x40 | 0x50 | 0x58 => {
            "a table pointer is wrong or its memory fails: check for memory errors and for a kexec that kept translation on"
        }
        0x0a | 0x0b | 0x3a | 0x42 | 0x52 | 0x5a => {
            "the table was overwritten or uses a feature this IOMMU lacks: dump it with CONFIG_DMAR_DEBUG or the intel-iommu debugfs, and check for memory corruption"
        }
        0x0c | 0x72 | 0x7a => {
            "the entry maps an address beyond what this IOMMU can reach, uses a page size or bit it lacks, or was overwritten: dump it with CONFIG_DMAR_DEBUG or the intel-iommu debugfs"
        }
        0x0d | 0x44 => {
            "the device uses ATS though the kernel did not enable it for this device: check the ATS bit in its config space and the ATSR and SATC entries of the firmware"
        }
        0x0e | 0x87 => {
            "the device was told to write data into 0xfee00000-0xfeefffff, where interrupts live: check the address it was given, and how its MSI was programmed"
        }
        0x20 | 0x25 => {
            "the device sends interrupts in a format that remapping forbids: its MSI registers were not written by the kernel (its own copy of them, a hypervisor, or the firmware); compare with intremap=off"
        }
        0x21 | 0x22 => {
            "the interrupt was freed or moved while the device still sends it: look for a driver that frees its interrupts before it silences the device, or for stale settings of the IO-APIC or firmware"
        }
        0x23 => {
            "the remapping table's address is wrong or its memory fails: check for memory errors and for a kexec that kept remapping on"
        }
        0x24 | 0x28 => {
            "the entry was overwritten or uses a feature this IOMMU lacks: check for memory corruption, and compare with intremap=nopost"
        }
        0x26 => {
            "the device sends with a requester ID the kernel does not expect: a bridge or a second function in between needs a DMA alias quirk, or the firmware misplaces the IO-APIC or HPET; intremap=nosid turns the check off, and the protection with it"
        }
        0x27 => {
            "the descriptor's memory cannot be read: a virtual CPU went away while its device interrupt was still posted; compare with intremap=nopost"
        }
        0x29 => {
            "the device sends interrupts as plain requests of a form this IOMMU does not accept: check how its MSI is programmed"
        }
        0x30 => {
            "the operating system chose a translation mode this IOMMU lacks: compare with intel_iommu=sm_off"
        }
        0x31 | 0x32 | 0x45 | 0x47 => {
            "the driver uses shared virtual addressing though the IOMMU has it off for this device: check that scalable mode is on (intel_iommu=on,sm_on) and that binding a process succeeded"
        }
        0x33 => {
            "the operating system blocks all DMA on purpose, as in start-up or after a crash: a device is still running that should be silent"
        }
        0x46 | 0x48 => {
            "the PASID was never given to this device: check how the driver hands it to the hardware"
        }
        0x51 | 0x59 => {
            "the address space was unbound while the device still worked in it, or was never bound: the driver must drain the device first; after kexec or kdump, a device of the old kernel is still running"
        }
        0x5c | 0x82 => {
            "the device asked to execute what may not be executed: the driver must not set the execute bit, or user space must map it executable"
        }
        0x5d => {
            "the driver must not let the device ask for supervisor access in a user's address space"
        }
        0x71 => {
            "the page is not mapped in that address space: without page requests the memory must be pinned or touched first, and must not be unmapped while the device works"
        }
        0x73 | 0x7b => {
            "the pointer to the page table is wrong: the table was freed while the device still worked in it, or the entry was overwritten"
        }
        0x74..=0x77 => {
            "the guest's page tables lie in memory that its hypervisor did not map for the device: look at the hypervisor's mappings of guest memory"
        }
        0x79 => {
            "the memory is not mapped for this device: a buffer was unmapped too early, or the hypervisor did not map that part of the guest's memory"
        }
        0x7c | 0x90 => {
            "accessed and dirty flags need coherent page-table walks, which this IOMMU does not do here: report it to the kernel's IOMMU list"
        }
        0x7d | 0x91 => {
            "the page table lies in memory that cannot be written atomically: check for memory errors"
        }
        0x81 => "the device asked as user for a page of the kernel: check the address it was given",
        _ => {
            "the number is not in any table of ours: look at the specification of this IOMMU, and at the driver of that device"
        }
    }
}
