use super::*;
use viommu_api::Registers;

/// A register window without registers.
struct Nothing;

impl Registers for Nothing {
    fn size(&self) -> u64 {
        0x4000
    }
    fn read(&self, _: u64, _: &mut [u8]) {}
    fn write(&self, _: u64, _: &[u8]) {}
}

fn functions() -> (Arc<IommuFunction>, AmdviFunction) {
    let registers = Arc::new(IommuFunction::new(Arc::new(Nothing), || {}).unwrap());
    let capability = AmdviCapability {
        iotlb: true,
        physical_bits: 52,
        virtual_bits: 64,
    };
    let function = AmdviFunction::new(registers.clone(), &capability).unwrap();
    (registers, function)
}

fn u32_at(function: &AmdviFunction, offset: u16) -> u32 {
    let mut bytes = [0; 4];
    function.read_config(offset, &mut bytes);
    u32::from_le_bytes(bytes)
}

#[test]
fn the_function_reads_as_typed_from_the_specification() {
    let (_, function) = functions();
    let mut space = [0; 0x68];
    function.read_config(0, &mut space);
    #[rustfmt::skip]
    assert_eq!(space[..0x10], [
        0x4f, 0x49, 0x41, 0x56, // vendor, device
        0x04, 0x00, 0x10, 0x00, // bus master, capability list
        0x00, 0x00, 0x06, 0x08, // class: IOMMU
        0x00, 0x00, 0x00, 0x00,
    ]);
    assert_eq!(space[0x10..0x28], [0; 24], "no BAR");
    assert_eq!(space[0x34], 0x40);
    #[rustfmt::skip]
    assert_eq!(space[0x40..], [
        0x05, 0x50, 0x80, 0x00, // MSI: one message, a 64-bit address
        0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00,
        0x0f, 0x00, 0x0b, 0x19, // type 3, revision 1; IotlbSup, EFRSup, CapExt
        0x00, 0x00, 0x00, 0x00, // base address: nothing answers yet
        0x00, 0x00, 0x00, 0x00,
        0x00, 0x00, 0x00, 0x00, // no range
        0x40, 0x34, 0x20, 0x00, // MsiNum 0, GVAsize 010b, PAsize 52, VAsize 64, MsiNumPPR 0
        0x00, 0x00, 0x00, 0x00, // MsiNumGA 0
    ]);
    let laid_out = function.config().plain_capabilities().to_owned();
    assert_eq!(laid_out, [AmdviFunction::CAPABILITY]);
    assert_eq!(function.bar_size(0), 0);
    let one = Interrupts {
        msi: 1,
        ..Interrupts::default()
    };
    assert_eq!(function.interrupts(), one);
}

#[test]
fn linux_finds_its_bits_in_the_capability() {
    // `IOMMU_CAP_IOTLB`, `IOMMU_CAP_NPCACHE` and `IOMMU_CAP_EFR` in amd_iommu_types.h.
    let (_, function) = functions();
    let header = u32_at(&function, AmdviFunction::CAPABILITY);
    assert_ne!(header & 1 << 24, 0);
    assert_eq!(
        header & 1 << 26,
        0,
        "entries that are not present are not cached"
    );
    assert_ne!(header & 1 << 27, 0);
}

#[test]
fn without_ats_the_capability_says_so() {
    let (registers, _) = functions();
    let capability = AmdviCapability {
        iotlb: false,
        physical_bits: 48,
        virtual_bits: 48,
    };
    let function = AmdviFunction::new(registers, &capability).unwrap();
    assert_eq!(u32_at(&function, 0x50), 0x180b_000f);
    assert_eq!(u32_at(&function, 0x60), 0x0018_3040);
}

#[test]
fn the_base_address_is_where_firmware_has_put_the_registers() {
    let (registers, function) = functions();
    registers.write_config(0x10, &0xfebf_4000_u32.to_le_bytes());
    assert_eq!(u32_at(&function, 0x54), 0, "the BAR does not answer yet");
    registers.write_config(4, &[2, 0]);
    assert_eq!(u32_at(&function, 0x54), 0xfebf_4001);
    assert_eq!(u32_at(&function, 0x58), 0);
    function.write_config(0x54, &[0xff; 8]);
    assert_eq!(
        u32_at(&function, 0x54),
        0xfebf_4001,
        "it cannot be moved from here"
    );
    registers.write_config(4, &[0, 0]);
    assert_eq!(u32_at(&function, 0x54), 0);
}

#[test]
fn the_message_is_what_the_guest_has_set_up() {
    let (_, function) = functions();
    function.write_config(0x44, &0xfee0_1000_u64.to_le_bytes());
    function.write_config(0x4c, &[0x22, 0x40]);
    assert_eq!(function.message(), None, "it is not switched on");
    function.write_config(0x42, &[1, 0]);
    let message = Message {
        addr: 0xfee0_1000,
        data: 0x4022,
    };
    assert_eq!(function.message(), Some(message));
    function.reset();
    assert_eq!(function.message(), None);
}
