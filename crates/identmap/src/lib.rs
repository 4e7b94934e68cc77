#![cfg_attr(not(test), no_std)]
//! Identity maps and aliases in x86-64 page tables, in 4 or 5 levels: exactly what was asked for, in the fewest tables that can
//! hold it, the number of frames known in advance. And a reader of any x86-64 tables.
//!
//! For a kernel or boot loader that hands over to something else, switches modes, starts other processors, or wants to know
//! what its own tables say.
//!
//! ```
//! use identmap::{Attributes, Cache, Error, Map, Mapping, Options, Plan};
//! use kexec_abi::{FrameAllocator, PhysAddr, PhysMemory, PhysRange, VirtAddr};
//!
//! fn boot_map<M: PhysMemory + FrameAllocator>(mem: &mut M) -> Result<Map, Error> {
//!     let range = |start, end| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
//!     let mappings = &mut [
//!         Mapping::identity(range(0, 0x9f000), Attributes::RWX),
//!         Mapping::identity(range(0x10_0000, 0x8000_0000), Attributes::RWX),
//!         // Where two overlap, the one of higher priority is made; without that, a difference is an error.
//!         Mapping::identity(range(0x20_0000, 0x20_1000), Attributes::RX).with_priority(1),
//!         Mapping::identity(range(0xfe00_0000, 0xfe00_1000), Attributes::RW.with_cache(Cache::Uncached)),
//!         Mapping::alias(VirtAddr::new(0xffff_8000_0000_0000), range(0x20_0000, 0x20_1000), Attributes::RX),
//!     ];
//!     let plan = Plan::new(mappings, &Options { giant_pages: true, ..Options::default() })?;
//!     assert_eq!(plan.frames(), 10); // before anything is taken
//!     let map = plan.build(mem)?;
//!     assert_eq!(map.tables().translate(mem, VirtAddr::new(0x20_0123)).phys(), Some(PhysAddr::new(0x20_0123)));
//!     Ok(map) // `map.cr3()` loads it, `map.free(mem)` gives its frames back
//! }
//! ```
//!
//! Memory is reached, and frames are taken, through the traits of `kexec-abi`; there is no other allocation: sorting happens in the
//! caller's slice. It is data only and compiles for every target.
//!
//! What it will not do: load CR3, flush a TLB, change the PAT, share tables, or make more than it was asked for.

mod attributes;
mod census;
#[cfg(all(target_arch = "x86_64", feature = "x86_64_0_15"))]
mod convert;
mod drawing;
mod entry;
mod error;
mod extent;
mod fill;
mod leaves;
mod level;
mod map;
mod mapping;
mod options;
mod page;
mod plan;
mod tables;

pub use attributes::{Attributes, Cache};
pub use census::Census;
#[cfg(all(target_arch = "x86_64", feature = "x86_64_0_15"))]
pub use convert::NoFlag;
pub use drawing::Drawing;
pub use error::Error;
pub use leaves::{Leaves, Run, Runs};
pub use level::{LeafSize, Level};
pub use map::Map;
pub use mapping::{Mapping, Rounding};
pub use options::{Encryption, Options};
pub use plan::Plan;
pub use tables::{Defect, End, Leaf, Step, Tables, Translation};
