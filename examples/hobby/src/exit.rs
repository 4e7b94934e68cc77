//! The ways to leave a virtual machine.

use x86_64::instructions::{hlt, interrupts, port::Port};

/// The code for: all went as it should.
pub const SUCCESS: u32 = 0x10;

/// The code for a panic, a fault, or an error that leaves nothing to do.
pub const FAILURE: u32 = 0x11;

/// Leaves QEMU through isa-debug-exit; QEMU's exit status is `2 * code + 1`.
pub fn exit(code: u32) -> ! {
    // SAFETY: the port is isa-debug-exit's, or nobody's.
    unsafe { Port::new(0xf4).write(code) };
    halt()
}

/// Stops for good.
pub fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// ACPI's S5 on QEMU's chip sets.
pub fn power_off() -> ! {
    // SAFETY: PM1a_CNT of QEMU's PIIX4 and ICH9; nothing is done after it.
    unsafe { Port::<u16>::new(0x604).write(0x2000) };
    halt()
}
