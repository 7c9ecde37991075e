//! Bytes and meaning of vfio-user messages, both directions. No I/O, no allocation but for JSON.
//!
//! Spec: QEMU, "docs/interop/vfio-user.rst", version 0.0, "Protocol Specification". Decoding is
//! total: any bytes give a value or a [`Refusal`]. Integers are in the byte order of the host, as the
//! specification says.

mod header;
mod limits;
mod names;
mod payload;
mod refusal;
mod reply;
mod request;
mod version;

pub use header::{Command, Errno, HEADER_SIZE, Header, HeaderError, Kind};
pub use limits::Limits;
pub use names::{IrqAction, IrqData, IrqIndex, MapAccess, Region};
pub use payload::{
    DeviceInfo, DmaAccess, DmaMap, DmaUnmap, IrqInfo, IrqSet, RawHeader, RawVersion, RegionAccess,
    RegionInfo,
};
pub use refusal::Refusal;
pub(crate) use reply::encode_region_read;
pub use reply::{Reply, decode_reply, encode_reply};
pub(crate) use request::PAGE;
pub use request::{Request, decode_request, encode_request};
pub use version::{Capabilities, DEFAULT_MAX_FDS, DEFAULT_MAX_MAPS, DEFAULT_MAX_TRANSFER};

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests;
