//! A map as a person would draw it.

use core::fmt;

use kexec_abi::{PAGE_SIZE, PhysMemory, VirtAddr};

use crate::census::Census;
use crate::leaves::Run;
use crate::level::{LeafSize, Level};
use crate::page;
use crate::tables::Tables;

/// Prints a map: a line a run, the gaps between, and what it takes. Made by [`Tables::drawing`].
#[derive(Clone, Copy)]
#[must_use]
pub struct Drawing<'a, M> {
    tables: Tables,
    mem: &'a M,
}

impl<'a, M: PhysMemory> Drawing<'a, M> {
    pub(crate) const fn new(tables: Tables, mem: &'a M) -> Self {
        Self { tables, mem }
    }
}

impl<M: PhysMemory> fmt::Display for Drawing<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = self.tables.options().levels;
        let mut census = Census::default();
        let mut runs = self.tables.runs(self.mem);
        let mut next = 0;
        for run in &mut runs {
            let run = match run {
                Ok(run) => run,
                Err(defect) => {
                    writeln!(f, "{defect}")?;
                    continue;
                }
            };
            let first = page::of(run.virt.as_u64(), levels);
            if first > next {
                // A gap may hold the addresses that are not canonical: its end is the next run's start.
                let (from, to) = (page::address(next, levels), run.virt);
                writeln!(f, "{}  {}  -", Span(from, to.as_u64().into()), Bytes(first - next))?;
            }
            next = first + run.pages;
            writeln!(f, "{}", Line(&run))?;
            for size in LeafSize::ALL {
                census.add_leaf(size, run.leaves(size));
            }
        }
        for level in Level::ALL {
            census.add_table(level, runs.visited(level));
        }
        write!(f, "{} levels from {:#x}: {census}", levels.count(), self.tables.root().start())
    }
}

struct Line<'a>(&'a Run);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        write!(
            f,
            "{}  {}  {}",
            Span(run.virt, u128::from(run.last().as_u64()) + 1),
            Bytes(run.pages),
            run.attributes
        )?;
        if run.user {
            f.write_str(" user")?;
        }
        let mut separator = "  ";
        for size in LeafSize::ALL.into_iter().filter(|&size| run.leaves(size) != 0) {
            write!(f, "{separator}{} x {size}", run.leaves(size))?;
            separator = " + ";
        }
        if run.is_identity() { Ok(()) } else { write!(f, "  -> {:#x}", run.phys) }
    }
}

/// A range in columns. Its end may need a 65th bit.
struct Span(VirtAddr, u128);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}..{:#018x}", self.0, self.1)
    }
}

/// A number of pages in the largest unit of which they are at least one, to a tenth, rounded down.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = self.0 * (PAGE_SIZE >> 10);
        let units = [("TiB", 30), ("GiB", 20), ("MiB", 10), ("KiB", 0)];
        let (unit, shift) = units.into_iter().find(|(_, shift)| kib >> shift != 0).unwrap_or(("KiB", 0));
        let (whole, tenths) = (kib >> shift, ((kib & ((1 << shift) - 1)) * 10) >> shift);
        if tenths == 0 { write!(f, "{whole:>5}   {unit}") } else { write!(f, "{whole:>5}.{tenths} {unit}") }
    }
}
