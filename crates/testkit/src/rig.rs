//! One static program in a guest of its own, on our own kernel.

use crate::guest::{Builder, Guest, GuestError, Stream};
use crate::kernel::own;
use object::read::elf::ElfFile64;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where the program is in the guest.
const PROGRAM: &str = "/bin";

/// How long a program may run when nobody says; a slow machine's whole self-test takes a minute.
const PATIENCE: Duration = Duration::from_secs(600);

/// A program to run, and what its guest is.
#[derive(Clone, Debug)]
pub struct Rig {
    builder: Builder,
    words: Vec<OsString>,
    huge_pages: u32,
    patience: Duration,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code. A signal counts as 128 and its number, as for a shell.
    pub code: i32,
    /// How long the guest took from power-on to its first process.
    pub boot: Duration,
    /// How long the program took, boot left out.
    pub ran: Duration,
}

/// Why a program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RigError {
    /// A file could not be read.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The guest has no C library and no loader.
    #[error(
        "{0} is not a static program of x86-64; link it with -static, or build it with \
         RUSTFLAGS='-C target-feature=+crt-static' for x86_64-unknown-linux-gnu"
    )]
    Dynamic(PathBuf),
    /// The guest, or what it is made of.
    #[error(transparent)]
    Guest(#[from] GuestError),
}

impl Rig {
    /// A rig for the static program at this path, without arguments.
    ///
    /// # Errors
    /// Where there is no kernel, or the program cannot be read or is not static.
    pub fn new(program: &Path) -> Result<Self, RigError> {
        let kernel = own().map_err(GuestError::from)?;
        let data = read(program)?;
        if !is_static(&data) {
            return Err(RigError::Dynamic(program.to_owned()));
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let place = format!("{PROGRAM}/{name}");
        let builder = Guest::builder(kernel);
        Ok(Self {
            builder: builder.file(&place, data),
            words: vec![place.into()],
            huge_pages: 0,
            patience: PATIENCE,
        })
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, word: impl Into<OsString>) -> Self {
        self.words.push(word.into());
        self
    }

    /// Changes the guest.
    #[must_use]
    pub fn guest(mut self, change: impl FnOnce(Builder) -> Builder) -> Self {
        self.builder = change(self.builder);
        self
    }

    /// Puts a file of this machine into the guest, executable.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn file(mut self, from: &Path, to: &str) -> Result<Self, RigError> {
        self.builder = self.builder.file(to, read(from)?);
        Ok(self)
    }

    /// Sets so many huge pages of 2 MiB aside.
    #[must_use]
    pub fn huge_pages(mut self, count: u32) -> Self {
        self.huge_pages = count;
        self
    }

    /// How long the program may run; ten minutes when not said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Boots, runs the program and ends the guest. `up` is told when the guest is up, and how long
    /// it took; each line of the program as it comes.
    ///
    /// # Errors
    /// As [`Guest::exec`] and [`Builder::boot`].
    pub fn run(
        &self,
        up: impl FnOnce(&Guest, Duration),
        each: &mut dyn FnMut(Stream, &str),
    ) -> Result<Ended, RigError> {
        let started = Instant::now();
        let guest = self.builder.boot()?;
        let boot = started.elapsed();
        up(&guest, boot);
        if self.huge_pages > 0 {
            guest.must(&format!(
                "write /proc/sys/vm/nr_hugepages {}",
                self.huge_pages
            ))?;
        }
        let started = Instant::now();
        let code = guest.exec(&self.words, self.patience, each)?;
        Ok(Ended {
            code,
            boot,
            ran: started.elapsed(),
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RigError> {
    fs::read(path).map_err(|error| RigError::File {
        path: path.to_owned(),
        error,
    })
}

/// Whether an ELF file of x86-64 runs without a loader.
fn is_static(data: &[u8]) -> bool {
    use object::elf::{EM_X86_64, FileHeader64, PT_INTERP};
    use object::read::elf::{FileHeader as _, ProgramHeader as _};
    let Ok(file) = ElfFile64::<object::Endianness>::parse(data) else {
        return false;
    };
    let (header, endian) = (file.elf_header(), file.endian());
    let _: &FileHeader64<_> = header;
    let wants_loader =
        |segment: &object::elf::ProgramHeader64<_>| segment.p_type(endian) == PT_INTERP;
    header.e_machine(endian) == EM_X86_64 && !file.elf_program_headers().iter().any(wants_loader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_refused_by_name() {
        let own = std::env::current_exe().unwrap();
        assert!(!is_static(&fs::read(own).unwrap()));
        assert!(!is_static(b"#!/bin/sh\n"));
        let text = RigError::Dynamic("a".into()).to_string();
        assert!(text.starts_with("a is not a static program"), "{text}");
    }
}
