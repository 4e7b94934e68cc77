//! Physical memory, and the map of the kernel that runs.
//!
//! Physical addresses of RAM are addresses of this process, at which the memory is mapped. A second mapping of the same memory
//! stands for the kernel's direct map. All the rest of the process (text, stacks, heap) is memory of the kernel's, at physical
//! addresses of its own, which no table of RAM's can name by accident.

use std::collections::BTreeSet;
use std::ptr::NonNull;

use kexec_abi::memory::Words;
use kexec_abi::{
    Frame, FrameAllocator, MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreachable,
    VirtAddr,
};

const GIB: u64 = 1 << 30;
/// Frames of RAM.
const FRAMES: u64 = 1024;
/// Of these, the last that the allocator does not give: where images go.
pub(crate) const IMAGE: u64 = 64;
/// What lies outside RAM is at its own address with this bit.
const OUTSIDE: u64 = 1 << 48;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const LARGE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// A table, and what has no reason to be less.
const ALL: u64 = PRESENT | WRITE;

/// How the running kernel maps its memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LiveMap {
    pub(crate) five_levels: bool,
    /// Leaves are global.
    pub(crate) global: bool,
    /// RAM is mapped at its own addresses too, read-only and not executable: a stale entry of it hurts.
    pub(crate) identity: bool,
}

pub(crate) struct Memory {
    reserved: *mut libc::c_void,
    /// RAM, at its physical addresses.
    pub(crate) ram: PhysRange,
    /// Where the direct map has the first byte of RAM.
    pub(crate) direct: u64,
    free: BTreeSet<u64>,
    pub(crate) root: u64,
    /// The last level of the direct map, frame by frame.
    direct_table: [u64; 2],
}

impl Memory {
    pub(crate) fn new(map: LiveMap) -> Self {
        let size = (FRAMES * PAGE_SIZE) as usize;
        // SAFETY: new mappings only, two of them over a part of the first.
        let (reserved, start) = unsafe {
            let none = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let reserved = libc::mmap(std::ptr::null_mut(), 3 * GIB as usize, libc::PROT_NONE, none, -1, 0);
            assert_ne!(reserved, libc::MAP_FAILED);
            let start = (reserved as u64).next_multiple_of(GIB);
            let file = libc::memfd_create(c"ram".as_ptr(), 0);
            assert!(file >= 0 && libc::ftruncate(file, size as i64) == 0);
            for at in [start, start + GIB] {
                let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
                let shared = libc::MAP_SHARED | libc::MAP_FIXED;
                assert_ne!(libc::mmap(at as *mut _, size, all, shared, file, 0), libc::MAP_FAILED);
            }
            libc::close(file);
            (reserved, start)
        };
        let ram = PhysRange::from_len(PhysAddr::new(start), size as u64).unwrap();
        let given = (0..FRAMES - IMAGE).map(|frame| start + frame * PAGE_SIZE);
        let mut memory =
            Self { reserved, ram, direct: start + GIB, free: given.collect(), root: 0, direct_table: [0; 2] };
        // What nobody has written is not zero.
        for word in (0..FRAMES * 512).map(|word| start + word * 8) {
            memory.write(word, word.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        }
        memory.build(map);
        memory
    }

    fn build(&mut self, map: LiveMap) {
        let leaf = ALL | if map.global { GLOBAL } else { 0 };
        let top = self.table();
        for slot in 0..256_u64 {
            let giants = self.table();
            self.write(top + slot * 8, giants | ALL);
            for giant in 0..512 {
                let virt = slot << 39 | giant << 30;
                self.write(giants + giant * 8, (virt | OUTSIDE) | leaf | LARGE);
            }
        }
        for (virt, leaf) in [
            (self.ram.start.as_u64(), (leaf & !WRITE | NO_EXECUTE) * u64::from(map.identity)),
            (self.direct, leaf),
        ] {
            let giants = self.read(top + (virt >> 39) * 8) & !0xfff;
            let larges = self.table();
            self.write(giants + (virt >> 30 & 511) * 8, larges | ALL);
            for (large, table) in [self.table(), self.table()].into_iter().enumerate() {
                self.write(larges + large as u64 * 8, table | ALL);
                for page in 0..512 {
                    let frame = self.ram.start.as_u64() + (large as u64 * 512 + page) * PAGE_SIZE;
                    self.write(table + page * 8, if leaf == 0 { 0 } else { frame | leaf });
                }
                self.direct_table[large] = table;
            }
        }
        self.root = top;
        if map.five_levels {
            self.root = self.table();
            self.write(self.root, top | ALL);
        }
    }

    fn table(&mut self) -> u64 {
        let frame = self.allocate().unwrap();
        self.zero(frame).unwrap();
        frame.start().as_u64()
    }

    /// Makes a frame read-only in the direct map.
    pub(crate) fn protect(&mut self, frame: u64) {
        let page = (frame - self.ram.start.as_u64()) / PAGE_SIZE;
        let entry = self.direct_table[(page / 512) as usize] + page % 512 * 8;
        self.write(entry, self.read(entry) & !WRITE);
    }

    /// The address in the direct map.
    pub(crate) fn direct(&self, phys: u64) -> u64 {
        phys - self.ram.start.as_u64() + self.direct
    }

    /// What this process has at an address.
    pub(crate) fn phys_of(&self, linear: u64) -> u64 {
        let size = self.ram.len();
        match linear {
            _ if self.is_low(linear) => linear,
            _ if (self.direct..self.direct + size).contains(&linear) => {
                linear - self.direct + self.ram.start.as_u64()
            }
            _ => linear | OUTSIDE,
        }
    }

    /// Whether an address stands for one of the lower half, as LASS sees it: a process has no upper half of its own, so all but RAM's
    /// physical addresses stand for it.
    pub(crate) fn is_low(&self, linear: u64) -> bool {
        self.ram.contains(PhysAddr::new(linear))
    }

    /// The frames where an image goes.
    pub(crate) fn image(&self, first: u64, pages: u64) -> PhysRange {
        assert!(first + pages <= IMAGE);
        let start = self.ram.start.as_u64() + (FRAMES - IMAGE + first) * PAGE_SIZE;
        PhysRange::from_len(PhysAddr::new(start), pages * PAGE_SIZE).unwrap()
    }

    pub(crate) fn memory_map(&self) -> [MemoryRegion; 1] {
        [MemoryRegion { range: self.ram, kind: MemoryKind::Usable }]
    }

    pub(crate) fn read(&self, phys: u64) -> u64 {
        assert!(self.ram.contains_range(&PhysRange::from_len(PhysAddr::new(phys), 8).unwrap()), "{phys:#x}");
        // SAFETY: in RAM, as asserted; nobody holds a reference to it.
        unsafe { (phys as *const u64).read_unaligned() }
    }

    pub(crate) fn write(&mut self, phys: u64, value: u64) {
        assert!(self.ram.contains_range(&PhysRange::from_len(PhysAddr::new(phys), 8).unwrap()), "{phys:#x}");
        // SAFETY: as above.
        unsafe { (phys as *mut u64).write_unaligned(value) };
    }

    /// A copy of a range.
    pub(crate) fn bytes(&self, range: PhysRange) -> Vec<u8> {
        assert!(self.ram.contains_range(&range));
        // SAFETY: in RAM, as asserted; the slice is gone when this returns.
        unsafe { std::slice::from_raw_parts(range.start.as_u64() as *const u8, range.len() as usize) }
            .to_vec()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, to which nothing refers any more.
        unsafe { libc::munmap(self.reserved, 3 * GIB as usize) };
    }
}

// SAFETY: RAM is mapped at its physical addresses and in the direct map, for as long as this lives; nothing holds references.
unsafe impl PhysMemory for Memory {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        if !self.ram.contains_range(&frame.range()) {
            return Err(Unreachable(frame));
        }
        let pointer = NonNull::new(frame.start().as_u64() as *mut Words).ok_or(Unreachable(frame))?;
        Ok(f(pointer))
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        Ok(VirtAddr::new(self.direct(frame.start().as_u64())))
    }
}

// SAFETY: a frame leaves `free` when it is given, and is put back when it is freed.
unsafe impl FrameAllocator for Memory {
    fn allocate(&mut self) -> Option<Frame> {
        Frame::from_start(PhysAddr::new(self.free.pop_first()?))
    }

    fn free(&mut self, frame: Frame) {
        assert!(self.free.insert(frame.start().as_u64()), "{frame} was given back twice");
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        let fits = |start: u64| (0..count).all(|n| self.free.contains(&(start + n * PAGE_SIZE)));
        let end = |start: u64| start + count * PAGE_SIZE;
        let start = self.free.iter().copied().find(|start| end(*start) <= below.as_u64() && fits(*start))?;
        self.free.retain(|frame| !(start..end(start)).contains(frame));
        Frame::from_start(PhysAddr::new(start))
    }

    fn claim(&mut self, _: PhysRange) -> bool {
        false
    }
}
