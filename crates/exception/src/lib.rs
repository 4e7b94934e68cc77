#![no_std]
//! x86-64 exceptions with all the registers.
//!
//! GDT, TSS and IDT, entry stubs for all 256 vectors, and a handler of your own that is given the interrupted program's
//! registers, may change them, and may print them. On stable Rust: the stubs are naked functions, generic over the handler. There
//! is no global state; tables and stacks are statics of the caller's.
//!
//! ```
//! # #[cfg(target_arch = "x86_64")]
//! # mod kernel {
//! use kexec_exception::{Handler, Tables, TrapFrame, Vector};
//! # fn print(_: core::fmt::Arguments) {}
//!
//! struct Kernel;
//!
//! impl Handler for Kernel {
//!     fn handle(frame: &mut TrapFrame) {
//!         print(format_args!("{frame}"));
//!         match frame.vector {
//!             Vector::BREAKPOINT => {}
//!             Vector::INVALID_OPCODE => frame.rip += 2, // go on after the ud2
//!             _ => panic!("{}", frame.vector),
//!         }
//!     }
//! }
//!
//! static mut TABLES: Tables = Tables::new();
//!
//! fn init() {
//!     let tables = &raw mut TABLES;
//!     // SAFETY: called once, at CPL 0, with interrupts off; nothing else names TABLES.
//!     unsafe { (*tables).install::<Kernel>() };
//! }
//! # }
//! ```
//!
//! # What is where
//!
//! - [`entry`]: the [`Handler`] and the way to it: what is saved, GS, vector registers.
//! - [`trap_frame`], [`vector`], [`error_code`], [`register`]: what a handler is told, decoded; [`dump`]: in print.
//! - [`gdt`], [`tss`], [`idt`], and [`tables`], which holds all three.
//! - `page_code`, behind a feature: the exceptions of a kexec transition, for the crate `reloc`.
//!
//! # What it does not do
//!
//! No system calls, no interrupt controller, no unwinding, no FRED. What a handler does with an exception is its own affair:
//! nothing is fixed up, killed or retried here. Shadow stacks are not switched.

pub mod dump;
#[cfg(target_arch = "x86_64")]
pub mod entry;
pub mod error_code;
pub mod gdt;
pub mod idt;
#[cfg(all(feature = "page-code", target_arch = "x86_64"))]
pub mod page_code;
pub mod register;
pub mod tables;
pub mod trap_frame;
pub mod tss;
pub mod vector;
#[cfg(all(feature = "x86_64_0_15", target_arch = "x86_64"))]
mod x86_64_0_15;

pub use dump::Dump;
#[cfg(target_arch = "x86_64")]
pub use entry::{Handler, VectorRegisters};
pub use error_code::{ErrorCode, PageFaultErrorCode, SelectorErrorCode};
pub use gdt::Gdt;
pub use idt::{Gate, Idt};
pub use register::{Cr0, Cr4, Efer, RFlags, SystemRegisters};
pub use tables::Tables;
pub use trap_frame::TrapFrame;
pub use tss::{Stack, Tss};
pub use vector::Vector;
