//! One test a row of the table of conditions, each expectation typed by hand: the event's code, and
//! its flags as Linux prints them.
//!
//! Sources, named beside each: **V** VirtualBox `DevIommuAmd.cpp`; **O** OpenVMM
//! `amd_iommu/src/lib.rs`; **Q** QEMU `hw/i386/amd_iommu.c`; **K** Linux `drivers/iommu/amd/iommu.c`,
//! `iommu_print_event`, for layouts; **F** FreeBSD `amd_reg.h`, for encodings. The text of the
//! specification was not at hand: what has none of them beside it is UNCONFIRMED.

mod bed;

use bed::amdvi::{Bed, CONTROL, DTE, EFR, EFR2, RW, ReadOnly};
use bed::amdvi::{at, ats, fetch, pasid5, privileged, read, translated, write};
use iommu_walk::amdvi::{Applied, Cause, DomainId, Failure, apply, page_request, translate};
use iommu_walk::{Stage, Updates};
use iopf::{Access, Dma, DmaKind, Gpa, Pasid, Rid};

/// IR or IW, alone.
const R: u64 = 0x2000_0000_0000_0000;
const W: u64 = 0x4000_0000_0000_0000;

fn atomic() -> Dma {
    Dma {
        access: Access::RW,
        ..read()
    }
}

// ---- the device table ----

/// "Translation is off": no event, for none is enabled.
#[test]
fn disabled_translation_passes_requests_and_records_nothing() {
    let bed = Bed::host().control(0);
    assert_eq!(bed.passes(&write()).pa, Gpa(bed::amdvi::ADDR));
    for dma in [ats(), translated()] {
        let failure = bed.failure(&dma);
        assert_eq!(
            (failure.cause, failure.cause.reason().0),
            (Cause::Disabled, 0)
        );
        assert!(!failure.recorded(dma.kind));
    }
}

/// V: an I/O page fault with domain 0 (`kIoPageFaultType_DevId_Invalid`). O: an illegal entry.
/// UNCONFIRMED.
#[test]
fn code_2_a_requester_beyond_the_device_table() {
    let dma = Dma {
        requester: Rid(0x80),
        ..read()
    };
    let failure = Bed::host().faults(&dma, Cause::DeviceOutsideTable, 2, 0x000);
    assert_eq!(failure.detail.domain, DomainId(0));
    // A translation request is an invalid one: V kInvalidDevReqType_DevIdInvalid.
    let dma = Dma {
        requester: Rid(0x80),
        ..ats()
    };
    Bed::host().faults(&dma, Cause::TranslationOutsideTable, 8, 0x500);
    // The last entry of a page is in it.
    let dma = Dma {
        requester: Rid(0x7f),
        ..read()
    };
    assert_eq!(Bed::host().passes(&dma).pa, Gpa(bed::amdvi::ADDR));
}

/// V iommuAmdDevTabHwErrorEventRaise, O DevTabHardwareError, Q amdvi_log_devtab_error.
#[test]
fn code_3_an_unreadable_device_table_entry() {
    let bed = Bed::host().abort(DTE + 16);
    let failure = bed.faults(&write(), Cause::DeviceEntryUnreadable, 3, 0x220);
    assert_eq!(failure.address(&write()), DTE);
    assert_eq!((failure.entry_addr, failure.entry), (Some(Gpa(DTE)), None));
    // RW says nothing of a translation request, whatever it asks for.
    let both = Dma {
        access: Access::RW,
        ..ats()
    };
    bed.faults(&both, Cause::DeviceEntryUnreadable, 3, 0x300);
}

/// V kIllegalDteType_RsvdNotZero, Q amdvi_validate_dte.
#[test]
fn code_1_reserved_bits_in_the_device_table_entry() {
    for bit in [2, 6, 63] {
        let bed = Bed::host().add(DTE, 1 << bit);
        let failure = bed.faults(&write(), Cause::DeviceEntryReserved, 1, 0x0a0);
        assert_eq!(failure.bits, 1 << bit);
        assert_eq!(failure.detail.domain, DomainId(7));
    }
    // SATS: no unit here has secure ATS.
    let failure =
        Bed::host()
            .add(DTE + 8, 1 << 42)
            .faults(&read(), Cause::DeviceEntryReserved, 1, 0x080);
    assert_eq!(failure.entry_addr, Some(Gpa(DTE + 8)));
    // Whatever TV says; but not where V is clear.
    let off = Bed::host().take(DTE, 2).add(DTE, 4);
    off.faults(&read(), Cause::DeviceEntryReserved, 1, 0x080);
    Bed::host().set(DTE, 4).passes(&read());
    // What a unit does not have is reserved: PPR, GPRP, GIoV, GV, HAD.
    for (bit, feature) in [(52, 1), (53, 50), (54, 48), (55, 4), (7, 49)] {
        let lacks = if bit == 7 {
            1 << 49 | 1 << 52
        } else {
            1 << feature
        };
        Bed::host().add(DTE, 1 << bit).passes(&read());
        Bed::host()
            .add(DTE, 1 << bit)
            .features(EFR & !lacks, EFR2)
            .faults(&read(), Cause::DeviceEntryReserved, 1, 0x080);
    }
}

/// O PAGING_MODE_RESERVED. V: an I/O page fault, in doubt. F PGMODE_RSRV. UNCONFIRMED.
#[test]
fn code_1_a_reserved_paging_mode() {
    let seven = Bed::host().add(DTE, 7 << 9);
    let failure = seven.faults(&write(), Cause::PagingMode, 1, 0x020);
    assert_eq!(failure.bits, 7 << 9);
    // HATS: four levels, and none at all.
    let four = Bed::host().features(EFR & !0xc00, EFR2);
    four.passes(&read());
    four.set(DTE, RW | 0x1_0a03)
        .faults(&read(), Cause::PagingMode, 1, 0x000);
    Bed::host()
        .features(EFR | 0xc00, EFR2)
        .faults(&read(), Cause::PagingMode, 1, 0x000);
}

/// F DTE_HAD_RSRV, without an event. UNCONFIRMED.
#[test]
fn code_1_a_reserved_access_dirty_mode() {
    Bed::host()
        .add(DTE, 2 << 7)
        .faults(&read(), Cause::AccessDirtyMode, 1, 0x000);
}

/// F GLX_RSRV, K validate_gdte_nested; without an event. UNCONFIRMED.
#[test]
fn code_1_too_many_guest_cr3_levels() {
    Bed::guest()
        .add(DTE, 3 << 56)
        .faults(&pasid5(read()), Cause::GuestLevels, 1, 0x000);
    let one = Bed::guest().features(EFR & !0xc000, EFR2);
    one.passes(&pasid5(read()));
    one.add(DTE, 1 << 56)
        .faults(&pasid5(read()), Cause::GuestLevels, 1, 0x000);
}

/// F GPM_RSRV1 and 2, K validate_gdte_nested; without an event. UNCONFIRMED.
#[test]
fn code_1_a_guest_paging_mode_that_is_not_there() {
    Bed::guest()
        .set(DTE + 16, 2 << 54)
        .faults(&pasid5(read()), Cause::GuestPagingMode, 1, 0x000);
    Bed::guest()
        .set(DTE + 16, 1 << 54)
        .features(EFR & !0x3000, EFR2)
        .faults(&pasid5(read()), Cause::GuestPagingMode, 1, 0x000);
}

/// V kIoPageFaultType_DteTranslationDisabled, O "V=1 TV=0".
#[test]
fn code_2_an_entry_that_does_not_translate() {
    let bed = Bed::host().take(DTE, 2);
    let failure = bed.faults(&read(), Cause::TranslationDisabled, 2, 0x000);
    assert_eq!(failure.detail.domain, DomainId(7));
    bed.faults(&write(), Cause::TranslationDisabled, 2, 0x020);
}

/// V iommuAmdPreTranslateChecks: before any table, and without host tables too.
#[test]
fn code_2_the_device_table_entry_denies_reads() {
    for bed in [Bed::host(), Bed::identity()] {
        let bed = bed.take(DTE, R);
        bed.faults(&read(), Cause::DeviceReadDenied, 2, 0x050);
        bed.passes(&write());
    }
    // Even where the table would say something else.
    let bed = Bed::host().take(DTE, R).set(0x1_0008, 0);
    bed.faults(&read(), Cause::DeviceReadDenied, 2, 0x050);
}

/// V iommuAmdPreTranslateChecks.
#[test]
fn code_2_the_device_table_entry_denies_writes() {
    for bed in [Bed::host(), Bed::identity()] {
        let bed = bed.take(DTE, W);
        bed.faults(&write(), Cause::DeviceWriteDenied, 2, 0x070);
        bed.faults(&atomic(), Cause::DeviceWriteDenied, 2, 0x070);
        bed.passes(&read());
    }
}

/// V kInvalidDevReqType_PretranslatedTransaction and _TrDisabled; K sets I where ATS is on
/// (DTE_FLAG_IOTLB).
#[test]
fn code_8_device_tlb_requests_without_permission() {
    Bed::host().faults(&ats(), Cause::DeviceTlbDisabled, 8, 0x300);
    Bed::host().faults(&translated(), Cause::DeviceTlbDisabled, 8, 0x200);
    let allowed = Bed::host().add(DTE + 8, 1 << 32);
    allowed.passes(&ats());
    allowed.passes(&translated());
    // An entry that says nothing allows nothing.
    Bed::host()
        .set(DTE, 0)
        .faults(&ats(), Cause::DeviceTlbDisabled, 8, 0x300);
}

// ---- ranges ----

/// K MSI_RANGE_START; no author has the event. UNCONFIRMED.
#[test]
fn code_8_a_read_in_the_interrupt_range() {
    let bed = Bed::host();
    bed.faults(&at(0xfee0_0000, read()), Cause::InterruptRange, 8, 0x000);
    bed.faults(&at(0xfeef_fffc, atomic()), Cause::InterruptRange, 8, 0x000);
    bed.faults(
        &at(0xfee0_0000, translated()),
        Cause::InterruptRange,
        8,
        0x000,
    );
}

/// V kIoPageFaultType_IntrWithPasid, without flags. UNCONFIRMED.
#[test]
fn code_2_an_interrupt_with_a_pasid() {
    let dma = pasid5(at(0xfee0_1000, write()));
    Bed::guest().faults(&dma, Cause::InterruptWithPasid, 2, 0x02d);
}

/// K HT_RANGE_START and HT_RANGE_END, F HTRANGEIGN; no author has the event. UNCONFIRMED.
#[test]
fn code_8_the_hypertransport_range() {
    for addr in [0xfd_0000_0000, 0xff_ffff_ffff] {
        let bed = Bed::identity();
        bed.faults(&at(addr, write()), Cause::HypertransportRange, 8, 0x800);
        // HtRangeIgnore.
        let ignored = bed.features(EFR, EFR2 | 1 << 11);
        assert_eq!(ignored.passes(&at(addr, write())).pa, Gpa(addr));
    }
    for addr in [0xfc_ffff_ffff, 0x100_0000_0000] {
        assert_eq!(Bed::identity().passes(&at(addr, write())).pa, Gpa(addr));
    }
}

// ---- guest CR3 tables ----

/// UNCONFIRMED.
#[test]
fn code_2_a_pasid_without_guest_tables() {
    let failure = Bed::host().faults(&pasid5(read()), Cause::PasidDisabled, 2, 0x005);
    assert_eq!(failure.detail.pasid, Pasid::new(5));
    // GTEn clear is as good.
    let off = Bed::guest().control(CONTROL & !(1 << 16));
    off.faults(&pasid5(write()), Cause::PasidDisabled, 2, 0x025);
}

/// V kIoPageFaultType_PasidInvalidRange, without flags. UNCONFIRMED.
#[test]
fn code_2_a_pasid_outside_the_guest_cr3_table() {
    let dma = Dma {
        pasid: Pasid::new(512),
        ..read()
    };
    Bed::guest().faults(&dma, Cause::PasidOutsideTable, 2, 0x005);
    // PASmax: four bits.
    let narrow = EFR & !(0x1f << 32) | 3 << 32;
    let dma = Dma {
        pasid: Pasid::new(16),
        ..read()
    };
    Bed::guest()
        .features(narrow, EFR2)
        .faults(&dma, Cause::PasidOutsideTable, 2, 0x005);
    let dma = Dma {
        pasid: Pasid::new(15),
        ..read()
    };
    Bed::guest()
        .set(0x4078, 0x2_0001)
        .features(narrow, EFR2)
        .passes(&dma);
}

/// UNCONFIRMED.
#[test]
fn code_4_an_unreadable_guest_cr3_entry() {
    let bed = Bed::guest().abort(0x4028);
    let failure = bed.faults(&pasid5(write()), Cause::GuestCr3Unreadable, 4, 0x221);
    assert_eq!(failure.address(&pasid5(write())), 0x4028);
    assert_eq!(failure.detail.pasid, Pasid::new(5));
}

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_cr3_entry_that_is_not_valid() {
    let bed = Bed::guest().set(0x4028, 0x2_0000);
    let failure = bed.faults(&pasid5(read()), Cause::GuestCr3NotPresent, 2, 0x005);
    assert_eq!((failure.entry_addr, failure.bits), (Some(Gpa(0x4028)), 1));
}

/// UNCONFIRMED.
#[test]
fn code_2_reserved_bits_in_a_guest_cr3_entry() {
    for bit in [1, 2, 5, 11, 52, 63] {
        let bed = Bed::guest().add(0x4028, 1 << bit);
        let failure = bed.faults(&pasid5(read()), Cause::GuestCr3Reserved, 2, 0x095);
        assert_eq!(failure.bits, 1 << bit);
    }
    // Cacheability.
    Bed::guest().add(0x4028, 0x18).passes(&pasid5(read()));
}

// ---- guest tables ----

/// K amd_iommu_domain_alloc_paging_v2, on sign extension; no author has the event. UNCONFIRMED.
#[test]
fn code_2_an_address_that_does_not_fit_the_guest_tables() {
    let high = pasid5(at(1 << 47, read()));
    Bed::guest().faults(&high, Cause::GuestAddressWidth, 2, 0x005);
    // Those of PASID 0 are not sign-extended: all 48 bits count, and no more.
    let zero = |addr| Dma {
        pasid: Pasid::new(0),
        ..at(addr, read())
    };
    Bed::guest().faults(&zero(1 << 48), Cause::GuestAddressWidth, 2, 0x005);
    let bed = Bed::guest().set(0x2_0808, 0x2_1027);
    assert_eq!(bed.passes(&zero(0x8080_4020_1abc)).pa, Gpa(0x8_0abc));
    let negative = pasid5(at(0xffff_8080_4020_1abc, read()));
    assert_eq!(bed.passes(&negative).pa, Gpa(0x8_0abc));
}

/// UNCONFIRMED.
#[test]
fn code_4_an_unreadable_guest_table_entry() {
    let bed = Bed::guest().abort(0x2_2008);
    let failure = bed.faults(&pasid5(read()), Cause::GuestEntryUnreadable, 4, 0x201);
    assert_eq!((failure.level, failure.stage), (2, Some(Stage::First)));
    assert_eq!(failure.address(&pasid5(read())), 0x2_2008);
}

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_table_entry_that_is_not_present() {
    let bed = Bed::guest().set(0x2_1008, 0x2_2026);
    let failure = bed.faults(&pasid5(write()), Cause::GuestEntryNotPresent, 2, 0x025);
    assert_eq!(failure.level, 3);
    // US is clear in privileged mode, NX is set for execute.
    let supervisor = privileged(pasid5(read()));
    bed.faults(&supervisor, Cause::GuestEntryNotPresent, 2, 0x001);
    bed.faults(&fetch(), Cause::GuestEntryNotPresent, 2, 0x007);
}

/// UNCONFIRMED.
#[test]
fn code_2_reserved_bits_in_a_guest_table_entry() {
    // PS above level 3, and a large page that is not aligned.
    let bed = Bed::guest().set(0x2_0008, 0x2_10a7);
    let failure = bed.faults(&pasid5(read()), Cause::GuestEntryReserved, 2, 0x095);
    assert_eq!((failure.level, failure.bits), (4, 1 << 7));
    Bed::guest().set(0x2_2008, 0x2_20e7).faults(
        &pasid5(read()),
        Cause::GuestEntryReserved,
        2,
        0x095,
    );
}

/// UNCONFIRMED.
#[test]
fn code_2_a_user_at_a_supervisors_page() {
    let bed = Bed::guest().set(0x2_2008, 0x2_3023);
    let failure = bed.faults(&pasid5(read()), Cause::GuestUserDenied, 2, 0x055);
    assert_eq!((failure.level, failure.bits), (2, 1 << 2));
    bed.passes(&privileged(pasid5(write())));
    // A supervisor lacks something else.
    let read_only = bed.clone().set(0x2_3008, 0x8_0061);
    let supervisor = privileged(pasid5(write()));
    read_only.faults(&supervisor, Cause::GuestWriteDenied, 2, 0x071);
    // Without USSup, everybody is a user.
    bed.features(EFR & !(1 << 37), EFR2).faults(
        &privileged(pasid5(read())),
        Cause::GuestUserDenied,
        2,
        0x051,
    );
}

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_page_that_is_read_only() {
    let bed = Bed::guest().set(0x2_3008, 0x8_0065);
    bed.faults(&pasid5(write()), Cause::GuestWriteDenied, 2, 0x075);
    // Supervisors too.
    bed.faults(
        &privileged(pasid5(write())),
        Cause::GuestWriteDenied,
        2,
        0x071,
    );
    bed.passes(&pasid5(read()));
}

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_page_that_is_not_executable() {
    let bed = Bed::guest().add(0x2_3008, 1 << 63);
    let failure = bed.faults(&fetch(), Cause::GuestExecuteDenied, 2, 0x057);
    assert_eq!(failure.bits, 1 << 63);
    // A unit without NX does not look.
    bed.features(EFR & !(1 << 3), EFR2).passes(&fetch());
}

/// UNCONFIRMED.
#[test]
fn code_4_a_guest_accessed_bit_that_cannot_be_set() {
    let bed = Bed::guest().set(0x2_3008, 0x8_0007);
    let failure = update_failure(&bed, &pasid5(write()));
    assert_eq!(
        (failure.cause, failure.cause.reason().0),
        (Cause::GuestUpdateFailed, 4)
    );
    assert_eq!(failure.flags(&pasid5(write())).bits(), 0x221);
    assert_eq!(failure.address(&pasid5(write())), 0x2_3008);
}

// ---- guest tables over host tables ----

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_table_address_beyond_the_host_tables() {
    let bed = Bed::nested().set(0x2_1008, 0x1_0000_0002_2027);
    let failure = bed.faults(&pasid5(read()), Cause::GuestEntryWidth, 2, 0x005);
    assert_eq!((failure.level, failure.bits), (3, 1 << 48));
    Bed::nested().set(0x4028, 0x1_0000_0002_0001).faults(
        &pasid5(read()),
        Cause::GuestEntryWidth,
        2,
        0x005,
    );
}

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_table_that_the_host_does_not_let_be_read() {
    let bed = Bed::nested().set(0x1_3108, W | 0x2_1001);
    let failure = bed.faults(&pasid5(read()), Cause::GuestTableReadDenied, 2, 0x050);
    assert_eq!(failure.guest_addr, Some(Gpa(0x2_1008)));
    assert_eq!(failure.address(&pasid5(read())), 0x2_1008);
    assert_eq!(failure.detail.pasid, None);
    // The guest CR3 table, where its pointer is a guest's.
    Bed::nested()
        .control(CONTROL | 1 << 58)
        .set(0x1_3020, W | 0x4001)
        .faults(&pasid5(read()), Cause::GuestTableReadDenied, 2, 0x050);
}

/// UNCONFIRMED.
#[test]
fn code_2_a_guest_table_that_the_host_does_not_let_be_written() {
    let bed = Bed::nested()
        .set(0x1_3118, R | 0x2_3001)
        .set(0x2_3008, 0x8_0007);
    let failure = bed.faults(&pasid5(write()), Cause::GuestTableWriteDenied, 2, 0x075);
    assert_eq!((failure.level, failure.stage), (1, Some(Stage::First)));
    // It is no matter where nothing is due.
    bed.set(0x2_3008, 0x8_0067).passes(&pasid5(write()));
}

// ---- host tables ----

/// O "address exceeds the configured VA width", Q AMDVI_FR_PT_ROOT_INV: an I/O page fault, without
/// flags. UNCONFIRMED.
#[test]
fn code_2_an_address_wider_than_the_host_tables() {
    Bed::host().faults(&at(1 << 48, read()), Cause::HostAddressWidth, 2, 0x000);
    let three = Bed::host().set(DTE, RW | 0x1_1603);
    three.faults(&at(1 << 39, write()), Cause::HostAddressWidth, 2, 0x020);
    assert_eq!(three.passes(&at(0x4020_1abc, read())).pa, Gpa(0x8_0abc));
    let five = Bed::host().set(DTE, RW | 0x3_0a03);
    five.faults(&at(1 << 57, read()), Cause::HostAddressWidth, 2, 0x000);
    // Nested, it is the guest's page that lies too high, and the address is a guest physical one.
    let bed = Bed::nested()
        .set(DTE, 0x7080_0000_0001_1603)
        .set(0x1_1000, RW | 0x1_2401)
        .set(0x2_3008, 0x81_0000_0067);
    let failure = bed.failure(&pasid5(read()));
    assert_eq!(failure.cause, Cause::GuestEntryWidth);
}

/// V iommuAmdPageTabHwErrorEventRaise, O PageTabHardwareError, Q amdvi_log_pagetab_error.
#[test]
fn code_4_an_unreadable_host_table_entry() {
    let bed = Bed::host().abort(0x1_2008);
    let failure = bed.faults(&write(), Cause::HostEntryUnreadable, 4, 0x220);
    assert_eq!((failure.level, failure.stage), (2, Some(Stage::Second)));
    assert_eq!(failure.address(&write()), 0x1_2008);
    bed.add(DTE + 8, 1 << 32)
        .faults(&ats(), Cause::HostEntryUnreadable, 4, 0x300);
}

/// V "Page table entry not present", O, Q.
#[test]
fn code_2_a_host_table_entry_that_is_not_present() {
    let bed = Bed::host().take(0x1_3008, 1);
    let failure = bed.faults(&read(), Cause::HostEntryNotPresent, 2, 0x000);
    assert_eq!((failure.level, failure.bits), (1, 1));
    assert_eq!(failure.detail.domain, DomainId(7));
    bed.faults(&write(), Cause::HostEntryNotPresent, 2, 0x020);
    Bed::host()
        .set(0x1_0008, 0)
        .faults(&write(), Cause::HostEntryNotPresent, 2, 0x020);
}

/// V kIoPageFaultType_PteRsvdNotZero.
#[test]
fn code_2_reserved_bits_in_a_host_table_entry() {
    for bit in [52, 58] {
        Bed::host()
            .add(0x1_3008, 1 << bit)
            .faults(&read(), Cause::HostEntryReserved, 2, 0x090);
    }
    // U and FC are for pages alone.
    for bit in [59, 60] {
        Bed::host().add(0x1_3008, 1 << bit).passes(&read());
        let failure = Bed::host().add(0x1_2008, 1 << bit).faults(
            &write(),
            Cause::HostEntryReserved,
            2,
            0x0b0,
        );
        assert_eq!((failure.level, failure.bits), (2, 1 << bit));
    }
}

/// V kIoPageFaultType_PteInvalidLvlEncoding; O "next_level >= current_level"; for the sixth level,
/// Linux `amdv1pt_can_have_leaf`.
#[test]
fn code_2_a_next_level_that_does_not_lead_down() {
    for next in [3, 4, 5, 6] {
        let bed = Bed::host().set(0x1_1008, RW | 0x1_2001 | next << 9);
        let failure = bed.faults(&read(), Cause::HostLevel, 2, 0x010);
        assert_eq!((failure.level, failure.bits), (3, 7 << 9));
    }
    let one = Bed::host().set(0x1_3008, RW | 0x8_0201);
    one.faults(&write(), Cause::HostLevel, 2, 0x030);
    // No page is as large as an entry of the sixth level.
    for next in [0, 7] {
        Bed::host()
            .set(DTE, RW | 0x3_0c03)
            .set(0x3_0000, RW | 1 | next << 9)
            .faults(&read(), Cause::HostLevel, 2, 0x010);
    }
}

/// V kIoPageFaultType_PteInvalidPageSize.
#[test]
fn code_2_a_page_size_that_is_not_one_of_its_level() {
    // 8 KiB at level 2, 2 MiB at level 2; 2 MiB at level 1, 4 MiB at level 1.
    for (at, address) in [
        (0x1_2008, 0),
        (0x1_2008, 0xff_000),
        (0x1_3008, 0xff_000),
        (0x1_3008, 0x1ff_000),
    ] {
        let bed = Bed::host().set(at, RW | address | 0xe01);
        bed.faults(&read(), Cause::HostPageSize, 2, 0x010);
    }
}

/// V kIoPageFaultType_SkippedLevelIovaNotZero.
#[test]
fn code_2_a_skipped_level_that_the_address_needs() {
    // From level 4 to level 1, where bits 38:21 are not zero.
    let bed = Bed::host().set(0x1_0008, RW | 0x1_3201);
    let failure = bed.faults(&read(), Cause::HostSkippedLevels, 2, 0x010);
    assert_eq!(failure.level, 4);
    bed.passes(&at(0x80_0000_1abc, read()));
    bed.faults(
        &at(0x80_0020_1abc, read()),
        Cause::HostSkippedLevels,
        2,
        0x010,
    );
}

/// V kIoPageFaultType_PermDenied.
#[test]
fn code_2_a_host_page_that_is_write_only() {
    for (at, level) in [(0x1_0008, 4), (0x1_2008, 2), (0x1_3008, 1)] {
        let bed = Bed::host().take(at, R);
        let failure = bed.faults(&read(), Cause::HostReadDenied, 2, 0x050);
        assert_eq!((failure.level, failure.bits), (level, R));
        bed.passes(&write());
    }
    // Whatever lies below: V denies as soon as it sees it.
    let bed = Bed::host().take(0x1_0008, R).set(0x1_1008, 0);
    bed.faults(&read(), Cause::HostReadDenied, 2, 0x050);
}

/// V kIoPageFaultType_PermDenied.
#[test]
fn code_2_a_host_page_that_is_read_only() {
    for (at, level) in [(0x1_1008, 3), (0x1_3008, 1)] {
        let bed = Bed::host().take(at, W);
        let failure = bed.faults(&write(), Cause::HostWriteDenied, 2, 0x070);
        assert_eq!((failure.level, failure.bits), (level, W));
        bed.faults(&atomic(), Cause::HostWriteDenied, 2, 0x070);
        bed.passes(&read());
    }
}

/// UNCONFIRMED.
#[test]
fn code_4_a_host_dirty_bit_that_cannot_be_set() {
    let bed = Bed::host().add(DTE, 3 << 7);
    let failure = update_failure(&bed, &write());
    assert_eq!(
        (failure.cause, failure.cause.reason().0),
        (Cause::HostUpdateFailed, 4)
    );
    assert_eq!(failure.address(&write()), 0x1_0008);
    assert_eq!(failure.detail.pasid, None);
}

// ---- page requests ----

/// V kInvalidPprReqType_PriNotSupported.
#[test]
fn code_9_page_requests_that_are_not_allowed() {
    let bed = Bed::guest();
    asks(&bed, Some(5), Cause::PageRequestsDisabled);
    let allowed = bed.clone().add(DTE, 1 << 52);
    assert!(page(&allowed, Some(5)).is_ok());
    let off = allowed.control(CONTROL & !(1 << 15));
    asks(&off, Some(5), Cause::PageRequestsDisabled);
    // An entry that says nothing allows nothing, and one that is not there neither.
    let beyond = page_request(&bed.unit, &bed.mem, Rid(0x80), None, &mut ());
    let failure = beyond.expect_err("the page request was let in");
    assert_eq!(failure.cause, Cause::PageRequestsDisabled);
    asks(&Bed::guest().set(DTE, 0), None, Cause::PageRequestsDisabled);
}

/// V kInvalidPprReqType_GstTranslateDisabled.
#[test]
fn code_9_a_page_request_of_a_pasid_without_tables() {
    let host = Bed::host().add(DTE, 1 << 52);
    asks(&host, Some(5), Cause::PageRequestPasid);
    assert!(page(&host, None).is_ok());
    asks(
        &Bed::guest().add(DTE, 1 << 52),
        Some(512),
        Cause::PageRequestPasid,
    );
}

fn page(bed: &Bed, pasid: Option<u32>) -> Result<(), Failure> {
    let pasid = pasid.and_then(Pasid::new);
    page_request(&bed.unit, &bed.mem, Rid(0x0028), pasid, &mut ()).map(|_| ())
}

#[track_caller]
fn asks(bed: &Bed, pasid: Option<u32>, cause: Cause) {
    let failure = page(bed, pasid).expect_err("the page request was let in");
    assert_eq!((failure.cause, failure.cause.reason().0), (cause, 9));
}

/// The failure to set the bits that a walk asked for, in memory that cannot be written.
#[track_caller]
fn update_failure(bed: &Bed, dma: &Dma) -> Failure {
    let mut updates = Updates::new();
    translate(&bed.unit, &bed.mem, dma, &mut updates, &mut ()).expect("the walk itself succeeds");
    let detail = iommu_walk::amdvi::read_space(&bed.unit, &bed.mem, dma, &mut ())
        .expect("the device table entry is good")
        .detail(dma.pasid);
    match apply(&updates, &ReadOnly(&bed.mem), detail, false) {
        Applied::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

// ---- the table as a whole ----

#[test]
fn every_condition_is_confirmed_or_listed() {
    let names = |confirmed: bool| {
        let some: Vec<String> = Cause::ALL
            .iter()
            .filter(|cause| cause.confirmed() == confirmed)
            .map(|cause| format!("{cause:?}"))
            .collect();
        some
    };
    let (confirmed, unconfirmed) = (names(true), names(false));
    println!("confirmed:   {} conditions, {confirmed:?}", confirmed.len());
    println!(
        "UNCONFIRMED: {} conditions, {unconfirmed:?}",
        unconfirmed.len()
    );
    assert_eq!((confirmed.len(), unconfirmed.len()), (17, 27));
    let mut codes: Vec<u32> = Cause::ALL.iter().map(|cause| cause.reason().0).collect();
    codes.sort_unstable();
    codes.dedup();
    assert_eq!(codes, [0, 1, 2, 3, 4, 8, 9]);
}

/// V, which names "I/O Page Faults" of the specification: a translation request that meets one leaves
/// no event.
#[test]
fn a_translation_request_records_nothing_but_what_is_no_page_fault() {
    let kind = DmaKind::Translation { no_write: false };
    for cause in Cause::ALL {
        let recorded = cause.recorded(kind);
        let page_fault = cause.reason().0 == 2;
        let told = matches!(cause, Cause::InterruptWithPasid);
        let never = matches!(cause, Cause::Disabled);
        assert_eq!(recorded, !never && (!page_fault || told), "{cause:?}");
    }
}
