#![cfg_attr(not(test), no_std)]
//! What two parties of a kexec must agree on.
pub mod addr;
pub mod console;
pub mod memory;
pub mod memory_map;
pub mod page_code;
pub mod segment;

pub use addr::{Frame, PAGE_SIZE, PHYS_ADDR_LIMIT, PhysAddr, PhysRange, VirtAddr};
pub use memory::{FrameAllocator, PhysMemory, Unreachable};
