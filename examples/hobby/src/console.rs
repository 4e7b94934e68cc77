//! COM1, a line at a time, with the kernel's name before each.

use core::fmt::{self, Write};

use serial8250::Uart;

/// A kernel's console. `writeln!` works on it, as on any [`fmt::Write`], and has no result to be dropped.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    name: &'static str,
}

impl Console {
    /// The console of the kernel of that name.
    pub const fn of(name: &'static str) -> Self {
        Self { name }
    }

    /// Prints whole lines.
    pub fn write_fmt(self, lines: fmt::Arguments<'_>) {
        // SAFETY: COM1 is where a PC has it, and one processor alone runs; a fault's lines follow what they interrupt.
        let com1 = unsafe { Uart::com1() }.with_crlf();
        // What cannot be written is lost: there is no other place to say so.
        let _ = Lines::new(self.name, com1).write_fmt(lines);
    }
}

/// Lines on any port, with the kernel's name before each.
#[derive(Debug)]
pub struct Lines<W> {
    name: &'static str,
    /// Where the lines go.
    pub port: W,
    at_start: bool,
}

impl<W: Write> Lines<W> {
    /// Lines of the kernel of that name.
    pub const fn new(name: &'static str, port: W) -> Self {
        Self { name, port, at_start: true }
    }
}

impl<W: Write> Write for Lines<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for line in text.split_inclusive('\n') {
            if self.at_start {
                write!(self.port, "{}: ", self.name)?;
            }
            self.port.write_str(line)?;
            self.at_start = line.ends_with('\n');
        }
        Ok(())
    }
}
