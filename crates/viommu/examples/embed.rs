//! How a VMM puts the VT-d model behind a device of its own: `cargo run -p viommu --example embed`.
//!
//! Steps 1 to 4 are the VMM's. The guest is a script here; in a VMM it is an unmodified kernel.

use iopf::{Iova, Rid};
use std::error::Error;
use std::sync::Arc;
use testkit::paging::{Format, PageTable};
use testkit::{Driver, Interrupts, Ram, vtd};
use viommu::mem::GuestRam;
use viommu::vm_memory::Behind;
use viommu::vtd::{Config, Setup, VtdUnit};
use vm_memory::{Bytes, GuestAddress, GuestMemory, IommuMemory};

/// A device as rust-vmm devices are written: over some guest memory, it does not know which.
fn upper_case(memory: &impl GuestMemory, at: GuestAddress) -> Result<(), Box<dyn Error>> {
    let mut text = [0; 16];
    memory.read_slice(&mut text, at)?;
    text.make_ascii_uppercase();
    Ok(memory.write_slice(&text, at)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    // 1. Guest memory, and a sink for the unit's interrupts: implement `MsiSink`, `irqfd` will do.
    let (ram, irqs) = (Arc::new(Ram::new(32 << 20)?), Arc::new(Interrupts::new()));
    // 2. The unit. It takes anything that implements `GuestAddressSpace`.
    let setup = Setup {
        config: Config::default(),
        ram: GuestRam::new(ram.memory()),
    };
    let unit = Arc::new(VtdUnit::new(setup, irqs.clone())?);
    // 3. Its registers: hand MMIO exits in the window of the DMAR table to `Registers::read` and
    //    `Registers::write` of `unit`. The script gets the same trait.
    let guest = vtd::Guest::boot(
        unit.clone(),
        ram.clone(),
        irqs,
        vtd::Setup {
            scalable: false,
            ..vtd::Setup::default()
        },
    )?;
    // 4. The device gets memory behind the unit instead of memory. That is all.
    let device = Rid(0x0100);
    let behind = Behind::new(unit.clone(), device, None);
    let memory = IommuMemory::new((*ram.memory()).clone(), behind, true, ());

    // From here on it is the guest that acts: it maps one page for the device...
    let table = PageTable::new(&ram, Format::VtdSecond, 4)?;
    let (iova, frame) = (Iova(0xffff_f000), ram.frame()?);
    let flags = vtd::numbers::SS_R | vtd::numbers::SS_W;
    table.map(iova, frame, flags, 1)?;
    guest.attach(device, 0, &table, 7)?;
    ram.write(frame, b"through the iova");
    upper_case(&memory, GuestAddress(iova.0))?;
    let mut text = [0; 16];
    ram.read(frame, &mut text);
    println!("the device wrote at {frame}: {}", text.escape_ascii());

    // ... and unmaps it again, as a driver does when the request is done.
    table.unmap(iova);
    guest.submit(&[vtd::numbers::iotlb_pages(7, iova.0, 0)])?;
    if let Err(error) = upper_case(&memory, GuestAddress(iova.0)) {
        println!("the device is told:  {error}");
    }
    for line in &guest.poll_faults().latest {
        println!("the guest logs:      {line}");
    }
    println!("the unit counts:     {:?}", unit.counters());
    Ok(())
}
