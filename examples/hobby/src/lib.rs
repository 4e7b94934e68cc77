#![no_std]
//! What belongs to a small kernel, so that the kernels beside this crate can be about kexec.
//!
//! A kernel of your own has all of this already, and better: a console, a map of the machine's memory, frames to give, a way
//! to reach them.

pub mod acpi;
pub mod boot;
pub mod bundle;
pub mod console;
pub mod exit;
pub mod failure;
pub mod fault;
pub mod frames;
pub mod image;
pub mod memory;
pub mod memory_map;

pub use bundle::Bundle;
pub use console::Console;
pub use failure::Failure;
pub use memory::Memory;
pub use memory_map::MemoryMap;
