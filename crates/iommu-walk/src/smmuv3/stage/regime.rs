//! SMMUv3's page tables, and what it calls that which can go wrong in them.

use crate::PageTable;
use crate::format::{Format, Granules, Leaf, Problem};
use crate::smmuv3::cause::{Cause, Class};
use crate::smmuv3::formats::BLOCK;
use crate::smmuv3::space::Top;
use crate::stage::{Marks, Stages};
use crate::trail::Stage;
use iommu_wire::smmuv3::pte::Stage2Entry;
use iommu_wire::smmuv3::tables::StreamWord2;

/// The tables that one request goes through.
#[derive(Clone, Copy)]
pub(crate) struct Regime {
    /// Of stage 1: the range of the request.
    first: Top,
    /// Of stage 2.
    second: Top,
    /// Their formats. That of a stage that does not translate is of no use.
    formats: [&'static Format<Granules>; 2],
    word2: StreamWord2,
}

impl Regime {
    #[inline(always)]
    pub(in crate::smmuv3) const fn new(first: Top, second: Top, word2: StreamWord2) -> Self {
        Self {
            first,
            second,
            formats: [first.first(), second.second()],
            word2,
        }
    }

    /// Whether stage 2 tells privileged execution apart (XNX).
    #[inline(always)]
    pub(super) const fn execute_levels(&self) -> bool {
        self.word2.implementation() != 0
    }
}

impl Stages for Regime {
    type Cause = Cause;
    /// What stage 2 is walked for.
    type Given = Class;
    type Geometry = Granules;
    const SKIPS: bool = false;
    const MARK_DENIED: Cause = Cause::TableIpaWriteDenied;
    // Where stage 2 ends is found out when it is walked.
    const TOO_WIDE: Cause = Cause::TableIpaOutside;

    #[inline(always)]
    fn first(&self) -> &Format<Granules> {
        self.formats[0]
    }

    #[inline(always)]
    fn second(&self) -> &Format<Granules> {
        self.formats[1]
    }

    #[inline(always)]
    fn second_read(&self) -> u64 {
        Stage2Entry::READ
    }

    #[inline(always)]
    fn second_write(&self) -> u64 {
        Stage2Entry::WRITE
    }

    #[inline(always)]
    fn beyond(&self, _: u8) -> u64 {
        0
    }

    fn index_bits(&self, stage: Stage, level: u8) -> u8 {
        let (top, format) = match stage {
            Stage::First => (self.first, self.formats[0]),
            Stage::Second => (self.second, self.formats[1]),
        };
        if level == top.table().levels {
            top.index_bits()
        } else {
            format.geometry.stride
        }
    }

    /// Up to 16 top tables lie one after the other.
    #[inline(always)]
    fn second_root(&self, table: PageTable, input: u64) -> u64 {
        let Granules {
            page_shift, stride, ..
        } = self.formats[1].geometry;
        let covered = page_shift.wrapping_add(stride.wrapping_mul(table.levels));
        table.root.0 | input >> (covered & 63) << (page_shift & 63)
    }

    #[inline(always)]
    fn second_input(&self, given: Class, input: u64) -> Result<(), Cause> {
        if input >> (self.second.bits() & 63) != 0 {
            return Err(match given {
                Class::Context => Cause::ContextIpaOutside,
                Class::Table => Cause::TableIpaOutside,
                Class::Input => Cause::IpaOutside,
            });
        }
        Ok(())
    }

    /// A page that hardware makes writable is.
    #[inline(always)]
    fn second_leaf(&self, given: Class, mut leaf: Leaf) -> Result<Leaf, (Cause, u64)> {
        let word2 = self.word2;
        if leaf.raw & Stage2Entry::ACCESSED == 0
            && !word2.hardware_access()
            && !word2.access_flag_ignored()
        {
            let cause = match given {
                Class::Context => Cause::ContextIpaAccessFlag,
                Class::Table => Cause::TableIpaAccessFlag,
                Class::Input => Cause::IpaAccessFlag,
            };
            return Err((cause, Stage2Entry::ACCESSED));
        }
        if word2.protected_walk()
            && given != Class::Input
            && Stage2Entry::from_bits(leaf.raw).device()
        {
            let cause = match given {
                Class::Context => Cause::ContextIpaDevice,
                _ => Cause::TableIpaDevice,
            };
            return Err((cause, 0b1111 << 2));
        }
        if word2.hardware_dirty() && leaf.raw & Stage2Entry::DIRTY_MODIFIER != 0 {
            leaf.every |= Stage2Entry::WRITE;
        }
        Ok(leaf)
    }

    #[inline(always)]
    fn table_rights(&self, _: u64) -> u64 {
        Stage2Entry::READ
    }

    #[inline(always)]
    fn second_marks(&self, _: Class) -> Marks {
        let when = |switch, bit| if switch { bit } else { 0 };
        Marks {
            accessed: when(self.word2.hardware_access(), Stage2Entry::ACCESSED),
            dirty: when(self.word2.hardware_dirty(), Stage2Entry::WRITE),
        }
    }

    #[inline(always)]
    fn may_mark(&self, _: Class, _: Stage) -> Result<(), Cause> {
        Ok(())
    }

    fn blind() -> Class {
        Class::Input
    }

    // What hides a fault depends on the stage: see `Space::gate`.
    #[inline(always)]
    fn hidden(_: Class) -> bool {
        false
    }

    fn first_cause(_: bool, problem: Problem) -> Cause {
        match problem {
            Problem::Unreadable => Cause::FirstUnreadable,
            Problem::Reserved(bits) if bits & BLOCK == 0 => Cause::FirstOutputSize,
            _ => Cause::FirstInvalid,
        }
    }

    fn second_cause(given: Class, _: bool, problem: Problem) -> Cause {
        match (given, problem) {
            (Class::Context, Problem::Unreadable) => Cause::ContextIpaUnreadable,
            (Class::Table, Problem::Unreadable) => Cause::TableIpaUnreadable,
            (Class::Input, Problem::Unreadable) => Cause::IpaUnreadable,
            (Class::Context, Problem::Reserved(bits)) if bits & BLOCK == 0 => {
                Cause::ContextIpaOutputSize
            }
            (Class::Table, Problem::Reserved(bits)) if bits & BLOCK == 0 => {
                Cause::TableIpaOutputSize
            }
            (Class::Input, Problem::Reserved(bits)) if bits & BLOCK == 0 => Cause::IpaOutputSize,
            (Class::Context, _) => Cause::ContextIpaInvalid,
            (Class::Table, _) => Cause::TableIpaInvalid,
            (Class::Input, _) => Cause::IpaInvalid,
        }
    }

    fn denied(given: Class, write: bool) -> Cause {
        match (given, write) {
            (Class::Context, _) => Cause::ContextIpaDenied,
            (Class::Table, false) => Cause::TableIpaReadDenied,
            (Class::Table, true) => Cause::TableIpaWriteDenied,
            (Class::Input, false) => Cause::IpaReadDenied,
            (Class::Input, true) => Cause::IpaWriteDenied,
        }
    }

    fn table_denied(given: Class, _: bool, _: bool) -> Cause {
        // Nothing but read is needed.
        Self::denied(given, false)
    }
}
