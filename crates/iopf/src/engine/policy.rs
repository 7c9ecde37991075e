//! What the engine does where people disagree: the kernel's way and the stricter one.

use core::time::Duration;

/// The rules an [`Engine`](super::Engine) plays by.
///
/// [`Policy::default`] is the stricter one. [`Policy::linux`] does what Linux 7.3
/// `drivers/iommu/io-pgfault.c` does, weaknesses included, so that the kernel can be the oracle.
///
/// | | default | linux |
/// |---|---|---|
/// | pages of one group | same index, same PASID, same attachment | same index |
/// | a page nobody handles | refused; only a last page is answered | answered INVALID, last or not |
/// | partial pages at detach and replace | dropped with their attachment | kept while any other attachment takes faults |
/// | waiting groups at detach and replace | answered INVALID | left to the handler |
/// | a resolver that takes no more | INVALID | FAILURE |
/// | no room for a last page | INVALID | FAILURE |
/// | FAILURE | only where the wire carries it | always |
/// | removing a device | answers all of its groups | spares those that were dequeued |
/// | PASID 0 | an address space like any other | the function's own (`IOMMU_NO_PASID`) |
/// | deadline, credits, fair share | yes | no |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    pub(super) strict: bool,
    pub(super) timeout: Option<u64>,
    pub(super) max_pages: u32,
    pub(super) max_devices: u32,
    pub(super) max_attachments: u32,
}

impl Policy {
    /// What Linux 7.3 does, branch by branch. No limit but the address space of the slab.
    #[must_use]
    pub const fn linux() -> Self {
        Self {
            strict: false,
            timeout: None,
            max_pages: u32::MAX - 1,
            max_devices: u32::MAX - 1,
            max_attachments: u32::MAX,
        }
    }

    /// The same rules with another deadline: a group not answered `timeout` after its last page
    /// is answered INVALID, a partial page not completed by then is dropped. `None`: never.
    ///
    /// More than 584 years count as 584.
    #[must_use]
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        Self {
            timeout: timeout.map(nanos),
            ..self
        }
    }

    /// The same rules with room for `pages` pages in all, whatever the devices' credits add up to.
    ///
    /// Under [`Policy::linux`] this stands for the kernel running out of memory.
    #[must_use]
    pub fn with_max_pages(self, pages: u32) -> Self {
        Self {
            max_pages: pages.min(u32::MAX - 1),
            ..self
        }
    }

    /// The same rules with room for `devices` devices, and `attachments` PASIDs on each.
    #[must_use]
    pub fn with_max_devices(self, devices: u32, attachments: u32) -> Self {
        Self {
            max_devices: devices.min(u32::MAX - 1),
            max_attachments: attachments,
            ..self
        }
    }

    /// Whether these are the stricter rules.
    #[must_use]
    pub const fn is_strict(&self) -> bool {
        self.strict
    }

    /// How many pages there is room for in all.
    #[must_use]
    pub const fn max_pages(&self) -> u32 {
        self.max_pages
    }

    /// The deadline of a group, if the policy has one.
    #[must_use]
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout.map(Duration::from_nanos)
    }
}

impl Default for Policy {
    /// The stricter rules: 10 s to answer, 1,048,576 pages, 65,536 devices, 4,096 PASIDs each.
    fn default() -> Self {
        Self {
            strict: true,
            timeout: Some(10_000_000_000),
            max_pages: 1 << 20,
            max_devices: 1 << 16,
            max_attachments: 1 << 12,
        }
    }
}
