//! The kernel's memory, as kernels less lucky than this one have it.

use core::ptr::NonNull;

use hobby::Memory;
use kexec_abi::memory::Words;
use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr};

/// Gives no more than `left` frames.
pub struct Limited<'m> {
    pub memory: &'m mut Memory,
    pub left: u64,
}

impl Limited<'_> {
    fn charge<T>(&mut self, count: u64, take: impl FnOnce(&mut Memory) -> Option<T>) -> Option<T> {
        let left = self.left.checked_sub(count)?;
        let taken = take(self.memory)?;
        self.left = left;
        Some(taken)
    }
}

// SAFETY: its frames are the memory's.
unsafe impl FrameAllocator for Limited<'_> {
    fn allocate(&mut self) -> Option<Frame> {
        self.charge(1, |memory| memory.allocate())
    }

    fn free(&mut self, frame: Frame) {
        self.memory.free(frame);
        self.left += 1;
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        self.charge(count, |memory| memory.allocate_run(count, below))
    }

    fn claim(&mut self, range: PhysRange) -> bool {
        self.charge(range.frame_count(), |memory| memory.claim(range).then_some(())).is_some()
    }
}

// SAFETY: it is the memory.
unsafe impl PhysMemory for Limited<'_> {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        self.memory.with_frame(frame, f)
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.memory.pin(frame)
    }
}

/// Gives whatever frame comes next, never a wanted one or a run, as most allocators do.
pub struct Plain<'m>(pub &'m mut Memory);

// SAFETY: its frames are the memory's.
unsafe impl FrameAllocator for Plain<'_> {
    fn allocate(&mut self) -> Option<Frame> {
        self.0.allocate()
    }

    fn free(&mut self, frame: Frame) {
        self.0.free(frame);
    }
}

// SAFETY: it is the memory.
unsafe impl PhysMemory for Plain<'_> {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        self.0.with_frame(frame, f)
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.0.pin(frame)
    }
}
