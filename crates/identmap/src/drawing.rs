//! A map as a person would draw it.

use core::fmt;

use kexec_abi::{PAGE_SIZE, PhysMemory};

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
                let address = page::address(next, levels);
                writeln!(f, "{address:#018x} {:>9}  -", Bytes(first - next))?;
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
        write!(f, "{:#018x} {:>9}  {}", run.virt, Bytes(run.pages), run.attributes)?;
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

/// A number of pages in the largest unit that leaves it whole.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1 << 28), ("GiB", 1 << 18), ("MiB", 1 << 8)];
        match units.into_iter().find(|&(_, pages)| self.0.is_multiple_of(pages)) {
            Some((unit, pages)) => write!(f, "{:>5} {unit}", self.0 / pages),
            None => write!(f, "{:>5} KiB", self.0 * (PAGE_SIZE >> 10)),
        }
    }
}
