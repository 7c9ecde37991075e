//! What one message says, whichever IOMMU it is of.

use std::borrow::Cow;

use iopf::{Iova, Pasid};

use super::dump::Dump;
use super::normal::{Arch, Detail, Flags, Kind, Wanted};
use crate::capture::Device;

/// The fields that a message states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(crate) arch: Arch,
    pub(crate) kind: Kind,
    pub(crate) iommu: Option<String>,
    pub(crate) device: Option<Device>,
    pub(crate) pasid: Option<Pasid>,
    pub(crate) address: Option<Iova>,
    pub(crate) access: Wanted,
    pub(crate) privileged: Option<bool>,
    pub(crate) code: Option<u32>,
    pub(crate) name: Option<Cow<'static, str>>,
    pub(crate) index: Option<u32>,
    pub(crate) flags: Option<Flags>,
    pub(crate) client: Option<String>,
    pub(crate) detail: Option<Detail>,
    /// A table or command that the message itself holds.
    pub(crate) dump: Option<Dump>,
}

impl Fields {
    pub(super) const fn new(arch: Arch, kind: Kind) -> Self {
        Self {
            arch,
            kind,
            iommu: None,
            device: None,
            pasid: None,
            address: None,
            access: Wanted::Unknown,
            privileged: None,
            code: None,
            name: None,
            index: None,
            flags: None,
            client: None,
            detail: None,
            dump: None,
        }
    }
}

/// What could be made of the text of one message.
#[derive(Clone, Debug)]
pub(super) struct Scan {
    pub(super) fields: Fields,
    /// How many of the message's parts were found. It grows as text is added that belongs.
    pub(super) parts: u32,
    /// Where the message's last part ends.
    pub(super) end: usize,
    /// The message may go on in text that is not here yet.
    pub(super) open: bool,
    /// The reason, the last part, is not here yet.
    pub(super) wants_reason: bool,
    /// Where the last text ends that is no part of the message although parts follow it.
    pub(super) gap: usize,
    /// The text ends with a number, of which more digits may come.
    pub(super) number_at_end: bool,
    /// It is the source code or a pattern of a message, not a message.
    pub(super) template: bool,
    /// What was read is no message unless more of it comes.
    pub(super) doubtful: bool,
}

impl Scan {
    /// At least one value was read, or the event's name.
    pub(super) const fn says_something(&self) -> bool {
        let fields = &self.fields;
        fields.device.is_some()
            || fields.address.is_some()
            || fields.index.is_some()
            || fields.code.is_some()
    }
}
