#![cfg_attr(not(test), no_std)]
//! Kernel files as segments and an entry state.
//!
//! For a kernel, a boot loader or a hypervisor that loads another kernel: an ELF64 file or a Linux bzImage goes in, and
//! out come the physical ranges to be filled ([`Sink::segment`]), their bytes in chunks ([`Sink::write`]), and the registers at the
//! first instruction ([`EntryState`]). Everything about a file is checked before the first byte leaves it.
//!
//! ```
//! use kexec_abi::{EntryState, Levels, MemoryRegion};
//! use kexec_payload::{BzImage, BzImageError, LoadError, Parameters, Sink};
//!
//! enum Error<E> { File(BzImageError), Load(LoadError<E>) }
//!
//! fn load_linux<S: Sink>(
//!     file: &[u8],
//!     initrd: &[u8],
//!     memory_map: &[MemoryRegion],
//!     image: &mut S,
//! ) -> Result<EntryState, Error<S::Error>> {
//!     let kernel = BzImage::parse(file).map_err(Error::File)?;
//!     let mut parameters = Parameters::new(memory_map);
//!     parameters.command_line = b"console=ttyS0";
//!     parameters.ramdisk = Some(&initrd);
//!     kernel.load(&parameters, Levels::Four, image).map_err(Error::Load)
//! }
//! ```
//!
//! A file is anything that can be read at an offset ([`ReadAt`]): it may lie in memory in one piece, in several, or on a
//! disk. The largest things on the stack are two pages: `boot_params`, and the chunk on its way.
//!
//! What this crate will not do: touch a machine, allocate, decompress, verify a signature or digest, link dynamically, or
//! load 32-bit kernels, Multiboot kernels or kernels by the 32-bit or EFI entry points of the boot protocol.

mod bzimage;
pub mod e820;
mod elf64;
mod load;
mod parameters;
mod place;
mod read;

pub use bzimage::{BzImage, BzImageError};
pub use elf64::{Addresses, Elf64, ElfError, MAX_LOADS};
pub use load::{LoadError, Sink};
pub use parameters::Parameters;
pub use place::{Part, PlaceError, Request, place};
pub use read::{ReadAt, ReadError};

#[doc(no_inline)]
pub use kexec_abi::EntryState;
