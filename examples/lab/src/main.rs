//! The test kernel: prints `lab: ready`, reads one line from COM1, and does what it says.
//!
//! xtask boots it once, takes a snapshot at `lab: ready`, and starts each case there by typing a line.
#![no_std]
#![no_main]

use core::fmt::{self, Write};
use core::panic::PanicInfo;

use bootloader_api::{BootInfo, entry_point};
use x86_64::instructions::{hlt, interrupts, port::Port, tables};
use x86_64::structures::DescriptorTablePointer;

entry_point!(main);

fn main(_: &'static mut BootInfo) -> ! {
    let mut line = [0; 256];
    loop {
        print(format_args!("lab: ready\n"));
        let line = read_line(&mut line);
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("echo") => print(format_args!("lab: {}\n", line["echo".len()..].trim_start())),
            Some("exit") => exit(words.next().and_then(|code| code.parse().ok()).unwrap_or(0x10)),
            Some("halt") => halt(),
            Some("poweroff") => power_off(),
            Some("reset") => triple_fault(),
            Some("spin") => loop {
                core::hint::spin_loop();
            },
            Some(command) => print(format_args!("lab: no command {command}\n")),
            None => {}
        }
    }
}

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;

fn print(text: fmt::Arguments) {
    let _ = Com1.write_fmt(text);
}

struct Com1;

impl Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: COM1's line status and transmit registers; no memory is touched.
            unsafe {
                while Port::<u8>::new(LINE_STATUS).read() & 0x20 == 0 {}
                Port::new(DATA).write(byte);
            }
        }
        Ok(())
    }
}

/// What comes before the next newline; bytes that don't fit, or aren't ASCII, are dropped.
fn read_line(line: &mut [u8]) -> &str {
    let mut len = 0;
    loop {
        // SAFETY: COM1's line status and receive registers; no memory is touched.
        let byte = unsafe {
            while Port::<u8>::new(LINE_STATUS).read() & 1 == 0 {}
            Port::<u8>::new(DATA).read()
        };
        match byte {
            b'\n' | b'\r' => return core::str::from_utf8(&line[..len]).unwrap_or(""),
            byte if byte.is_ascii() && len < line.len() => {
                line[len] = byte;
                len += 1;
            }
            _ => {}
        }
    }
}

/// Leaves QEMU through isa-debug-exit; QEMU's exit status is `2 * code + 1`.
fn exit(code: u32) -> ! {
    // SAFETY: the port is isa-debug-exit's, or nobody's.
    unsafe { Port::new(0xf4).write(code) };
    halt()
}

fn halt() -> ! {
    loop {
        interrupts::disable();
        hlt();
    }
}

/// ACPI's S5 on QEMU's chip sets.
fn power_off() -> ! {
    // SAFETY: PM1a_CNT of QEMU's PIIX4 and ICH9; nothing is done after it.
    unsafe { Port::<u16>::new(0x604).write(0x2000) };
    halt()
}

fn triple_fault() -> ! {
    let nothing = DescriptorTablePointer { limit: 0, base: x86_64::VirtAddr::zero() };
    // SAFETY: the machine is meant to be lost here.
    unsafe {
        tables::lidt(&nothing);
        core::arch::asm!("ud2", options(noreturn));
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    print(format_args!("lab: {info}\n"));
    exit(0x11)
}
