//! `.json.gz`, within bounds.

use super::error::{CaptureError, Problem};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use std::borrow::Cow;
use std::io::{Read, Write};

/// RFC 1952, "Member header and trailer": ID1, ID2, and the only method, deflate.
const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];

/// The byte order mark that some editors put before a text.
const MARK: char = '\u{feff}';

/// The text of `bytes`, unpacked where they start like gzip; at most `limit` bytes.
///
/// Unpacking stops at the limit, whatever the file promises: a bomb costs `limit` bytes.
pub(super) fn text(bytes: &[u8], limit: usize) -> Result<Cow<'_, str>, Box<CaptureError>> {
    if bytes.len() > limit {
        return Err(CaptureError::whole(Problem::TooLarge(limit)));
    }
    if bytes.starts_with(&MAGIC) {
        let plain = unpack(bytes, limit)?;
        let text = String::from_utf8(plain).map_err(|_| CaptureError::whole(Problem::NotText))?;
        not_empty(&text)?;
        return Ok(match text.strip_prefix(MARK) {
            Some(rest) => Cow::Owned(rest.to_owned()),
            None => Cow::Owned(text),
        });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| CaptureError::whole(Problem::NotText))?;
    not_empty(text)?;
    Ok(Cow::Borrowed(text.strip_prefix(MARK).unwrap_or(text)))
}

fn unpack(bytes: &[u8], limit: usize) -> Result<Vec<u8>, Box<CaptureError>> {
    let mut plain = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(bytes)
        .take(bound)
        .read_to_end(&mut plain)
        .map_err(|error| CaptureError::whole(Problem::Gzip(Problem::quote(&error.to_string()))))?;
    if plain.len() > limit {
        return Err(CaptureError::whole(Problem::TooLarge(limit)));
    }
    Ok(plain)
}

fn not_empty(text: &str) -> Result<(), Box<CaptureError>> {
    if text.trim().is_empty() {
        return Err(CaptureError::whole(Problem::Empty));
    }
    Ok(())
}

/// `text` as one gzip member without a name or a time, so that equal captures are equal files.
pub(super) fn pack(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    // Neither call can fail on a vector.
    let _ = encoder.write_all(text);
    encoder.finish().unwrap_or_default()
}
