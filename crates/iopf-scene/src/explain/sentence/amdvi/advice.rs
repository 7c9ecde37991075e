//! What to do about each condition, and whose entry it is.

use iommu_walk::amdvi::Cause;

/// The second half of the sentence.
pub(super) fn advice(cause: Cause) -> &'static str {
    use Cause as C;
    match cause {
        C::Disabled => "enable translation before ATS is enabled in the device",
        C::DeviceOutsideTable | C::TranslationOutsideTable => {
            "the operating system sizes the table by the devices that the IVRS table lists: check \
             that the firmware lists this one"
        }
        C::DeviceEntryUnreadable => "check DEV_TAB_BASE: the device table must lie in memory",
        C::GuestCr3Unreadable => {
            "check the guest CR3 table pointer in the device table entry, and the entry one level up"
        }
        C::GuestEntryUnreadable | C::HostEntryUnreadable => {
            "check the address in the entry one level up: it points outside memory"
        }
        C::DeviceEntryReserved => {
            "the operating system owns the device table: clear them, or check whether the entry was \
             overwritten or written for a unit with more features (EXT_FEATURE)"
        }
        C::PagingMode | C::GuestLevels | C::GuestPagingMode => {
            "the operating system owns the device table: use a depth that the unit has"
        }
        C::AccessDirtyMode => {
            "the operating system owns the device table: use 0 (none), 1 (accessed) or 3 (both)"
        }
        C::TranslationDisabled => {
            "attach the device to a domain before it does DMA, or find out what makes it do DMA \
             without a driver (after a reset or a kexec: stop it first)"
        }
        C::DeviceReadDenied | C::DeviceWriteDenied => {
            "the operating system blocks the device on purpose, as between domains: attach it to a \
             domain before it does DMA, or stop it"
        }
        C::DeviceTlbDisabled => "set I before ATS is enabled in the device, or disable ATS there",
        C::InterruptRange | C::HypertransportRange => {
            "the driver gave the device an address that does not exist"
        }
        C::InterruptWithPasid => "keep the device from sending its MSI with a PASID",
        C::PasidDisabled => "set GV before PASID is enabled in the device, or disable it there",
        C::PasidOutsideTable | C::PageRequestPasid => "use smaller PASIDs or a deeper table",
        C::GuestCr3NotPresent => {
            "bind an address space to the PASID before the device uses it, or stop the device from \
             using a PASID that was unbound"
        }
        C::GuestCr3Reserved => {
            "whoever binds address spaces to PASIDs owns the table: clear them, or check whether the \
             entry was overwritten"
        }
        C::GuestEntryReserved => {
            "whoever owns the address space owns its tables: clear them (a large page must be \
             aligned), or check whether the entry was overwritten"
        }
        C::GuestAddressWidth => "the driver or the device's program used a wrong pointer",
        C::GuestEntryNotPresent => {
            "map the page before the device uses it, or let the device use ATS and page requests so \
             that it can be mapped on demand"
        }
        C::GuestUserDenied => {
            "map the page for user mode, or let the device ask in privileged mode"
        }
        C::GuestWriteDenied | C::HostReadDenied | C::HostWriteDenied => {
            "map the page with that right before the device uses it, keep it mapped until the device \
             is done, or fix the address that the driver gave the device"
        }
        C::GuestExecuteDenied => "map the page executable, or do not run code from it",
        C::GuestUpdateFailed | C::HostUpdateFailed => "place the tables in writable memory",
        C::GuestEntryWidth => "place the guest's tables inside the guest's memory",
        C::GuestTableReadDenied => {
            "map that guest page in the host tables: the hypervisor took it away while the guest's \
             tables lie in it"
        }
        C::GuestTableWriteDenied => "map that guest page writable in the host tables",
        C::HostAddressWidth => {
            "give the device addresses below that width, or deeper host tables (Mode)"
        }
        C::HostEntryNotPresent => {
            "map the page before the device uses it, and keep it mapped until the device is done"
        }
        C::HostEntryReserved | C::HostLevel | C::HostPageSize | C::HostSkippedLevels => {
            "the operating system or hypervisor owns the host tables: check whether the entry was \
             overwritten or its table freed"
        }
        C::PageRequestsDisabled => {
            "enable page requests (PPR in the device table entry, PPREn in IOMMU_CONTROL) before PRI \
             is enabled in the device, or disable PRI there"
        }
        _ => "see the specification",
    }
}
