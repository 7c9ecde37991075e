//! What a transaction wants to do, or what a mapping allows.

use core::fmt;

bitflags::bitflags! {
    /// Rights, asked for or granted.
    ///
    /// The bit numbers are those of `IOMMU_FAULT_PERM_*` in Linux `include/linux/iommu.h` and of
    /// `IOMMU_PGFAULT_PERM_*` in its uAPI `iommufd.h`.
    #[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
    pub struct Access: u8 {
        /// Reads memory.
        const READ = 1;
        /// Writes memory.
        const WRITE = 2;
        /// Fetches instructions.
        const EXEC = 4;
        /// Privileged (supervisor) mode; absent means user mode.
        const PRIV = 8;
    }
}

impl Access {
    /// Reads and writes.
    pub const RW: Self = Self::READ.union(Self::WRITE);
}

impl fmt::Display for Access {
    /// The letters of the rights that are set, of `rwxp`; `-` where there are none.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = [
            (Self::READ, "r"),
            (Self::WRITE, "w"),
            (Self::EXEC, "x"),
            (Self::PRIV, "p"),
        ];
        let mut any = false;
        for (right, letter) in letters {
            if self.contains(right) {
                f.write_str(letter)?;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("-") }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Access({self})")
    }
}
