//! The kernel's memory, as kernels less lucky than this one have it.

use core::ptr::NonNull;

use hobby::Memory;
use kexec_abi::memory::Words;
use kexec_abi::{Frame, FrameAllocator, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr};

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

/// Gives frames in an order of its own, never a wanted one or a run, as most allocators do.
pub struct Ordered<'m> {
    memory: &'m mut Memory,
    /// From one frame's number to the next one's, modulo [`NUMBERS`]; odd, so that all of them are visited.
    step: u64,
    number: u64,
}

/// Frames below 4 GiB.
const NUMBERS: u64 = 1 << 20;

impl<'m> Ordered<'m> {
    /// From the top down: none lies where an image is to stand, as long as there is other memory.
    pub fn down(memory: &'m mut Memory) -> Self {
        Self { memory, step: NUMBERS - 1, number: 0 }
    }

    /// All over memory, in destinations and out of them, no two in a row.
    pub fn scattered(memory: &'m mut Memory) -> Self {
        Self { memory, step: 0x9_e377, number: 0 }
    }
}

// SAFETY: its frames are the memory's.
unsafe impl FrameAllocator for Ordered<'_> {
    fn allocate(&mut self) -> Option<Frame> {
        (0..NUMBERS).find_map(|_| {
            self.number = (self.number + self.step) % NUMBERS;
            let frame = Frame::containing(PhysAddr::new(self.number * PAGE_SIZE));
            self.memory.claim(frame.range()).then_some(frame)
        })
    }

    fn free(&mut self, frame: Frame) {
        self.memory.free(frame);
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        self.memory.allocate_run(count, below)
    }
}

// SAFETY: it is the memory.
unsafe impl PhysMemory for Ordered<'_> {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        self.memory.with_frame(frame, f)
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.memory.pin(frame)
    }
}
