use super::*;

/// Typed from the structures' tables: DMAR (from its host address width on), DRHD, two scopes.
const LITERAL: [u8; 44] = [
    0x33, // host address width, less one: 52 bits
    0x00, // flags: no interrupt remapping
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // reserved
    0x00, 0x00, // type: DRHD
    0x20, 0x00, // length: 16 and two scopes of 8
    0x00, // flags: not INCLUDE_PCI_ALL
    0x00, // size: 4 KiB
    0x00, 0x00, // segment
    0x00, 0xe0, 0xbf, 0xfe, 0, 0, 0, 0, // register base
    0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x04, 0x00, // endpoint, bus 0, 04.0
    0x01, 0x08, 0x00, 0x00, 0x00, 0x00, 0x06, 0x01, // endpoint, bus 0, 06.1
];

fn functions() -> Vec<Rid> {
    [(4, 0), (6, 1)]
        .into_iter()
        .filter_map(|(device, function)| Rid::new(0, device, function))
        .collect()
}

#[test]
fn the_table_is_what_the_specification_spells() {
    assert_eq!(body(0xfebf_e000, 52, &functions()), LITERAL);
}

#[test]
fn lengths_and_offsets_are_those_of_linux() {
    // `struct acpi_table_dmar` has 12 bytes after its header of 36, `struct
    // acpi_dmar_hardware_unit` 16 with the address at 8, `struct acpi_dmar_device_scope` 6 and
    // `struct acpi_dmar_pci_path` 2.
    let (unit, scopes) = LITERAL[12..].split_at(16);
    assert_eq!(usize::from(unit[2]), LITERAL.len() - 12);
    assert_eq!(
        u64::from_le_bytes(unit[8..16].try_into().unwrap()),
        0xfebf_e000
    );
    assert_eq!(scopes.len(), 2 * (6 + 2));
    assert_eq!(
        scopes[8..].first(),
        Some(&1),
        "ACPI_DMAR_SCOPE_TYPE_ENDPOINT"
    );
}
