//! The port that the command line names.

use serial8250::pci::{ConfigPorts, MemoryRegisters, serial_functions};
use serial8250::{Config, Stride, command_line};

/// Linux's `earlyprintk=`, `earlycon=` or `console=`; or `pci`, the first serial port among the PCI functions. Registers in memory
/// are 32 bits wide there, or with `pci=bytes` 8 bits, 4 bytes apart: a function does not say which.
pub fn find(command_line: &str) -> Option<Config> {
    if let Some(port) = command_line::ports(command_line).next() {
        return port.ok();
    }
    let registers = command_line.split_whitespace().find_map(|word| match word {
        "pci" => Some(MemoryRegisters::Words),
        "pci=bytes" => Some(MemoryRegisters::Bytes(Stride::Four)),
        _ => None,
    })?;
    // SAFETY: a PC, and nobody else looks for PCI functions meanwhile.
    let access = unsafe { ConfigPorts::new() };
    let (function, bar) = serial_functions(&access, 0)
        .find_map(|function| function.bars(&access).next().map(|bar| (function, bar)))?;
    let config = bar.config(registers).ok()?;
    // SAFETY: firmware gave the address to this function alone, and nobody else writes its command register.
    unsafe { function.enable(&access, &bar) };
    Some(config)
}
