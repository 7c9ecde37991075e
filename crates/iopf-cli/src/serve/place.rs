//! Where firmware puts the registers, and the table that must say so.

use super::arch::Body;
use super::event::{Event, Events, Hex};
use endpoint::IommuFunction;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use viommu_api::{Interrupts, PciFunction};

/// Whose lines those about the table are.
const REGISTERS: &str = "the registers";

/// The file that QEMU reads the table from.
pub(super) struct Table {
    pub(super) path: PathBuf,
    body: Body,
    /// The address it says.
    base: Mutex<u64>,
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("path", &self.path)
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Table {
    /// Writes the table as `file` into `dir`.
    pub(super) fn new(dir: &Path, file: &str, base: u64, body: Body) -> io::Result<Self> {
        let table = Self {
            path: dir.join(file),
            body,
            base: Mutex::new(base),
        };
        table.write(base)?;
        Ok(table)
    }

    fn write(&self, base: u64) -> io::Result<()> {
        let body = (self.body)(base);
        // QEMU may be reading it: it finds the old table or the new one.
        let new = self.path.with_extension("new");
        fs::write(&new, body)?;
        fs::rename(&new, &self.path)
    }

    /// The registers are at `address`: says so, and puts the table right if it says otherwise.
    fn found(&self, address: u64, events: &Events) {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let said = Event::Bar {
            address: Hex(address),
            table: Hex(*base),
            fits: *base == address,
        };
        events.say_of(REGISTERS, said);
        if *base != address {
            if let Err(error) = self.write(address) {
                let said = Event::Refused {
                    function: self.path.display().to_string(),
                    why: error.to_string(),
                };
                events.say_of(REGISTERS, said);
            }
            *base = address;
        }
    }
}

/// The function with the registers, watched for where they are put.
pub(super) struct Placed {
    pub(super) function: Arc<IommuFunction>,
    pub(super) table: Arc<Table>,
    pub(super) events: Arc<Events>,
    /// Where they were seen last.
    pub(super) seen: Mutex<Option<u64>>,
}

impl PciFunction for Placed {
    fn bar_size(&self, bar: u8) -> u64 {
        self.function.bar_size(bar)
    }
    fn interrupts(&self) -> Interrupts {
        self.function.interrupts()
    }
    fn read_config(&self, offset: u16, data: &mut [u8]) {
        self.function.read_config(offset, data);
    }
    fn write_config(&self, offset: u16, data: &[u8]) {
        self.function.write_config(offset, data);
        // While a BAR is sized its registers do not answer, so it has no address.
        let Some(address) = self.function.bar_address() else {
            return;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != Some(address) {
            *seen = Some(address);
            self.table.found(address, &self.events);
        }
    }
    fn read_bar(&self, bar: u8, offset: u64, data: &mut [u8]) {
        self.function.read_bar(bar, offset, data);
    }
    fn write_bar(&self, bar: u8, offset: u64, data: &[u8]) {
        self.function.write_bar(bar, offset, data);
    }
    fn reset(&self) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.function.reset();
    }
}
