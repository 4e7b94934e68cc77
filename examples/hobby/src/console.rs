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
        // What cannot be written is lost: there is no other place to say so.
        let _ = Lines { name: self.name, at_start: true }.write_fmt(lines);
    }
}

struct Lines {
    name: &'static str,
    at_start: bool,
}

impl Write for Lines {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: COM1 is where a PC has it, and one processor alone runs; a fault's lines follow what they interrupt.
        let mut uart = unsafe { Uart::com1() }.with_crlf();
        for line in text.split_inclusive('\n') {
            if self.at_start {
                write!(uart, "{}: ", self.name)?;
            }
            uart.write_str(line)?;
            self.at_start = line.ends_with('\n');
        }
        Ok(())
    }
}
