//! A page of a device's registers, mapped uncached.

use core::ops::Range;

use hobby::Memory;
use kexec_abi::{Frame, FrameAllocator as _, VirtAddr};
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::mapper::MapToError;
use x86_64::structures::paging::{
    FrameAllocator, Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size4KiB,
};

/// Maps the page in which `registers` starts, in a part of the address space where nothing else is, with four levels of paging.
pub fn map(registers: &Range<u64>, memory: &mut Memory) -> Result<VirtAddr, MapToError<Size4KiB>> {
    let offset = x86_64::VirtAddr::new(memory.offset.as_u64());
    let root = offset + Cr3::read().0.start_address().as_u64();
    // SAFETY: the tables in force, which physical memory's map reaches; one processor runs, and nobody else refers to them.
    let mut table = unsafe { OffsetPageTable::new(&mut *root.as_mut_ptr::<PageTable>(), offset) };
    let top = table.level_4_table();
    let free = (1..256_u16).rev().find(|slot| top[usize::from(*slot)].is_unused());
    let free = u64::from(free.ok_or(MapToError::FrameAllocationFailed)?) << 39;
    let page = Page::containing_address(x86_64::VirtAddr::new(free));
    let frame = PhysFrame::containing_address(x86_64::PhysAddr::new(registers.start));
    let flags = PageTableFlags::PRESENT
        | PageTableFlags::WRITABLE
        | PageTableFlags::NO_EXECUTE
        | PageTableFlags::NO_CACHE
        | PageTableFlags::WRITE_THROUGH;
    // SAFETY: registers, and no memory that anything refers to.
    unsafe { table.map_to(page, frame, flags, &mut Tables(memory)) }?.flush();
    Ok(VirtAddr::new(page.start_address().as_u64()))
}

/// Frames for page tables.
struct Tables<'m>(&'m mut Memory);

// SAFETY: a frame that was allocated is free, and nobody else's.
unsafe impl FrameAllocator<Size4KiB> for Tables<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let start = self.0.allocate().map(Frame::start)?;
        Some(PhysFrame::containing_address(x86_64::PhysAddr::new(start.as_u64())))
    }
}
