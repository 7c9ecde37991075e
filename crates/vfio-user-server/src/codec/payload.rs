//! Layouts of what follows the header. Nothing but layouts.
//!
//! Spec: vfio-user, the section named at each; offsets count from the end of the header. Several are
//! the blocks of `<linux/vfio.h>` under another name.

use zerocopy::native_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

macro_rules! layout {
    ($(#[$doc:meta])* $name:ident, $size:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
        )]
        #[repr(C)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

layout! {
    /// "Header".
    RawHeader, 16 {
        /// 0: the sender's number.
        id: U16,
        /// 2: the command.
        command: U16,
        /// 4: bytes of the message, header included.
        size: U32,
        /// 8: `[3:0]` type, `[4]` no reply, `[5]` error.
        flags: U32,
        /// 12: error number of a reply.
        error: U32,
    }
}

layout! {
    /// "VFIO_USER_VERSION", request and reply; JSON with a final NUL may follow.
    RawVersion, 4 {
        /// 0: major version.
        major: U16,
        /// 2: minor version.
        minor: U16,
    }
}

layout! {
    /// "VFIO_USER_DMA_MAP", request.
    DmaMap, 32 {
        /// 0: bytes of this structure.
        argsz: U32,
        /// 4: `[0]` readable, `[1]` writeable.
        flags: U32,
        /// 8: where the range begins in the file of the descriptor.
        offset: U64,
        /// 16: first address.
        address: U64,
        /// 24: bytes.
        size: U64,
    }
}

layout! {
    /// "VFIO_USER_DMA_UNMAP", request and reply.
    DmaUnmap, 24 {
        /// 0: bytes the reply may have.
        argsz: U32,
        /// 4: `[0]` dirty bitmap, `[1]` everything (`<linux/vfio.h>`).
        flags: U32,
        /// 8: first address.
        address: U64,
        /// 16: bytes.
        size: U64,
    }
}

layout! {
    /// "VFIO_USER_DEVICE_GET_INFO", request and reply.
    DeviceInfo, 16 {
        /// 0: bytes the reply may have, or has.
        argsz: U32,
        /// 4: `[0]` can be reset, `[1]` is a PCI device.
        flags: U32,
        /// 8: number of regions.
        num_regions: U32,
        /// 12: kinds of interrupt.
        num_irqs: U32,
    }
}

layout! {
    /// "VFIO_USER_DEVICE_GET_REGION_INFO", request and reply.
    RegionInfo, 32 {
        /// 0: bytes the reply may have, or has.
        argsz: U32,
        /// 4: `[0]` readable, `[1]` writeable, `[2]` mappable, `[3]` capabilities follow.
        flags: U32,
        /// 8: which region.
        index: U32,
        /// 12: where capabilities begin.
        cap_offset: U32,
        /// 16: bytes of the region.
        size: U64,
        /// 24: offset for mapping.
        offset: U64,
    }
}

layout! {
    /// "VFIO_USER_DEVICE_GET_IRQ_INFO", request and reply.
    IrqInfo, 16 {
        /// 0: bytes the reply may have, or has.
        argsz: U32,
        /// 4: `[0]` by eventfd, `[1]` maskable, `[2]` masked when raised, `[3]` not resizable.
        flags: U32,
        /// 8: which kind.
        index: U32,
        /// 12: number of vectors.
        count: U32,
    }
}

layout! {
    /// "VFIO_USER_DEVICE_SET_IRQS", request; one byte a vector may follow.
    IrqSet, 20 {
        /// 0: bytes of this structure and what follows it.
        argsz: U32,
        /// 4: `[2:0]` what the data is, `[5:3]` what to do.
        flags: U32,
        /// 8: which kind.
        index: U32,
        /// 12: first vector.
        start: U32,
        /// 16: number of vectors.
        count: U32,
    }
}

layout! {
    /// "VFIO_USER_REGION_READ" and "VFIO_USER_REGION_WRITE", request and reply; data may follow.
    RegionAccess, 16 {
        /// 0: first byte in the region.
        offset: U64,
        /// 8: which region.
        region: U32,
        /// 12: bytes.
        count: U32,
    }
}

layout! {
    /// "VFIO_USER_DMA_READ" and "VFIO_USER_DMA_WRITE", request and reply; data may follow.
    DmaAccess, 16 {
        /// 0: first address.
        address: U64,
        /// 8: bytes.
        count: U64,
    }
}
