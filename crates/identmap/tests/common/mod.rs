//! A machine's memory, and a walker that follows the manual's bit layout from raw bytes. It shares no code with the crate.

#![allow(dead_code, unreachable_pub, reason = "each test file is a crate and uses a part")]

pub mod model;

use std::cell::{Cell, UnsafeCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

use kexec_abi::memory::Words;
use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, Unreachable, VirtAddr};

#[repr(C, align(4096))]
struct Page(UnsafeCell<Words>);

/// Frames anywhere in physical memory, full of garbage when they are given out.
pub struct Machine {
    frames: BTreeMap<Frame, Box<Page>>,
    /// Frames to give out, the last first.
    pub free: Vec<Frame>,
    pub given: BTreeSet<Frame>,
    /// Frames that cannot be reached.
    pub unreachable: BTreeSet<Frame>,
    /// How often a frame was visited.
    pub visits: Cell<u64>,
    /// The one visit that fails.
    pub failing_visit: Cell<Option<u64>>,
}

impl Machine {
    pub fn new(free: impl IntoIterator<Item = Frame>) -> Self {
        let mut free: Vec<Frame> = free.into_iter().collect();
        free.reverse();
        Self {
            frames: BTreeMap::new(),
            free,
            given: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            visits: Cell::new(0),
            failing_visit: Cell::new(None),
        }
    }

    /// `count` frames from `start` on.
    pub fn with_frames(start: u64, count: u64) -> Self {
        Self::new((0..count).map(|n| frame(start + n * 4096)))
    }

    /// Puts a frame with these words there.
    pub fn put(&mut self, frame: Frame, words: Words) {
        self.frames.insert(frame, Box::new(Page(UnsafeCell::new(words))));
    }

    /// The bytes of a frame that was given out or put there.
    pub fn bytes(&self, frame: Frame) -> Option<[u8; 4096]> {
        let page = self.frames.get(&frame)?;
        // SAFETY: no call of `with_frame` is under way, since no test reads in one; any bytes are a `[u8; 4096]`.
        Some(unsafe { page.0.get().cast::<[u8; 4096]>().read() })
    }
}

// SAFETY: each frame is a box of its own, aligned; its cell allows the writing.
unsafe impl PhysMemory for Machine {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        let visit = self.visits.get();
        self.visits.set(visit + 1);
        if self.failing_visit.get() == Some(visit) || self.unreachable.contains(&frame) {
            return Err(Unreachable(frame));
        }
        let page = self.frames.get(&frame).ok_or(Unreachable(frame))?;
        Ok(f(NonNull::new(page.0.get()).unwrap()))
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        Err(Unreachable(frame))
    }
}

// SAFETY: a frame leaves `free` when it is given out.
unsafe impl FrameAllocator for Machine {
    fn allocate(&mut self) -> Option<Frame> {
        let frame = self.free.pop()?;
        assert!(self.given.insert(frame), "{frame} twice");
        self.put(frame, [0xdead_beef_dead_beef; 512]);
        Some(frame)
    }

    fn free(&mut self, frame: Frame) {
        assert!(self.given.remove(&frame), "{frame} was not given out");
        self.free.push(frame);
    }
}

pub fn frame(phys: u64) -> Frame {
    Frame::from_start(PhysAddr::new(phys)).unwrap()
}

/// A page or several that tables map alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The first virtual address, without sign extension.
    pub virt: u64,
    pub phys: u64,
    pub bytes: u64,
    /// The entry without its address, its size bit and the place of its PAT bit.
    pub writable: bool,
    pub no_execute: bool,
    pub user: bool,
    pub pat: u64,
    pub c_bit: bool,
}

/// What an oracle needs to know to read tables.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub levels: u32,
    pub phys_bits: u32,
    pub nx: bool,
    pub giant_pages: bool,
    /// The bit of an address that is none.
    pub c_bit: u64,
}

/// What the oracle found: leaves in order, and the tables by level.
#[derive(Default, Debug)]
pub struct Found {
    pub leaves: Vec<Piece>,
    pub tables: [u64; 5],
    pub table_frames: Vec<u64>,
    /// All entries that point to tables.
    pub non_leaf: Vec<u64>,
    /// All entries that map pages.
    pub leaf: Vec<u64>,
}

impl Found {
    /// The leaves, neighbours joined.
    pub fn joined(&self) -> Vec<Piece> {
        let mut joined: Vec<Piece> = Vec::new();
        for leaf in &self.leaves {
            match joined.last_mut() {
                Some(last) if continues(last, leaf) => last.bytes += leaf.bytes,
                _ => joined.push(*leaf),
            }
        }
        joined
    }
}

pub fn continues(one: &Piece, next: &Piece) -> bool {
    let moved = Piece { virt: one.virt + one.bytes, phys: one.phys + one.bytes, bytes: next.bytes, ..*one };
    moved == *next
}

/// Reads every entry of every table. Panics where the processor would raise a page fault for reserved bits.
pub fn read_all(machine: &Machine, root: u64, cpu: Cpu) -> Found {
    let mut found = Found::default();
    read_table(machine, root, cpu.levels, 0, cpu, (true, false, true), &mut found);
    found
}

fn read_table(
    machine: &Machine,
    table: u64,
    level: u32,
    virt: u64,
    cpu: Cpu,
    (writable, no_execute, user): (bool, bool, bool),
    found: &mut Found,
) {
    found.tables[level as usize - 1] += 1;
    found.table_frames.push(table);
    let bytes = machine.bytes(frame(table)).expect("a table frame");
    for (index, entry) in (0u64..).zip(bytes.as_chunks::<8>().0) {
        let entry = u64::from_le_bytes(*entry);
        if entry & 1 == 0 {
            assert_eq!(entry, 0, "an entry that is not present has bits set");
            continue;
        }
        let virt = virt + (index << (12 + 9 * (level - 1)));
        let allowed =
            (writable && entry >> 1 & 1 == 1, no_execute || entry >> 63 == 1, user && entry >> 2 & 1 == 1);
        let page_size = entry >> 7 & 1 == 1;
        let address_bits = ((1u64 << cpu.phys_bits) - 1) & !cpu.c_bit & !0xfff;
        let beyond = ((1u64 << 52) - 1) & !0xfff & !address_bits & !cpu.c_bit;
        assert_eq!(entry & beyond, 0, "{entry:#x} has address bits that the processor has not");
        assert!(cpu.nx || entry >> 63 == 0, "{entry:#x} has NX");
        let address = entry & address_bits;
        if level == 1 || (page_size && level <= 3) {
            assert!(level < 3 || cpu.giant_pages);
            let bytes = 1u64 << (12 + 9 * (level - 1));
            let pat_bit = if level == 1 { 7 } else { 12 };
            let address = if level == 1 { address } else { address & !(1 << 12) };
            assert_eq!(address % bytes, 0, "{entry:#x} has reserved bits at level {level}");
            found.leaf.push(entry);
            found.leaves.push(Piece {
                virt,
                phys: address,
                bytes,
                writable: allowed.0,
                no_execute: allowed.1,
                user: allowed.2,
                pat: (entry >> 3 & 3) | (entry >> pat_bit & 1) << 2,
                c_bit: entry & cpu.c_bit != 0,
            });
        } else {
            assert!(!page_size, "{entry:#x} has PS at level {level}");
            found.non_leaf.push(entry);
            read_table(machine, address, level - 1, virt, cpu, allowed, found);
        }
    }
}

/// The sign extension that makes a linear address out of `virt`.
pub fn canonical(virt: u64, levels: u32) -> u64 {
    let bits = 12 + 9 * levels;
    if virt >> (bits - 1) & 1 == 1 { virt | u64::MAX << bits } else { virt }
}
