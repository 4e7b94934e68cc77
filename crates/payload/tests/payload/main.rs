//! Files that are made here byte by byte from the specifications, loaded into a recorder that checks each promise of
//! `Sink`, and judged by code that shares nothing with the loaders.

mod bzimage;
mod elf64;
mod memory_map;
mod parameters;
mod recorder;
mod synthetic_bzimage;
mod synthetic_elf;
