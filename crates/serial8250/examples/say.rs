//! Says a line on the serial port that a kernel command line names: this machine's own, unless another is given.
//!
//! ```text
//! cargo run -p serial8250 --example say -- "console=ttyS1,115200n8"
//! ```
//!
//! What a kernel does with its own command line, done by a program on Linux, which reaches I/O ports through `/dev/port`.
//! It takes one more way to reach registers: an implementation of `Backend`.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::process::ExitCode;

use serial8250::command_line::ports;
use serial8250::{Access, Backend, Config, Uart};

/// Eight ports of `/dev/port`, in which a port's number is its offset.
struct DevPort {
    file: File,
    port: u16,
}

impl DevPort {
    fn seek(&mut self, register: u8) -> std::io::Result<&mut File> {
        self.file.seek(SeekFrom::Start(u64::from(self.port) + u64::from(register)))?;
        Ok(&mut self.file)
    }
}

impl Backend for DevPort {
    unsafe fn read(&mut self, register_offset: u8) -> u8 {
        let mut value = [0];
        let read = self.seek(register_offset).and_then(|file| file.read_exact(&mut value));
        read.map_or(0xff, |()| value[0]) // as where nothing answers
    }

    unsafe fn write(&mut self, register_offset: u8, value: u8) {
        let _ = self.seek(register_offset).and_then(|file| file.write_all(&[value]));
    }
}

fn say(config: &Config) -> Result<(), String> {
    let Access::Pio { port } = config.access() else {
        return Err(format!("{config} is in memory, which a program cannot reach"));
    };
    let file = OpenOptions::new().read(true).write(true).open("/dev/port");
    let file = file.map_err(|error| format!("/dev/port: {error}"))?;
    // SAFETY: eight I/O ports, which the command line says are a serial port's. That the kernel drives it too garbles the text
    // at worst.
    let mut uart = unsafe { Uart::new(DevPort { file, port }) }.with_crlf();
    if let Some(line) = config.line() {
        uart.set_up(&line).map_err(|error| error.to_string())?;
    }
    let _ = writeln!(uart, "This is {config}.");
    uart.fault().map_or(Ok(()), |fault| Err(fault.to_string()))
}

fn main() -> ExitCode {
    let own = || std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let command_line = std::env::args().nth(1).unwrap_or_else(own);
    let mut said = false;
    for port in ports(&command_line) {
        match port {
            Ok(config) => {
                println!("{config}");
                match say(&config) {
                    Ok(()) => said = true,
                    Err(error) => println!("  not heard: {error}"),
                }
            }
            Err(error) => println!("{error}"),
        }
    }
    if said { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
