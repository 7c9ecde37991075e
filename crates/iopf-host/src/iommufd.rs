//! An open `/dev/iommu`, and the objects in it.

use crate::sys;
use iommufd_bindings::iommu_destroy;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::any::Any;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use thiserror::Error;

#[cfg(test)]
pub(crate) mod tests;

/// Where iommufd is.
const DEVICE: &str = "/dev/iommu";

/// Where the kernel lists small devices, one `MINOR NAME` a line.
const MISC: &str = "/proc/misc";

/// Why there is no iommufd.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The kernel has no iommufd, whether or not there is a node.
    #[error("{}: this kernel has no iommufd: CONFIG_IOMMUFD is off, or the module iommufd is not loaded", path.display())]
    NoIommufd {
        /// What was opened.
        path: PathBuf,
    },
    /// The kernel has iommufd, but there is no node of it here.
    #[error("{}: no such node, though this kernel has iommufd (misc device {minor}): devtmpfs or a container keeps it away", path.display())]
    NoNode {
        /// What was opened.
        path: PathBuf,
        /// The minor number, below major 10.
        minor: u32,
    },
    /// The kernel has iommufd, but the node here is of a device that it does not have.
    #[error("{}: not the node of iommufd (misc device {minor}), and of nothing else", path.display())]
    WrongNode {
        /// What was opened.
        path: PathBuf,
        /// The minor number that it should have, below major 10.
        minor: u32,
    },
    /// Permission.
    #[error("{}: {errno}: who opens it must be able to read and write it", path.display())]
    NotAllowed {
        /// What was opened.
        path: PathBuf,
        /// `EACCES` by the node's mode, `EPERM` by a device filter.
        errno: Errno,
    },
    /// Somebody else has it.
    #[error("{}: busy", path.display())]
    Busy {
        /// What was opened.
        path: PathBuf,
    },
    /// No descriptor is left.
    #[error("{}: {errno}: raise {}", path.display(), if *errno == Errno::MFILE { "RLIMIT_NOFILE" } else { "fs.file-max" })]
    TooManyFiles {
        /// What was opened.
        path: PathBuf,
        /// `EMFILE` for the process, `ENFILE` for the machine.
        errno: Errno,
    },
    /// Anything else.
    #[error("{}: {errno}", path.display())]
    Other {
        /// What was opened.
        path: PathBuf,
        /// What open(2) said.
        errno: Errno,
    },
}

impl OpenError {
    /// From what open(2) said and the kernel's list of small devices.
    fn from_open(path: &Path, errno: Errno, misc: &str) -> Self {
        let path = path.to_owned();
        let minor = misc.lines().find_map(|line| {
            let (minor, name) = line.trim().split_once(' ')?;
            (name.trim() == "iommu").then(|| minor.parse().ok())?
        });
        match (errno, minor) {
            (Errno::NOENT, Some(minor)) => Self::NoNode { path, minor },
            (Errno::NODEV | Errno::NXIO, Some(minor)) => Self::WrongNode { path, minor },
            (Errno::NOENT | Errno::NODEV | Errno::NXIO, None) => Self::NoIommufd { path },
            (Errno::ACCESS | Errno::PERM, _) => Self::NotAllowed { path, errno },
            (Errno::BUSY, _) => Self::Busy { path },
            (Errno::MFILE | Errno::NFILE, _) => Self::TooManyFiles { path, errno },
            (errno, _) => Self::Other { path, errno },
        }
    }
}

/// An open `/dev/iommu`: the name space of the objects that are made in it. Cheap to clone; each
/// object holds one.
#[derive(Clone, Debug)]
pub struct Iommufd(Arc<Context>);

#[derive(Debug)]
struct Context {
    file: OwnedFd,
    left_behind: AtomicU64,
    #[cfg(test)]
    gone: std::sync::Mutex<Vec<u32>>,
}

impl Iommufd {
    /// Opens it.
    ///
    /// # Errors
    /// What is missing.
    pub fn open() -> Result<Self, OpenError> {
        Self::open_at(Path::new(DEVICE))
    }

    /// Opens it where it has another name.
    ///
    /// # Errors
    /// What is missing.
    pub fn open_at(path: &Path) -> Result<Self, OpenError> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => Ok(file.into()),
            Err(errno) => {
                // Where the list cannot be read, it says nothing.
                let misc = std::fs::read_to_string(MISC).unwrap_or_default();
                Err(OpenError::from_open(path, errno, &misc))
            }
        }
    }

    /// Objects that the kernel would not destroy when their handle was dropped. They go when the
    /// last descriptor of this iommufd is closed.
    ///
    /// 0 as long as all objects are made by this crate: its handles hold what they stand on. Two
    /// cases remain: devices of one IOMMU group, of which one changed the tables of all, and
    /// descriptors that were duplicated or inherited.
    #[must_use]
    pub fn left_behind(&self) -> u64 {
        self.0.left_behind.load(Ordering::Relaxed)
    }

    fn destroy(&self, id: u32) {
        #[cfg(test)]
        self.0.gone.lock().unwrap().push(id);
        let mut block = iommu_destroy {
            id,
            ..Default::default()
        };
        // No reason to unwind: the kernel frees what is left when the last descriptor is closed.
        if sys::call(self, &mut block).is_err() {
            self.0.left_behind.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// An iommufd that somebody else has opened and passed on. That it is one shows with the first
/// request.
impl From<OwnedFd> for Iommufd {
    fn from(file: OwnedFd) -> Self {
        Self(Arc::new(Context {
            file,
            left_behind: AtomicU64::new(0),
            #[cfg(test)]
            gone: std::sync::Mutex::default(),
        }))
    }
}

impl AsFd for Iommufd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.file.as_fd()
    }
}

/// Keeps something in existence for as long as an object needs it.
#[derive(Clone)]
pub struct Hold(
    #[expect(dead_code, reason = "it is there to be dropped")] Arc<dyn Any + Send + Sync>,
);

impl<T: Any + Send + Sync> From<Arc<T>> for Hold {
    fn from(held: Arc<T>) -> Self {
        Self(held)
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// An object that is destroyed with its last handle.
///
/// Drop order: the object is destroyed first; then it lets go of what it stands on, which may so be
/// destroyed in turn; then of the iommufd.
#[derive(Debug)]
pub(crate) struct Object {
    id: u32,
    // Fields drop in the order written, after `drop` below.
    _holds: Vec<Hold>,
    iommufd: Iommufd,
}

impl Object {
    /// The object that the kernel has just made under this number.
    pub(crate) fn new(iommufd: &Iommufd, id: u32, holds: Vec<Hold>) -> Arc<Self> {
        Arc::new(Self {
            id,
            _holds: holds,
            iommufd: iommufd.clone(),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn iommufd(&self) -> &Iommufd {
        &self.iommufd
    }

    /// One more user of the object.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.clone().into()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        self.iommufd.destroy(self.id);
    }
}

/// A device that is bound to an iommufd.
pub trait Device {
    /// Its number there.
    fn id(&self) -> iopf::engine::DeviceId;

    /// Keeps it bound.
    fn hold(&self) -> Hold;
}
