//! What to do about each condition, and whose entry it is.

use iommu_walk::smmuv3::Cause;

/// The second half of the sentence.
#[expect(
    clippy::too_many_lines,
    reason = "one line a condition: a table, read as one"
)]
pub(super) fn advice(cause: Cause) -> &'static str {
    use Cause as C;
    match cause {
        C::GlobalAbort => {
            "the firmware or operating system blocks all devices on purpose: turn the unit on before the \
             device does DMA, or stop the device (after a reset or a kexec)"
        }
        C::GlobalTranslationRequest | C::GlobalTranslated => {
            "enable translation before ATS is enabled in the device"
        }
        C::GlobalAddressSize | C::TranslatedAddressSize | C::InputSize => {
            "give the device addresses of memory that exists"
        }
        C::StreamOutsideTable | C::StreamLevel1Invalid | C::StreamOutsideSpan => {
            "the operating system fills the stream table for the devices that the firmware lists: check \
             the device's StreamID in the IORT or in iommu-map of the device tree"
        }
        C::StreamLevel1Unreadable => "check SMMU_STRTAB_BASE: the stream table must lie in memory",
        C::StreamUnreadable => {
            "check SMMU_STRTAB_BASE, or the level 1 descriptor: the stream table must lie in memory"
        }
        C::StreamInvalid => {
            "the operating system owns the stream table: attach the device to a domain before it does DMA, \
             or find out what makes it do DMA without a driver (after a reset or a kexec: stop it first)"
        }
        C::StreamAborts => {
            "the operating system blocks the device on purpose, as between domains: attach it to a domain \
             before it does DMA, or stop it"
        }
        C::StreamFirstMissing
        | C::StreamSecondMissing
        | C::StreamAts
        | C::StreamStallDisable
        | C::StreamContextBits
        | C::StreamContextFormat
        | C::StreamSecondStall
        | C::StreamSecondFormat
        | C::StreamSecondUpdates
        | C::StreamSecondGranule
        | C::StreamSecondInput
        | C::StreamSecondLevel
        | C::StreamSecondEndian
        | C::StreamVmid => {
            "the operating system owns the stream table, the hypervisor what is stage 2's: use what the \
             unit has, or check whether the entry was overwritten"
        }
        C::StreamContextPointer | C::StreamSecondTable => {
            "the operating system owns the stream table, the hypervisor what is stage 2's: check whether \
             the entry was overwritten or its table lies outside memory"
        }
        C::TranslationRequest | C::Translated => {
            "set EATS before ATS is enabled in the device, or disable ATS there"
        }
        C::SubstreamWithoutFirst | C::SubstreamsMissing | C::SubstreamsDisabled => {
            "set up context descriptors for substreams before PASID is enabled in the device, or disable \
             it there"
        }
        C::SubstreamOutsideTable => "use smaller PASIDs or a larger table (S1CDMax)",
        C::SubstreamNeeded => {
            "let the device name a SubstreamID, or give the other requests a context descriptor (S1DSS 2) \
             or none (S1DSS 1)"
        }
        C::SubstreamReserved => "use PASIDs from 1 on, as Linux does",
        C::ContextLevel1Unreadable => {
            "check S1ContextPtr in the stream table entry: the table must lie in memory"
        }
        C::ContextUnreadable => {
            "check S1ContextPtr in the stream table entry, or the level 1 descriptor: the table must lie \
             in memory"
        }
        C::ContextLevel1Invalid | C::ContextInvalid => {
            "bind an address space to the substream before the device uses it, or stop the device from \
             using one that was unbound"
        }
        C::ContextLevel1Pointer | C::ContextTable => {
            "whoever binds address spaces owns the context descriptors: check whether the entry was \
             overwritten or its table lies outside memory"
        }
        C::ContextStall
        | C::ContextAbort
        | C::ContextEndian
        | C::ContextFormat
        | C::ContextUpdates
        | C::ContextAsid
        | C::ContextInputSize
        | C::ContextGranule => {
            "whoever binds address spaces owns the context descriptors: use what the unit has, or check \
             whether the entry was overwritten"
        }
        C::FirstOutside | C::FirstDisabled => {
            "the driver or the device's program used a wrong pointer, or one of the other half of the \
             address space"
        }
        C::FirstUserDisabled | C::FirstUserDenied => {
            "map the page for unprivileged requests, or let the device ask with privilege (PRIVCFG)"
        }
        C::FirstPrivilegedDenied => {
            "let the device ask without privilege, or map the page for privileged requests"
        }
        C::FirstUnreadable => {
            "check the address in the entry one level up, or TTB0 and TTB1: it points outside memory"
        }
        C::IpaUnreadable | C::ContextIpaUnreadable | C::TableIpaUnreadable => {
            "the hypervisor owns stage 2: check the address in the entry one level up, or S2TTB, which \
             points outside memory"
        }
        C::FirstInvalid => {
            "map the page before the device uses it, keep it mapped until the device is done, or let the \
             device stall or send page requests so that it can be mapped on demand"
        }
        C::FirstOutputSize => {
            "whoever owns the address space owns its tables: check whether the entry was overwritten, or \
             whether IPS is too small"
        }
        C::FirstAccessFlag => {
            "set the flag when the page is mapped, or let the hardware set it (HA) or ignore it (AFFD)"
        }
        C::FirstWriteDenied => {
            "map the page writable before the device writes, or fix the address that the driver gave the \
             device"
        }
        C::FirstExecuteDenied | C::IpaExecuteDenied => {
            "map the page executable, or do not run code from it"
        }
        C::FirstUpdateFailed | C::IpaUpdateFailed => "place the tables in writable memory",
        C::ContextIpaOutside | C::TableIpaOutside | C::IpaOutside => {
            "place it inside what the hypervisor gives the guest, or let stage 2 translate more"
        }
        C::ContextIpaInvalid | C::ContextIpaDenied | C::TableIpaInvalid | C::TableIpaReadDenied => {
            "the hypervisor owns stage 2: let it map that page of the guest, and keep it mapped while the \
             guest's tables lie in it"
        }
        C::TableIpaWriteDenied => "let the hypervisor map that page of the guest writable",
        C::ContextIpaDevice | C::TableIpaDevice => {
            "place the guest's tables in memory, and let the hypervisor map it so"
        }
        C::IpaInvalid | C::IpaReadDenied | C::IpaWriteDenied => {
            "the hypervisor owns stage 2: let it map that page with that right before the device uses it \
             (MSI doorbells and devices too), and keep it mapped until the device is done"
        }
        C::ContextIpaOutputSize | C::TableIpaOutputSize | C::IpaOutputSize => {
            "the hypervisor owns stage 2: check whether the entry was overwritten, or whether S2PS is too \
             small"
        }
        C::ContextIpaAccessFlag | C::TableIpaAccessFlag | C::IpaAccessFlag => {
            "the hypervisor owns stage 2: let it set the flag when it maps the page, or let the hardware \
             set it (S2HA) or ignore it (S2AFFD)"
        }
        C::PageRequestsDisabled => {
            "enable the PRI queue before PRI is enabled in the device, or disable PRI there"
        }
        _ => "see the specification",
    }
}
