//! The port that firmware talks on: ACPI's Serial Port Console Redirection table.
//!
//! After Microsoft's "Serial Port Console Redirection Table", revisions 1 to 4. Whatever walks the ACPI tables (the `acpi`
//! crate, say) finds the table by its signature `SPCR`; [`parse`] takes its bytes. The `acpi` crate's own view of it is
//! not used: it is made from a mapping alone, not from bytes that may be truncated, takes bus, device or function 0 for
//! "none", and reads fields that lie behind the end of a table of an early revision.

use core::error::Error;
use core::fmt;
use core::num::NonZeroU32;

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::config::{Access, Config, InvalidAccess, Line, Stride};

/// The part that every revision has.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Table {
    signature: [u8; 4],
    length: U32,
    revision: u8,
    _checksum_and_ids: [u8; 27],
    interface_type: u8,
    _reserved: [u8; 3],
    base: GenericAddress,
    _interrupts: [u8; 6],
    baud: u8,
    parity: u8,
    stop_bits: u8,
    _flow_terminal_language: [u8; 3],
    pci_device_id: U16,
    pci_vendor_id: U16,
    pci_bus: u8,
    pci_device: u8,
    pci_function: u8,
    _pci_flags: U32,
    pci_segment: u8,
    /// Hz; revision 3 and later, reserved before. 0: unknown.
    clock: U32,
}

/// ACPI 6.5, 5.2.3.2: Generic Address Structure.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct GenericAddress {
    space: u8,
    bit_width: u8,
    bit_offset: u8,
    access_size: u8,
    address: U64,
}

const _: () = assert!(size_of::<Table>() == 80);

/// Where revision 4 has the baud rate as a number. 0: see the code.
const PRECISE_BAUD: core::ops::Range<usize> = 80..84;

/// What the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spcr {
    /// The port. Its line is how firmware has set it; `None`, if the table says "as it is", or if the port is in memory and
    /// the table does not tell its clock.
    pub config: Config,
    /// The PCI function that the port belongs to, if it does.
    pub pci: Option<PciFunction>,
}

/// A PCI function, by its place and its identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciFunction {
    /// The segment group.
    pub segment: u8,
    /// The bus.
    pub bus: u8,
    /// The device, 0 to 31.
    pub device: u8,
    /// The function, 0 to 7.
    pub function: u8,
    /// The vendor's id.
    pub vendor_id: u16,
    /// The device's id.
    pub device_id: u16,
}

/// Reads the table in `bytes`, which may go on behind its end.
///
/// # Errors
///
/// The bytes are no such table, or the port that it names is none that this crate can use.
pub fn parse(bytes: &[u8]) -> Result<Spcr, SpcrError> {
    let (table, _) = Table::ref_from_prefix(bytes).map_err(|_| SpcrError::Truncated(bytes.len()))?;
    if table.signature != *b"SPCR" {
        return Err(SpcrError::Signature(table.signature));
    }
    let length = table.length.get();
    let whole = usize::try_from(length).ok().and_then(|length| bytes.get(..length));
    let whole = whole.filter(|whole| whole.len() >= size_of::<Table>()).ok_or(SpcrError::Length(length))?;
    match whole.iter().fold(0, |sum: u8, &byte| sum.wrapping_add(byte)) {
        0 => {}
        sum => return Err(SpcrError::Checksum(sum)),
    }
    let config = Config::new(access(table)?).map_err(SpcrError::Invalid)?;
    let precise = (table.revision >= 4).then(|| whole.get(PRECISE_BAUD)?.try_into().ok()).flatten();
    let line = line(table, precise.map_or(0, u32::from_le_bytes), config.mmio().is_some())?;
    Ok(Spcr { config: config.with_line(line), pci: pci(table) })
}

fn access(table: &Table) -> Result<Access, SpcrError> {
    // Debug Port Table 2, subtypes of type 0x8000: 16550 and 16450; NVIDIA's 16550; a 16550 "with parameters defined in the
    // generic address structure".
    let (0 | 1 | 5 | 0x12) = table.interface_type else {
        return Err(SpcrError::Interface(table.interface_type));
    };
    let GenericAddress { space, bit_width, bit_offset, access_size, address } = &table.base;
    let address = address.get();
    match (space, access_size, bit_width, bit_offset) {
        _ if address == 0 => Err(SpcrError::Disabled),
        (1, ..) => match address.try_into() {
            Ok(port) => Ok(Access::Pio { port }),
            Err(_) => Err(SpcrError::Port(address)),
        },
        // Access sizes: 1 is a byte, 3 is 32 bits; 0 is undefined, and the registers' width decides.
        (0, 0 | 1, 8, 0) => Ok(Access::Mmio8 { base: address, stride: Stride::One }),
        (0, 1, 32, 0) => Ok(Access::Mmio8 { base: address, stride: Stride::Four }),
        (0, 3, _, 0) | (0, 0, 32, 0) => Ok(Access::Mmio32 { base: address }),
        (0, &access_size, &bit_width, &bit_offset) => {
            Err(SpcrError::Registers { access_size, bit_width, bit_offset })
        }
        (&space, ..) => Err(SpcrError::Space(space)),
    }
}

fn line(table: &Table, precise_baud: u32, in_memory: bool) -> Result<Option<Line>, SpcrError> {
    let baud = match (precise_baud, table.baud) {
        (0, 0) => return Ok(None),
        (0, 3) => 9600,
        (0, 4) => 19_200,
        (0, 6) => 57_600,
        (0, 7) => 115_200,
        (0, code) => return Err(SpcrError::Baud(code)),
        (baud, _) => baud,
    };
    // No parity, one stop bit: there are no other codes, but tables with zeros.
    if table.parity != 0 || table.stop_bits > 1 {
        return Err(SpcrError::Format { parity: table.parity, stop_bits: table.stop_bits });
    }
    let clock = NonZeroU32::new(table.clock.get()).filter(|_| table.revision >= 3);
    Ok(match (NonZeroU32::new(baud), clock, in_memory) {
        (None, ..) | (_, None, true) => None,
        (Some(baud), None, false) => Some(Line::new(baud)),
        (Some(baud), Some(clock), _) => Some(Line { clock, ..Line::new(baud) }),
    })
}

fn pci(table: &Table) -> Option<PciFunction> {
    let (vendor_id, device_id) = (table.pci_vendor_id.get(), table.pci_device_id.get());
    (vendor_id != 0xffff && device_id != 0xffff).then_some(PciFunction {
        segment: table.pci_segment,
        bus: table.pci_bus,
        device: table.pci_device,
        function: table.pci_function,
        vendor_id,
        device_id,
    })
}

/// Bytes are no SPCR table, or one of a port that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpcrError {
    /// So few bytes are shorter than the shortest table, of 80.
    Truncated(usize),
    /// This signature is another table's.
    Signature([u8; 4]),
    /// The table claims this length in bytes: more than there are, or less than the shortest.
    Length(u32),
    /// The bytes do not add up to 0, but to this.
    Checksum(u8),
    /// This interface type is not one of an 8250's (Debug Port Table 2, subtypes of type 0x8000).
    Interface(u8),
    /// The address is 0: redirection is off.
    Disabled,
    /// This address space is neither memory nor I/O.
    Space(u8),
    /// No I/O port is so high.
    Port(u64),
    /// Registers of this shape are none that this crate can access.
    Registers {
        /// The access size: 1 is 8 bits, 2 is 16, 3 is 32, 4 is 64.
        access_size: u8,
        /// The width of a register in bits.
        bit_width: u8,
        /// Where in a register the value starts, in bits.
        bit_offset: u8,
    },
    /// A port cannot be there.
    Invalid(InvalidAccess),
    /// No baud rate has this code.
    Baud(u8),
    /// No such format is defined.
    Format {
        /// 0 is none; nothing else is defined.
        parity: u8,
        /// 1 is one; nothing else is defined.
        stop_bits: u8,
    },
}

impl fmt::Display for SpcrError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated(len) => write!(f, "SPCR: only {len} bytes"),
            Self::Signature(signature) => {
                write!(f, "not an SPCR table: signature \"{}\"", signature.escape_ascii())
            }
            Self::Length(length) => write!(f, "SPCR: impossible length {length}"),
            Self::Checksum(sum) => write!(f, "SPCR: bytes add up to {sum:#04x}"),
            Self::Interface(interface) => write!(f, "SPCR: interface type {interface:#04x} is no 8250"),
            Self::Disabled => f.write_str("SPCR: redirection is off"),
            Self::Space(space) => write!(f, "SPCR: address space {space} is neither memory nor I/O"),
            Self::Port(port) => write!(f, "SPCR: no I/O port {port:#x}"),
            Self::Registers { access_size, bit_width, bit_offset } => {
                write!(
                    f,
                    "SPCR: registers of width {bit_width}, offset {bit_offset}, access size {access_size}"
                )
            }
            Self::Invalid(error) => write!(f, "SPCR: {error}"),
            Self::Baud(code) => write!(f, "SPCR: no baud rate has code {code}"),
            Self::Format { parity, stop_bits } => write!(f, "SPCR: parity {parity}, stop bits {stop_bits}"),
        }
    }
}

impl Error for SpcrError {}
