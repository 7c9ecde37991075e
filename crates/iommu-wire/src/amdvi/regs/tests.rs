//! Each field against the mask of a second author.

use super::*;

#[test]
fn the_control_register_has_the_bits_of_linux() {
    // CONTROL_* of amd_iommu_types.h.
    for (bit, control) in [
        (0, Control::new().with_iommu_en(true)),
        (1, Control::new().with_ht_tun_en(true)),
        (2, Control::new().with_event_log_en(true)),
        (3, Control::new().with_event_int_en(true)),
        (4, Control::new().with_com_wait_int_en(true)),
        (8, Control::new().with_pass_pw(true)),
        (9, Control::new().with_res_pass_pw(true)),
        (10, Control::new().with_coherent(true)),
        (11, Control::new().with_isoc(true)),
        (12, Control::new().with_cmd_buf_en(true)),
        (13, Control::new().with_ppr_log_en(true)),
        (14, Control::new().with_ppr_int_en(true)),
        (15, Control::new().with_ppr_en(true)),
        (16, Control::new().with_gt_en(true)),
        (17, Control::new().with_ga_en(true)),
        (25, Control::new().with_gam_en(1)),
        (28, Control::new().with_ga_log_en(true)),
        (29, Control::new().with_ga_int_en(true)),
        (43, Control::new().with_num_int_remap_mode(1)),
        (45, Control::new().with_eph_en(true)),
        (50, Control::new().with_xt_en(true)),
        (51, Control::new().with_int_cap_xt_en(true)),
        (58, Control::new().with_gcr3_trp_mode(true)),
        (59, Control::new().with_irt_cache_dis(true)),
        (61, Control::new().with_snp_avic_en(1)),
        // VirtualBox IOMMU_CTRL_T.
        (5, Control::new().with_inv_timeout(1)),
        (34, Control::new().with_dev_tbl_seg_en(1)),
        (37, Control::new().with_priv_abrt_en(1)),
        (39, Control::new().with_ppr_auto_rsp_en(true)),
        (40, Control::new().with_marc_en(true)),
        (41, Control::new().with_blk_stop_mrk_en(true)),
        (42, Control::new().with_ppr_auto_rsp_aon(true)),
        (46, Control::new().with_had_update(1)),
        (48, Control::new().with_gd_update_dis(true)),
        (54, Control::new().with_ga_update_dis(true)),
    ] {
        assert_eq!(control.into_bits(), 1 << bit, "bit {bit}");
    }
}

#[test]
fn the_feature_register_has_the_bits_of_linux_and_xen() {
    let new = ExtendedFeatures::new;
    for (mask, features) in [
        // FEATURE_* of amd_iommu_types.h.
        (1 << 0, new().with_pref_sup(true)),
        (1 << 1, new().with_ppr_sup(true)),
        (1 << 2, new().with_xt_sup(true)),
        (1 << 3, new().with_nx_sup(true)),
        (1 << 4, new().with_gt_sup(true)),
        (1 << 6, new().with_ia_sup(true)),
        (1 << 7, new().with_ga_sup(true)),
        (1 << 8, new().with_he_sup(true)),
        (1 << 9, new().with_pc_sup(true)),
        (3 << 10, new().with_hats(3)),
        (3 << 12, new().with_gats(3)),
        (3 << 14, new().with_glx_sup(3)),
        (1 << 21, new().with_gam_sup(1)),
        (0x1f << 32, new().with_pas_max(0x1f)),
        (1 << 48, new().with_gio_sup(true)),
        (1 << 49, new().with_ha_sup(true)),
        (1 << 50, new().with_eph_sup(true)),
        (1 << 52, new().with_hd_sup(true)),
        (1 << 63, new().with_snp_sup(true)),
        // union amd_iommu_ext_features of Xen.
        (1 << 31, new().with_sats_sup(true)),
        (1 << 37, new().with_us_sup(true)),
        (3 << 38, new().with_dev_tbl_seg_sup(3)),
        (1 << 40, new().with_ppr_ovrflw_early_sup(true)),
        (1 << 41, new().with_ppr_auto_rsp_sup(true)),
        (3 << 42, new().with_marc_sup(3)),
        (1 << 44, new().with_blk_stop_mrk_sup(true)),
        (1 << 45, new().with_perf_opt_sup(true)),
        (1 << 46, new().with_msi_cap_mmio_sup(true)),
        (1 << 51, new().with_attr_fw_sup(true)),
        (1 << 54, new().with_inv_iotlb_type_sup(true)),
        (1 << 55, new().with_viommu_sup(true)),
        (1 << 61, new().with_ga_update_dis_sup(true)),
    ] {
        assert_eq!(features.into_bits(), mask, "{features:?}");
    }
    assert_eq!(
        ExtendedFeatures2::new()
            .with_gcr3_trp_mode(true)
            .into_bits(),
        1 << 3
    );
    assert_eq!(
        ExtendedFeatures2::new()
            .with_ht_range_ignore(true)
            .into_bits(),
        1 << 11
    );
}

#[test]
fn the_status_register_has_the_bits_of_linux() {
    let new = Status::new;
    for (bit, status) in [
        // MMIO_STATUS_*.
        (0, new().with_event_overflow(true)),
        (1, new().with_event_log_int(true)),
        (2, new().with_com_wait_int(true)),
        (3, new().with_event_log_run(true)),
        (5, new().with_ppr_overflow(true)),
        (6, new().with_ppr_int(true)),
        (7, new().with_ppr_log_run(true)),
        (8, new().with_ga_log_run(true)),
        (9, new().with_ga_overflow(true)),
        (10, new().with_ga_int(true)),
        // QEMU AMDVI_MMIO_STATUS_CMDBUF_RUN.
        (4, new().with_cmd_buf_run(true)),
        // VirtualBox IOMMU_STATUS_*.
        (11, new().with_ppr_overflow_b(true)),
        (12, new().with_ppr_log_active(true)),
        (15, new().with_event_overflow_b(true)),
        (16, new().with_event_log_active(true)),
        (17, new().with_ppr_overflow_early_b(true)),
        (18, new().with_ppr_overflow_early(true)),
    ] {
        assert_eq!(status.into_bits(), 1 << bit, "bit {bit}");
    }
}

#[test]
fn rings_are_as_long_as_linux_asks() {
    // MMIO_CMD_SIZE_512, EVTLOG_LEN_MASK_MAX; CMD_BUFFER_SIZE and EVTLOG_SIZE_MAX bytes.
    let small = RingBase::from_bits(0x12_3456_7000 | 0x9 << 56);
    assert_eq!(small.entries(), Some(512));
    assert_eq!(small.base(), Gpa(0x12_3456_7000));
    let large = RingBase::from_bits(0x12_3456_7000 | 0xf << 56);
    assert_eq!(large.entries(), Some(32 * 1024));
    assert_eq!(RingBase::from_bits(0x7 << 56).entries(), None);
    // MMIO_CMD_HEAD_MASK, GENMASK_ULL(18, 4).
    assert_eq!(RingPointer::new().with_index(0x7fff).into_bits(), 0x7_fff0);
}

#[test]
fn the_device_table_is_as_large_as_linux_asks() {
    // iommu_set_device_table: the size field is pages less one, 2 MiB for 65,536 devices.
    let table = DeviceTableBase::from_bits(0x1234_51ff);
    assert_eq!(table.base(), Gpa(0x1234_5000));
    assert_eq!(table.bytes(), 2 << 20);
}

#[test]
fn the_exclusion_range_has_the_masks_of_virtualbox() {
    // IOMMU_EXCL_RANGE_BAR_VALID_MASK; the limit's low bits count as ones.
    let all = ExclusionBase::new()
        .with_enabled(true)
        .with_allow_all(true)
        .with_page(u64::MAX >> 24);
    assert_eq!(all.into_bits(), 0x000f_ffff_ffff_f003);
    assert_eq!(ExclusionLimit::new().with_page(1).into_bits(), 0x1000);
}

#[test]
fn an_xt_interrupt_has_the_fields_of_linux() {
    // union intcapxt: destid_0_23 at 8, vector at 32, destid_24_31 at 56, dest_mode_logical at 2.
    let raw = XtInterrupt::from_bits(0x12 << 56 | 0x31 << 32 | 0x34_5678 << 8 | 1 << 2);
    assert_eq!(raw.destination_high(), 0x12);
    assert_eq!(raw.vector(), 0x31);
    assert_eq!(raw.destination_low(), 0x34_5678);
    assert!(raw.logical());
}
