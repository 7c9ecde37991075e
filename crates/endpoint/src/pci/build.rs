//! Laying out a configuration space, and refusing what cannot be.

mod place;

use super::config::ConfigSpace;
use super::store::Store;
use super::{bit, reg};
use viommu_api::{BARS, Interrupts};

/// What a function is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Who made it.
    pub vendor: u16,
    /// Which of the vendor's.
    pub device: u16,
    /// Base class, sub-class and programming interface: 24 bits.
    pub class: u32,
    /// Its revision.
    pub revision: u8,
    /// Vendor of the board.
    pub subsystem_vendor: u16,
    /// Which of that vendor's.
    pub subsystem: u16,
}

/// A memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    size: u64,
    wide: bool,
    prefetchable: bool,
}

impl Bar {
    /// One of `size` bytes, below 4 GiB.
    #[must_use]
    pub const fn memory32(size: u64) -> Self {
        Self {
            size,
            wide: false,
            prefetchable: false,
        }
    }

    /// One of `size` bytes anywhere. It takes the next register too.
    #[must_use]
    pub const fn memory64(size: u64) -> Self {
        Self {
            size,
            wide: true,
            prefetchable: false,
        }
    }

    /// The same, without side effects of reading.
    #[must_use]
    pub const fn prefetchable(self) -> Self {
        Self {
            prefetchable: true,
            ..self
        }
    }

    pub(super) const fn size(&self) -> u64 {
        self.size
    }

    pub(super) const fn is_wide(&self) -> bool {
        self.wide
    }

    /// The low bits that say what it is.
    const fn kind(&self) -> u8 {
        (self.wide as u8) << 2 | (self.prefetchable as u8) << 3
    }
}

/// Which kind of PCI Express endpoint a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// At the end of a link.
    Endpoint,
    /// Part of the root complex: without a link, on the root bus.
    Integrated,
}

/// Where the MSI-X structures lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsixCapability {
    /// Entries: 1–2048.
    pub vectors: u16,
    /// BAR and byte offset of the table, a multiple of 8.
    pub table: (u8, u32),
    /// BAR and byte offset of the pending bits, a multiple of 8.
    pub pending: (u8, u32),
}

/// What the ATS capability says. Requests are always page-aligned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AtsCapability {
    /// Invalidations that the function takes before it answers one: 0–31, 0 means 32.
    pub queue_depth: u8,
    /// It knows invalidations of every PASID at once.
    pub global_invalidate: bool,
}

/// What the page request capability says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriCapability {
    /// Page requests that it can have outstanding, at least 1.
    pub capacity: u32,
    /// It expects the PASID in the answer to a request that had one. Linux asks for this.
    pub response_needs_pasid: bool,
}

/// What the PASID capability says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasidCapability {
    /// Bits of a PASID: 0–20.
    pub width: u8,
    /// It can ask to execute.
    pub execute: bool,
    /// It can be privileged.
    pub privileged: bool,
}

/// Why a configuration space cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// There are six base address registers.
    #[error("no base address register {0}")]
    NoBar(u8),
    /// Two BARs, or a BAR and the upper half of another, share a register.
    #[error("base address register {0} is taken")]
    BarTaken(u8),
    /// A BAR's size is not a power of two, or is too small or too large for its kind.
    #[error("base address register {bar} cannot have {size:#x} bytes")]
    BarSize {
        /// Which.
        bar: u8,
        /// Its size in bytes.
        size: u64,
    },
    /// The class has more than 24 bits.
    #[error("class {0:#x} has more than 24 bits")]
    Class(u32),
    /// An MSI-X table has 1 to 2048 entries.
    #[error("an MSI-X table cannot have {0} entries")]
    Vectors(u16),
    /// An MSI-X structure is misaligned, not inside its BAR, or on top of the other.
    #[error("an MSI-X structure does not fit at {offset:#x} of BAR {bar}")]
    MsixPlace {
        /// The BAR.
        bar: u8,
        /// Byte offset in it.
        offset: u32,
    },
    /// A capability's mask and body differ in length, or it is longer than 253 bytes.
    #[error("a capability of {0} bytes")]
    Capability(usize),
    /// ATS, PRI and PASID live in the extended space, which PCI Express functions have.
    #[error("an extended capability without the PCI Express capability")]
    NotExpress,
    /// PASIDs travel in end-to-end TLP prefixes.
    #[error("PASID without end-to-end TLP prefixes")]
    NoPrefix,
    /// A PASID has 0 to 20 bits.
    #[error("a PASID cannot have {0} bits")]
    PasidWidth(u8),
    /// Page requests are a part of ATS.
    #[error("page requests without ATS")]
    PriWithoutAts,
    /// A page request interface that can have nothing outstanding.
    #[error("page requests with a capacity of 0")]
    NoCapacity,
    /// The queue depth has five bits.
    #[error("an ATS queue depth of {0}")]
    QueueDepth(u8),
    /// The capabilities are longer than the space they have.
    #[error("the capabilities end at {0:#x}, beyond their space")]
    Full(u16),
}

/// Where things are in a space.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    bars: [Option<Bar>; BARS as usize],
    pub(super) interrupts: Interrupts,
    pub(super) express: Option<u16>,
    pub(super) msi: Option<u16>,
    pub(super) msix: Option<u16>,
    pub(super) ats: Option<u16>,
    pub(super) pri: Option<u16>,
    pub(super) pasid: Option<u16>,
    pub(super) plain: Vec<u16>,
}

impl Layout {
    pub(super) fn bar(&self, index: u8) -> Option<Bar> {
        self.bars.get(usize::from(index)).copied().flatten()
    }
}

/// Collects what a function has; [`build`](Self::build) lays it out.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    identity: Identity,
    bars: Vec<(u8, Bar)>,
    intx: bool,
    master_fixed: bool,
    express: Option<(Port, bool)>,
    msi: bool,
    msix: Option<MsixCapability>,
    plain: Vec<Plain>,
    ats: Option<AtsCapability>,
    pri: Option<PriCapability>,
    pasid: Option<PasidCapability>,
}

/// A capability that is bytes with a write mask.
#[derive(Clone, Debug)]
struct Plain {
    id: u8,
    body: Vec<u8>,
    writable: Vec<u8>,
}

/// Lays capabilities one after the other and links them.
struct Chain {
    next: u16,
    end: u16,
    /// Where the offset of the next capability goes.
    link: u16,
    extended: bool,
}

impl Chain {
    /// Places `size` bytes, a multiple of 4, and links them in. What reaches beyond the end is found
    /// by [`Builder::build`].
    fn place(&mut self, store: &mut Store, size: u16) -> u16 {
        let at = self.next;
        self.next = at.saturating_add(size);
        if self.extended {
            // The upper twelve bits of the header of the one before; the first has none.
            if self.link != 0 {
                let version_and_next = at << 4 | 1;
                store.define(self.link + 2, &version_and_next.to_le_bytes());
            }
            self.link = at;
        } else {
            let [low, _] = at.to_le_bytes();
            store.define(self.link, &[low]);
            self.link = at + 1;
        }
        at
    }

    fn check(&self) -> Result<(), Impossible> {
        if self.next > self.end {
            return Err(Impossible::Full(self.next));
        }
        Ok(())
    }
}

impl Builder {
    /// A function without BARs, interrupts or capabilities.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            ..Self::default()
        }
    }

    /// Adds a BAR at register `index` (0–5).
    #[must_use]
    pub fn bar(mut self, index: u8, bar: Bar) -> Self {
        self.bars.push((index, bar));
        self
    }

    /// Adds the interrupt pin INTA.
    #[must_use]
    pub fn intx(mut self) -> Self {
        self.intx = true;
        self
    }

    /// Makes Bus Master read as one whatever is written: for a part of the chipset.
    #[must_use]
    pub fn always_master(mut self) -> Self {
        self.master_fixed = true;
        self
    }

    /// Makes it a PCI Express function that can be reset on its own; `prefixes`: it takes and sends
    /// an end-to-end TLP prefix, which PASIDs need.
    #[must_use]
    pub fn express(mut self, port: Port, prefixes: bool) -> Self {
        self.express = Some((port, prefixes));
        self
    }

    /// Adds MSI-X.
    #[must_use]
    pub fn msix(mut self, msix: MsixCapability) -> Self {
        self.msix = Some(msix);
        self
    }

    /// Adds MSI: one message, a 64-bit address, no mask.
    #[must_use]
    pub fn msi(mut self) -> Self {
        self.msi = true;
        self
    }

    /// Adds a vendor capability. `body` is what follows the identifier and the link, its length byte
    /// first; `writable` are the bits of it that a guest may write.
    #[must_use]
    pub fn vendor(self, body: &[u8], writable: &[u8]) -> Self {
        self.capability(0x09, body, writable)
    }

    /// Adds a capability of which this crate knows nothing but its identifier. `body` is what follows
    /// identifier and link; `writable` are the bits of it that a guest may write.
    #[must_use]
    pub fn capability(mut self, id: u8, body: &[u8], writable: &[u8]) -> Self {
        self.plain.push(Plain {
            id,
            body: body.to_vec(),
            writable: writable.to_vec(),
        });
        self
    }

    /// Adds Address Translation Services.
    #[must_use]
    pub fn ats(mut self, ats: AtsCapability) -> Self {
        self.ats = Some(ats);
        self
    }

    /// Adds the Page Request Interface.
    #[must_use]
    pub fn pri(mut self, pri: PriCapability) -> Self {
        self.pri = Some(pri);
        self
    }

    /// Adds requests with PASID.
    #[must_use]
    pub fn pasid(mut self, pasid: PasidCapability) -> Self {
        self.pasid = Some(pasid);
        self
    }

    /// Lays it all out.
    ///
    /// # Errors
    /// When the parts do not go together, or not into the space there is.
    pub fn build(&self) -> Result<ConfigSpace, Impossible> {
        let mut store = Store::new();
        let mut layout = Layout::default();
        self.header(&mut store)?;
        self.base_addresses(&mut store, &mut layout)?;
        self.check_extended()?;
        self.capabilities(&mut store, &mut layout)?;
        self.extended(&mut store, &mut layout)?;
        layout.interrupts.intx = u16::from(self.intx);
        Ok(ConfigSpace::new(store, layout))
    }

    fn header(&self, store: &mut Store) -> Result<(), Impossible> {
        let id = &self.identity;
        if id.class >> 24 != 0 {
            return Err(Impossible::Class(id.class));
        }
        store.define(reg::VENDOR, &id.vendor.to_le_bytes());
        store.define(reg::VENDOR + 2, &id.device.to_le_bytes());
        let class_revision = id.class << 8 | u32::from(id.revision);
        store.define(reg::CLASS_REVISION, &class_revision.to_le_bytes());
        store.define(reg::SUBSYSTEM, &id.subsystem_vendor.to_le_bytes());
        store.define(reg::SUBSYSTEM + 2, &id.subsystem.to_le_bytes());
        store.allow(reg::CACHE_LINE, &[0xff]);
        let mut command = bit::COMMAND_PARITY | bit::COMMAND_SERR | bit::COMMAND_INTX_DISABLE;
        if !self.bars.is_empty() {
            command |= bit::COMMAND_MEMORY;
        }
        if self.master_fixed {
            store.define(reg::COMMAND, &bit::COMMAND_MASTER.to_le_bytes());
        } else {
            command |= bit::COMMAND_MASTER;
        }
        store.allow(reg::COMMAND, &command.to_le_bytes());
        store.allow_clear(reg::STATUS, &bit::STATUS_ERRORS.to_le_bytes());
        store.allow(reg::INTERRUPT_LINE, &[0xff]);
        store.define(reg::INTERRUPT_PIN, &[u8::from(self.intx)]);
        Ok(())
    }

    fn base_addresses(&self, store: &mut Store, layout: &mut Layout) -> Result<(), Impossible> {
        let mut taken = [false; BARS as usize];
        for &(index, bar) in &self.bars {
            let largest = if bar.wide { 1 << 62 } else { 1 << 31 };
            if !bar.size.is_power_of_two() || !(16..=largest).contains(&bar.size) {
                let size = bar.size;
                return Err(Impossible::BarSize { bar: index, size });
            }
            let registers = usize::from(index)..usize::from(index) + 1 + usize::from(bar.wide);
            let Some(slots) = taken.get_mut(registers) else {
                return Err(Impossible::NoBar(index));
            };
            if slots.contains(&true) {
                return Err(Impossible::BarTaken(index));
            }
            slots.fill(true);
            layout.bars[usize::from(index)] = Some(bar);
            let at = reg::BAR0 + u16::from(index) * 4;
            store.define(at, &[bar.kind()]);
            let width = if bar.wide { 8 } else { 4 };
            let mask = (!(bar.size - 1)).to_le_bytes();
            store.allow(at, mask.get(..width).unwrap_or(&mask));
        }
        Ok(())
    }

    fn check_extended(&self) -> Result<(), Impossible> {
        let any = self.ats.is_some() || self.pri.is_some() || self.pasid.is_some();
        if any && self.express.is_none() {
            return Err(Impossible::NotExpress);
        }
        if let Some(pasid) = self.pasid {
            if pasid.width > 20 {
                return Err(Impossible::PasidWidth(pasid.width));
            }
            if !self.express.is_some_and(|(_, prefixes)| prefixes) {
                return Err(Impossible::NoPrefix);
            }
        }
        if let Some(pri) = self.pri {
            if self.ats.is_none() {
                return Err(Impossible::PriWithoutAts);
            }
            if pri.capacity == 0 {
                return Err(Impossible::NoCapacity);
            }
        }
        match self.ats {
            Some(ats) if ats.queue_depth > 31 => Err(Impossible::QueueDepth(ats.queue_depth)),
            _ => Ok(()),
        }
    }

    fn capabilities(&self, store: &mut Store, layout: &mut Layout) -> Result<(), Impossible> {
        let mut chain = Chain {
            next: reg::HEADER_END,
            end: reg::EXTENDED,
            link: reg::CAPABILITIES,
            extended: false,
        };
        if let Some((port, prefixes)) = self.express {
            let at = chain.place(store, 0x3c);
            place::express(store, at, port, prefixes);
            layout.express = Some(at);
        }
        if let Some(msix) = self.msix {
            place::check_msix(&msix, layout)?;
            let at = chain.place(store, 12);
            place::msix(store, at, &msix);
            layout.msix = Some(at);
            layout.interrupts.msix = msix.vectors;
        }
        if self.msi {
            let at = chain.place(store, 16);
            place::msi(store, at);
            layout.msi = Some(at);
            layout.interrupts.msi = 1;
        }
        for Plain { id, body, writable } in &self.plain {
            let size = u16::try_from(body.len() + 2).unwrap_or(u16::MAX);
            if size > 0xff || body.len() != writable.len() {
                return Err(Impossible::Capability(body.len()));
            }
            let at = chain.place(store, size.next_multiple_of(4));
            chain.check()?;
            store.define(at, &[*id]);
            store.define(at + 2, body);
            store.allow(at + 2, writable);
            layout.plain.push(at);
        }
        if chain.next > reg::HEADER_END {
            store.define(reg::STATUS, &bit::STATUS_CAPABILITIES.to_le_bytes());
        }
        chain.check()
    }

    fn extended(&self, store: &mut Store, layout: &mut Layout) -> Result<(), Impossible> {
        let mut chain = Chain {
            next: reg::EXTENDED,
            end: viommu_api::CONFIG_SIZE,
            link: 0,
            extended: true,
        };
        let header = |store: &mut Store, at: u16, id: u16| {
            store.define(at, &id.to_le_bytes());
            store.define(at + 2, &1u16.to_le_bytes());
        };
        if let Some(ats) = self.ats {
            let at = chain.place(store, 8);
            header(store, at, 0x000f);
            let global = u16::from(ats.global_invalidate) << 6;
            let capability = u16::from(ats.queue_depth) | 1 << 5 | global;
            store.define(at + 4, &capability.to_le_bytes());
            let control = bit::ATS_ENABLE | bit::ATS_STU;
            store.allow(at + reg::ATS_CONTROL, &control.to_le_bytes());
            layout.ats = Some(at);
        }
        if let Some(pri) = self.pri {
            let at = chain.place(store, 16);
            header(store, at, 0x0013);
            place::pri(store, at, &pri);
            layout.pri = Some(at);
        }
        if let Some(pasid) = self.pasid {
            let at = chain.place(store, 8);
            header(store, at, 0x001b);
            let modes = u16::from(pasid.execute) << 1 | u16::from(pasid.privileged) << 2;
            let capability = modes | u16::from(pasid.width) << 8;
            store.define(at + reg::PASID_CAPABILITY, &capability.to_le_bytes());
            let control = bit::PASID_ENABLE | modes;
            store.allow(at + reg::PASID_CONTROL, &control.to_le_bytes());
            layout.pasid = Some(at);
        }
        chain.check()
    }
}

#[cfg(test)]
mod tests;
