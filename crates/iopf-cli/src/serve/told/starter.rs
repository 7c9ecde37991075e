//! A program that runs before the guest's kernel and puts the unit's registers where its device tree
//! says they are.
//!
//! A machine that boots a kernel without firmware has nobody who would place a BAR before the kernel
//! does, and the kernel needs the unit before it places any. QEMU starts this as if it were the kernel
//! (`-kernel`), the kernel itself lies at an address of its own (`-device loader`), and it finds the
//! machine as QEMU has set it up for a kernel: Linux, "Booting AArch64 Linux". That happens at each
//! reset, so a guest may reboot.

/// COMMAND: the BARs answer (bit 1), and messages may leave (bit 2).
const COMMAND: u32 = 6;

/// The program, as code for AArch64 that may lie anywhere: writes `base` (a multiple of 16 below
/// 4 GiB) to BAR 0 of the function whose configuration space is at `function`, switches it on, and
/// jumps to `kernel`. It changes x4 and x5 only.
pub(super) fn program(function: u64, base: u32, kernel: u64) -> Vec<u8> {
    // Arm ARM, "A64 instruction set encoding": LDR (literal) counts words from itself, STR (immediate)
    // words from its base.
    let code: [u32; 8] = [
        0x5800_0004 | 8 << 5,       // ldr  x4, function
        0x1800_0005 | 11 << 5,      // ldr  w5, base
        0xb900_0085 | 4 << 10,      // str  w5, [x4, #0x10]
        0x5280_0005 | COMMAND << 5, // mov  w5, #COMMAND
        0xb900_0085 | 1 << 10,      // str  w5, [x4, #4]
        0x5800_0004 | 5 << 5,       // ldr  x4, kernel
        0xd61f_0080,                // br   x4
        0xd503_201f,                // nop
    ];
    let mut program: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    program.extend(function.to_le_bytes());
    program.extend(kernel.to_le_bytes());
    program.extend(base.to_le_bytes());
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What GNU as makes of the eight lines in the comments, followed by `.quad` twice and `.word`.
    #[test]
    fn the_code_is_what_an_assembler_makes_of_it() {
        let program = program(0x40_1002_8000, 0x3efc_0000, 0x4020_0000);
        let words: Vec<_> = program
            .chunks(4)
            .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
            .collect();
        assert_eq!(
            words,
            [
                0x5800_0104,
                0x1800_0165,
                0xb900_1085,
                0x5280_00c5,
                0xb900_0485,
                0x5800_00a4,
                0xd61f_0080,
                0xd503_201f,
                0x1002_8000,
                0x0000_0040,
                0x4020_0000,
                0,
                0x3efc_0000,
            ]
        );
    }
}
