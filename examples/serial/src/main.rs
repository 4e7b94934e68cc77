//! A kernel that finds its serial ports and says where they are, on each of them: `serial8250` alone, without kexec.
//!
//! COM1 to COM4, and every serial port on PCI. What it finds it reports on COM1, in the form of Linux's `earlycon=`.
#![no_std]
#![no_main]

use core::fmt::Write;
use core::panic::PanicInfo;
use core::ptr::NonNull;

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::{BootInfo, entry_point};
use serial8250::pci::{Bar, ConfigPorts, MemoryRegisters, Space, serial_functions};
use serial8250::{Config, Line, Registers, Stride, Uart};
use x86_64::instructions::{hlt, interrupts, port::Port};

/// Physical memory, devices below 4 GiB included, is mapped.
const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config
};

entry_point!(main, config = &CONFIG);

/// A wait of 100 status reads, for a look at who is there.
const BRIEFLY: u32 = 100;

fn main(info: &'static mut BootInfo) -> ! {
    let Some(offset) = info.physical_memory_offset.into_option() else { exit(0x11) };
    // SAFETY: a PC's COM1, which nothing else drives. Before any set-up: as firmware left it.
    let mut com1 = unsafe { Uart::com1() }.with_crlf();
    let _ = writeln!(com1, "serial: heard before any set-up");
    let line = Line::new(const { core::num::NonZeroU32::new(115_200).unwrap() });
    match com1.set_up(&line) {
        Ok(()) => {
            let depth = com1.find_fifo();
            let _ = writeln!(com1, "serial: {line}, {depth} bytes a wait");
        }
        Err(error) => drop(writeln!(com1, "serial: {error}")),
    }

    for port in [Config::COM2, Config::COM3, Config::COM4] {
        greet(&mut com1, &port, offset);
    }

    // SAFETY: a PC, and nobody else looks for PCI functions meanwhile.
    let access = unsafe { ConfigPorts::new() };
    for function in serial_functions(&access, 0) {
        for bar in function.bars(&access) {
            let _ = writeln!(com1, "serial: {} {bar:x?}", function.address);
            // SAFETY: firmware gave the address to this function alone.
            unsafe { function.enable(&access, &bar) };
            for registers in ways(&bar) {
                match bar.config(*registers) {
                    Ok(config) if greet(&mut com1, &config, offset) => break,
                    Ok(_) => {}
                    Err(error) => drop(writeln!(com1, "serial: {error}")),
                }
            }
        }
    }
    let _ = writeln!(com1, "serial: done");
    exit(0x10)
}

/// How the registers may lie, which a function does not say.
fn ways(bar: &Bar) -> &'static [MemoryRegisters] {
    match bar.space {
        Space::Io(_) => &[MemoryRegisters::Words], // of no account
        Space::Memory(_) => &[MemoryRegisters::Words, MemoryRegisters::Bytes(Stride::Four)],
    }
}

/// Says on the port at `config` where it is, and on COM1 whether it took that.
fn greet(com1: &mut Uart<impl serial8250::Backend>, config: &Config, offset: u64) -> bool {
    // The boot loader maps devices like memory; that they are not cached is the memory type range registers' doing.
    let map = |base: u64, _| NonNull::new((base + offset) as *mut u8);
    // SAFETY: a port, or nothing that accesses disturb; physical memory is mapped at `offset`, for good.
    let Some(registers) = (unsafe { Registers::new(config, map) }) else { return false };
    // SAFETY: as above.
    let mut look = unsafe { Uart::new(registers) }.with_status_reads(BRIEFLY);
    look.write_bytes(b"\r");
    if let Some(fault) = look.fault() {
        let _ = writeln!(com1, "serial: {config}: {fault}");
        return false;
    }
    // SAFETY: as above; `look` is not used further.
    let mut uart = unsafe { Uart::new(registers) }.with_crlf();
    let depth = uart.find_fifo();
    let _ = writeln!(uart, "serial: this is {config}");
    match uart.fault() {
        None => drop(writeln!(com1, "serial: {config}: heard, {depth} bytes a wait")),
        Some(fault) => drop(writeln!(com1, "serial: {config}: {fault}")),
    }
    uart.fault().is_none()
}

/// Leaves QEMU through isa-debug-exit, with `2 * code + 1`.
fn exit(code: u32) -> ! {
    // SAFETY: isa-debug-exit's port, or nobody's.
    unsafe { Port::new(0xf4).write(code) };
    loop {
        interrupts::disable();
        hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    // SAFETY: COM1; who drove it has panicked.
    let _ = writeln!(unsafe { Uart::com1() }.with_crlf(), "serial: {info}");
    exit(0x11)
}
