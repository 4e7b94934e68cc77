#![no_std]
//! Output on an 8250, 16450 or 16550 serial port that works before anything else does: over port I/O, over memory with
//! byte accesses, and over memory with 32-bit accesses.
//!
//! - [`Uart`] writes, from the first instruction of a kernel on: it is built in a `const`, needs no set-up, leaves the line as
//!   firmware set it unless told otherwise, and never waits longer than a [number of status reads](STATUS_READS).
//! - [`Config`] says where a port is. It comes from a kernel command line ([`command_line`]), from ACPI (`spcr`), from
//!   the PCI functions (`pci`), or from you, and prints as `earlycon` takes it.
//! - With the feature `page-code`, `Config::console` gives the same port to the transition of a kexec.
//!
//! The registers are those of [`uart_16550`]; receiving, interrupts and loopback tests are that crate's, through
//! [`Uart::uart_16550`]. This one does not map memory, and has no lock: both are the kernel's.
//!
//! ```
//! # #[cfg(target_arch = "x86_64")] {
//! use core::fmt::Write;
//! use serial8250::{PioBackend, Uart};
//!
//! // In a kernel: in a lock of its own.
//! // SAFETY: the machine is a PC, and nothing else writes to COM1.
//! static COM1: std::sync::Mutex<Uart<PioBackend>> = std::sync::Mutex::new(unsafe { Uart::com1() }.with_crlf());
//!
//! fn kernel_main() {
//!     let mut com1 = COM1.lock().unwrap();
//!     let _ = writeln!(com1, "hello from the first instruction");
//!     if let Some(fault) = com1.fault() {
//!         // Nobody hears us: {fault} says what the port did. The kernel goes on.
//! #       let _ = fault;
//!     }
//! }
//! # }
//! ```

pub mod command_line;
pub mod config;
#[cfg(all(feature = "page-code", target_arch = "x86_64"))]
pub mod console;
mod driver;
#[cfg(feature = "pci")]
pub mod pci;
mod registers;
#[cfg(feature = "spcr")]
pub mod spcr;

pub use config::{Access, Config, InvalidAccess, Line, Stride};
pub use driver::{Fault, STATUS_READS, SetUpError, Uart};
pub use registers::{Mmio32Backend, Registers};
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
pub use uart_16550::backend::PioBackend;
pub use uart_16550::backend::{Backend, MmioBackend};
pub use uart_16550::spec::registers::{LSR, Parity, WordLength};

/// The page on writing a console of one's own, whose example is run.
#[cfg(all(doctest, target_arch = "x86_64"))]
#[doc = include_str!("../../../docs/console.md")]
struct ConsolePage;
