use super::*;

#[test]
fn a_refusal_names_request_and_number_and_says_what_to_do() {
    let refused = |request, errno| Refused { request, errno }.to_string();
    assert_eq!(
        refused(Request::VeventqAlloc, Errno::NOTTY),
        "IOMMU_VEVENTQ_ALLOC: Inappropriate ioctl for device (os error 25): this kernel has no \
         vEVENTQ: it came with Linux 6.15"
    );
    assert_eq!(
        refused(Request::FaultQueueAlloc, Errno::MFILE),
        "IOMMU_FAULT_QUEUE_ALLOC: Too many open files (os error 24): this process has too many \
         files open: raise RLIMIT_NOFILE"
    );
    // Nothing is guessed where there is nothing to say.
    assert_eq!(
        refused(Request::DeviceReset, Errno::IO),
        "VFIO_DEVICE_RESET: Input/output error (os error 5)"
    );
}
