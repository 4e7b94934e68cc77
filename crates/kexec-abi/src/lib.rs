#![cfg_attr(not(test), no_std)]
//! What two parties of a kexec must agree on.

pub mod addr;
pub mod boot_params;
pub mod console;
pub mod entry_state;
pub mod list;
pub mod memory;
pub mod memory_map;
pub mod page_code;
pub mod progress;
pub mod segment;

pub use addr::{Frame, PAGE_SIZE, PHYS_ADDR_LIMIT, PhysAddr, PhysRange, VirtAddr};
pub use console::{Console, ConsoleConfig};
pub use entry_state::{EntryState, Levels};
pub use memory::{FrameAllocator, PhysMemory, Unreachable};
pub use memory_map::{MemoryKind, MemoryRegion};
pub use page_code::PageCode;
pub use progress::{Phase, Progress};
