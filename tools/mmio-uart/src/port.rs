//! The port behind the BAR: registers 4 bytes apart, that answer to one width of access, and a record of all accesses.

use std::fmt;
use std::io::Write;

use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};

/// Bytes from one register to the next.
const STRIDE: u64 = 4;
const REGISTERS: u64 = 8;
const LINE_STATUS: u8 = 5;

/// The width of access that the registers answer to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits: Linux's page code.
    Byte,
    /// 32 bits: Linux's `mmio32`.
    Word,
}

impl Width {
    /// The width in bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 4,
        }
    }
}

/// How an access was judged.
///
/// Firmware has a look at every serial port before a kernel runs, byte by byte and in its own idea of where the registers are.
/// No driver can send a byte without reading the line status first, at the right place and in the right width; firmware
/// that does not find its registers never gets there. So the kernel's accesses begin with the first such read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A register, by the right width.
    Right,
    /// Something else, before the first read of the line status.
    Firmware,
    /// Something else, after it.
    Wrong,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accesses to a register by the right width.
    pub right: u64,
    /// Accesses that were not, before the first read of the line status.
    pub firmware: u64,
    /// Accesses that were not, after it.
    pub wrong: u64,
    /// Bytes heard.
    pub heard: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, firmware, wrong, heard } = self;
        write!(
            f,
            "{heard} bytes heard; accesses: {right} right, {wrong} wrong, {firmware} by firmware before"
        )
    }
}

/// An interrupt line that leads nowhere: the card has no interrupt pin.
struct NoInterrupt;

impl Trigger for NoInterrupt {
    type E = std::io::Error;
    fn trigger(&self) -> Result<(), Self::E> {
        Ok(())
    }
}

/// Where heard bytes go, counted.
struct Ear<H> {
    out: H,
    heard: u64,
}

impl<H: Write> Write for Ear<H> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.heard += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

/// The port. What it hears goes to `H`, a line for each access to `L`.
pub struct Port<H: Write, L> {
    chip: Serial<NoInterrupt, NoEvents, Ear<H>>,
    width: Width,
    log: L,
    counts: Counts,
    /// Whether the line status has been read.
    begun: bool,
}

impl<H: Write, L: Write> Port<H, L> {
    /// A port after a reset.
    pub fn new(width: Width, heard: H, log: L) -> Self {
        let chip = Serial::new(NoInterrupt, Ear { out: heard, heard: 0 });
        Self { chip, width, log, counts: Counts::default(), begun: false }
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        Counts { heard: self.chip.writer().heard, ..self.counts }
    }

    /// A load: the low byte is the register, the rest zero. What is no register reads as all ones.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) -> std::io::Result<()> {
        let register = self.register(offset, data.len());
        let verdict = self.judge(register, true);
        match register {
            Some(register) => {
                data.fill(0);
                data[0] = self.chip.read(register);
            }
            None => data.fill(0xff),
        }
        self.record("read", offset, data, verdict)
    }

    /// A store: the low byte counts. To what is no register, it does nothing.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        let register = self.register(offset, data.len());
        let verdict = self.judge(register, false);
        if let (Some(register), Some(&value)) = (register, data.first()) {
            self.chip.write(register, value).map_err(|error| std::io::Error::other(format!("{error:?}")))?;
        }
        self.record("write", offset, data, verdict)
    }

    /// Writes out what is buffered.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.chip.writer_mut().flush()?;
        self.log.flush()
    }

    fn register(&self, offset: u64, bytes: usize) -> Option<u8> {
        let register = offset / STRIDE;
        let right = bytes == self.width.bytes() && offset.is_multiple_of(STRIDE) && register < REGISTERS;
        right.then_some(register as u8)
    }

    fn judge(&mut self, register: Option<u8>, read: bool) -> Verdict {
        self.begun |= read && register == Some(LINE_STATUS);
        let (verdict, count) = match (register, self.begun) {
            (Some(_), _) => (Verdict::Right, &mut self.counts.right),
            (None, false) => (Verdict::Firmware, &mut self.counts.firmware),
            (None, true) => (Verdict::Wrong, &mut self.counts.wrong),
        };
        *count += 1;
        verdict
    }

    fn record(&mut self, what: &str, offset: u64, data: &[u8], verdict: Verdict) -> std::io::Result<()> {
        let bits = 8 * data.len();
        let alignment = match offset.is_multiple_of(data.len().max(1) as u64) {
            true => "aligned",
            false => "unaligned",
        };
        let value = data.iter().rev().map(|byte| format!("{byte:02x}")).collect::<String>();
        let verdict = match verdict {
            Verdict::Right => "",
            Verdict::Firmware => " firmware",
            Verdict::Wrong => " WRONG",
        };
        writeln!(self.log, "{what} {bits} bits at +{offset:#x} {alignment} 0x{value}{verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(width: Width) -> Port<Vec<u8>, Vec<u8>> {
        Port::new(width, Vec::new(), Vec::new())
    }

    fn read(port: &mut Port<Vec<u8>, Vec<u8>>, offset: u64, bytes: usize) -> Vec<u8> {
        let mut data = vec![0xa5; bytes];
        port.read(offset, &mut data).unwrap();
        data
    }

    #[test]
    fn words_are_heard_where_words_are_asked_for_and_bytes_where_bytes_are() {
        for (width, value) in [(Width::Word, b"A\0\0\0".as_slice()), (Width::Byte, b"A")] {
            let mut port = port(width);
            let status = read(&mut port, 0x14, value.len());
            assert_eq!((status[0] & 0x60, &status[1..]), (0x60, &[0; 3][..value.len() - 1]));
            port.write(0, value).unwrap();
            assert_eq!(port.chip.writer().out, b"A");
            assert_eq!(port.counts(), Counts { right: 2, heard: 1, ..Counts::default() });
        }
    }

    #[test]
    fn another_width_or_place_is_not_answered_and_wrong_once_the_line_status_was_read() {
        let mut port = port(Width::Word);
        // A byte-wise look at registers one byte apart, and a write to the data register: firmware's.
        assert_eq!(read(&mut port, 5, 1), [0xff]);
        port.write(7, &[0x55]).unwrap();
        port.write(0, &[0x55, 0, 0, 0]).unwrap();
        assert_eq!(port.counts(), Counts { right: 1, firmware: 2, heard: 1, ..Counts::default() });
        read(&mut port, 0x14, 4);
        port.write(0, b"A").unwrap();
        port.write(0x20, &[0; 4]).unwrap();
        port.write(2, &[0; 4]).unwrap();
        assert_eq!(read(&mut port, 0x14, 8), [0xff; 8]);
        assert_eq!(port.counts(), Counts { right: 2, wrong: 4, firmware: 2, heard: 1 });
        let log = String::from_utf8(port.log).unwrap();
        assert_eq!(log.lines().next(), Some("read 8 bits at +0x5 aligned 0xff firmware"));
        assert!(log.contains("write 32 bits at +0x2 unaligned 0x00000000 WRONG\n"), "{log}");
    }
}
