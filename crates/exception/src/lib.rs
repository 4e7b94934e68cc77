#![no_std]
//! x86-64 exceptions with all the registers.

#[cfg(all(feature = "page-code", target_arch = "x86_64"))]
pub mod page_code;
