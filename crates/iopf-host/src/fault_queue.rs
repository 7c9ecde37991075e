//! The kernel's fault queue, as an object.

use crate::file::FaultFd;
use crate::iommufd::{Iommufd, Object};
use crate::request::Refused;
use crate::sys;
use std::sync::Arc;

/// Where page requests go that page tables could not serve. Tables that are made with it keep it.
///
/// It is apart from its descriptor, which goes to whoever reads it. Whichever of the two, and of the
/// tables, goes last takes the queue with it: while the descriptor is open, the kernel would not
/// destroy the object, so that a [`FaultFd`] closes it first and then lets go of the object.
#[derive(Clone, Debug)]
pub struct FaultQueueObject(Arc<Object>);

impl FaultQueueObject {
    /// An empty one, and its descriptor.
    ///
    /// # Errors
    /// The kernel's: `EMFILE`, `ENOMEM`; `ENOTTY` before Linux 6.11.
    pub fn new(iommufd: &Iommufd) -> Result<(Self, FaultFd), Refused> {
        let (id, descriptor) = sys::fault_queue(iommufd)?;
        let object = Object::new(iommufd, id, Vec::new());
        let file = FaultFd::of_object(descriptor, object.hold());
        Ok((Self(object), file))
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn object(&self) -> &Arc<Object> {
        &self.0
    }
}
