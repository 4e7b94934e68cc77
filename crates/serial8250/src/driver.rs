//! Polled output that never hangs.

use core::error::Error;
use core::fmt;
use core::ptr::NonNull;

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use uart_16550::InvalidAddressError;
use uart_16550::Uart16550;
use uart_16550::backend::Backend;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use uart_16550::backend::PioBackend;
use uart_16550::spec::FIFO_SIZE;
use uart_16550::spec::registers::{FCR, IER, ISR, LCR, LSR, MCR, offsets};

use crate::config::{Config, Line};
use crate::registers::Registers;

/// How often the line status is read in one wait, unless told otherwise.
///
/// A status read costs about 1 µs on an LPC bus and 0.1 µs at the least, so the bound is about 0.3 s and at least 26 ms:
/// more than a full FIFO takes at 9600 baud (16 characters, 17 ms).
pub const STATUS_READS: u32 = 1 << 18;

/// What the line status of no device reads as: nobody drives the bus. A device that shows it, shows it once, since the
/// read clears its error bits.
const OPEN_BUS: LSR = LSR::from_bits_retain(0xff);

/// A polled driver of an 8250, 16450 or 16550.
///
/// Writes at once, without any set-up, one byte a status read; where the FIFO is known ([`find_fifo`](Self::find_fifo),
/// [`set_up`](Self::set_up)), as many as it holds. After a wait that fails it is silent: a lost console costs the
/// [bound](STATUS_READS) once, [`fault`](Self::fault) reports it, and output goes on to nowhere.
#[derive(Debug)]
pub struct Uart<B: Backend> {
    uart: Uart16550<B>,
    /// Bytes that may be written when the transmitter holding register is empty.
    depth: usize,
    status_reads: u32,
    crlf: bool,
    line_errors: LSR,
    fault: Option<Fault>,
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
impl Uart<PioBackend> {
    /// A PC's first port, 0x3f8.
    ///
    /// # Safety
    ///
    /// As for [`new_port`](Self::new_port).
    #[must_use]
    pub const unsafe fn com1() -> Self {
        // SAFETY: the caller's word.
        match unsafe { Self::new_port(0x3f8) } {
            Ok(uart) => uart,
            Err(_) => unreachable!(),
        }
    }

    /// The port whose first register is the I/O port `port`.
    ///
    /// # Errors
    ///
    /// The eight registers pass port 0xffff.
    ///
    /// # Safety
    ///
    /// - The eight ports are an 8250's, or nothing that accesses disturb.
    /// - Nothing else drives it as long as the value lives.
    pub const unsafe fn new_port(port: u16) -> Result<Self, InvalidAddressError> {
        // SAFETY: the caller's word.
        match unsafe { Uart16550::new_port(port) } {
            Ok(uart) => Ok(Self::from_uart_16550(uart)),
            Err(error) => Err(error),
        }
    }
}

impl Uart<Registers> {
    /// The port that `config` names, as it is: [`Config::line`] counts only for [`set_up`](Self::set_up). `map` is called for
    /// a port in memory, with the physical address and the length of its registers in bytes, and gives where they are
    /// mapped.
    ///
    /// `None`, if `map` gives that, or an address at which the registers cannot be, or for ports on a processor without.
    ///
    /// # Safety
    ///
    /// As for [`Registers::new`].
    pub unsafe fn open(config: &Config, map: impl FnOnce(u64, u64) -> Option<NonNull<u8>>) -> Option<Self> {
        // SAFETY: the caller's word.
        unsafe { Some(Self::new(Registers::new(config, map)?)) }
    }
}

impl<B: Backend> Uart<B> {
    /// A driver of the device that `backend` reaches.
    ///
    /// # Safety
    ///
    /// - `backend` reaches the eight registers of an 8250, or nothing that accesses disturb.
    /// - Nothing else drives it as long as the value lives.
    #[must_use]
    pub const unsafe fn new(backend: B) -> Self {
        // SAFETY: the caller's word.
        Self::from_uart_16550(unsafe { Uart16550::new_with_backend(backend) })
    }

    /// Output through a driver of `uart_16550`, which stays reachable through [`uart_16550`](Self::uart_16550).
    #[must_use]
    pub const fn from_uart_16550(uart: Uart16550<B>) -> Self {
        let line_errors = LSR::empty();
        Self { uart, depth: 1, status_reads: STATUS_READS, crlf: false, line_errors, fault: None }
    }

    /// The same with `\n` written as `\r\n`, by [`core::fmt::Write`] alone.
    #[must_use]
    pub const fn with_crlf(mut self) -> Self {
        self.crlf = true;
        self
    }

    /// The same with another bound on the status reads of one wait; 0 is silence.
    #[must_use]
    pub const fn with_status_reads(mut self, status_reads: u32) -> Self {
        self.status_reads = status_reads;
        self
    }

    /// The driver below: to receive, for interrupts, for its tests.
    pub const fn uart_16550(&mut self) -> &mut Uart16550<B> {
        &mut self.uart
    }

    /// Why the port is silent, if it is.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Forgets the fault: the next output waits again.
    pub const fn clear_fault(&mut self) {
        self.fault = None;
    }

    /// The receiver's errors that waits have seen since the last call: reading the line status clears them in the device.
    pub fn take_line_errors(&mut self) -> LSR {
        core::mem::replace(&mut self.line_errors, LSR::empty())
    }

    /// Finds out whether a FIFO is on, and uses it. The line settings stay; a pending "transmitter empty" interrupt is
    /// cleared by the read. Returns how many bytes a wait is now good for: 1, or 16 with a FIFO, also where it is deeper.
    pub fn find_fifo(&mut self) -> usize {
        let identification = ISR::from_bits_retain(self.read(offsets::ISR));
        // Both bits: a 16550 before the A shows one, and its FIFO loses characters. All bits: nobody is there.
        let on = identification.fifo_enabled() && identification.bits() != 0xff;
        self.depth = if on { FIFO_SIZE } else { 1 };
        self.depth
    }

    /// Sets the line, switches the FIFO on where there is one and the device's interrupts off, and tells the other side that
    /// we are there (DTR, RTS).
    ///
    /// # Errors
    ///
    /// - [`SetUpError::Divisor`]: no divisor makes that baud rate of that clock. The device was not touched.
    /// - [`SetUpError::Fault`]: what was being sent did not get out. The device was not set up, and is silent.
    pub fn set_up(&mut self, line: &Line) -> Result<(), SetUpError> {
        let [low, high] = line.divisor().ok_or(SetUpError::Divisor(*line))?.to_le_bytes();
        // A character on its way would come out at the wrong speed.
        self.wait(LSR::THR_EMPTY | LSR::TRANSMITTER_EMPTY).map_err(SetUpError::Fault)?;
        let format = LCR::empty().set_word_length(line.data_bits).set_parity(line.parity);
        // The divisor latch shadows IER, so it is opened after that is written, and closed before anything else is.
        self.write(offsets::LCR, format.bits());
        self.write(offsets::IER, IER::empty().bits());
        self.write(offsets::LCR, (format | LCR::DLAB).bits());
        self.write(offsets::DLL, low);
        self.write(offsets::DLM, high);
        self.write(offsets::LCR, format.bits());
        // The device ignores the other bits unless the enable bit is in the same write; an 8250 or 16450 ignores all.
        self.write(offsets::FCR, (FCR::FIFO_ENABLE | FCR::RX_FIFO_RESET | FCR::TX_FIFO_RESET).bits());
        self.write(offsets::MCR, (MCR::DTR | MCR::RTS).bits());
        if self.find_fifo() == 1 {
            // A 16550 before the A has switched its FIFO on, which loses characters.
            self.write(offsets::FCR, FCR::empty().bits());
        }
        Ok(())
    }

    /// Writes bytes as they are.
    pub fn write_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && self.wait(LSR::THR_EMPTY).is_ok() {
            let (now, later) = bytes.split_at(self.depth.min(bytes.len()));
            now.iter().for_each(|&byte| self.write(offsets::DATA, byte));
            bytes = later;
        }
    }

    /// Waits until all of `ready` is set, at most the bound of status reads.
    fn wait(&mut self, ready: LSR) -> Result<(), Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let mut last = None;
        for _ in 0..self.status_reads {
            let status = self.uart.lsr();
            last = Some(status);
            if status != OPEN_BUS {
                self.line_errors |= status & LINE_ERRORS;
                if status.contains(ready) {
                    return Ok(());
                }
            }
            core::hint::spin_loop();
        }
        let fault = match last {
            Some(OPEN_BUS) => Fault::Absent,
            Some(status) => Fault::Stuck { status_reads: self.status_reads, status },
            None => Fault::Silenced,
        };
        self.fault = Some(fault);
        Err(fault)
    }

    fn read(&mut self, register: usize) -> u8 {
        // SAFETY: one of the eight registers.
        unsafe { self.uart.backend_mut().read(register as u8) }
    }

    fn write(&mut self, register: usize, value: u8) {
        // SAFETY: one of the eight registers.
        unsafe { self.uart.backend_mut().write(register as u8, value) }
    }
}

const LINE_ERRORS: LSR = LSR::OVERRUN_ERROR
    .union(LSR::PARITY_ERROR)
    .union(LSR::FRAMING_ERROR)
    .union(LSR::BREAK_INTERRUPT)
    .union(LSR::FIFO_DATA_ERROR);

/// Never fails: what cannot be written is lost, and [`Uart::fault`] tells.
impl<B: Backend> fmt::Write for Uart<B> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if !self.crlf {
            self.write_bytes(text.as_bytes());
            return Ok(());
        }
        for line in text.split_inclusive('\n') {
            match line.strip_suffix('\n') {
                Some(line) => {
                    self.write_bytes(line.as_bytes());
                    self.write_bytes(b"\r\n");
                }
                None => self.write_bytes(line.as_bytes()),
            }
        }
        Ok(())
    }
}

/// Why a port is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// Its status reads as all ones, as where no device is.
    Absent,
    /// It did not get ready.
    Stuck {
        /// How often its status was read.
        status_reads: u32,
        /// What the last read gave.
        status: LSR,
    },
    /// The bound is 0 status reads.
    Silenced,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("no serial port there: its line status reads 0xff"),
            Self::Stuck { status_reads, status } => {
                write!(f, "serial port stuck: line status {:#04x} after {status_reads} reads", status.bits())
            }
            Self::Silenced => f.write_str("serial port silenced: a bound of 0 status reads"),
        }
    }
}

impl Error for Fault {}

/// A line was not set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetUpError {
    /// No divisor from 1 to 65535 makes the baud rate of the clock.
    Divisor(Line),
    /// The port is silent.
    Fault(Fault),
}

impl fmt::Display for SetUpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Divisor(line) => write!(f, "no divisor makes {} baud of {} Hz", line.baud, line.clock),
            Self::Fault(fault) => fault.fmt(f),
        }
    }
}

impl Error for SetUpError {}
