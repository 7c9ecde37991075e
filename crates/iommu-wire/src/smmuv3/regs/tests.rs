//! Each field against the mask of a second author.

use super::*;

#[test]
fn idr0_has_the_bits_of_linux_and_freebsd() {
    let new = Idr0::new;
    for (mask, idr) in [
        // IDR0_* of arm-smmu-v3.h.
        (3 << 27, new().with_st_level(3)),
        (3 << 24, new().with_stall_model(StallModel(3))),
        (3 << 21, new().with_ttendian(3)),
        (1 << 19, new().with_cd2l(true)),
        (1 << 18, new().with_vmid16(true)),
        (1 << 16, new().with_pri(true)),
        (1 << 14, new().with_sev(true)),
        (1 << 13, new().with_msi(true)),
        (1 << 12, new().with_asid16(true)),
        (1 << 10, new().with_ats(true)),
        (1 << 9, new().with_hyp(true)),
        (3 << 6, new().with_httu(3)),
        (1 << 4, new().with_cohacc(true)),
        (3 << 2, new().with_ttf(3)),
        (1 << 1, new().with_s1p(true)),
        (1 << 0, new().with_s2p(true)),
        // IDR0_* of smmu_reg.h.
        (1 << 26, new().with_term_model(true)),
        (1 << 20, new().with_vatos(true)),
        (1 << 17, new().with_vmw(true)),
        (1 << 15, new().with_atos(true)),
        (1 << 11, new().with_ns1ats(true)),
        (1 << 8, new().with_dormhint(true)),
        (1 << 5, new().with_btm(true)),
        // FIELD(IDR0, ...) of smmuv3-internal.h.
        (1 << 23, new().with_atsrecerr(true)),
        (1 << 30, new().with_rme_impl(true)),
    ] {
        assert_eq!(idr.into_bits(), mask, "{idr:?}");
    }
    // IDR0_STALL_MODEL_STALL and _FORCE.
    assert_eq!(StallModel::BOTH.0, 0);
    assert_eq!(StallModel::FORCED.0, 2);
}

#[test]
fn idr1_has_the_bits_of_linux_and_freebsd() {
    let new = Idr1::new;
    for (mask, idr) in [
        (1u32 << 30, new().with_tables_preset(true)),
        (1 << 29, new().with_queues_preset(true)),
        (1 << 28, new().with_rel(true)),
        (1 << 27, new().with_attr_types_ovr(true)),
        (1 << 26, new().with_attr_perms_ovr(true)),
        (0x1f << 21, new().with_cmdqs(0x1f)),
        (0x1f << 16, new().with_eventqs(0x1f)),
        (0x1f << 11, new().with_priqs(0x1f)),
        (0x1f << 6, new().with_ssidsize(0x1f)),
        (0x3f, new().with_sidsize(0x3f)),
        (1 << 31, new().with_ecmdq(true)),
    ] {
        assert_eq!(idr.into_bits(), mask, "{idr:?}");
    }
}

#[test]
fn idr3_and_idr5_have_the_bits_of_linux_and_qemu() {
    let new = Idr3::new;
    for (mask, idr) in [
        // IDR3_* of arm-smmu-v3.h.
        (1 << 8, new().with_fwb(true)),
        (1 << 10, new().with_ril(true)),
        (3 << 11, new().with_bbml(3)),
        // FIELD(IDR3, ...) of smmuv3-internal.h.
        (1 << 2, new().with_had(true)),
        (1 << 3, new().with_pbha(true)),
        (1 << 4, new().with_xnx(true)),
        (1 << 5, new().with_pps(true)),
        (1 << 7, new().with_mpam(true)),
        (1 << 9, new().with_stt(true)),
        (1 << 13, new().with_e0pd(true)),
        (1 << 14, new().with_ptwnnc(true)),
        (1 << 15, new().with_dpt(true)),
    ] {
        assert_eq!(idr.into_bits(), mask, "{idr:?}");
    }
    let new = Idr5::new;
    for (mask, idr) in [
        (0xffff_0000, new().with_stall_max(0xffff)),
        (1 << 7, new().with_ds(true)),
        (1 << 6, new().with_gran64k(true)),
        (1 << 5, new().with_gran16k(true)),
        (1 << 4, new().with_gran4k(true)),
        (7, new().with_oas(7)),
        (3 << 10, new().with_vax(3)),
    ] {
        assert_eq!(idr.into_bits(), mask, "{idr:?}");
    }
    // IDR5_OAS_*_BIT.
    let bits = [0, 1, 2, 3, 4, 5, 6, 7].map(size_bits);
    let expected = [32, 36, 40, 42, 44, 48, 52].map(Some);
    assert_eq!(bits[..7], expected);
    assert_eq!(bits[7], None);
}

#[test]
fn control_registers_have_the_bits_of_linux_and_freebsd() {
    for (mask, cr0) in [
        (1 << 4, Cr0::new().with_atschk(true)),
        (1 << 3, Cr0::new().with_cmdqen(true)),
        (1 << 2, Cr0::new().with_eventqen(true)),
        (1 << 1, Cr0::new().with_priqen(true)),
        (1 << 0, Cr0::new().with_smmuen(true)),
        (7 << 6, Cr0::new().with_vmw(7)),
    ] {
        assert_eq!(cr0.into_bits(), mask, "{cr0:?}");
    }
    for (mask, cr1) in [
        (3 << 10, Cr1::new().with_table_sh(3)),
        (3 << 8, Cr1::new().with_table_oc(3)),
        (3 << 6, Cr1::new().with_table_ic(3)),
        (3 << 4, Cr1::new().with_queue_sh(3)),
        (3 << 2, Cr1::new().with_queue_oc(3)),
        (3, Cr1::new().with_queue_ic(3)),
    ] {
        assert_eq!(cr1.into_bits(), mask, "{cr1:?}");
    }
    assert_eq!(Cr1::TABLES | Cr1::QUEUES, 0xfff);
    for (mask, cr2) in [
        (1 << 2, Cr2::new().with_ptm(true)),
        (1 << 1, Cr2::new().with_recinvsid(true)),
        (1 << 0, Cr2::new().with_e2h(true)),
    ] {
        assert_eq!(cr2.into_bits(), mask, "{cr2:?}");
    }
    // GBPA_UPDATE, GBPA_ABORT; SMMU_GBPA_RESET_VAL of QEMU is SHCFG = use incoming.
    assert_eq!(Gbpa::new().with_update(true).into_bits(), 1 << 31);
    assert_eq!(Gbpa::new().with_abort(true).into_bits(), 1 << 20);
    assert_eq!(Gbpa::new().with_shcfg(1).into_bits(), 0x1000);
    // IRQ_CTRL_*.
    assert_eq!(IrqCtrl::new().with_eventq(true).into_bits(), 1 << 2);
    assert_eq!(IrqCtrl::new().with_priq(true).into_bits(), 1 << 1);
    assert_eq!(IrqCtrl::new().with_gerror(true).into_bits(), 1 << 0);
}

#[test]
fn global_errors_have_the_bits_of_linux() {
    let new = Gerror::new;
    let all = [
        (8, new().with_sfm_err(true)),
        (7, new().with_msi_gerror_abt_err(true)),
        (6, new().with_msi_priq_abt_err(true)),
        (5, new().with_msi_eventq_abt_err(true)),
        (4, new().with_msi_cmdq_abt_err(true)),
        (3, new().with_priq_abt_err(true)),
        (2, new().with_eventq_abt_err(true)),
        (0, new().with_cmdq_err(true)),
    ];
    let mut mask = 0;
    for (bit, gerror) in all {
        assert_eq!(gerror.into_bits(), 1 << bit, "{gerror:?}");
        mask |= gerror.into_bits();
    }
    assert_eq!(mask, 0x1fd, "GERROR_ERR_MASK");
}

#[test]
fn the_stream_table_has_the_masks_of_linux() {
    // STRTAB_BASE_RA; Linux masks the address to bits 51:6, the specification has 55:6.
    assert_eq!(StrtabBase::new().with_ra(true).into_bits(), 1 << 62);
    let base = StrtabBase::from_bits(0x000f_ffff_ffff_ffc0);
    assert_eq!(base.base(), Gpa(0x000f_ffff_ffff_ffc0));
    // STRTAB_BASE_CFG_*.
    let cfg = StrtabBaseCfg::from_bits(1 << 16 | 8 << 6 | 16);
    assert_eq!((cfg.fmt(), cfg.split(), cfg.log2size()), (1, 8, 16));
}

#[test]
fn queues_have_the_masks_of_linux() {
    // Q_BASE_RWA, Q_BASE_LOG2SIZE, Q_BASE_ADDR_MASK.
    let base = QueueBase::from_bits(1 << 62 | 0x1_2345_6000 | 9);
    assert!(base.hint());
    assert_eq!(base.log2size(), 9);
    // A queue of 2^9 entries of 16 bytes is aligned to 8 KiB, one of one entry to 32 bytes.
    assert_eq!(base.base(9, 16), Gpa(0x1_2345_6000));
    assert_eq!(base.base(10, 16), Gpa(0x1_2345_4000));
    assert_eq!(QueueBase::from_bits(0x1020).base(0, 16), Gpa(0x1020));
    // Q_OVERFLOW_FLAG, CMDQ_CONS_ERR.
    assert_eq!(Index::new().with_overflow(true).into_bits(), 1 << 31);
    assert_eq!(
        Consumer::new().with_error(CommandError(0x7f)).into_bits(),
        0x7f << 24
    );
    // CMDQ_ERR_CERROR_*_IDX.
    assert_eq!(CommandError::ILL.0, 1);
    assert_eq!(CommandError::ABT.0, 2);
    assert_eq!(CommandError::ATC_INV_SYNC.0, 3);
    // MSI_CFG0_ADDR_MASK, MSI_CFG2_*.
    let address = MessageAddress::from_bits(0x000f_ffff_ffff_fffc);
    assert_eq!(address.addr() << 2, 0x000f_ffff_ffff_fffc);
    let config = MessageConfig::new().with_sh(3).with_mem_attr(0xf);
    assert_eq!(config.into_bits(), 0x3f);
}

#[test]
fn offsets_are_those_of_linux_and_freebsd() {
    // ARM_SMMU_*; the output queues' indices 64 KiB further on, as SMMU_EVENTQ_PROD of smmu_reg.h.
    for (offset, expected) in [
        (offset::IDR5, 0x14),
        (offset::IIDR, 0x18),
        (offset::AIDR, 0x1c),
        (offset::CR0, 0x20),
        (offset::CR0ACK, 0x24),
        (offset::CR1, 0x28),
        (offset::CR2, 0x2c),
        (offset::STATUSR, 0x40),
        (offset::GBPA, 0x44),
        (offset::AGBPA, 0x48),
        (offset::IRQ_CTRL, 0x50),
        (offset::IRQ_CTRLACK, 0x54),
        (offset::GERROR, 0x60),
        (offset::GERRORN, 0x64),
        (offset::GERROR_IRQ_CFG0, 0x68),
        (offset::STRTAB_BASE, 0x80),
        (offset::STRTAB_BASE_CFG, 0x88),
        (offset::CMDQ_BASE, 0x90),
        (offset::CMDQ_PROD, 0x98),
        (offset::CMDQ_CONS, 0x9c),
        (offset::EVENTQ_BASE, 0xa0),
        (offset::EVENTQ_PROD, 0x1_00a8),
        (offset::EVENTQ_CONS, 0x1_00ac),
        (offset::EVENTQ_IRQ_CFG0, 0xb0),
        (offset::PRIQ_BASE, 0xc0),
        (offset::PRIQ_PROD, 0x1_00c8),
        (offset::PRIQ_CONS, 0x1_00cc),
        (offset::PRIQ_IRQ_CFG0, 0xd0),
    ] {
        assert_eq!(offset, expected);
    }
}
