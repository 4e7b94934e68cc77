//! How many tables and leaves there are, by level.

use core::fmt;

use crate::level::{LeafSize, Level};

/// The number of tables by level, and of leaves by size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    tables: [u64; 5],
    leaves: [u64; 3],
}

impl Census {
    /// The number of tables of `level`.
    #[must_use]
    pub const fn tables(&self, level: Level) -> u64 {
        self.tables[level.number() - 1]
    }

    /// The number of leaves of `size`.
    #[must_use]
    pub const fn leaves(&self, size: LeafSize) -> u64 {
        self.leaves[size as usize]
    }

    /// The number of tables of all levels: of frames, where none is shared.
    #[must_use]
    pub const fn table_count(&self) -> u64 {
        let [pt, pd, pdpt, pml4, pml5] = self.tables;
        pt + pd + pdpt + pml4 + pml5
    }

    /// The number of 4 KiB pages that the leaves map.
    #[must_use]
    pub const fn pages(&self) -> u64 {
        let [small, large, giant] = self.leaves;
        small + large * LeafSize::Size2MiB.pages() + giant * LeafSize::Size1GiB.pages()
    }

    pub(crate) const fn add_table(&mut self, level: Level, count: u64) {
        self.tables[level.number() - 1] += count;
    }

    pub(crate) const fn add_leaf(&mut self, size: LeafSize, count: u64) {
        self.leaves[size as usize] += count;
    }
}

/// Prints `7 tables (1 PML4, 2 PDPT, 3 PD, 1 PT), 1026 leaves (512 of 4 KiB, 514 of 2 MiB)`.
impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tables (", self.table_count())?;
        let mut separator = "";
        for level in Level::ALL.into_iter().rev().filter(|&level| self.tables(level) != 0) {
            write!(f, "{separator}{} {level}", self.tables(level))?;
            separator = ", ";
        }
        let [small, large, giant] = self.leaves;
        write!(f, "), {} leaves", small + large + giant)?;
        let mut separator = " (";
        for size in LeafSize::ALL.into_iter().filter(|&size| self.leaves(size) != 0) {
            write!(f, "{separator}{} of {size}", self.leaves(size))?;
            separator = ", ";
        }
        if separator == ", " { f.write_str(")") } else { Ok(()) }
    }
}
