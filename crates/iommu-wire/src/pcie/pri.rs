//! Page Request Interface.
//!
//! Source: PCI Express Base Specification, "Address Translation Services", "Page Request Message"
//! and "Page Request Group Response Message".

use bitfield_struct::bitfield;
use iopf::{Access, GroupIndex, Iova, PageRequest, Pasid, Response};

/// Message code of a TLP. Any byte is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MessageCode(pub u8);

impl MessageCode {
    /// Page Request Message.
    pub const PAGE_REQUEST: Self = Self(0x04);
    /// Page Request Group Response Message.
    pub const GROUP_RESPONSE: Self = Self(0x05);
}

/// Response code of a page request group. Any four bits are a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResponseCode(pub u8);

impl ResponseCode {
    /// Every page of the group is there: retry.
    pub const SUCCESS: Self = Self(0x0);
    /// Some page cannot be had: do not retry.
    pub const INVALID: Self = Self(0x1);
    /// Catastrophic: stop asking.
    pub const FAILURE: Self = Self(0xf);

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
    pub(crate) const fn into_bits(self) -> u8 {
        self.0
    }
}

impl From<ResponseCode> for Response {
    /// 2 to 0xe are unused; a device treats them as failure.
    fn from(code: ResponseCode) -> Self {
        match code {
            ResponseCode::SUCCESS => Self::Success,
            ResponseCode::INVALID => Self::Invalid,
            _ => Self::Failure,
        }
    }
}

impl From<Response> for ResponseCode {
    fn from(response: Response) -> Self {
        match response {
            Response::Success => Self::SUCCESS,
            Response::Invalid => Self::INVALID,
            Response::Failure => Self::FAILURE,
        }
    }
}

/// The third and fourth doubleword of a Page Request Message, as one 64-bit number.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct RawPageRequest {
    /// `[0]` R: wants to read.
    pub read: bool,
    /// `[1]` W: wants to write.
    pub write: bool,
    /// `[2]` L: last of its group.
    pub last: bool,
    /// `[11:3]` page request group index.
    #[bits(9)]
    pub group: u16,
    /// `[63:12]` page number.
    #[bits(52)]
    pub page: u64,
}

/// What a Page Request Message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageMessage {
    /// A page is asked for.
    Request(PageRequest),
    /// No earlier request of this PASID is still under way. Never answered.
    StopMarker {
        /// The address space that stopped.
        pasid: Option<Pasid>,
    },
}

impl PageMessage {
    /// Reads a message whose TLP prefix named `pasid` and asked for `rights` beyond read and
    /// write ([`Access::EXEC`], [`Access::PRIV`]; others are dropped).
    #[must_use]
    pub fn decode(raw: RawPageRequest, pasid: Option<Pasid>, rights: Access) -> Self {
        if raw.last() && !raw.read() && !raw.write() {
            return Self::StopMarker { pasid };
        }
        let mut access = rights.intersection(Access::EXEC.union(Access::PRIV));
        access.set(Access::READ, raw.read());
        access.set(Access::WRITE, raw.write());
        Self::Request(PageRequest {
            pasid,
            group: GroupIndex(u32::from(raw.group())),
            addr: Iova(raw.page() << 12),
            access,
            last: raw.last(),
            response_needs_pasid: pasid.is_some(),
            private_data: [0; 2],
        })
    }

    /// The message that says this. A group index keeps its low 9 bits, an address its page.
    #[must_use]
    pub fn encode(&self) -> RawPageRequest {
        match self {
            Self::StopMarker { .. } => RawPageRequest::new().with_last(true),
            Self::Request(request) => RawPageRequest::new()
                .with_read(request.access.contains(Access::READ))
                .with_write(request.access.contains(Access::WRITE))
                .with_last(request.last)
                .with_group(group_bits(request.group))
                .with_page(request.addr.0 >> 12),
        }
    }
}

/// The 9 bits that the wire has for a group index.
#[must_use]
pub const fn group_bits(group: GroupIndex) -> u16 {
    let [low, high, ..] = group.0.to_le_bytes();
    u16::from_le_bytes([low, high & 1])
}

/// The third doubleword of a Page Request Group Response Message.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct RawGroupResponse {
    /// `[8:0]` page request group index.
    #[bits(9)]
    pub group: u16,
    #[bits(3)]
    _res: u8,
    /// `[15:12]` response code.
    #[bits(4, default = ResponseCode::SUCCESS)]
    pub code: ResponseCode,
    /// `[31:16]` destination requester ID.
    pub destination: u16,
}

#[cfg(test)]
mod tests;
