//! The `x86_64` crate reads our tables, and we read the ones that it makes.

#![cfg(target_arch = "x86_64")]

#[path = "common/arena.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the benchmark")]
mod arena;

use arena::Arena;
use identmap::{Attributes, LeafSize, Mapping, Options, Plan, Tables};
use kexec_abi::{FrameAllocator, Levels, PhysAddr, PhysRange, VirtAddr};
use x86_64::structures::paging::mapper::{MappedFrame, TranslateResult};
use x86_64::structures::paging::{
    Mapper, OffsetPageTable, Page, PageTable, PageTableFlags, PhysFrame, Size1GiB, Size2MiB, Size4KiB,
    Translate,
};

struct Frames<'a>(&'a mut Arena);

// SAFETY: the arena gives each frame once.
unsafe impl x86_64::structures::paging::FrameAllocator<Size4KiB> for Frames<'_> {
    fn allocate_frame(&mut self) -> Option<PhysFrame> {
        let start = self.0.allocate()?.start().as_u64();
        Some(PhysFrame::containing_address(x86_64::PhysAddr::new(start)))
    }
}

/// The tables as `x86_64` sees them.
fn mapper(root: PhysAddr, offset: u64) -> OffsetPageTable<'static> {
    let table: *mut PageTable = std::ptr::with_exposed_provenance_mut((root.as_u64() + offset) as usize);
    // SAFETY: a frame of an arena that outlives the mapper in each test, and nothing else refers to it meanwhile.
    unsafe { OffsetPageTable::new(&mut *table, x86_64::VirtAddr::new(offset)) }
}

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

#[test]
fn x86_64_translates_our_maps_as_we_do() {
    let mut arena = Arena::new(64);
    let options = Options { giant_pages: true, ..Options::default() };
    let mut mappings = [
        Mapping::identity(range(0, 0x8020_3000), Attributes::RWX),
        Mapping::alias(VirtAddr::new(0xffff_8000_0000_0000), range(0x20_0000, 0x40_1000), Attributes::RW),
        Mapping::identity(range(0x20_0000, 0x20_1000), Attributes::RX).with_priority(1),
    ];
    let map = Plan::new(&mut mappings, &options).unwrap().build(&mut arena).unwrap();
    let theirs = mapper(map.root().start(), arena.offset());
    let ours = map.tables();
    for virt in
        [0, 0x1f_ffff, 0x20_0123, 0x20_1000, 0x3fff_ffff, 0x4000_0000, 0x8000_0000, 0x8020_2fff, 0x8020_3000]
            .into_iter()
            .chain([
                0xffff_8000_0000_0000,
                0xffff_8000_0020_0fff,
                0xffff_8000_0020_1000,
                0xffff_ffff_ffff_ffff,
            ])
    {
        let translation = ours.translate(&arena, VirtAddr::new(virt));
        match theirs.translate(x86_64::VirtAddr::new(virt)) {
            TranslateResult::Mapped { frame, offset, flags } => {
                assert_eq!(translation.phys().unwrap().as_u64(), frame.start_address().as_u64() + offset);
                let leaf = translation.leaf().unwrap();
                assert_eq!(leaf.attributes.writable, flags.contains(PageTableFlags::WRITABLE));
                assert_eq!(leaf.attributes.executable, !flags.contains(PageTableFlags::NO_EXECUTE));
                let size = match frame {
                    MappedFrame::Size4KiB(_) => LeafSize::Size4KiB,
                    MappedFrame::Size2MiB(_) => LeafSize::Size2MiB,
                    MappedFrame::Size1GiB(_) => LeafSize::Size1GiB,
                };
                assert_eq!(leaf.size, size);
            }
            TranslateResult::NotMapped => assert_eq!(translation.phys(), None, "{virt:#x}"),
            TranslateResult::InvalidFrameAddress(_) => panic!("{virt:#x}"),
        }
    }
}

#[test]
fn we_read_what_x86_64_maps() {
    let mut arena = Arena::new(16);
    let root = arena.allocate().unwrap();
    let mut theirs = mapper(root.start(), arena.offset());
    let flags = PageTableFlags::PRESENT | PageTableFlags::WRITABLE;
    let (virt, phys) = (x86_64::VirtAddr::new, x86_64::PhysAddr::new);
    let frames = &mut Frames(&mut arena);
    // SAFETY: no processor runs on these tables.
    unsafe {
        let page = Page::<Size4KiB>::containing_address(virt(0xffff_8000_0000_3000));
        let uncached =
            flags | PageTableFlags::NO_CACHE | PageTableFlags::WRITE_THROUGH | PageTableFlags::NO_EXECUTE;
        theirs.map_to(page, PhysFrame::containing_address(phys(0x1000)), uncached, frames).unwrap().ignore();
        let page = Page::<Size2MiB>::containing_address(virt(0x20_0000));
        theirs.map_to(page, PhysFrame::containing_address(phys(0x20_0000)), flags, frames).unwrap().ignore();
        let page = Page::<Size1GiB>::containing_address(virt(0x4000_0000));
        theirs
            .map_to(page, PhysFrame::containing_address(phys(0x4000_0000)), flags, frames)
            .unwrap()
            .ignore();
    }
    let tables = Tables::new(root, Levels::Four);
    let runs: Vec<String> = tables.runs(&arena).map(|run| run.unwrap().to_string()).collect();
    assert_eq!(
        runs,
        [
            "0x200000..0x400000 rwx wb",
            "0x40000000..0x80000000 rwx wb",
            "0xffff800000003000..0xffff800000004000 -> 0x1000 rw- uc",
        ]
    );
}

#[cfg(feature = "x86_64_0_15")]
#[test]
fn attributes_go_into_flags_and_back_where_there_are_flags_for_them() {
    use identmap::{Cache, NoFlag};

    for index in 0..8 {
        for bits in 0..4 {
            let (writable, executable) = (bits & 1 != 0, bits & 2 != 0);
            let attributes =
                Attributes { writable, executable, cache: Cache::from_pat_index(index), shared: false };
            match PageTableFlags::try_from(attributes) {
                Ok(flags) => assert_eq!((Attributes::from(flags), index < 4), (attributes, true)),
                Err(error) => assert_eq!((error, index < 4), (NoFlag(attributes), false)),
            }
            assert!(PageTableFlags::try_from(attributes.with_shared(true)).is_err());
        }
    }
}
