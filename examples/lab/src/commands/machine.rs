//! The ways in which a machine goes on, or ends.

use hobby::boot::Boot;
use x86_64::instructions::tables;
use x86_64::structures::DescriptorTablePointer;

use crate::CONSOLE;

/// `echo WORDS`
pub fn echo(_: &mut Boot, words: &str) {
    writeln!(CONSOLE, "{words}");
}

/// `exit [CODE]`: through isa-debug-exit.
pub fn exit(_: &mut Boot, code: &str) {
    hobby::exit::exit(code.parse().unwrap_or(hobby::exit::SUCCESS))
}

/// `halt`
pub fn halt(_: &mut Boot, _: &str) {
    hobby::exit::halt()
}

/// `poweroff`
pub fn power_off(_: &mut Boot, _: &str) {
    hobby::exit::power_off()
}

/// `spin`: for ever, and without an IDT, so that nobody handles what comes.
pub fn spin(_: &mut Boot, _: &str) {
    no_idt();
    loop {
        core::hint::spin_loop();
    }
}

/// `reset`: a triple fault.
pub fn reset(_: &mut Boot, _: &str) {
    no_idt();
    // SAFETY: the machine is meant to be lost here.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}

fn no_idt() {
    let nothing = DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
    // SAFETY: any exception is a triple fault from here on, as is meant.
    unsafe { tables::lidt(&nothing) };
}
