//! The guest's first file system, an archive in the "newc" format.
//!
//! Source: Linux Documentation/driver-api/early-userspace/buffer-format.rst.

use cpio::newc;
use std::collections::BTreeSet;
use std::io::{self, Write as _};

/// File types of `st_mode`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// An archive that is being written.
pub(super) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            directories: BTreeSet::new(),
            inode: 0,
        }
    }

    /// Adds a file, and the directories it is in. Everyone may execute it.
    pub(super) fn file(&mut self, path: &str, data: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        for (at, _) in path.match_indices('/') {
            let directory = &path[..at];
            if self.directories.insert(directory.to_owned()) {
                self.entry(directory, DIRECTORY | 0o755, &[])?;
            }
        }
        self.entry(path, REGULAR | 0o755, data)
    }

    fn entry(&mut self, path: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        let len = u32::try_from(data.len())
            .map_err(|_| io::Error::other(format!("{path} is over 4 GiB")))?;
        self.inode += 1;
        let entry = newc::Builder::new(path).ino(self.inode).mode(mode).nlink(1);
        let mut writer = entry.write(&mut self.bytes, len);
        writer.write_all(data)?;
        writer.finish()?;
        Ok(())
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> io::Result<Vec<u8>> {
        newc::trailer(&mut self.bytes)?;
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::new();
        archive.file("/init", b"agent").unwrap();
        archive.file("/lib/modules/a.ko", b"a").unwrap();
        archive.file("/lib/modules/b.ko", b"b").unwrap();
        let bytes = archive.finish().unwrap();
        let (mut rest, mut names) = (&bytes[..], Vec::new());
        loop {
            let reader = newc::Reader::new(rest).unwrap();
            if reader.entry().is_trailer() {
                break;
            }
            let entry = reader.entry();
            names.push(format!(
                "{:o} {} {}",
                entry.mode(),
                entry.name(),
                entry.file_size()
            ));
            rest = reader.finish().unwrap();
        }
        let expected = [
            "100755 init 5",
            "40755 lib 0",
            "40755 lib/modules 0",
            "100755 lib/modules/a.ko 1",
            "100755 lib/modules/b.ko 1",
        ];
        assert_eq!(names, expected);
    }
}
