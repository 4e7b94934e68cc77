//! The test kernel: prints `lab: ready`, reads one line from COM1, and does what it says.
//!
//! xtask boots it once, takes a snapshot at `lab: ready`, and starts each case there by typing a line. A command's results are
//! lines; then comes `lab: ready` again, unless the command left.
#![no_std]
#![no_main]

mod altered;
mod commands;
mod input;
mod memory;
mod return_;
mod transition;

use core::panic::PanicInfo;

use bootloader_api::{BootInfo, entry_point};
use hobby::boot::{self, Boot};
use hobby::{Console, exit};
use kexec_exception::{Handler, Tables, TrapFrame};

/// This kernel's name stands before each line.
const CONSOLE: Console = Console::of("lab");

entry_point!(main, config = &boot::CONFIG);

static mut TABLES: Tables = Tables::new();

/// A fault of this kernel's own is printed, and the end.
struct Faults;

impl Handler for Faults {
    fn handle(frame: &mut TrapFrame) {
        writeln!(CONSOLE, "{frame}");
        exit::exit(exit::FAILURE)
    }
}

fn main(info: &'static mut BootInfo) -> ! {
    let tables = &raw mut TABLES;
    // SAFETY: once, at CPL 0, with interrupts off, as the boot loader leaves them; nothing else names TABLES.
    unsafe { (*tables).install::<Faults>() };
    // SAFETY: once, and this kernel asked for that configuration.
    let mut boot = unsafe { Boot::new(info) };
    let mut line = [0; 1024];
    loop {
        writeln!(CONSOLE, "ready");
        commands::run(&mut boot, input::read_line(&mut line));
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    writeln!(CONSOLE, "{info}");
    exit::exit(exit::FAILURE)
}
