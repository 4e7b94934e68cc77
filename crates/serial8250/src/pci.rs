//! Serial ports among the PCI functions: class 07, subclass 00 (PCI Code and ID Assignment, 1.7).
//!
//! Works with any [`ConfigRegionAccess`]; [`ConfigPorts`] is the one of every PC. Nothing is written unless asked for: the
//! sizes of BARs, which are found by writing to them, are not needed here, and a port that is in use would vanish
//! meanwhile.

use core::error::Error;
use core::fmt;

use pci_types::{CommandRegister, ConfigRegionAccess, HeaderType, PciAddress, PciHeader};

use crate::config::{Access, Config, InvalidAccess, Stride};

#[cfg(target_arch = "x86_64")]
mod config_ports;

#[cfg(target_arch = "x86_64")]
pub use config_ports::ConfigPorts;

/// A PCI function that is a serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SerialFunction {
    /// Where it is.
    pub address: PciAddress,
    /// Its programming interface: 0 is a generic XT port, 1 a 16450, 2 a 16550, 3 and up later ones.
    pub interface: u8,
}

/// The serial ports among the functions of a segment, in ascending order, on all its buses.
pub fn serial_functions<A: ConfigRegionAccess>(
    access: &A,
    segment: u16,
) -> impl Iterator<Item = SerialFunction> {
    let devices = (0..=u8::MAX).flat_map(|bus| (0..32).map(move |device| (bus, device)));
    devices.flat_map(move |(bus, device)| {
        let header = move |function| PciHeader::new(PciAddress::new(segment, bus, device, function));
        let functions = match header(0).id(access) {
            (0xffff, _) => 0,
            _ if header(0).has_multiple_functions(access) => 8,
            _ => 1,
        };
        (0..functions).map(header).filter_map(move |header| {
            let present = header.id(access).0 != 0xffff;
            match header.revision_and_class(access) {
                (_, 0x07, 0x00, interface) if present => {
                    Some(SerialFunction { address: header.address(), interface })
                }
                _ => None,
            }
        })
    })
}

/// A base address register that firmware, or whoever, has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// Which of the six.
    pub index: u8,
    /// What it holds.
    pub space: Space,
    /// Whether the function answers to such addresses at present: its command register's bit for them.
    pub enabled: bool,
}

/// The address that a BAR holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// An I/O port.
    Io(u32),
    /// An address in memory.
    Memory(u64),
}

/// How the registers lie in a BAR of memory. The function does not say; Linux's `earlyprintk=pciserial` takes
/// [`Words`](Self::Words) for granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryRegisters {
    /// 32 bits each, accessed as such.
    Words,
    /// So far apart, accessed as bytes.
    Bytes(Stride),
}

impl SerialFunction {
    /// The BARs that are there, in ascending order; one that holds 0 has not been given an address, and is left out. A port
    /// is as a rule at the start of the first; a card with several has more BARs, or more ports in one, as its maker likes.
    pub fn bars<A: ConfigRegionAccess>(&self, access: &A) -> impl Iterator<Item = Bar> {
        let header = PciHeader::new(self.address);
        let count = match header.header_type(access) {
            HeaderType::Endpoint => 6,
            HeaderType::PciPciBridge => 2,
            _ => 0,
        };
        let command = header.command(access);
        let address = self.address;
        let mut next = 0;
        core::iter::from_fn(move || {
            while next < count {
                let index = next;
                // SAFETY: a register that every function has, or reads as all ones.
                let register = |index: u8| unsafe { access.read(address, 0x10 + 4 * u16::from(index)) };
                let low = register(index);
                next += 1;
                let space = if low & 1 != 0 {
                    Space::Io(low & !0x3)
                } else {
                    let base = u64::from(low & !0xf);
                    match low >> 1 & 0x3 {
                        0b00 => Space::Memory(base),
                        0b10 if next < count => {
                            next += 1;
                            Space::Memory(u64::from(register(index + 1)) << 32 | base)
                        }
                        _ => continue, // reserved: below 1 MiB once, or the half of nothing
                    }
                };
                let enabled = match space {
                    Space::Io(0) | Space::Memory(0) => continue,
                    Space::Io(_) => command.contains(CommandRegister::IO_ENABLE),
                    Space::Memory(_) => command.contains(CommandRegister::MEMORY_ENABLE),
                };
                return Some(Bar { index, space, enabled });
            }
            None
        })
    }

    /// Makes the function answer to `bar`.
    ///
    /// # Safety
    ///
    /// - The address is the function's alone.
    /// - Nothing else writes the command register meanwhile.
    pub unsafe fn enable<A: ConfigRegionAccess>(&self, access: &A, bar: &Bar) {
        let bit = match bar.space {
            Space::Io(_) => CommandRegister::IO_ENABLE,
            Space::Memory(_) => CommandRegister::MEMORY_ENABLE,
        };
        let command = PciHeader::new(self.address).command(access) | bit;
        // The upper half is the status register, whose bits are cleared by writing 1: so zeros, not what was read.
        // SAFETY: the caller's word.
        unsafe { access.write(self.address, 0x04, u32::from(command.bits())) }
    }
}

impl Bar {
    /// The port at the start of this BAR, whose line stays as it is.
    ///
    /// # Errors
    ///
    /// [`BarError`]: no port can be there.
    pub fn config(&self, registers: MemoryRegisters) -> Result<Config, BarError> {
        let access = match (self.space, registers) {
            (Space::Io(port), _) => Access::Pio { port: port.try_into().map_err(|_| BarError::Port(port))? },
            (Space::Memory(base), MemoryRegisters::Words) => Access::Mmio32 { base },
            (Space::Memory(base), MemoryRegisters::Bytes(stride)) => Access::Mmio8 { base, stride },
        };
        Config::new(access).map_err(BarError::Invalid)
    }
}

/// No port can be where a BAR points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BarError {
    /// The processor has no I/O port so high.
    Port(u32),
    /// A port cannot be there.
    Invalid(InvalidAccess),
}

impl fmt::Display for BarError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "no I/O port {port:#x}"),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl Error for BarError {}
