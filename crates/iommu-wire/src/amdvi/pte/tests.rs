use super::*;

/// Typed from "I/O Page Tables for Host Translations": a 4 KiB page at 0x1234_5000, PR, A, D, FC, IR,
/// IW.
const PAGE: u64 = 0x7000_0000_1234_5061;
/// A table of level 3 at 0x8_0000, PR, IR, IW.
const TABLE: u64 = 0x6000_0000_0008_0601;
/// A 32 KiB page at 0x4_0000, in the address of which bits 13:12 are ones and bit 14 is zero; IR.
const SIZED: u64 = 0x2000_0000_0004_3e01;

fn genmask(high: u32, low: u32) -> u64 {
    (!0 >> (63 - high)) & (!0 << low)
}

#[test]
fn a_host_entry_decodes_from_a_literal_word() {
    let entry = HostEntry::from_bits(PAGE);
    assert!(entry.present() && entry.accessed() && entry.dirty() && entry.force_coherent());
    assert!(entry.read() && entry.write() && !entry.untranslated_only());
    let page = |base, shift| HostTarget::Page {
        base: Gpa(base),
        shift,
    };
    assert_eq!(entry.target(1), page(0x1234_5000, 12));
    assert_eq!(entry.target(2), page(0x1220_0000, 21));
    assert_eq!(
        HostEntry::from_bits(PAGE & !1).target(1),
        HostTarget::Absent
    );
    let table = HostTarget::Table {
        table: Gpa(0x8_0000),
        level: 3,
    };
    assert_eq!(HostEntry::from_bits(TABLE).target(4), table);
    assert_eq!(HostEntry::from_bits(TABLE).target(6), table);
    assert_eq!(HostEntry::from_bits(TABLE).target(3), HostTarget::BadLevel);
    assert_eq!(HostEntry::from_bits(SIZED).target(1), page(0x4_0000, 15));
    assert_eq!(HostEntry::from_bits(SIZED).target(2), HostTarget::BadSize);
    assert_eq!(HostEntry::from_bits(SIZED).target(6), HostTarget::BadLevel);
}

/// Linux `generic_pt/fmt/amdv1.h`: `AMDV1PT_FMT_*`.
#[test]
fn host_positions_agree_with_linux() {
    assert_ne!(PAGE & 1 << 0, 0); // AMDV1PT_FMT_PR
    assert_ne!(PAGE & 1 << 6, 0); // AMDV1PT_FMT_D
    assert_eq!(TABLE & genmask(11, 9), 3 << 9); // AMDV1PT_FMT_NEXT_LEVEL
    assert_eq!(PAGE & genmask(51, 12), 0x1234_5000); // AMDV1PT_FMT_OA
    assert_ne!(PAGE & 1 << 60, 0); // AMDV1PT_FMT_FC
    assert_ne!(PAGE & 1 << 61, 0); // AMDV1PT_FMT_IR
    assert_ne!(PAGE & 1 << 62, 0); // AMDV1PT_FMT_IW
    // VirtualBox, `IOPTE_T` and `IOPDE_T`: the accessed bit and what is reserved.
    assert_ne!(PAGE & 1 << 5, 0);
    assert_eq!(HostEntry::PAGE_RESERVED, genmask(58, 52));
    assert_eq!(HostEntry::TABLE_RESERVED, genmask(60, 52));
}

/// Linux `amdv1pt_install_leaf_entry`: the address of a page of 2^n bytes gets
/// `2^(n - 12 - 1) - 1` in its low bits.
#[test]
fn every_encoded_size_agrees_with_linux() {
    let mut sizes = 0;
    for level in 1..=5_u8 {
        let own = 3 + 9 * level;
        for shift in (own + 1..own + 9).filter(|shift| *shift <= 53) {
            let address = ((1_u64 << (shift - 12 - 1)) - 1) << 12 | 1 << shift;
            let entry = HostEntry::from_bits(address & HostEntry::ADDRESS | 7 << 9 | 1);
            let base = if shift < 52 { 1 << shift } else { 0 };
            let page = HostTarget::Page {
                base: Gpa(base),
                shift,
            };
            assert_eq!(entry.target(level), page, "level {level}, 2^{shift}");
            sizes += 1;
        }
    }
    // Eight at each of four levels; 2^49 to 2^53 at the fifth, of which Linux uses those up to 2^51.
    assert_eq!(sizes, 37);
    assert_eq!(
        HostEntry::from_bits(HostEntry::ADDRESS | 7 << 9 | 1).encoded_shift(),
        53
    );
}

/// The x86-64 format: Linux `generic_pt/fmt/x86_64.h`, `X86_64_FMT_*`.
#[test]
fn a_guest_entry_decodes_from_a_literal_word() {
    // A 2 MiB page at 0x4020_0000, P, R/W, U/S, A, D, PS, NX.
    const GUEST: u64 = 0x8000_0000_4020_00e7;
    let entry = GuestEntry::from_bits(GUEST);
    assert!(entry.present() && entry.writable() && entry.user());
    assert!(entry.accessed() && entry.dirty() && entry.page_size() && entry.no_execute());
    assert_eq!(entry.page() << 12, 0x4020_0000);
    for bit in [0, 1, 2, 5, 6, 7, 63] {
        assert_ne!(GUEST & 1 << bit, 0);
    }
    assert_eq!(GUEST & genmask(51, 12), 0x4020_0000); // X86_64_FMT_OA
}
