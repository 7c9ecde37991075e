//! What to do about each condition.

use iommu_walk::vtd::Cause;

/// The second half of the sentence.
#[expect(
    clippy::too_many_lines,
    reason = "one line a condition: a table, read as one"
)]
pub(super) fn advice(cause: Cause) -> &'static str {
    use Cause as C;
    match cause {
        C::Disabled => "enable translation before ATS is enabled in the device",
        C::RootUnreadable | C::ScalableRootUnreadable => {
            "check RTADDR_REG: the root table must lie in memory"
        }
        C::ContextUnreadable | C::ScalableContextUnreadable => {
            "check the context table pointer in the root entry"
        }
        C::DirectoryUnreadable => "check PASIDDIRPTR in the context entry",
        C::PasidEntryUnreadable => "check the table pointer in the PASID directory entry",
        C::LegacyTopUnreadable => "check SSPTPTR in the context entry",
        C::FirstTopUnreadable => "check FSPTPTR in the PASID table entry",
        C::SecondTopUnreadable => "check SSPTPTR in the PASID table entry",
        C::LegacyEntryUnreadable | C::FirstEntryUnreadable | C::SecondEntryUnreadable => {
            "check the address in the entry one level up: it points outside memory"
        }
        C::RootNotPresent
        | C::ContextNotPresent
        | C::ScalableRootNotPresent
        | C::ScalableContextNotPresent => {
            "attach the device to a domain before it does DMA, or find out what makes it do DMA \
             without a driver (after a reset or a kexec: stop it first)"
        }
        C::DirectoryNotPresent | C::PasidEntryNotPresent => {
            "bind an address space to the PASID before the device uses it, or stop the device \
             from using a PASID that was unbound"
        }
        C::RootReserved
        | C::ContextReserved
        | C::ScalableRootReserved
        | C::ScalableContextReserved
        | C::DirectoryReserved
        | C::PasidEntryReserved => {
            "clear them, or check whether the entry was overwritten or written for a unit with \
             more features"
        }
        C::LegacyEntryReserved | C::FirstEntryReserved | C::SecondEntryReserved => {
            "clear them: a large page must be aligned and offered by CAP_REG, and an address \
             must fit the host's width"
        }
        C::ContextWidth | C::PasidEntryWidth => "use a depth that SAGAW lists",
        C::ContextType | C::PasidEntryType => "use a translation type that the unit offers",
        C::PasidEntryPagingMode => "use 4 levels, or a unit with FS5LP",
        C::FirstStagePointerWidth | C::FirstEntryWidth => {
            "place the first-stage tables inside the guest's memory"
        }
        C::AddressTypeBlocked => {
            "set TT to 1 (with ECAP_REG.DT) before ATS is enabled in the device, or disable ATS \
             there"
        }
        C::LegacyAddressWidth | C::SecondAddressWidth => {
            "give the device addresses below that width, or a deeper page table"
        }
        C::LegacyTranslatedWidth
        | C::LegacyPassThroughWidth
        | C::TranslatedWidth
        | C::PassThroughWidth => "the driver gave the device an address that does not exist",
        C::LegacyWriteDenied | C::LegacyReadDenied | C::WriteDenied | C::ReadDenied => {
            "map the page with that right before the device uses it, keep it mapped until the \
             device is done, or fix the address that the driver gave the device"
        }
        C::SecondNoAccess => {
            "map the page before the device uses it, and keep it mapped until the device is done"
        }
        C::LegacyInterruptRange | C::InterruptRange => {
            "fix the mapping or the address: DMA cannot go there"
        }
        C::ModeUnsupported => "write a mode that ECAP_REG offers (SMTS for 1, ADMS for 3)",
        C::PasidInLegacyMode | C::PageRequestInLegacyMode => {
            "put the unit into scalable mode, or disable PASID and PRI in the device"
        }
        C::AbortMode => "set up a root table and leave that mode before devices do DMA",
        C::ExecuteUnsupported => "disable execute permission in the device's PASID capability",
        C::PageRequestsWithoutDeviceTlb => "set both or clear PRE",
        C::RidPasidTooLarge => "use a smaller RID_PASID or a larger directory",
        C::TranslatedPasidWithoutPasid => "set both or clear EPTR",
        C::DeviceTlbDisabled => "set DTE before ATS is enabled in the device, or disable ATS there",
        C::PasidDisabled => "set PASIDE before PASID is enabled in the device, or disable it there",
        C::PasidTooLarge => "use smaller PASIDs or a larger directory",
        C::PageRequestsDisabled => {
            "set PRE before PRI is enabled in the device, or disable PRI there"
        }
        C::PasidIsRidPasid => "keep that PASID from being given to anybody",
        C::TranslatedPasidDisabled => {
            "set EPTR, or keep the device from sending PASIDs with translated requests"
        }
        C::ExecuteDisabled => {
            "set ERE, or disable execute permission in the device's PASID capability"
        }
        C::SupervisorDisabled => {
            "set SRE, or disable privileged mode in the device's PASID capability"
        }
        C::FirstEntryNotPresent => {
            "map the page before the device uses it, or let the device use ATS and page requests \
             so that it can be mapped on demand"
        }
        C::FirstTopReadDenied | C::FirstEntryReadDenied => {
            "map that guest page in the second stage: the hypervisor took it away while the \
             guest's tables lie in it"
        }
        C::FirstEntryWriteDenied => "map that guest page writable in the second stage",
        C::FirstUpdateNotCoherent | C::SecondUpdateNotCoherent => {
            "set PWSNP, or set the accessed and dirty bits when mapping"
        }
        C::FirstUpdateFailed | C::SecondUpdateFailed => "place the tables in writable memory",
        C::NotCanonical => "the driver or the device's program used a wrong pointer",
        C::UserDenied => "map the page for user mode, or let the device ask in privileged mode",
        C::ExecuteDenied => "map the page executable, or do not run code from it",
        C::PasidUnsupported => "use smaller PASIDs",
        _ => "see the specification",
    }
}
