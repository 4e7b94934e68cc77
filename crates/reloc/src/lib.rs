#![cfg_attr(not(test), no_std)]
// An image can be loaded anywhere, but prepared only where its page code runs.
#![cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
//! kexec for x86-64 kernels written in Rust: replaces the running kernel by another one without firmware in between, or
//! calls it and comes back.
//!
//! The life of an image: segments are added to an [`Image`] and filled, in any order, by hand or by a loader of
//! `kexec-payload`; `prepare` plans the transition, lays out page tables, page list and page code in frames of the
//! caller's, and checks the whole by a walker of its own; what comes out, `Prepared`, holds no reference and can only work. It
//! prints its plan, can be checked again, kept in a static, and executed from a panic handler.
//!
//! ```no_run
//! # #[cfg(target_arch = "x86_64")]
//! # fn kexec<M: kexec_abi::PhysMemory + kexec_abi::FrameAllocator>(
//! #     memory: &mut M, memory_map: &[kexec_abi::MemoryRegion], kernel: &[u8],
//! # ) -> Result<core::convert::Infallible, Box<dyn core::error::Error>> {
//! use identmap::{Attributes, Mapping};
//! use kexec_abi::{EntryState, PhysAddr, PhysRange};
//! use reloc::{Cpu, Image, Machine, Mode, Options, Segment};
//!
//! let mut slots = [Segment::EMPTY; 16];
//! let mut image = Image::new(&mut slots, memory_map, Mode::Replace);
//! let destination = PhysRange::new(PhysAddr::new(0x40_0000), PhysAddr::new(0x60_0000));
//! image.add(destination)?;
//! image.write(memory, destination.start, kernel)?;
//!
//! // SAFETY: a kernel runs at CPL 0.
//! let cpu = unsafe { Cpu::read() };
//! let machine = Machine { cpu, firmware: &[], console: None, physical_memory: None };
//! let options = Options::new(EntryState::at(destination.start));
//! let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::R); 64];
//! let mut prepared = image.prepare(memory, &machine, &options, &mut mappings)?;
//!
//! // SAFETY: interrupts are off, devices are quiet, the other processors are parked.
//! let refused = unsafe { prepared.execute() };
//! // Nothing has changed: give the frames back, and go on.
//! prepared.free(memory);
//! # return Err(refused.into());
//! # }
//! ```
//!
//! What it will not do: park processors, quiet devices, find a kernel's file, or hold a lock. The state in which a new kernel is
//! entered, what is restored after a call, and what a callee owes stand in the repository's docs/.

mod breakpoints;
#[cfg(target_arch = "x86_64")]
mod check;
#[cfg(target_arch = "x86_64")]
mod control;
mod cpu;
#[cfg(target_arch = "x86_64")]
mod detour;
#[cfg(target_arch = "x86_64")]
mod engine;
mod filling;
mod image;
#[cfg(target_arch = "x86_64")]
mod jump;
#[cfg(target_arch = "x86_64")]
mod list;
#[cfg(target_arch = "x86_64")]
mod manifest;
#[cfg(target_arch = "x86_64")]
mod pieces;
#[cfg(target_arch = "x86_64")]
mod plan;
#[cfg(target_arch = "x86_64")]
mod prepare;
#[cfg(target_arch = "x86_64")]
mod prepared;
#[cfg(target_arch = "x86_64")]
mod settle;
mod source_map;
#[cfg(target_arch = "x86_64")]
mod transition_map;

pub use breakpoints::Breakpoints;
pub use cpu::Cpu;
pub use filling::{FillError, Filling};
pub use image::{AddError, Image, Mode, Segment, WriteError};

#[cfg(target_arch = "x86_64")]
pub use self::{
    check::CheckError,
    detour::DETOUR,
    engine::ENGINE,
    jump::Refused,
    list::Counts,
    plan::Plan,
    prepare::{Machine, Options, PrepareError},
    prepared::Prepared,
};
