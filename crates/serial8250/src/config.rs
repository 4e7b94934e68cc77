//! Where a port is, and how its line is set: one value for the driver and for page code.

use core::error::Error;
use core::fmt;
use core::num::NonZeroU32;
use core::ops::Range;

use uart_16550::spec::registers::{Parity, WordLength};
use uart_16550::spec::{CLK_FREQUENCY_HZ, NUM_REGISTERS};

/// How a port's eight registers are reached. Addresses are physical, in bytes.
///
/// Plain numbers, since the crate needs no other crate of ours: with the feature `page-code`, `Config::console` turns
/// them into `kexec_abi`'s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Port I/O: register `n` is `port + n`.
    Pio {
        /// The I/O port of the first register, at most 0xfff8.
        port: u16,
    },
    /// Memory, a byte at a time: register `n` is at `base + n * stride`.
    Mmio8 {
        /// The address of the first register.
        base: u64,
        /// The distance between two registers.
        stride: Stride,
    },
    /// Memory, 32 bits at a time, of which the low 8 count: register `n` is at `base + 4 * n`. Linux's `mmio32`.
    Mmio32 {
        /// The address of the first register, a multiple of 4.
        base: u64,
    },
}

/// The distance between two registers that are accessed as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stride {
    /// 1 byte.
    One,
    /// 4 bytes.
    Four,
}

impl Stride {
    /// The distance in bytes.
    #[must_use]
    pub const fn bytes(self) -> u8 {
        1 << self.shift()
    }

    /// The distance as a power of two: what to shift a register's number by.
    #[must_use]
    pub const fn shift(self) -> u8 {
        match self {
            Self::One => 0,
            Self::Four => 2,
        }
    }
}

/// How characters are sent. Stop bits: one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// Bits a second.
    pub baud: NonZeroU32,
    /// The parity bit.
    pub parity: Parity,
    /// Bits a character.
    pub data_bits: WordLength,
    /// The clock that the device divides, in Hz; 16 of its ticks are one bit at a divisor of 1.
    pub clock: NonZeroU32,
}

impl Line {
    /// A PC's clock: 1.8432 MHz.
    pub const PC_CLOCK: NonZeroU32 = NonZeroU32::new(CLK_FREQUENCY_HZ).unwrap();

    /// 8 bits, no parity, at a PC's clock.
    #[must_use]
    pub const fn new(baud: NonZeroU32) -> Self {
        Self { baud, parity: Parity::Disabled, data_bits: WordLength::EightBits, clock: Self::PC_CLOCK }
    }

    /// What the divisor latch takes: the clock over 16 times the baud rate, to the nearest; `None` unless that is from 1 to
    /// 65535.
    #[must_use]
    pub const fn divisor(&self) -> Option<u16> {
        let bit = 16 * self.baud.get() as u64;
        match (self.clock.get() as u64 + bit / 2) / bit {
            0 => None,
            divisor if divisor <= u16::MAX as u64 => Some(divisor as u16),
            _ => None,
        }
    }
}

/// Where a port is, and how its line shall be set, if it shall. Valid by construction; prints as the value of Linux's
/// `earlycon=`.
///
/// ```
/// use serial8250::{Access, Config};
///
/// let config = Config::new(Access::Mmio32 { base: 0xfe03_4000 }).unwrap();
/// assert_eq!(config.to_string(), "uart8250,mmio32,0xfe034000");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    access: Access,
    line: Option<Line>,
}

impl Config {
    /// A PC's first port: port 0x3f8.
    pub const COM1: Self = Self { access: Access::Pio { port: 0x3f8 }, line: None };
    /// A PC's second port: port 0x2f8.
    pub const COM2: Self = Self { access: Access::Pio { port: 0x2f8 }, line: None };
    /// A PC's third port, where there is one: port 0x3e8.
    pub const COM3: Self = Self { access: Access::Pio { port: 0x3e8 }, line: None };
    /// A PC's fourth port, where there is one: port 0x2e8.
    pub const COM4: Self = Self { access: Access::Pio { port: 0x2e8 }, line: None };

    /// A port whose line stays as it is.
    ///
    /// # Errors
    ///
    /// [`InvalidAccess`], if a register would lie past the last port or the last address, or at an unaligned one.
    pub const fn new(access: Access) -> Result<Self, InvalidAccess> {
        let fits = match access {
            Access::Pio { port } => port.checked_add(NUM_REGISTERS as u16 - 1).is_some(),
            Access::Mmio8 { base, stride } => {
                base.checked_add(NUM_REGISTERS as u64 * stride.bytes() as u64).is_some()
            }
            Access::Mmio32 { base } => {
                if !base.is_multiple_of(4) {
                    return Err(InvalidAccess::Unaligned(base));
                }
                base.checked_add(NUM_REGISTERS as u64 * 4).is_some()
            }
        };
        match (fits, access) {
            (true, _) => Ok(Self { access, line: None }),
            (false, Access::Pio { port }) => Err(InvalidAccess::Port(port)),
            (false, Access::Mmio8 { base, .. } | Access::Mmio32 { base }) => {
                Err(InvalidAccess::Address(base))
            }
        }
    }

    /// The same port with its line to be set so; `None`: to be left alone.
    #[must_use]
    pub const fn with_line(self, line: Option<Line>) -> Self {
        Self { line, ..self }
    }

    /// How the registers are reached.
    #[must_use]
    pub const fn access(&self) -> Access {
        self.access
    }

    /// How the line shall be set, if it shall.
    #[must_use]
    pub const fn line(&self) -> Option<Line> {
        self.line
    }

    /// The physical addresses of the registers, if they are memory.
    #[must_use]
    pub const fn mmio(&self) -> Option<Range<u64>> {
        match self.access {
            Access::Pio { .. } => None,
            Access::Mmio8 { base, stride } => Some(base..base + NUM_REGISTERS as u64 * stride.bytes() as u64),
            Access::Mmio32 { base } => Some(base..base + NUM_REGISTERS as u64 * 4),
        }
    }
}

/// As `115200n8`, and the clock behind a comma unless it is a PC's.
impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parity = match self.parity {
            Parity::Disabled => 'n',
            Parity::Odd => 'o',
            Parity::Even => 'e',
            Parity::Forced1 => 'm',
            Parity::Forced0 => 's',
        };
        write!(f, "{}{parity}{}", self.baud, self.data_bits.to_integer())?;
        if self.clock == Self::PC_CLOCK { Ok(()) } else { write!(f, ",{}", self.clock) }
    }
}

/// As the value of Linux's `earlycon=`; [`command_line::earlycon`](crate::command_line::earlycon) reads it.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.access {
            Access::Pio { port } => write!(f, "uart8250,io,{port:#x}")?,
            Access::Mmio8 { base, stride: Stride::One } => write!(f, "uart8250,mmio,{base:#x}")?,
            Access::Mmio8 { base, stride: Stride::Four } => write!(f, "uart8250,mmio8x4,{base:#x}")?,
            Access::Mmio32 { base } => write!(f, "uart8250,mmio32,{base:#x}")?,
        }
        self.line.map_or(Ok(()), |line| write!(f, ",{line}"))
    }
}

/// A port cannot be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidAccess {
    /// The eight registers from this port on pass port 0xffff.
    Port(u16),
    /// The eight registers from this address on pass the last address.
    Address(u64),
    /// Registers of 32 bits cannot be at this address, which is no multiple of 4.
    Unaligned(u64),
}

impl fmt::Display for InvalidAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "no eight ports from {port:#x} on"),
            Self::Address(base) => write!(f, "no room for the registers from address {base:#x} on"),
            Self::Unaligned(base) => {
                write!(f, "registers of 32 bits at address {base:#x}, which is no multiple of 4")
            }
        }
    }
}

impl Error for InvalidAccess {}
