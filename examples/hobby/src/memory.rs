//! Memory as the crates of kexec ask for it: frames, and a way to reach them.

use core::ptr::NonNull;

use kexec_abi::memory::Words;
use kexec_abi::{
    Frame, FrameAllocator, Levels, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr,
};

use crate::frames::Frames;
use crate::memory_map::MemoryMap;

/// Free frames, and all of RAM mapped at an offset.
pub struct Memory {
    /// The free frames.
    pub frames: Frames,
    /// Where physical address 0 is mapped.
    pub offset: VirtAddr,
    /// One past the last address of RAM.
    end: PhysAddr,
}

impl Memory {
    /// The memory of the machine that `map` describes.
    ///
    /// # Safety
    ///
    /// - As for [`Frames::new`].
    /// - All RAM is mapped at `offset`, writable, as long as this kernel lives.
    pub unsafe fn new(map: &MemoryMap, in_use: impl Iterator<Item = PhysRange>, offset: VirtAddr) -> Self {
        let ram = map.iter().filter(|region| region.kind.is_ram()).map(|region| region.range.end);
        let end = ram.max().unwrap_or_default();
        // SAFETY: the caller's word.
        Self { frames: unsafe { Frames::new(map, in_use) }, offset, end }
    }

    /// To live on with the page tables at `root`: never gives their frames, nor what they don't let this kernel write, such
    /// as the code frame of the transition that brought it.
    pub fn keep_tables(&mut self, root: PhysAddr, levels: Levels) {
        self.keep_table(Frame::containing(root), u32::from(levels.count()));
    }

    fn keep_table(&mut self, table: Frame, level: u32) {
        // SDM Vol. 3A, 5.5.4.
        const PRESENT: u64 = 1;
        const WRITABLE: u64 = 1 << 1;
        const PAGE: u64 = 1 << 7;
        self.frames.reserve(table.range());
        for index in 0..512 {
            let entry = self.read_word(table, index).expect("page tables lie in RAM");
            let next = Frame::containing(PhysAddr::new(entry));
            if entry & PRESENT == 0 {
                continue;
            } else if level > 1 && entry & PAGE == 0 {
                self.keep_table(next, level - 1);
            } else if entry & WRITABLE == 0 {
                let size = PAGE_SIZE << (9 * (level - 1));
                let page = next.start().align_down(size);
                self.frames.reserve(PhysRange::from_len(page, size).unwrap_or_default());
            }
        }
    }
}

// SAFETY: RAM is mapped at the offset for good, and this kernel refers to no frame that it hands over.
unsafe impl PhysMemory for Memory {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        let address = self.offset.as_u64() + frame.start().as_u64();
        match NonNull::new(address as *mut Words) {
            Some(words) if frame.range().end <= self.end => Ok(f(words)),
            _ => Err(Unreachable(frame)),
        }
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.with_frame(frame, |words| VirtAddr::new(words.as_ptr() as u64))
    }
}

// SAFETY: `Frames` keeps the promise.
unsafe impl FrameAllocator for Memory {
    fn allocate(&mut self) -> Option<Frame> {
        self.frames.allocate()
    }

    fn free(&mut self, frame: Frame) {
        self.frames.free(frame);
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        self.frames.allocate_run(count, below)
    }

    fn claim(&mut self, range: PhysRange) -> bool {
        self.frames.claim(range)
    }
}
