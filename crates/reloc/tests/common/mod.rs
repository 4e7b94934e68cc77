//! A machine in a process: its physical memory is a piece of ours, at the very addresses it has as physical memory. So a list
//! that was planned for it can be walked by the real page code.
#![allow(dead_code, reason = "each test uses its own part")]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ptr::NonNull;

use identmap::{Attributes, Mapping, Plan};
use kexec_abi::memory::Words;
use kexec_abi::{
    EntryState, Frame, FrameAllocator, MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange,
    Unreachable, VirtAddr,
};
use reloc::{Cpu, Machine, Options};

/// Where a kernel of the machine would map its physical memory. Never accessed.
pub const DIRECT_MAP: u64 = 0xffff_8000_0000_0000;

/// The order in which free frames are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Ascending,
    Descending,
    /// By a multiplicative hash of the address with this seed.
    Shuffled(u64),
}

/// RAM, and an allocator over it.
pub struct Ram {
    base: *mut u8,
    pub range: PhysRange,
    /// Ascending by `order`'s key.
    free: BTreeSet<(u64, u64)>,
    order: Order,
    pub claims: bool,
    /// How many more frames may be taken.
    pub budget: u64,
    /// How often a frame was reached.
    pub reached: Cell<u64>,
    live_root: Option<Frame>,
}

impl Ram {
    /// `frames` frames below 4 GiB, where a detour can use them.
    pub fn new(frames: u64, order: Order) -> Self {
        let len = (frames * PAGE_SIZE) as usize;
        // SAFETY: a new anonymous mapping, wherever there is room.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        let base = base.cast::<u8>();
        let range = PhysRange::from_len(PhysAddr::new(base as u64), len as u64).unwrap();
        let mut ram = Self {
            base,
            range,
            free: BTreeSet::new(),
            order,
            claims: false,
            budget: u64::MAX,
            reached: Cell::new(0),
            live_root: None,
        };
        for frame in range.frames() {
            ram.put(frame);
        }
        ram.map_text();
        ram
    }

    /// The tables of the "running kernel": this process's text, mapped to some frames.
    fn map_text(&mut self) {
        let anywhere = self.allocate().unwrap();
        let mut mappings = Vec::new();
        for piece in
            [&reloc::ENGINE, &kexec_exception::page_code::EXCEPTION, &kexec_exception::page_code::DUMP]
        {
            let bytes = piece.bytes().as_ptr_range();
            for page in bytes.start as u64 / PAGE_SIZE..=(bytes.end as u64 - 1) / PAGE_SIZE {
                let virt = VirtAddr::new(page * PAGE_SIZE);
                if !mappings.iter().any(|mapping: &Mapping| mapping.virt == virt) {
                    mappings.push(Mapping::alias(virt, anywhere.range(), Attributes::RX));
                }
            }
        }
        let plan = Plan::new(&mut mappings, &identmap::Options::default()).unwrap();
        self.live_root = Some(plan.build(self).unwrap().root());
    }

    fn put(&mut self, frame: Frame) {
        let address = frame.start().as_u64();
        assert!(self.free.insert((self.key(address), address)), "{frame} was given back twice");
    }

    fn key(&self, address: u64) -> u64 {
        match self.order {
            Order::Ascending => address,
            Order::Descending => !address,
            Order::Shuffled(seed) => (address ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29),
        }
    }

    pub fn free_frames(&self) -> usize {
        self.free.len()
    }

    /// The frame with that number, counted from the start of the memory.
    pub fn frame(&self, number: u64) -> Frame {
        Frame::containing(self.range.start).checked_add(number).unwrap()
    }

    /// The frames `first..first + count`, as a range.
    pub fn frames(&self, first: u64, count: u64) -> PhysRange {
        PhysRange::from_len(self.frame(first).start(), count * PAGE_SIZE).unwrap()
    }

    pub fn all_free(&self) -> Vec<Frame> {
        self.free.iter().map(|(_, address)| Frame::containing(PhysAddr::new(*address))).collect()
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: all of the memory; page code, which writes it, runs only while nobody holds this.
        unsafe { std::slice::from_raw_parts(self.base, self.range.len() as usize) }
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.base, self.range.len() as usize) }
    }

    /// The bytes at a physical range.
    pub fn at(&self, range: PhysRange) -> &[u8] {
        let start = (range.start.as_u64() - self.range.start.as_u64()) as usize;
        &self.bytes()[start..start + range.len() as usize]
    }

    pub fn memory_map(&self) -> Vec<MemoryRegion> {
        vec![MemoryRegion { range: self.range, kind: MemoryKind::Usable }]
    }

    pub fn machine(&self) -> Machine<'static> {
        let cpu = Cpu {
            cr0: 0x8001_0033,
            cr3: self.live_root.unwrap().start().as_u64(),
            cr4: 0x6e0,
            efer: 0xd01,
            cs: 8,
            giant_pages: true,
            phys_bits: 52,
            la57: true,
        };
        Machine { cpu, firmware: &[], console: None, physical_memory: None }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, to which nothing refers any more.
        unsafe { libc::munmap(self.base.cast(), self.range.len() as usize) };
    }
}

// SAFETY: frames are reached at their own addresses, which are mapped; the tests hold no reference meanwhile. `pin` gives
// addresses that no test accesses.
unsafe impl PhysMemory for Ram {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        if !self.range.contains_range(&frame.range()) {
            return Err(Unreachable(frame));
        }
        self.reached.set(self.reached.get() + 1);
        let offset = frame.start().as_u64() - self.range.start.as_u64();
        // SAFETY: within the mapping, by the check above.
        Ok(f(unsafe { NonNull::new_unchecked(self.base.add(offset as usize).cast()) }))
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        Ok(VirtAddr::new(DIRECT_MAP + frame.start().as_u64()))
    }
}

// SAFETY: a frame leaves `free` when it is given and is put back when it is freed.
unsafe impl FrameAllocator for Ram {
    fn allocate(&mut self) -> Option<Frame> {
        self.budget = self.budget.checked_sub(1)?;
        let (_, address) = self.free.pop_first()?;
        Frame::from_start(PhysAddr::new(address))
    }

    fn free(&mut self, frame: Frame) {
        self.put(frame);
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        let frames: BTreeSet<u64> = self.free.iter().map(|(_, address)| *address).collect();
        let fits = |start: u64| (0..count).all(|n| frames.contains(&(start + n * PAGE_SIZE)));
        let start =
            *frames.iter().find(|start| **start + count * PAGE_SIZE <= below.as_u64() && fits(**start))?;
        self.free.retain(|(_, address)| !(start..start + count * PAGE_SIZE).contains(address));
        Frame::from_start(PhysAddr::new(start))
    }

    fn claim(&mut self, range: PhysRange) -> bool {
        let address = |frame: Frame| frame.start().as_u64();
        let wanted: Vec<_> =
            range.frames().map(address).map(|address| (self.key(address), address)).collect();
        if !self.claims || !wanted.iter().all(|key| self.free.contains(key)) {
            return false;
        }
        wanted.iter().all(|key| self.free.remove(key))
    }
}

/// Options for entering at an address.
pub fn enter_at(address: PhysAddr) -> Options {
    Options::new(EntryState::at(address))
}

/// Walks a list with the engine's own page code, where it was linked.
///
/// # Safety
///
/// All memory that the list names may be read and written, and nothing refers to it.
pub unsafe fn walk(head: u64, swap: bool) {
    let walk = reloc::ENGINE.bytes().as_ptr() as usize + reloc::ENGINE.find("walk").unwrap();
    // SAFETY: the address of the label in the template, which is executable and has this contract.
    let walk: unsafe extern "sysv64" fn(u64, *mut kexec_abi::Progress, u64) =
        unsafe { std::mem::transmute(walk) };
    let mut progress = kexec_abi::Progress::default();
    // SAFETY: the caller's promise.
    unsafe { walk(head, &mut progress, u64::from(swap)) };
    assert_eq!(progress.entry, 0, "the entry at hand is taken back at the end of a walk");
}
