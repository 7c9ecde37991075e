//! Why a unit cannot be made as its maker states it.

/// Why a configuration is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// A number lies outside what the field says.
    #[error("{field} cannot be {value}")]
    OutOfRange {
        /// The field of the configuration.
        field: &'static str,
        /// What it holds.
        value: u64,
    },
    /// Something is asked for without what it builds on.
    #[error("{what} needs {needs}")]
    Without {
        /// The field that is set.
        what: &'static str,
        /// The field that is not.
        needs: &'static str,
    },
    /// The registers claim what the model does not do, or miss what it cannot leave out.
    #[error("{register} bit {bit} cannot be {set}")]
    NotModelled {
        /// The register, by the specification's name.
        register: &'static str,
        /// The first such bit.
        bit: u32,
        /// What it is.
        set: bool,
    },
}

/// A number in `from..=to`.
pub(crate) fn range(field: &'static str, value: u64, from: u64, to: u64) -> Result<(), Refused> {
    if (from..=to).contains(&value) {
        Ok(())
    } else {
        Err(Refused::OutOfRange { field, value })
    }
}

/// Nothing without what it builds on.
pub(crate) fn needs(
    what: &'static str,
    wanted: bool,
    needs: &'static str,
    there: bool,
) -> Result<(), Refused> {
    if wanted && !there {
        Err(Refused::Without { what, needs })
    } else {
        Ok(())
    }
}

/// A register as the model has it, bits that are `free` apart.
pub(crate) fn differs(
    register: &'static str,
    theirs: u64,
    ours: u64,
    free: u64,
) -> Result<(), Refused> {
    let differ = (theirs ^ ours) & !free;
    if differ == 0 {
        return Ok(());
    }
    let bit = differ.trailing_zeros();
    Err(Refused::NotModelled {
        register,
        bit,
        set: theirs >> bit & 1 != 0,
    })
}
