//! The ports that a kernel's command line names, in Linux's words (`Documentation/admin-guide/kernel-parameters.txt`).
//!
//! | argument | registers | line |
//! |---|---|---|
//! | `earlyprintk=serial[,ttySn\|,0xPORT][,BAUD\|,nocfg]` | I/O ports | 9600n8 unless given |
//! | `earlyprintk=ttySn[,BAUD\|,nocfg]` | I/O ports | 9600n8 unless given |
//! | `earlyprintk=mmio32,ADDR[,BAUD\|,nocfg]` | 32 bits | 9600n8 unless given |
//! | `earlycon=uart8250,io,PORT[,OPTIONS[,CLOCK]]` | I/O ports | left alone unless given |
//! | `earlycon=uart8250,mmio,ADDR[,…]`, `earlycon=uart8250,0xADDR[,…]` | bytes, 1 apart | left alone unless given |
//! | `earlycon=uart8250,mmio8x4,ADDR[,…]` | bytes, 4 apart | left alone unless given |
//! | `earlycon=uart8250,mmio32,ADDR[,…]` | 32 bits | left alone unless given |
//! | `console=uart8250,…` | as for `earlycon` | as for `earlycon` |
//! | `console=ttySn[,OPTIONS]` | I/O ports | 9600n8 unless given |
//!
//! `OPTIONS` are the baud rate, the parity (`n`, `o`, `e`; and `m`, `s` for a bit that is always 1 or 0), the bits a
//! character (5 to 8), and `r`, which is taken and has no effect: output here never waits for the other side's leave.
//! `uart` may stand for `uart8250`, and `,keep` after `earlyprintk`'s value. `mmio8x4` is a word of ours: Linux's own
//! page code uses such registers, but its command line cannot name them.

use core::error::Error;
use core::fmt;
use core::num::NonZeroU32;

use uart_16550::spec::registers::{Parity, WordLength};

use crate::config::{Access, Config, InvalidAccess, Line, Stride};

/// What Linux sets a port to that is named without a baud rate.
const DEFAULT_LINE: Line = Line::new(NonZeroU32::new(9600).unwrap());

/// The ports that a whole command line names, in order. Arguments that name something else are passed over, as is
/// everything behind ` -- `, which is not the kernel's; arguments that name a port that is none are errors.
///
/// ```
/// use serial8250::command_line::ports;
///
/// let mut ports = ports("root=/dev/vda1 console=tty0 console=ttyS1,115200n8 quiet").map(|port| port.unwrap());
/// assert_eq!(ports.next().unwrap().to_string(), "uart8250,io,0x2f8,115200n8");
/// assert_eq!(ports.next(), None);
/// ```
pub fn ports(command_line: &str) -> impl Iterator<Item = Result<Config, ParseError<'_>>> {
    arguments(command_line).filter_map(|argument| {
        let (name, value) = argument.split_once('=')?;
        let value = value.strip_prefix('"').map_or(value, |value| value.strip_suffix('"').unwrap_or(value));
        let port = match name {
            "earlyprintk" => earlyprintk(value),
            "earlycon" => earlycon(value),
            "console" => console(value),
            _ => return None,
        };
        (!matches!(port, Err(ParseError::NotSerial(_)))).then_some(port)
    })
}

/// The words of a command line up to `--`; spaces in double quotes do not part them.
fn arguments(command_line: &str) -> impl Iterator<Item = &str> {
    let mut rest = command_line;
    core::iter::from_fn(move || {
        rest = rest.trim_ascii_start();
        let mut quoted = false;
        let end = rest.find(|character: char| {
            quoted ^= character == '"';
            character.is_ascii_whitespace() && !quoted
        });
        let (argument, later) = rest.split_at(end.unwrap_or(rest.len()));
        rest = later;
        (!argument.is_empty() && argument != "--").then_some(argument)
    })
}

/// The port that the value of `earlyprintk=` names.
///
/// # Errors
///
/// What in the value names no port.
pub fn earlyprintk(value: &str) -> Result<Config, ParseError<'_>> {
    let mut fields = value.strip_suffix(",keep").unwrap_or(value).split(',');
    let port = match fields.next().unwrap_or_default() {
        "serial" => match fields.next() {
            None => Config::COM1,
            Some(port) if port.starts_with("0x") => config(Access::Pio { port: number(port)? })?,
            Some(name) => standard_port(name)?,
        },
        "mmio32" => config(Access::Mmio32 { base: number(fields.next().unwrap_or_default())? })?,
        "pciserial" => return Err(ParseError::PciFunction(value)),
        name if name.starts_with("ttyS") => standard_port(name)?,
        _ => return Err(ParseError::NotSerial(value)),
    };
    let line = match fields.next() {
        None => Some(DEFAULT_LINE),
        Some("nocfg") => None,
        Some(baud) => Some(Line::new(decimal(baud).ok_or(ParseError::Options(baud))?)),
    };
    end(fields)?;
    Ok(port.with_line(line))
}

/// The port that the value of `earlycon=` names: the inverse of how a [`Config`] is printed.
///
/// # Errors
///
/// What in the value names no port.
pub fn earlycon(value: &str) -> Result<Config, ParseError<'_>> {
    let mut fields = value.split(',');
    let ("uart8250" | "uart") = fields.next().unwrap_or_default() else {
        return Err(ParseError::NotSerial(value));
    };
    let access = match fields.next().unwrap_or_default() {
        address if address.starts_with("0x") => Access::Mmio8 { base: number(address)?, stride: Stride::One },
        word => {
            let address = fields.next().unwrap_or_default();
            match word {
                "io" => Access::Pio { port: number(address)? },
                "mmio" => Access::Mmio8 { base: number(address)?, stride: Stride::One },
                "mmio8x4" => Access::Mmio8 { base: number(address)?, stride: Stride::Four },
                "mmio32" => Access::Mmio32 { base: number(address)? },
                _ => return Err(ParseError::Access(word)),
            }
        }
    };
    let mut line = fields.next().map(options).transpose()?;
    if let (Some(line), Some(clock)) = (&mut line, fields.next()) {
        line.clock = decimal(clock).ok_or(ParseError::Clock(clock))?;
    }
    end(fields)?;
    Ok(config(access)?.with_line(line))
}

/// The port that the value of `console=` names.
///
/// # Errors
///
/// What in the value names no port.
pub fn console(value: &str) -> Result<Config, ParseError<'_>> {
    if !value.starts_with("ttyS") {
        return earlycon(value);
    }
    let mut fields = value.split(',');
    let port = standard_port(fields.next().unwrap_or_default())?;
    let line = fields.next().map_or(Ok(DEFAULT_LINE), options)?;
    end(fields)?;
    Ok(port.with_line(Some(line)))
}

fn config<'a>(access: Access) -> Result<Config, ParseError<'a>> {
    Config::new(access).map_err(ParseError::Invalid)
}

fn standard_port(name: &str) -> Result<Config, ParseError<'_>> {
    match name {
        "ttyS0" => Ok(Config::COM1),
        "ttyS1" => Ok(Config::COM2),
        "ttyS2" => Ok(Config::COM3),
        "ttyS3" => Ok(Config::COM4),
        _ => Err(ParseError::StandardPort(name)),
    }
}

/// A number as C writes it: hexadecimal after `0x`, octal after `0`, else decimal.
fn number<T: TryFrom<u64>>(text: &str) -> Result<T, ParseError<'_>> {
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    // As for `decimal`.
    let number =
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u64::from_str_radix(digits, radix));
    number.and_then(Result::ok).and_then(|number| number.try_into().ok()).ok_or(ParseError::Address(text))
}

/// A number of digits alone: `parse` would take a sign.
fn decimal(text: &str) -> Option<NonZeroU32> {
    text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A baud rate, perhaps with a parity, perhaps with the bits a character, perhaps with `r`.
fn options(text: &str) -> Result<Line, ParseError<'_>> {
    let error = ParseError::Options(text);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (baud, rest) = text.split_at(digits);
    let mut line = Line::new(decimal(baud).ok_or(error)?);
    let mut rest = rest.bytes();
    line.parity = match rest.next() {
        None | Some(b'n') => Parity::Disabled,
        Some(b'o') => Parity::Odd,
        Some(b'e') => Parity::Even,
        Some(b'm') => Parity::Forced1,
        Some(b's') => Parity::Forced0,
        Some(_) => return Err(error),
    };
    line.data_bits = match rest.next() {
        None => WordLength::EightBits,
        Some(bits @ b'5'..=b'8') => WordLength::from_integer(bits - b'0'),
        Some(_) => return Err(error),
    };
    match (rest.next(), rest.next()) {
        (None | Some(b'r'), None) => Ok(line),
        _ => Err(error),
    }
}

fn end<'a>(mut fields: impl Iterator<Item = &'a str>) -> Result<(), ParseError<'a>> {
    fields.next().map_or(Ok(()), |field| Err(ParseError::Surplus(field)))
}

/// An argument of a command line that names no port, with the part of it that does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseError<'a> {
    /// The value names another kind of console.
    NotSerial(&'a str),
    /// The value names a PCI function, of which the `pci` module finds the port.
    PciFunction(&'a str),
    /// Not a way to access registers, or none that is had here: big-endian or 16 bits wide.
    Access(&'a str),
    /// Not an I/O port or an address.
    Address(&'a str),
    /// Not one of `ttyS0` to `ttyS3`, the ports that have their place on every PC.
    StandardPort(&'a str),
    /// Not a baud rate with parity and bits a character.
    Options(&'a str),
    /// Not a clock frequency.
    Clock(&'a str),
    /// Text behind a value that is complete.
    Surplus(&'a str),
    /// A port cannot be there.
    Invalid(InvalidAccess),
}

impl fmt::Display for ParseError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSerial(value) => write!(f, "not a serial port: {value:?}"),
            Self::PciFunction(value) => write!(f, "a PCI function, not a port: {value:?}"),
            Self::Access(word) => write!(f, "no such access to registers: {word:?}"),
            Self::Address(text) => write!(f, "not an address: {text:?}"),
            Self::StandardPort(name) => write!(f, "not a standard port: {name:?}"),
            Self::Options(text) => write!(f, "not line options: {text:?}"),
            Self::Clock(text) => write!(f, "not a clock frequency: {text:?}"),
            Self::Surplus(text) => write!(f, "text behind a complete value: {text:?}"),
            Self::Invalid(error) => error.fmt(f),
        }
    }
}

impl Error for ParseError<'_> {}
