//! Memory in one piece, as a kernel with a direct map has it: a frame is reached by an addition.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use kexec_abi::memory::Words;
use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, Unreachable, VirtAddr};

/// Frames that are given out in ascending order, all over again after a reset.
pub struct Arena {
    bytes: NonNull<u8>,
    count: usize,
    next: usize,
}

impl Arena {
    /// The physical address of the first frame.
    pub const BASE: u64 = 0x10_0000;

    pub fn new(count: usize) -> Self {
        let layout = Self::layout(count);
        // SAFETY: the layout is not of size zero.
        let bytes = unsafe { alloc_zeroed(layout) };
        Self { bytes: NonNull::new(bytes).unwrap_or_else(|| handle_alloc_error(layout)), count, next: 0 }
    }

    fn layout(count: usize) -> Layout {
        Layout::from_size_align(count.max(1) * 4096, 4096).expect("an arena that fits the address space")
    }

    /// Takes all frames back.
    pub fn reset(&mut self) {
        self.next = 0;
    }

    /// The number of frames given out.
    pub fn given(&self) -> u64 {
        self.next as u64
    }

    /// What is to be added to a physical address to reach it.
    pub fn offset(&self) -> u64 {
        self.bytes.as_ptr().expose_provenance() as u64 - Self::BASE
    }

    /// The bytes of the first `count` frames.
    pub fn first(&mut self, count: usize) -> &mut [u8] {
        // SAFETY: the memory is ours, `count` or less frames of it, borrowed as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.bytes.as_ptr(), count.min(self.count) * 4096) }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.bytes.as_ptr(), Self::layout(self.count)) }
    }
}

// SAFETY: the frames are disjoint, aligned parts of memory that the arena owns.
unsafe impl PhysMemory for Arena {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        let offset = frame.start().as_u64().wrapping_sub(Self::BASE) as usize;
        if offset / 4096 >= self.count {
            return Err(Unreachable(frame));
        }
        // SAFETY: `offset` lies in the arena, at the start of a frame.
        Ok(f(unsafe { self.bytes.add(offset) }.cast()))
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        Err(Unreachable(frame))
    }
}

// SAFETY: a frame is given out once between two resets, which take all back.
unsafe impl FrameAllocator for Arena {
    fn allocate(&mut self) -> Option<Frame> {
        let index = (self.next < self.count).then_some(self.next)?;
        self.next += 1;
        Frame::from_start(PhysAddr::new(Self::BASE + index as u64 * 4096))
    }

    fn free(&mut self, _: Frame) {}
}
