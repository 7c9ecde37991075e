//! Files that peers pass: what is admitted, and one open descriptor for each.

use super::{MapError, MapLimits, Range};
use rustix::fs::{FileType, OFlags, SealFlags, fcntl_get_seals, fcntl_getfl, fstat, fstatfs};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The file system of huge pages, `<linux/magic.h>`.
const HUGETLBFS: i64 = 0x9584_58f6;

/// An admitted file. Two are the same when their keys are.
#[derive(Clone, Debug)]
pub(super) struct Backing {
    pub(super) file: Arc<File>,
    pub(super) key: Key,
}

/// Device and inode, and what the descriptor may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    device: u64,
    inode: u64,
    mode: u32,
}

/// The files of one guest: however many ranges and connections name a file, one descriptor is kept.
#[derive(Debug, Default)]
pub(super) struct Files(Vec<Backing>);

impl Files {
    /// Checks the descriptor that came with `range`.
    pub(super) fn admit(
        &mut self,
        descriptor: OwnedFd,
        range: &Range,
        limits: &MapLimits,
    ) -> Result<Backing, MapError> {
        let address = range.address;
        let refused = |errno: rustix::io::Errno| MapError::Refused {
            address,
            errno: errno.raw_os_error(),
        };
        let stat = fstat(&descriptor).map_err(refused)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(MapError::NotAFile { address });
        }
        // The codec has checked that this does not wrap.
        let need = range.offset.saturating_add(range.size);
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        if len < need {
            return Err(MapError::FileTooShort { address, len, need });
        }
        // Only memory files have seals; asking another file is an error.
        let sealed = fcntl_get_seals(&descriptor).is_ok_and(|s| s.contains(SealFlags::SHRINK));
        if !sealed && !limits.trust_unsealed {
            return Err(MapError::Unsealed { address });
        }
        let huge = fstatfs(&descriptor).map_err(refused)?.f_type == HUGETLBFS;
        if huge && !limits.trust_unsealed {
            return Err(MapError::HugePages { address });
        }
        let mode = fcntl_getfl(&descriptor).map_err(refused)? & OFlags::RWMODE;
        let key = Key {
            device: stat.st_dev,
            inode: stat.st_ino,
            mode: mode.bits(),
        };
        if let Some(known) = self.0.iter().find(|backing| backing.key == key) {
            return Ok(known.clone());
        }
        let limit = limits.max_files;
        self.forget_unused();
        if self.0.len() >= limit {
            return Err(MapError::TooManyFiles { limit });
        }
        let backing = Backing {
            file: Arc::new(File::from(descriptor)),
            key,
        };
        self.0.push(backing.clone());
        Ok(backing)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Closes what no range and no access needs any more.
    pub(super) fn forget_unused(&mut self) {
        self.0
            .retain(|backing| Arc::strong_count(&backing.file) > 1);
    }
}
