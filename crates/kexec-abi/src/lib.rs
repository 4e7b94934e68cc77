#![cfg_attr(not(test), no_std)]
//! What two parties of a kexec must agree on: the kernel and the crates that work on its memory, the planner and the page code,
//! the old kernel and the new one.
//!
//! | module | what it holds |
//! |---|---|
//! | [`addr`] | physical and virtual addresses, 4 KiB frames, ranges |
//! | [`memory`] | the two traits by which all of these crates see a kernel's memory |
//! | [`memory_map`] | what the machine's memory is used for |
//! | [`segment`], [`list`] | Linux's segments and flags; the page list, entry by entry |
//! | [`entry_state`] | the registers with which a new kernel begins |
//! | [`boot_params`] | Linux's boot protocol: setup header, e820, setup_data |
//! | [`page_code`](mod@page_code), [`console`], [`progress`] | code that runs when the kernel's text may be gone: how it is declared, how it prints, what it notes |
//! | [`convert`] | the same in the types of `x86_64` and `bootloader_api` |
//!
//! ```
//! use kexec_abi::list::{Entry, Item};
//! use kexec_abi::{Frame, PhysAddr};
//!
//! let frame = Frame::containing(PhysAddr::new(0x20_1234));
//! let entry = Entry::source(frame, 3).expect("1 to 4096 pages");
//! assert_eq!(entry.as_u64(), 0x20_0000 | 0x1000 | 8 | 2 << 52);
//! assert_eq!(entry.decode(), Item::Source { frame, pages: 3 });
//! ```
//!
//! It holds formats and contracts only: nothing here maps, plans or jumps.

pub mod addr;
pub mod boot_params;
pub mod console;
pub mod convert;
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
