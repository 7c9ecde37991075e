//! An ACPI table, which must name the address that firmware gave the registers.

use crate::serve::event::{Event, Events, Hex};
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Where firmware of QEMU's q35 machine may put a BAR: a guess.
pub(super) const BASE: u64 = 0xfebf_0000;

/// The body of a table for registers at an address.
pub(in crate::serve) type Body = Box<dyn Fn(u64) -> Vec<u8> + Send + Sync>;

/// A table, as a guest knows it.
pub(in crate::serve) struct Acpi {
    /// Its signature.
    pub(in crate::serve) signature: &'static str,
    /// Its revision.
    pub(in crate::serve) revision: u8,
    /// Name of its file.
    pub(in crate::serve) file: &'static str,
    pub(in crate::serve) body: Body,
}

/// The file that QEMU reads the table from.
pub(in crate::serve) struct Table {
    pub(super) path: PathBuf,
    acpi: Acpi,
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
    /// Writes the table into `dir`.
    pub(super) fn new(acpi: Acpi, dir: &Path, base: u64) -> io::Result<Self> {
        let table = Self {
            path: dir.join(acpi.file),
            acpi,
            base: Mutex::new(base),
        };
        table.write(base)?;
        Ok(table)
    }

    fn write(&self, base: u64) -> io::Result<()> {
        let body = (self.acpi.body)(base);
        // QEMU may be reading it: it finds the old table or the new one.
        let new = self.path.with_extension("new");
        fs::write(&new, body)?;
        fs::rename(&new, &self.path)
    }

    /// The address it says.
    pub(super) fn base(&self) -> u64 {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What QEMU is to be told.
    pub(super) fn arguments(&self) -> Vec<String> {
        let Acpi {
            signature,
            revision,
            ..
        } = self.acpi;
        let table = format!(
            "sig={signature},rev={revision},oem_id=IOPF,oem_table_id=IOPF{signature},data={}",
            self.path.display()
        );
        vec!["-acpitable".to_owned(), table]
    }

    /// The registers are at `address`: says so, and puts the table right if it says otherwise.
    pub(super) fn found(&self, address: u64, events: &Events) {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = *base == address;
        let said = Event::Bar {
            address: Hex(address),
            table: Hex(*base),
            fits,
            corrected: !fits,
        };
        events.say_of(super::REGISTERS, said);
        if !fits {
            if let Err(error) = self.write(address) {
                let said = Event::Refused {
                    function: self.path.display().to_string(),
                    why: error.to_string(),
                };
                events.say_of(super::REGISTERS, said);
            }
            *base = address;
        }
    }
}
