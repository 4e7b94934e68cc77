//! Memory, as the crates see it: two traits that a kernel implements once.
//!
//! [`PhysMemory`] reaches the bytes of a frame; reading page tables needs no more. [`FrameAllocator`] gives frames and
//! takes them back. Memory is passed to each call and never kept, so the kernel's allocator stays usable throughout.

use core::fmt;
use core::ptr::NonNull;

use crate::addr::{Frame, PhysAddr, PhysRange, VirtAddr};

/// The bytes of one frame, as an array of the 512 eight-byte words that tables and lists are made of.
pub type Words = [u64; 512];

/// A frame that the caller's [`PhysMemory`] cannot reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable(pub Frame);

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be reached through the kernel's mapping of physical memory", self.0)
    }
}

impl core::error::Error for Unreachable {}

/// Reaches physical memory, one frame at a time.
///
/// A kernel that maps all of physical memory at an offset implements [`with_frame`](Self::with_frame) by an addition; one
/// that does not, by mapping the frame at a window for the duration of the call. Calls nest two deep (a copy from frame to
/// frame), so the latter needs two windows.
///
/// # Safety
///
/// The implementor promises that
///
/// - the pointer given to `f` reaches exactly the 4096 bytes of `frame`, readable and writable, 4 KiB-aligned, for as long
///   as `f` runs, through a write-back mapping;
/// - no Rust reference to those bytes exists elsewhere while `f` runs, for every frame that the caller of a function of
///   these crates hands over (table frames of the running processor may be read, and the processor may set their accessed
///   and dirty bits meanwhile: such reads are volatile);
/// - [`pin`](Self::pin)'s address stays mapped to the frame, readable and writable, until the kernel is replaced.
pub unsafe trait PhysMemory {
    /// Calls `f` with a pointer to the bytes of `frame`.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach `frame`; `f` was not called then.
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable>;

    /// A virtual address at which `frame` stays mapped, readable and writable, for as long as this kernel lives. Asked for a
    /// handful of control frames of each prepared image. With a direct map it is the frame's address in it.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if there is no such mapping and none can be made.
    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable>;

    /// The word at `index` (0 to 511; taken modulo 512) of `frame`.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach `frame`.
    fn read_word(&self, frame: Frame, index: usize) -> Result<u64, Unreachable> {
        self.with_frame(frame, |words| {
            // SAFETY: the index is below 512 and `with_frame` gives 512 readable words; volatile, since the processor
            // may set accessed and dirty bits in a live table.
            unsafe { words.cast::<u64>().add(index % 512).read_volatile() }
        })
    }

    /// Writes the word at `index` (0 to 511; taken modulo 512) of `frame`, which is the caller's to write.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach `frame`.
    fn write_word(&mut self, frame: Frame, index: usize, value: u64) -> Result<(), Unreachable> {
        self.with_frame(frame, |words| {
            // SAFETY: the index is below 512 and `with_frame` gives 512 writable words.
            unsafe { words.cast::<u64>().add(index % 512).write_volatile(value) }
        })
    }

    /// Fills `frame` with zeros.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach `frame`.
    fn zero(&mut self, frame: Frame) -> Result<(), Unreachable> {
        self.with_frame(frame, |words| {
            // SAFETY: `with_frame` gives 4096 writable bytes.
            unsafe { words.write_bytes(0, 1) }
        })
    }

    /// Copies the bytes of `from` over those of `to`, another frame.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach one of them.
    fn copy(&mut self, from: Frame, to: Frame) -> Result<(), Unreachable> {
        self.with_frame(from, |from| {
            self.with_frame(to, |to| {
                // SAFETY: both are 4096 bytes that `with_frame` gives; `copy_from` allows that they are the same.
                unsafe { to.copy_from(from, 1) }
            })
        })?
    }

    /// Exchanges the bytes of two frames.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach one of them.
    fn swap(&mut self, a: Frame, b: Frame) -> Result<(), Unreachable> {
        if a == b {
            return Ok(());
        }
        self.with_frame(a, |a| {
            self.with_frame(b, |b| {
                // SAFETY: two different frames, so two pieces of memory that do not overlap, 4096 bytes each.
                unsafe { a.swap(b) }
            })
        })?
    }

    /// Copies `bytes` into `frame` from byte `offset` on, as many as fit, and returns how many that were.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach `frame`.
    fn write_bytes(&mut self, frame: Frame, offset: usize, bytes: &[u8]) -> Result<usize, Unreachable> {
        let offset = offset.min(4096);
        let count = bytes.len().min(4096 - offset);
        self.with_frame(frame, |words| {
            // SAFETY: `offset + count` is at most 4096, the frame's size, and a frame handed over is referred to by no
            // Rust reference, so `bytes` is other memory.
            unsafe {
                words.cast::<u8>().add(offset).copy_from_nonoverlapping(NonNull::from(bytes).cast(), count)
            }
        })?;
        Ok(count)
    }

    /// Copies bytes of `frame` from byte `offset` on into `bytes`, as many as there are, and returns how many that were.
    ///
    /// # Errors
    ///
    /// [`Unreachable`] if this memory cannot reach `frame`.
    fn read_bytes(&self, frame: Frame, offset: usize, bytes: &mut [u8]) -> Result<usize, Unreachable> {
        let offset = offset.min(4096);
        let count = bytes.len().min(4096 - offset);
        let to = NonNull::from(bytes).cast::<u8>();
        self.with_frame(frame, |words| {
            // SAFETY: as in `write_bytes`, the other way round.
            unsafe { to.copy_from_nonoverlapping(words.cast::<u8>().add(offset), count) }
        })?;
        Ok(count)
    }
}

/// Gives frames and takes them back.
///
/// # Safety
///
/// The implementor promises that a frame given by [`allocate`](Self::allocate), [`allocate_run`](Self::allocate_run) or
/// [`claim`](Self::claim) is usable RAM that nobody else uses, until it is given back by [`free`](Self::free).
pub unsafe trait FrameAllocator {
    /// A frame, its content undefined; `None` when there is no more.
    fn allocate(&mut self) -> Option<Frame>;

    /// Takes back one frame that this allocator gave, by whichever call.
    fn free(&mut self, frame: Frame);

    /// `count` frames in a row that end at or below `below`; the first is returned. `None` when there is no such run, or
    /// where the allocator has no notion of runs. The default gives none: page code has to fit in one frame then, and a kernel
    /// cannot be entered with another paging depth.
    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        let _ = (count, below);
        None
    }

    /// Takes just the frames of `range` (4 KiB-aligned) out of what is free: all of them, or none and `false`. With it
    /// an image is loaded where it will run, and nothing is left to move. The default gives none.
    fn claim(&mut self, range: PhysRange) -> bool {
        let _ = range;
        false
    }
}
