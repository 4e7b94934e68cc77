//! What may change in memory while a peer is called.
//!
//! - The data frames of the transition: control block, stack, both debug frames.
//! - The frames in which the peer's pages lie: its own, not ours.
//! - The page for its report.
//! - The stack in use, from the command on down: [`STACK`] bytes.
//! - Accessed and dirty bits in tables: the running kernel's and the transition's.

use hobby::{Failure, Memory};
use identmap::Tables;
use kexec_abi::{Frame, PAGE_SIZE, PhysAddr, PhysMemory as _, PhysRange, VirtAddr};
use reloc::{Cpu, Prepared};

use super::called::sources;

/// Bytes of stack that a command uses at most.
const STACK: u64 = 0x8000;

const RANGES: usize = 1024;
const TABLES: usize = 512;

pub struct Exclusions {
    ranges: [PhysRange; RANGES],
    range_count: usize,
    tables: [u64; TABLES],
    table_count: usize,
}

static mut EXCLUSIONS: Exclusions = Exclusions {
    ranges: [PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)); RANGES],
    range_count: 0,
    tables: [0; TABLES],
    table_count: 0,
};

impl Exclusions {
    /// Those of a call of `prepared`. `stack` is an address in the stack of whoever calls this.
    pub fn of(prepared: &Prepared, memory: &Memory, report: Option<Frame>) -> Result<&'static Self, Failure> {
        let these = &raw mut EXCLUSIONS;
        // SAFETY: one processor, and no command asks for them twice at a time: the last ones are done with.
        let these = unsafe { &mut *these };
        (these.range_count, these.table_count) = (0, 0);
        // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
        let cpu = unsafe { Cpu::read() };
        let live = Tables::new(Frame::containing(PhysAddr::new(cpu.cr3)), cpu.levels());
        let frames = prepared.data_frames().into_iter().chain(report);
        for frame in frames.chain(sources(prepared, memory).map(|(_, frame)| frame)) {
            these.exclude(frame.range());
        }
        let here = &raw const live as u64;
        let pages = (here - STACK) / PAGE_SIZE..=(here + STACK / 2) / PAGE_SIZE;
        for virt in pages.map(|page| VirtAddr::new(page * PAGE_SIZE)) {
            if let Some(frame) = live.translate(memory, virt).frame() {
                these.exclude(frame.range());
            }
        }
        these.ranges[..these.range_count].sort_unstable_by_key(|range| range.start);
        let levels = u32::from(cpu.levels().count());
        these.tables(memory, live.root(), levels)?;
        these.tables(memory, prepared.map().root(), levels)?;
        for root in prepared.detour_tables().into_iter().flatten() {
            these.tables[these.table_count] = root.start().as_u64();
            these.table_count += 1;
        }
        these.tables[..these.table_count].sort_unstable();
        Ok(these)
    }

    fn exclude(&mut self, range: PhysRange) {
        self.ranges[self.range_count] = range;
        self.range_count += 1;
    }

    fn tables(&mut self, memory: &Memory, table: Frame, level: u32) -> Result<(), Failure> {
        // SDM Vol. 3A, 5.5.4.
        const PRESENT: u64 = 1;
        const PAGE: u64 = 1 << 7;
        self.tables[self.table_count] = table.start().as_u64();
        self.table_count += 1;
        for index in 0..512 {
            let entry = memory.read_word(table, index)?;
            if level > 1 && entry & PRESENT != 0 && entry & PAGE == 0 {
                self.tables(memory, Frame::containing(PhysAddr::new(entry)), level - 1)?;
            }
        }
        Ok(())
    }

    /// Whether the frame's bytes may change.
    pub fn has(&self, frame: Frame) -> bool {
        let ranges = &self.ranges[..self.range_count];
        let after = ranges.partition_point(|range| range.start <= frame.start());
        after > 0 && ranges[after - 1].contains(frame.start())
    }

    /// The bits that may change in each word of the frame.
    pub fn bits(&self, frame: Frame) -> u64 {
        /// Accessed and dirty.
        const BITS: u64 = 1 << 5 | 1 << 6;
        let found = self.tables[..self.table_count].binary_search(&frame.start().as_u64());
        found.map_or(0, |_| BITS)
    }
}
