//! The best use of the `x86_64` crate's mapper: the largest page that fits at each step, and no flush.

use kexec_abi::{FrameAllocator as _, PhysRange};
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageSize, PageTable, PageTableFlags, PhysFrame, Size1GiB,
    Size2MiB, Size4KiB,
};
use x86_64::{PhysAddr, VirtAddr};

use crate::arena::Arena;

struct Frames<'a>(&'a mut Arena);

// SAFETY: the arena gives each frame once between two resets.
unsafe impl FrameAllocator<Size4KiB> for Frames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let start = self.0.allocate()?.start().as_u64();
        Some(PhysFrame::containing_address(PhysAddr::new(start)))
    }
}

pub(crate) fn build(ranges: &[PhysRange], giant_pages: bool, arena: &mut Arena) {
    let offset = arena.offset();
    let root = arena.allocate().expect("enough frames");
    let table: *mut PageTable =
        std::ptr::with_exposed_provenance_mut((root.start().as_u64() + offset) as usize);
    // SAFETY: a frame of the arena, to which nothing else refers until the mapper is gone.
    let mut mapper = unsafe {
        (*table).zero();
        OffsetPageTable::new(&mut *table, VirtAddr::new(offset))
    };
    let frames = &mut Frames(arena);
    for range in ranges {
        let (mut start, end) = (range.start.as_u64(), range.end.as_u64());
        while start < end {
            let fits = |size: u64| start.is_multiple_of(size) && end - start >= size;
            start += if giant_pages && fits(Size1GiB::SIZE) {
                map::<Size1GiB>(&mut mapper, start, frames)
            } else if fits(Size2MiB::SIZE) {
                map::<Size2MiB>(&mut mapper, start, frames)
            } else {
                map::<Size4KiB>(&mut mapper, start, frames)
            };
        }
    }
}

fn map<'a, S: PageSize + std::fmt::Debug>(
    mapper: &mut OffsetPageTable<'a>,
    start: u64,
    frames: &mut Frames<'_>,
) -> u64
where
    OffsetPageTable<'a>: Mapper<S>,
{
    let flags =
        PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::ACCESSED | PageTableFlags::DIRTY;
    let frame = PhysFrame::<S>::containing_address(PhysAddr::new(start));
    let page = Page::<S>::containing_address(VirtAddr::new(start));
    // SAFETY: no processor runs on these tables.
    let mapped: Result<_, MapToError<S>> = unsafe { mapper.map_to(page, frame, flags, frames) };
    mapped.expect("a page that is not mapped yet").ignore();
    S::SIZE
}
