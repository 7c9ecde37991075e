//! The JSON that comes with VERSION.
//!
//! Spec: vfio-user, "VFIO_USER_VERSION". A capability that is not named has its default.

use super::{Limits, Refusal};
use serde::{Deserialize, Serialize};

/// Descriptors a message may carry to a peer that names no number.
pub const DEFAULT_MAX_FDS: u64 = 1;
/// Bytes of data a message may carry to a peer that names no number.
pub const DEFAULT_MAX_TRANSFER: u64 = 1 << 20;
/// Ranges that may be mapped with a peer that names no number.
pub const DEFAULT_MAX_MAPS: u64 = 65535;

/// What a peer says of itself. Names that we don't act on are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Descriptors that the sender takes in one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_msg_fds: Option<u64>,
    /// Bytes of data that the sender takes in one message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_data_xfer_size: Option<u64>,
    /// Ranges that may be mapped at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dma_maps: Option<u64>,
    /// Page sizes of maps, one bit each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pgsizes: Option<u64>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Document {
    #[serde(default)]
    capabilities: Capabilities,
}

impl Capabilities {
    /// Reads version data. Nothing at all is allowed and names no capability.
    ///
    /// # Errors
    /// When the data lacks its final NUL, is longer than the limit, or is not a JSON object of the
    /// expected kind.
    pub fn decode(data: &[u8], limits: &Limits) -> Result<Self, Refusal> {
        if data.is_empty() {
            return Ok(Self::default());
        }
        if data.len() > limits.max_version as usize {
            return Err(Refusal::VersionData("longer than the limit"));
        }
        let Some((0, json)) = data.split_last() else {
            return Err(Refusal::VersionData("no NUL at its end"));
        };
        let document: Document = serde_json::from_slice(json)
            .map_err(|_| Refusal::VersionData("not a JSON object with numbers"))?;
        Ok(document.capabilities)
    }

    /// The version data, its final NUL included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let document = Document {
            capabilities: *self,
        };
        // Four optional numbers always serialize; were it not so, no data is valid data.
        let mut data = serde_json::to_vec(&document).unwrap_or_default();
        data.push(0);
        data
    }

    /// What this side says of itself to a peer that said `self`: "a subset of those proposed".
    #[must_use]
    pub fn answer(&self, limits: &Limits) -> Self {
        Self {
            max_msg_fds: self.max_msg_fds.map(|_| limits.max_fds.into()),
            max_data_xfer_size: self.max_data_xfer_size.map(|_| limits.max_transfer.into()),
            max_dma_maps: self.max_dma_maps.map(|_| limits.max_maps.into()),
            pgsizes: self.pgsizes.map(|_| super::PAGE),
        }
    }
}
