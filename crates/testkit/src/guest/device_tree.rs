//! The device tree of a machine, as QEMU writes it.
//!
//! Source: Devicetree specification v0.4, "Flattened Devicetree (DTB) Format", "Header".

/// The word that a blob starts with, as all words of it most significant byte first.
const MAGIC: u32 = 0xd00d_feed;

/// Where the header has the size of the blob in bytes.
const TOTAL_SIZE: usize = 4;

/// Where the header has the offset and the size in bytes of the structure block and of the strings.
const BLOCKS: [(usize, usize); 2] = [(8, 36), (12, 32)];

/// A blob without the room at its end, of which QEMU leaves a mebibyte: it makes twice the room where it
/// takes one with `-dtb`, and Linux's limit on arm64 is 2 MiB (Documentation/arch/arm64/booting.rst).
/// `None` where it is no blob.
pub(super) fn packed(mut blob: Vec<u8>) -> Option<Vec<u8>> {
    let word = |at: usize| {
        let bytes = blob.get(at..at + 4)?;
        bytes.try_into().ok().map(u32::from_be_bytes)
    };
    if word(0)? != MAGIC {
        return None;
    }
    let mut used = 0;
    for (offset, size) in BLOCKS {
        used = used.max(word(offset)?.checked_add(word(size)?)?);
    }
    let end = usize::try_from(used).ok()?;
    blob.get_mut(TOTAL_SIZE..TOTAL_SIZE + 4)?
        .copy_from_slice(&used.to_be_bytes());
    if end > blob.len() {
        return None;
    }
    blob.truncate(end);
    Some(blob)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A blob of 0x100 bytes: the structure block is 0x20 bytes from 0x38 on, the strings are 5 behind it.
    fn blob() -> Vec<u8> {
        let mut blob = Vec::new();
        for word in [0xd00d_feed_u32, 0x100, 0x38, 0x58, 0x28, 17, 16, 0, 5, 0x20] {
            blob.extend(word.to_be_bytes());
        }
        blob.resize(0x100, 0);
        blob
    }

    #[test]
    fn a_blob_ends_with_its_last_block_and_says_so() {
        let packed = packed(blob()).unwrap();
        assert_eq!(packed.len(), 0x5d);
        assert_eq!(packed[4..8], [0, 0, 0, 0x5d]);
        assert_eq!(packed[8..], blob()[8..0x5d]);
    }

    #[test]
    fn what_is_cut_off_or_no_blob_is_refused() {
        assert_eq!(packed(blob()[..0x50].to_vec()), None);
        assert_eq!(packed(blob()[..6].to_vec()), None);
        assert_eq!(packed(vec![0; 0x100]), None);
    }
}
