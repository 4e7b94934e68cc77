#![cfg_attr(not(test), no_std)]
//! kexec for x86-64 kernels written in Rust: replaces the running kernel by another one without firmware in between.

mod breakpoints;
mod check;
mod control;
mod cpu;
#[cfg(target_arch = "x86_64")]
mod engine;
mod filling;
mod image;
#[cfg(target_arch = "x86_64")]
mod jump;
mod list;
mod manifest;
#[cfg(target_arch = "x86_64")]
mod pieces;
#[cfg(target_arch = "x86_64")]
mod plan;
#[cfg(target_arch = "x86_64")]
mod prepare;
#[cfg(target_arch = "x86_64")]
mod prepared;
mod settle;
mod source_map;
mod transition_map;

pub use breakpoints::Breakpoints;
pub use check::CheckError;
pub use cpu::Cpu;
#[cfg(target_arch = "x86_64")]
pub use engine::ENGINE;
pub use filling::{FillError, Filling};
pub use image::{AddError, Image, Mode, Segment, WriteError};
#[cfg(target_arch = "x86_64")]
pub use jump::Refused;
pub use list::Counts;
pub use manifest::PlannedSegment;
#[cfg(target_arch = "x86_64")]
pub use plan::Plan;
#[cfg(target_arch = "x86_64")]
pub use prepare::{Machine, Options, PrepareError};
#[cfg(target_arch = "x86_64")]
pub use prepared::Prepared;
