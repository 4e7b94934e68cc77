//! Finding a place in memory.

use core::fmt;

use kexec_abi::{Levels, MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange};

use crate::e820;

/// What is wanted of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes; rounded up to whole 4 KiB frames.
    pub size: u64,
    /// Alignment of the start in bytes, a power of two; less than 4 KiB counts as 4 KiB.
    pub align: u64,
    /// The lowest address to start at.
    pub at_or_above: PhysAddr,
    /// One past the highest address to end at.
    pub below: PhysAddr,
}

/// The lowest place that fulfils `request`: whole frames of usable memory by `memory_map` (as [`e820::sanitize`] reads
/// it), none of them in a range of `taken`. `None` if there is none, if the size is 0, or if the alignment is not a power of two.
pub fn place(
    memory_map: &[MemoryRegion],
    request: Request,
    taken: impl IntoIterator<Item = PhysRange> + Clone,
) -> Option<PhysRange> {
    if request.size == 0 || !request.align.is_power_of_two() {
        return None;
    }
    let align = request.align.max(PAGE_SIZE);
    let size = request.size.checked_next_multiple_of(PAGE_SIZE)?;
    e820::sanitize(memory_map).filter(|region| region.kind == MemoryKind::Usable).find_map(|region| {
        let end = region.range.end.min(request.below);
        let mut start = region.range.start.max(request.at_or_above);
        loop {
            start = PhysAddr::new(start.as_u64().checked_next_multiple_of(align)?);
            let candidate = PhysRange::from_len(start, size)?;
            if candidate.end > end {
                return None;
            }
            // Every range in the way ends above `start`, so the search moves on each time.
            match taken.clone().into_iter().filter(|t| t.overlaps(&candidate)).map(|t| t.end).max() {
                Some(free) => start = free,
                None => return Some(candidate),
            }
        }
    })
}

/// What a place was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Part {
    /// The kernel itself.
    Kernel,
    /// The ramdisk (initrd).
    Ramdisk,
    /// `boot_params`, its `setup_data`, and the command line.
    Parameters,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kernel => "kernel",
            Self::Ramdisk => "ramdisk",
            Self::Parameters => "boot parameters",
        })
    }
}

/// Why a kernel and its parameters do not fit the machine, or each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlaceError {
    /// The memory map has no such place.
    NoRoom {
        /// For what.
        part: Part,
        /// What was looked for.
        request: Request,
    },
    /// The command line is longer than the kernel takes; lengths in bytes, without the terminating zero.
    CommandLineTooLong {
        /// Its length.
        len: u64,
        /// The most that the kernel takes (`cmdline_size` in its header).
        limit: u64,
    },
    /// The command line holds a zero byte, where the kernel would stop reading.
    CommandLineHasZero {
        /// Where in the command line, in bytes.
        at: usize,
    },
    /// The kernel cannot be entered with this paging depth.
    Levels {
        /// The depth asked for.
        levels: Levels,
    },
}

impl fmt::Display for PlaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { part, request: Request { size, align, at_or_above, below } } => write!(
                f,
                "no usable memory for the {part}: {size:#x} bytes aligned to {align:#x} between {at_or_above} and {below}"
            ),
            Self::CommandLineTooLong { len, limit } => {
                write!(f, "the command line has {len} bytes, the kernel takes at most {limit}")
            }
            Self::CommandLineHasZero { at } => write!(f, "byte {at} of the command line is zero"),
            Self::Levels { levels } => {
                write!(f, "the kernel cannot be entered with {}-level paging", levels.count())
            }
        }
    }
}

impl core::error::Error for PlaceError {}
