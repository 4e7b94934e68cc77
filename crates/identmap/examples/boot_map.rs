//! The map that a boot loader for a PC with 2 GiB of memory enters a kernel with: planned, built, drawn, and asked.
//!
//! `cargo run -p identmap --example boot_map`
//!
//! The machine's memory is an array here. A kernel's `with_frame` adds the offset of its direct map, and its `allocate`
//! asks its frame allocator.

use std::cell::UnsafeCell;
use std::error::Error;
use std::ptr::NonNull;

use identmap::{Attributes, Cache, Mapping, Options, Plan};
use kexec_abi::memory::Words;
use kexec_abi::{Frame, FrameAllocator, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr};

/// The frames from 16 MiB on.
struct Memory {
    frames: Vec<Page>,
    free: Vec<Frame>,
}

#[repr(C, align(4096))]
struct Page(UnsafeCell<Words>);

impl Memory {
    const START: u64 = 16 << 20;

    fn new(count: u64) -> Self {
        let start = |n| PhysAddr::new(Self::START + n * PAGE_SIZE);
        Self {
            frames: (0..count).map(|_| Page(UnsafeCell::new([0; 512]))).collect(),
            free: (0..count).rev().filter_map(|n| Frame::from_start(start(n))).collect(),
        }
    }
}

// SAFETY: a frame is one element of the vector, 4 KiB-aligned; the cell allows the writing, and no reference to its
// content is ever made.
unsafe impl PhysMemory for Memory {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        let index = frame.start().as_u64().wrapping_sub(Self::START) / PAGE_SIZE;
        let page = self.frames.get(index as usize).ok_or(Unreachable(frame))?;
        NonNull::new(page.0.get()).map(f).ok_or(Unreachable(frame))
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.with_frame(frame, |words| VirtAddr::new(words.addr().get() as u64))
    }
}

// SAFETY: a frame is in `free` or given out.
unsafe impl FrameAllocator for Memory {
    fn allocate(&mut self) -> Option<Frame> {
        self.free.pop()
    }

    fn free(&mut self, frame: Frame) {
        self.free.push(frame);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut memory = Memory::new(64);
    let range = |start, end| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
    let kernel = range(0x20_0000, 0x26_3000);
    let higher_half = VirtAddr::new(0xffff_ffff_8000_0000);

    let mut mappings = [
        // What the firmware says is RAM.
        Mapping::identity(range(0, 0x9_f000), Attributes::RW),
        Mapping::identity(range(0x10_0000, 0x7fe1_3000), Attributes::RW),
        // The ACPI tables, which begin and end anywhere: rounded out to pages, and read only.
        Mapping::identity(range(0x7fef_e014, 0x7fef_f3c8), Attributes::R).rounded_out(PAGE_SIZE),
        // The local APIC.
        Mapping::identity(range(0xfee0_0000, 0xfee0_1000), Attributes::RW.with_cache(Cache::Uncached)),
        // The kernel's text, at its own address and at the top of the space; within RAM, so it has to be said which wins.
        Mapping::identity(kernel, Attributes::RX).with_priority(1),
        Mapping::alias(higher_half, kernel, Attributes::RX),
    ];
    let plan = Plan::new(&mut mappings, &Options::default())?;
    println!("{}", plan.census());

    let mut map = plan.build(&mut memory)?;
    // Whoever runs on the map must not execute its tables, nor a stray write through RAM go unseen: read only.
    map.protect_tables(Attributes::R, &mut memory)?;
    println!("{}", map.tables().drawing(&memory));
    println!("{}", map.tables().translate(&memory, VirtAddr::new(0xffff_ffff_8000_1234)));

    println!("CR3 would be {:#x}; {} frames are given back", map.cr3(), map.frames());
    map.free(&mut memory)?;
    Ok(())
}
